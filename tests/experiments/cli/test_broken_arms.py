"""A study through the command line in which an arm breaks half-way and another diverges: only the latter is scored."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import gin
import pytest

from core.parts import registry
from experiments.cli.main import main
from experiments.results.stored_study import load_study

MINE: Final = '''
from core import advantage


@advantage
def mine(batch):
    """The mean of the group as the baseline."""
    centred = batch.rewards - batch.rewards.mean(dim=1, keepdim=True)
    return centred SECOND
'''
DIVERGING: Final = '''
from core import objective


@objective
def diverging(logps, advantages):
    """Not a number."""
    return logps * float("nan")
'''
STUDY: Final = """
import my_advantage
import my_objective
include 'embedded.gin'
policy.model = '{model}'
train.steps = 6
train.prompts = 2
train.group_size = 2
train.max_tokens = 6
train.epochs = 2
evaluation.every = 2
evaluation.questions = 2
compare.name = 'study'
compare.seeds = 1
compare.floor = -1.0
compare.arms = {{
    'whole': [],
    'mine': 'grpo.advantage = @mine',
    'nan': 'grpo.objective = @diverging',
}}
"""
COMMAND: Final = ["compare", "-c", "study.gin", "--workers", "1"]


@pytest.fixture
def home(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder, in which an estimator has no third step."""
    write_mine(tmp_path, "* {1: 1.0, 2: 1.0}[batch.step]")
    (tmp_path / "my_objective.py").write_text(DIVERGING)
    (tmp_path / "study.gin").write_text(STUDY.format(model=tiny_folder))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two versions of a file within one second
    yield tmp_path
    for name in ("my_advantage", "my_objective"):
        sys.modules.pop(name, None)


def write_mine(home: Path, second: str) -> None:
    (home / "my_advantage.py").write_text(MINE.replace("SECOND", second))


def mend(home: Path) -> None:
    """Write the estimator anew, and forget the old one as a new process would."""
    write_mine(home, "* 1.0")
    del sys.modules["my_advantage"]
    gin.config._REGISTRY.pop(registry.ADVANTAGES._parts.pop("mine").selector)


def manifest(home: Path, arm: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((home / "runs" / "study" / arm / "seed=0" / "manifest.json").read_text())
    return record


@pytest.mark.slow
def test_a_broken_arm_is_not_scored_and_the_study_goes_on_once_it_is_mended(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = home / "runs" / "study"
    assert main(COMMAND) == 2
    output = capsys.readouterr()
    assert "one tiny step of each of 3 arms works" in output.out
    where = f"KeyError: 3 ({home / 'my_advantage.py'}:9, in mine: return centred * {{1: 1.0, 2: 1.0}}[batch.step])"
    assert f"grpolab: arm 'mine' is broken (seed 0): {where}\nNo score and no verdict come of it" in output.err
    assert (manifest(home, "mine")["status"], manifest(home, "mine")["failure"]) == ("failed", "code")
    assert sorted(path.name for path in study.iterdir()) == ["mine", "study.json", "whole"]

    # nothing that reads it makes a result of it
    assert main(["analyze", "runs/study"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "No verdict: arm mine is broken (seed 0, KeyError: 3" in shown
    assert "Mend it, then go on: grpolab" in shown
    assert main(["analyze", "runs/study", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["broken"]["mine"].startswith("seed 0, KeyError: 3")
    assert load_study(study).scores()["mine"] == {}
    assert "arm mine is broken" in (study / "report.html").read_text()

    finished = manifest(home, "whole")
    mend(home)
    assert main(COMMAND) == 1  # for the run that diverged
    shown = " ".join(capsys.readouterr().out.split())
    assert "nan seed 0 failed: 10 updates in a row had a gradient that is not finite (loss nan)" in shown
    assert manifest(home, "whole") == finished, "a finished run was made again"
    assert manifest(home, "mine")["status"] == "finished"
    assert (manifest(home, "nan")["status"], manifest(home, "nan")["failure"]) == ("failed", "algorithmic")
    stored = load_study(study)
    assert stored.broken == {}
    assert stored.scores()["nan"] == {0: -1.0}
    judgement = stored.judge()
    assert judgement is not None
    assert {each.arm: (each.finished, each.failed) for each in judgement.outcomes} == {
        "whole": (1, 0),
        "mine": (1, 0),
        "nan": (0, 1),
    }
