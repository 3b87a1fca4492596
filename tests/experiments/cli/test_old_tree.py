"""What a tree of November 2026 wrote (tests/data/old_tree) is judged, reported, grown and resumed as before."""

import hashlib
import json
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from core.store.files import read_json
from core.store.run_folder import RunStore
from experiments.cli.main import main
from experiments.study.identity import LIBRARIES, hardware
from tests.experiments.study.test_growth import run_here

OLD = Path(__file__).parents[2] / "data" / "old_tree"
WRITTEN = "2d6af3f2ad104f41938adfd25fe835d9e6a73872a2d00b5dc2527c5e67c1311c"
"""Digest of its files, as they were first committed."""
RUN = Path("ppo/seed=5")
EVERY_RUN = "*/*/seed=*/manifest.json"
VERSIONS = {name: version(name) for name in LIBRARIES}
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the old folder to stand in, whose runs say that they were made by the versions there are now."""
    home = tmp_path / "home"
    shutil.copytree(OLD, home)
    monkeypatch.chdir(home)
    monkeypatch.syspath_prepend(str(home))
    monkeypatch.setattr("experiments.launchers.local.launch", run_here)
    for file in (home / "runs").glob(EVERY_RUN):
        store = RunStore(file.parent)
        store.update_manifest(identity=store.manifest["identity"] | {"library versions": VERSIONS})
    yield home
    sys.modules.pop("parts", None)


def manifest(run: Path) -> dict[str, Any]:
    record: dict[str, Any] = read_json(run / "manifest.json")
    return record


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def written_at(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.glob("*/seed=*/**/*.json*")}


def rows(folder: Path) -> dict[str, list[str]]:
    """The tables of a folder: CSV files whole, of Markdown and LaTeX the rows alone, for notes may be reworded."""
    marks = {".csv": "", ".md": "|", ".tex": "  "}
    lines = {name: content.decode().splitlines() for name, content in files(folder).items()}
    rows = {name: [line for line in text if line.startswith(marks[Path(name).suffix])] for name, text in lines.items()}
    return {name: [line for line in text if not line.startswith(r"  \item")] for name, text in rows.items()}


def assert_same(actual: object, before: object) -> None:
    """Word for word, and numbers but for the last bits, in which processors differ."""
    texts = [json.dumps(x, indent=1, sort_keys=True) for x in (actual, before)]
    words = [NUMBER.sub("#", text) for text in texts]
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in texts]
    assert words[0] == words[1]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-9, abs=1e-9)


def test_nobody_has_written_into_the_old_tree_since() -> None:
    """It is evidence: a tree of today that wrote into it would be compared with itself."""
    digest = hashlib.sha256()
    for name, content in sorted(files(OLD).items()):
        if "__pycache__" not in name:
            digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    assert digest.hexdigest() == WRITTEN


def test_a_study_is_judged_as_before(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = old / "runs" / "study"
    tables = rows(study / "tables")
    assert all(len(table) > 2 for table in tables.values())
    shutil.rmtree(study / "tables")
    capsys.readouterr()
    assert main(["analyze", str(study), "--json"]) == 0
    verdict, before = json.loads(capsys.readouterr().out), json.loads((OLD / "verdict.json").read_text())
    assert_same({**verdict, "plan": {name: verdict["plan"][name] for name in before["plan"]}}, before)
    assert_same(rows(study / "tables"), tables)
    assert "median" in (study / "report.html").read_text()


def test_a_study_is_taken_up_and_grown_with_its_runs(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = old / "runs" / "study"
    before = written_at(study)
    assert len(list(study.glob("*/seed=*"))) == 9
    compare = ["compare", "-c", "study.gin", "--out", "runs", "--seeds"]
    assert main([*compare, "3"]) == 0, capsys.readouterr()
    assert written_at(study) == before
    assert main([*compare, "4", "--grow"]) == 0, capsys.readouterr()
    assert before.items() <= written_at(study).items()
    assert len(list(study.glob("*/seed=*"))) == 12


def test_a_tuning_is_read(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuning = old / "runs" / "study-tune"
    before, chosen = written_at(tuning), (tuning / "tuned.json").read_bytes()
    rates = ["--rates", "1e-3,1e-2", "--seeds", "2"]
    assert main(["tune", "-c", "study.gin", "--out", "runs", *rates]) == 0, capsys.readouterr()
    assert written_at(tuning) == before
    assert (tuning / "tuned.json").read_bytes() == chosen
    tuned = ["-b", "compare.tuned = 'runs/study-tune/tuned.json'", "-b", "compare.name = 'at_these_rates'"]
    assert main(["compare", "-c", "study.gin", "--seeds", "2", "--out", "runs", "--dry-run", *tuned]) == 0
    assert "0.01" in capsys.readouterr().out


@pytest.mark.parametrize("stopped", ["interrupted", "pickled"])
def test_a_run_that_was_stopped_ends_as_if_it_never_had(
    old: Path, stopped: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a critic, a reference and an optimizer; `pickled` is of a tree whose checkpoints were no plain data."""
    run, whole = old / "runs" / stopped / RUN, old / "runs" / "whole" / RUN
    steps = (run / "metrics.jsonl").read_text().splitlines()
    assert len(steps) == 2
    train = ["train", "-c", "run.gin", "--seed", "5", "--out", "runs"]
    if stopped == "pickled":
        with pytest.warns(UserWarning, match="of an older version"):
            assert main([*train, "--name", stopped]) == 0, capsys.readouterr()
    else:
        assert main([*train, "--name", stopped]) == 0, capsys.readouterr()
    ended, expected = manifest(run), manifest(whole)
    assert (run / "metrics.jsonl").read_text().splitlines()[:2] == steps
    assert ended["steps"] == expected["steps"] == 5
    assert {k: v for k, v in ended["hashes"].items() if k != "final_weights"} == {
        k: v for k, v in expected["hashes"].items() if k != "final_weights"
    }
    made_by = manifest(OLD / "runs" / "whole" / RUN)
    same_machine = (hardware(), platform.python_version()) == (made_by["hardware"], made_by["python"])
    if same_machine and made_by["identity"]["library versions"] == VERSIONS:
        assert ended["hashes"] == expected["hashes"]
