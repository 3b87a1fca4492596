"""Trackers: the numbers of metrics.jsonl, in TensorBoard's own files; none may end a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

import core.registry as registry
from core import GrpoLabError
from core.train import Interrupted
from experiments import trackers
from experiments.cli import main
from experiments.declaration import Arm
from experiments.launchers.job import Job, run_job
from experiments.study import CONFIGS, find_config, run_text
from experiments.trackers import check_trackers, flatten, settings_of

# the library's own
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def text() -> str:
    bindings = ["train.steps = 4", "train.prompts = 2", "train.max_tokens = 12", "evaluation.questions = 2",
                "train.checkpoint_every = 2"]  # fmt: skip
    with registry.config([find_config("embedded")], bindings, include_from=[CONFIGS]):
        return run_text()


def job_of(text: str, out: Path, *track: str) -> Job:
    return Job(Arm("grpo", ()), 0, text, str(out / "study" / "grpo" / "seed=0"), track=track)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_flattening_by_hand() -> None:
    record = {"reward": 0.5, "parts": {"final digit!": 1, "deep": {"x": 2.0}}, "kl": None, "hash": "ab", "ok": True}
    assert flatten(record) == {"reward": 0.5, "parts/final digit_": 1, "parts/deep/x": 2.0, "ok": True}


def test_settings_by_hand() -> None:
    identity = {"config": "train.steps = 4\n# a comment\ntrain.task = @chain_sums()", "seed": 3, "v": {"torch": "2"}}
    assert settings_of(identity) == {"train/steps": 4, "train/task": "@chain_sums()", "seed": 3, "v/torch": "2"}


def test_tensorboard_has_what_metrics_has_and_a_resumed_run_goes_on_in_it(text: str, tmp_path: Path) -> None:
    def stop(record: Mapping[str, Any]) -> None:
        if record["step"] == 3:
            raise Interrupted

    job = job_of(text, tmp_path, "tensorboard")
    with pytest.raises(Interrupted):
        run_job(job, stop)
    run_job(job, lambda _: None)
    lines = [json.loads(line) for line in (Path(job.folder) / "metrics.jsonl").read_text().splitlines()]
    found = scalars(next(Path(job.folder).rglob("events.out.tfevents.*")).parent)
    for name in ("reward", "length", "seconds/sample", "evaluation/test"):
        expected = [(line["step"], flatten(line)[name]) for line in lines if name in flatten(line)]
        assert [step for step, _ in found[name]] == [step for step, _ in expected]
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in expected], rel=1e-6)


def test_a_tracker_that_fails_is_told_of_once_and_the_run_goes_on(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __init__(self, **_: Any) -> None:
            raise OSError("no network")

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "tensorboard", Broken)
    said: list[str] = []
    job = job_of(text, tmp_path, "tensorboard")
    run_job(job, lambda _: None, say=said.append)
    assert said == ["tensorboard failed, and the run goes on without it: OSError: no network"]
    assert job.store.is_finished


def test_mistakes_are_named_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", "--out", str(tmp_path), "--track", "tensorbord"]) == 2
    assert "--track tensorbord: unknown tracker; did you mean tensorboard" in capsys.readouterr().err
    monkeypatch.setattr(trackers, "AVAILABLE", {"wandb": lambda: False})
    with pytest.raises(GrpoLabError, match=r"pip install 'grpo-lab\[wandb\]'"):
        check_trackers(["wandb"])
    assert list(tmp_path.iterdir()) == []
