"""Tutorials are run as they stand: each block in order, in a folder of its own; what a page shows is what comes out.

A block after a line that ends with a file's name (`mine.gin`:) is that file. Other `python` blocks run in one namespace
a page, `bash` blocks through the command line's main, which returns 0 or what a comment at the end says. A `text` block
is what the block above it prints: `...` stands for anything, and below the comment VARY numbers are not compared, since
processors differ in the last bits.
"""

import doctest
import importlib
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gin
import pytest

from core.parts import registry
from experiments.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
VARY = "<!-- numbers differ between processors -->"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"`([\w./-]+\.(?:py|gin|csv|jsonl))`[^`\n]*:$")
_NUMBER = re.compile(r"[+−-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the file that it is, and the line it begins at."""

    language: str
    text: str
    file: str | None
    varies: bool
    line: int


def blocks(page: str) -> Iterator[Block]:
    for match in _BLOCK.finditer(page):
        before = page[: match.start()].rstrip()
        last = before.rsplit("\n", 1)[-1]
        named = _FILE.search(last)
        yield Block(
            match[1], match[2], named[1] if named else None, last == VARY, page[: match.start()].count("\n") + 1
        )


def agree(shown: str, printed: str, *, varies: bool) -> bool:
    """Whether what a page shows is what was printed, but for blanks, `...` and numbers that vary."""
    if varies:
        shown, printed = (_NUMBER.sub("#", each) for each in (shown, printed))
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(f"{shown.strip()}\n", f"{printed.strip()}\n", flags)


def run_blocks(listed: Sequence[Block], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run the blocks in the current folder; returns what is shown otherwise than it came out."""
    names: dict[str, Any] = {"__name__": "tutorial"}
    printed, wrong = "", []
    for block in listed:
        if block.language == "text":
            if not agree(block.text, printed, varies=block.varies):
                wrong.append(f"line {block.line}: the page shows\n{block.text}\nbut what came out is\n{printed}")
        elif block.file is not None:
            forget(Path(block.file).stem)
            Path(block.file).write_text(block.text, "utf-8")
        elif block.language == "python":
            exec(compile(block.text, f"line {block.line}", "exec"), names)
            printed = capsys.readouterr().out
        else:
            assert block.language == "bash", f"line {block.line}: no rule for {block.language}"
            for command in block.text.splitlines():
                program, *words = shlex.split(command, comments=True)
                assert program == "grpolab", f"line {block.line}: {command}"
                code = int(command.endswith("# exit code 1"))
                assert main(words) == code, f"line {block.line}: {command}: {capsys.readouterr()}"
            printed = capsys.readouterr().out
    return wrong


def forget(module: str) -> None:
    """Forget a module that is about to be written anew, and the parts that it registered, as a new process would."""
    for found in registry.REGISTRIES.values():
        for part in [each for each in found._parts.values() if each.module == module]:
            del found._parts[part.name]
            gin.config._REGISTRY.pop(part.selector)
    sys.modules.pop(module, None)
    importlib.invalidate_caches()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, as wide a terminal as the pages show, and modules found in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file may be written twice within a second
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def run_page(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = run_blocks(list(blocks(page.read_text("utf-8"))), capsys)
    assert not wrong, "\n".join(wrong)


def test_a_page_that_shows_what_did_not_come_out_is_found(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = f"""
The file `one.py`:

```python
ONE = 1
```

```python
from one import ONE
print("one is", ONE, "of", 7.25)
```

```text
one is 1 ... 7.25
```

{VARY}
```text
one is 3 of 9
```

```text
one is 2 of 7.25
```
"""
    (wrong,) = run_blocks(list(blocks(page)), capsys)
    assert wrong.startswith("line 22: the page shows\none is 2 of 7.25")


def test_numbers_of_ones_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_page(TUTORIALS / "numbers.md", capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["estimator", "task", "report"])
def test_a_tutorial_runs_as_it_stands(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_page(TUTORIALS / f"{name}.md", capsys)


def test_every_tutorial_is_run() -> None:
    assert {page.stem for page in TUTORIALS.glob("*.md")} == {"numbers", "estimator", "task", "report"}


@pytest.mark.parametrize("place", ["README.md", "docs/index.md"])
def test_the_five_lines_of_python_run(place: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = list(blocks((ROOT / place).read_text("utf-8")))
    (start,) = (i for i, each in enumerate(listed) if each.text.startswith("from experiments import lab\n"))
    assert listed[start + 1].language == "text"
    assert not run_blocks(listed[start : start + 2], capsys)


def test_an_environment_of_ones_own_runs_as_it_stands(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "turns.md").read_text("utf-8")
    section = page.split("## An environment of your own\n")[1].split("\n## ")[0]
    listed = list(blocks(section))
    assert [each.file for each in listed] == ["second_try.py", "second_try.gin", None]
    assert not run_blocks(listed, capsys)
    (run,) = (here / "runs").glob("**/metrics.jsonl")
    assert '"turns": 1.' in run.read_text("utf-8")
