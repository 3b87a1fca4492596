"""The pages say what the code says: generated ones, names of files and functions, commands, and figures in prose."""

import ast
import inspect
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import core.loop.metrics
import core.loop.train
from core import ADVANTAGES, AGGREGATORS, CORRECTIONS, FILTERS, KLS, OBJECTIVES, SHAPINGS, VARIANTS
from core.errors import GrpoLabError
from core.store.files import read_json
from experiments.maintenance.catalogue import FIGURES, PAGE, page
from experiments.maintenance.plan import PICTURE, picture, read_layers, title

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
REWARDS = ROOT / "tests" / "core" / "environments" / "rewards"


def text_of(place: str) -> str:
    return (ROOT / place).read_text("utf-8")


# --- generated pages --------------------------------------------------------------------------------------------------


def test_the_page_of_variants_is_the_registrys() -> None:
    """Written anew by `python -m experiments.maintenance.catalogue`, which also measures."""
    assert PAGE.read_text() == page(read_json(FIGURES))


def test_the_fidelity_matrix_names_every_part_and_variant() -> None:
    """Written anew by `make conformance`."""
    text = PAGE.with_name("fidelity.md").read_text()
    registries = (ADVANTAGES, OBJECTIVES, AGGREGATORS, KLS, CORRECTIONS, FILTERS, SHAPINGS, VARIANTS)
    missing = [name for registry in registries for name in registry if f"| `{name}` |" not in text]
    assert not missing


def keys_of(function: Callable[..., object], with_key: str) -> set[str]:
    """The keys of the dictionary in a function's source that has this one."""
    dictionaries = [node for node in ast.walk(ast.parse(inspect.getsource(function))) if isinstance(node, ast.Dict)]
    found = [{key.value for key in node.keys if isinstance(key, ast.Constant)} for node in dictionaries]
    return {str(key) for keys in found if with_key in keys for key in keys}


def test_the_page_of_metrics_names_every_column_that_the_loop_writes() -> None:
    """But for what objectives log, which is any name."""
    written = {
        "budget_share",
        "evaluation",
        "seconds",
        *keys_of(core.loop.metrics.step_record, "reward"),
        *keys_of(core.loop.metrics._kl_record, "kl"),
        *keys_of(core.loop.metrics.value_record, "value_bias"),
        *keys_of(core.loop.train._train, "sampled_tokens"),
    }
    assert len(written) > 30
    assert written - set(re.findall(r"`(\w+)`", PAGE.with_name("metrics.md").read_text())) == set()


# --- the house --------------------------------------------------------------------------------------------------------


def test_the_picture_of_the_plan_is_the_plans() -> None:
    """Drawn anew by `python -m experiments.maintenance.plan`."""
    assert PICTURE.read_text() == picture(*read_layers())


def test_a_room_that_the_picture_has_no_words_for_is_named() -> None:
    plan, narrow = read_layers()
    with pytest.raises(GrpoLabError, match="core/attic/"):
        picture([*plan, ["core/attic/"]], narrow)


def test_the_table_of_folders_has_every_room_once_and_places_to_begin() -> None:
    table = text_of("CONTRIBUTING.md").split("## Adding a part")[0]
    rows = re.findall(r"^\| `([^`]+)` \| .* \| (`.*`) \|$", table, re.M)
    assert sorted(room for room, _ in rows) == sorted(title(room) for floor in read_layers()[0] for room in floor)
    places = [(room, place) for room, begin in rows for place in re.findall(r"`([^`]+)`", begin)]
    assert [place for _, place in places if not (ROOT / place).is_file()] == []
    assert [place for room, place in places if not place.startswith(room.removesuffix("*.py"))] == []


@cache
def names_in(place: str) -> frozenset[str]:
    """Functions and classes of a file, and the methods of its classes as `Class.method`."""
    found = set()
    for node in ast.parse(text_of(place)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return frozenset(found)


def missing_places(text: str) -> list[str]:
    """What stands as `file.py` or `file.py: name` in a page and is not there; NAME.py stands for any."""
    missing = []
    for place, name in re.findall(
        r"`((?:core|estimators|variants|experiments|tests)/[a-z\d_/]+\.py)(?:: ([\w.]+))?`", text
    ):
        if not (ROOT / place).is_file() or (name and name not in names_in(place)):
            missing.append(f"{place}: {name}" if name else place)
    return missing


def test_every_file_and_function_that_a_page_names_is_there() -> None:
    assert {
        str(each): missing_places(each.read_text("utf-8")) for each in PAGES if missing_places(each.read_text())
    } == {}
    assert len(re.findall(r"`[\w/]+\.py: [\w.]+`", text_of("docs/architecture.md"))) > 40
    assert missing_places("`core/nowhere.py`, `core/errors.py: Nothing`, `core/loop/source.py: Source.sample`") == [
        "core/nowhere.py",
        "core/errors.py: Nothing",
    ]
