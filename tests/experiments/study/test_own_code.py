"""The digest of a part's code: what it uses changes it, and nothing else does."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.study.configs import (
    CONFIGS,
    build,
)
from experiments.study.identity import parts_of
from experiments.study.own_code import code_digest

MINE = '''"""Estimators."""
import math

import mine_help
from mine_more import scale as by, unused
from mine_pack import deep

LIMIT = 3
OTHER = 4
TABLE = {"a": 1}
TABLE["b"] = 2


class Box:
    """Holds."""

    def size(self):
        return LIMIT


def part(x, *, share=0.5):
    """The part."""
    # a comment
    box = Box()
    return by(mine_help.shift(x)) + box.size() + TABLE["b"] + deep.depth + math.pi


def neighbour(x):
    return x + OTHER
'''
FILES = {
    "mine.py": MINE,
    "mine_help.py": "STEP = 1\n\ndef shift(x):\n    return x + STEP\n\ndef idle(x):\n    return x\n",
    "mine_more.py": "from mine_last import factor\n\ndef scale(x):\n    return x * factor\n\nunused = 1\n",
    "mine_last.py": "factor = 2\nelse_where = 3\n",
    "mine_pack/__init__.py": "",
    "mine_pack/deep.py": "depth = 5\nother = 6\n",
}


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """The digest of mine.part, with (file, before, after) replaced; every time as in a new process."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # an edit within a second would be taken for none

    def forget() -> None:
        for name in [name for name in sys.modules if name.split(".")[0].startswith("mine")]:
            del sys.modules[name]
        importlib.invalidate_caches()

    def make(*edits: tuple[str, str, str], of: str = "part") -> str:
        for name, text in FILES.items():
            for file, before, after in edits:
                assert file != name or before in text
                text = text.replace(before, after) if file == name else text
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        forget()
        part: Any = getattr(importlib.import_module("mine"), of)
        return code_digest(part)

    yield make
    forget()


@pytest.mark.parametrize(
    "edit",
    [
        ("mine.py", "    # a comment\n", ""),
        ("mine.py", '"""The part."""', '"""Another sentence."""'),
        ("mine.py", '    """Holds."""\n\n', ""),
        ("mine.py", "LIMIT = 3", "\n\n\nLIMIT = (\n    3\n)  # seeds"),
        ("mine.py", "OTHER = 4", "OTHER = 5"),
        ("mine.py", "return x + OTHER", "return x - OTHER"),
        ("mine.py", "def neighbour", "def another(x):\n    return part(x)\n\n\ndef neighbour"),
        ("mine_help.py", "def idle(x):\n    return x", "def idle(x):\n    return -x"),
        ("mine_more.py", "unused = 1", "unused = 2"),
        ("mine_last.py", "else_where = 3", "else_where = 4"),
    ],
)
def test_what_a_part_does_not_use_is_no_part_of_it(digest: Callable[..., str], edit: tuple[str, str, str]) -> None:
    assert digest(edit) == digest()


@pytest.mark.parametrize(
    "edit",
    [
        ("mine.py", "share=0.5", "share=0.6"),
        ("mine.py", "OTHER = 4", "OTHER = 4\nmath.tau2 = 3"),
        ("mine.py", "OTHER = 4", "OTHER = 4\nmine_help.idle(3)"),
        ("mine_help.py", "def idle", "import sys\nsys.setrecursionlimit(9999)\n\ndef idle"),
        ("mine.py", "+ math.pi", "- math.pi"),
        ("mine.py", "LIMIT = 3", "LIMIT = 4"),
        ("mine.py", "return LIMIT", "return LIMIT + 1"),
        ("mine.py", 'TABLE["b"] = 2', 'TABLE["b"] = 3'),
        ("mine.py", "import scale as by", "import unused as by"),
        ("mine_help.py", "STEP = 1", "STEP = 2"),
        ("mine_help.py", "x + STEP", "x - STEP"),
        ("mine_more.py", "x * factor", "x / factor"),
        ("mine_last.py", "factor = 2", "factor = 3"),
        ("mine_pack/deep.py", "depth = 5", "depth = 7"),
    ],
)
def test_what_a_part_uses_is_followed_through_modules(digest: Callable[..., str], edit: tuple[str, str, str]) -> None:
    assert digest(edit) != digest()


@pytest.mark.parametrize(
    ("way", "far"),
    [
        ('return globals()["neighbour"](x) +', ("mine.py", "return x + OTHER", "return x - OTHER")),
        ('return eval("OTHER") +', ("mine.py", "OTHER = 4", "OTHER = 5")),
        ("whole = mine_help\n    return", ("mine_help.py", "return x\n", "return -x\n")),
        ("import mine_help as there\n    return", ("mine_help.py", "return x\n", "return -x\n")),
        ("from mine_last import else_where\n    return", ("mine_last.py", "else_where = 3", "else_where = 4")),
        ("from mine_last import *", ("mine_last.py", "else_where = 3", "else_where = 4")),
    ],
)
def test_where_names_cannot_be_followed_the_whole_module_counts(
    digest: Callable[..., str], way: str, far: tuple[str, str, str]
) -> None:
    if way.endswith("*"):
        edit = ("mine.py", "LIMIT = 3", f"{way}\nLIMIT = else_where")
    else:
        edit = ("mine.py", "return by(mine_help", f"{way} by(mine_help")
    assert digest(edit) != digest(edit, far)


def test_a_function_made_by_another_counts_with_its_whole_module(digest: Callable[..., str]) -> None:
    made = (
        "mine.py",
        "def neighbour",
        "def make(n):\n    return lambda x: x + n\n\n\nmade = make(2)\n\n\ndef neighbour",
    )
    one = digest(made, of="made")
    assert one != digest(made, ("mine.py", "OTHER = 4", "OTHER = 5"), of="made")
    assert one == digest(made, ("mine.py", "    # a comment\n", ""), of="made")


def test_an_installed_library_is_not_followed() -> None:
    import gin

    assert code_digest(gin.parse_config) == ""


def test_the_parts_of_a_recipe_are_those_its_config_leads_to() -> None:
    from core.parts.registry import config

    shared = "train.rewards = %graders\ngraders = [@final_digit]"
    with config([CONFIGS / "embedded.gin"], [*shared.splitlines(), "grpo.advantage = @running_baseline"]):
        names = {part.name for part in parts_of(build("train"))}
    assert {"grpo", "running_baseline", "chain_sums", "native", "final_digit", "train", "adamw"} <= names
    assert not {"rloo", "compare", "group_norm", "countdown"} & names
