"""A study whose steps take a while, and what every launcher must make of it."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from experiments.cli import main

STUDY: Final = """
import slow_estimators
include 'embedded.gin'
policy.model = '{model}'
train.steps = 8
train.prompts = 2
train.group_size = 4
train.max_tokens = 6
train.checkpoint_every = 2
evaluation.every = 2
evaluation.questions = 2
compare.name = 'slow'
compare.seeds = 2
compare.arms = {{'mean': 'grpo.advantage = @slow_mean', 'median': 'grpo.advantage = @slow_median'}}
"""
ESTIMATORS: Final = '''
import time

from core import advantage
from core.errors import TrainingError


@advantage
def slow_mean(batch):
    """Reward minus the mean of its group."""
    time.sleep(0.25)
    return batch.rewards - batch.rewards.mean(dim=1, keepdim=True)


@advantage
def slow_median(batch):
    """Reward minus the median of its group."""
    time.sleep(0.25)
    return batch.rewards - batch.rewards.quantile(0.5, dim=1, keepdim=True)


@advantage
def diverging(batch):
    """Ends as training ends that went wrong, in the second step."""
    if batch.step > 1:
        raise TrainingError("failed on purpose")
    return batch.rewards - batch.rewards.mean(dim=1, keepdim=True)


@advantage
def broken(batch):
    """Has no third step."""
    return batch.rewards * {1: 0.0, 2: 0.0}[batch.step]
'''


BROKEN: Final = "compare.arms = {'mean': 'grpo.advantage = @slow_mean', 'bad': 'grpo.advantage = @broken'}"


def assert_stopped_for_a_broken_arm(study: Path, shown: Any) -> None:
    """The place is told, the other arm can go on, nothing is judged."""
    assert "arm 'bad' is broken (seed 0): KeyError: 3 (" in shown.err
    assert "slow_estimators.py:33, in broken: return batch.rewards * {1: 0.0, 2: 0.0}[batch.step])" in shown.err
    found = {file.parts[-3]: json.loads(file.read_text()) for file in study.glob("*/seed=0/manifest.json")}
    assert (found["bad"]["status"], found["bad"]["failure"]) == ("failed", "code")
    if "mean" in found:  # it had begun
        assert found["mean"]["status"] in ("interrupted", "finished")
    assert not (study / "report.html").exists()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A user's folder: a study, parts of one's own, and a folder that must not shadow ours."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "study.gin").write_text(STUDY.format(model=tiny_folder))
    (folder / "slow_estimators.py").write_text(ESTIMATORS)
    (folder / "core").mkdir()
    (folder / "core" / "__init__.py").write_text("raise ImportError('the wrong core')\n")
    return folder


@pytest.fixture(autouse=True)
def _at_home(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "home" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("home"))


@pytest.fixture(scope="module")
def local_study(home: Path) -> Path:
    """The study as the local launcher makes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(["compare", "-c", "study.gin", "--workers", "2", "--out", "local"]) == 0
    return home / "local" / "slow"


def tables(study: Path) -> dict[str, Any]:
    """All that a study's verdict depends on, clocks left out, and its tables."""
    found: dict[str, Any] = {}
    for file in sorted(study.glob("*/seed=*/metrics.jsonl")):
        records = [json.loads(line) for line in file.read_text().splitlines()]
        found[str(file.relative_to(study))] = [{k: v for k, v in r.items() if k != "seconds"} for r in records]
    for pattern in ("*/seed=*/eval/*/*.json", "*/seed=*/rollouts/*", "*/seed=*/checkpoint/*", "tables/*"):
        found |= {str(file.relative_to(study)): file.read_bytes() for file in sorted(study.glob(pattern))}
    for file in sorted(study.glob("*/seed=*/manifest.json")):
        record = json.loads(file.read_text())
        found[str(file.relative_to(study))] = [record[name] for name in ("status", "identity", "hashes", "hardware")]
    return found


def obstruct_tensorboard(study: Path) -> None:
    """Have TensorBoard fail in one run: a file is in its folder's place."""
    folder = study / "mean" / "seed=0"
    folder.mkdir(parents=True)
    (folder / "tensorboard").write_text("in the way")


def when(condition: Callable[[], bool], act: Callable[[], object]) -> threading.Thread:
    """Do something in a thread as soon as something is so."""

    def wait() -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread
