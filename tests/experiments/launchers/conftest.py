"""A study that can be held in the middle, and what every launcher must make of it."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from experiments.cli.main import main
from experiments.launchers.progress import Progress
from tests.experiments.held import write_held

STUDY: Final = """
import held_estimators
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
compare.arms = {{'mean': 'grpo.advantage = @held_mean', 'median': 'grpo.advantage = @held_median'}}
"""
FAILING: Final = '''

from core.errors import TrainingError


@advantage
def held_diverging(batch):
    """Ends as training ends that went wrong, in the second step."""
    if batch.step > 1:
        raise TrainingError("failed on purpose")
    return batch.rewards - batch.rewards.mean(dim=1, keepdim=True)


@advantage
def held_broken(batch):
    """Has no third step."""
    return batch.rewards * {1: 0.0, 2: 0.0}[batch.step]
'''


BROKEN: Final = "compare.arms = {'mean': 'grpo.advantage = @held_mean', 'bad': 'grpo.advantage = @held_broken'}"


def assert_stopped_for_a_broken_arm(study: Path, shown: Any) -> None:
    """The place is reported, the other arm can go on, nothing is judged."""
    assert "arm 'bad' is broken (seed 0): KeyError: 3 (" in shown.err
    assert re.search(r"held_estimators\.py:\d+, in held_broken: ", shown.err)
    assert "in held_broken: return batch.rewards * {1: 0.0, 2: 0.0}[batch.step])" in shown.err
    manifests = {file.parts[-3]: json.loads(file.read_text()) for file in study.glob("*/seed=0/manifest.json")}
    assert (manifests["bad"]["status"], manifests["bad"]["failure"]) == ("failed", "code")
    if "mean" in manifests:  # it had begun
        assert manifests["mean"]["status"] in ("interrupted", "finished")
    assert not (study / "report.html").exists()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A user's folder: a study, parts of one's own, and a folder that must not shadow ours.

    One for a process: a module is imported once.
    """
    folder = tmp_path_factory.mktemp("home")
    (folder / "study.gin").write_text(STUDY.format(model=tiny_folder))
    write_held(folder / "held_estimators.py", free=3)
    with (folder / "held_estimators.py").open("a") as module:
        module.write(FAILING)
    (folder / "core").mkdir()
    (folder / "core" / "__init__.py").write_text("raise ImportError('the wrong core')\n")
    return folder


@pytest.fixture(autouse=True)
def _at_home(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "home" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("home"))


@pytest.fixture(scope="session")
def local_study(home: Path) -> Path:
    """The study as the local launcher makes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(["compare", "-c", "study.gin", "--workers", "2", "--out", "local"]) == 0
    return home / "local" / "slow"


def tables(study: Path) -> dict[str, Any]:
    """All that a study's verdict depends on, clocks left out, and its tables."""
    contents: dict[str, Any] = {}
    for file in sorted(study.glob("*/seed=*/metrics.jsonl")):
        records = [json.loads(line) for line in file.read_text().splitlines()]
        contents[str(file.relative_to(study))] = [{k: v for k, v in r.items() if k != "seconds"} for r in records]
    for pattern in ("*/seed=*/eval/*/*.json", "*/seed=*/rollouts/*", "*/seed=*/checkpoint/**/*", "tables/*"):
        files = (file for file in sorted(study.glob(pattern)) if file.is_file())
        contents |= {str(file.relative_to(study)): file.read_bytes() for file in files}
    for file in sorted(study.glob("*/seed=*/manifest.json")):
        record = json.loads(file.read_text())
        contents[str(file.relative_to(study))] = [record[name] for name in ("status", "identity", "hashes", "hardware")]
    return contents


def obstruct_tensorboard(study: Path) -> None:
    """Have TensorBoard fail in one run: a file is in its folder's place."""
    folder = study / "mean" / "seed=0"
    folder.mkdir(parents=True)
    (folder / "tensorboard").write_text("in the way")


@pytest.fixture
def hold(home: Path) -> Iterator[Path]:
    """While this file is there, runs wait after three steps."""
    file = home / "hold"
    file.touch()
    yield file
    file.unlink(missing_ok=True)


@pytest.fixture
def held_until_stop_requested(hold: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs wait after three steps until the launcher stops them."""
    print_line = Progress.print

    def and_let_go(progress: Progress, line: str) -> None:
        print_line(progress, line)
        if line.startswith("stopping at the end of the present steps"):
            hold.unlink()

    monkeypatch.setattr(Progress, "print", and_let_go)
    return hold


class When:
    """Does something in a thread as soon as something is so."""

    def __init__(self, condition: Callable[[], bool], act: Callable[[], object]) -> None:
        self._condition, self._act = condition, act
        self._over, self._has_acted = threading.Event(), False
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        while not self._condition():
            if self._over.wait(0.02):
                return
        self._act()
        self._has_acted = True

    def end(self) -> None:
        """What was waited for must have come by now."""
        self._over.set()
        self._thread.join()
        assert self._has_acted
