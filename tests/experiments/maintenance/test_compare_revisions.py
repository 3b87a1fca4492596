"""Two revisions by turns: the ratio by hand, who begins, which code runs, and what a slower one exits with."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.maintenance.benchmarks import compare_revisions
from experiments.maintenance.benchmarks.compare_revisions import Ratio, by_turns, checked_out, main, report, turn

PROGRAM = """
import json, made
print(json.dumps({"seconds": made.SECONDS, "start": 1.0, "peak_gib": 0.5, "weights": made.WEIGHTS}))
"""


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
    made = subprocess.run(["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True)
    return made.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three commits of the same program; the second and third take 1.02 and 1.5 times as long as the first."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    for number, seconds in enumerate((1.0, 1.02, 1.5)):
        (folder / "made.py").write_text(f"SECONDS = {seconds}\nWEIGHTS = 'w{number // 2}'\n")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", f"takes {seconds}")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    monkeypatch.setattr(turn, "__defaults__", (program,))
    monkeypatch.chdir(folder)
    return folder


def test_the_ratio_by_hand() -> None:
    """log 2 and log 8 have the mean log 4 and a standard error of log 2; t of one degree of freedom is 12.706."""
    ratio = Ratio.of([1.0, 1.0], [2.0, 8.0])
    assert ratio.value == pytest.approx(4)
    half = 12.7062 * math.log(2)
    assert (math.log(ratio.low), math.log(ratio.high)) == pytest.approx((math.log(4) - half, math.log(4) + half), 1e-4)


def test_who_begins_changes() -> None:
    order: list[str] = []
    by_turns([Path("old"), Path("new")], 3, lambda place: order.append(place.name) or {})  # type: ignore[func-returns-value]
    assert order == ["old", "new", "new", "old", "old", "new"]


def test_what_is_said_of_each_outcome() -> None:
    def rows(*seconds: float) -> list[dict[str, object]]:
        return [{"seconds": each, "start": 1.0, "peak_gib": 1.0, "weights": "w"} for each in seconds]

    assert report([rows(1, 1), rows(1.2, 1.2)], 1.05)[1]
    text, is_slower = report([rows(1, 1), rows(1.0, 1.2)], 1.05)
    assert not is_slower
    assert "more rounds would tell" in text
    assert "not slower by more than 1.05" in report([rows(1, 1), rows(1.02, 1.02)], 1.05)[0]


def test_both_revisions_are_run_and_nothing_is_left(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for new, code, found in (("HEAD", 1, "slower"), ("HEAD~1", 0, "not slower")):
        monkeypatch.setattr(sys, "argv", ["compare_revisions", "HEAD~2", new, "--rounds", "2"])
        assert main() == code
        text = capsys.readouterr().out
        assert found in text
        assert f"final weights: {'different' if code else 'equal, bit for bit'}" in text
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_a_revision_that_cannot_do_it_is_named(repository: Path) -> None:
    (repository / "made.py").write_text("")
    git(repository, "commit", "--quiet", "-am", "has no seconds")
    with checked_out(["HEAD~1", "HEAD"]) as places, pytest.raises(SystemExit, match=r"has no seconds(.|\n)*SECONDS"):
        turn(places[1], ())
    with pytest.raises(SystemExit, match=r"git worktree add .*nowhere"), checked_out(["nowhere", "HEAD"]):
        pass


def test_the_work_is_of_configs_that_are_shipped() -> None:
    from experiments.study.configs import CONFIGS

    assert all((CONFIGS / f"{name}.gin").is_file() for name in compare_revisions.WORK)
