"""Trackers: real ones, read back with their own tools, beside what metrics.jsonl holds; and ones that fail."""

import json
import math
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from core import GrpoLabError
from core.loop.train import Interrupted
from core.parts.registry import config, config_text
from experiments.cli.main import main
from experiments.launchers import trackers
from experiments.launchers.job import Job, run_job
from experiments.launchers.trackers import check_trackers, flatten, settings_of
from experiments.study.configs import CONFIGS
from experiments.study.settings import Arm

SMALL = (
    "train.steps = 3",
    "train.prompts = 2",
    "train.group_size = 2",
    "train.max_tokens = 6",
    "train.checkpoint_every = 2",
    "evaluation.every = 3",
    "evaluation.questions = 2",
)


def job(folder: Path, *track: str) -> Job:
    with config([CONFIGS / "embedded.gin"], SMALL):
        text = config_text()
    return Job(Arm("a", ()), 0, text, str(folder / "small" / "a" / "seed=0"), track=track)


def ignore(record: Mapping[str, Any]) -> None:
    """Watch nothing."""


def stop_after(step: int, how: type[BaseException]) -> Callable[[Mapping[str, Any]], None]:
    def watch(record: Mapping[str, Any]) -> None:
        if record["step"] == step:
            raise how

    return watch


def fail_on_message(line: str) -> None:
    pytest.fail(line)


def metrics(tracked_job: Job) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tracked_job.store.folder / "metrics.jsonl").read_text().splitlines()]


def sent(tracked_job: Job) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((tracked_job.store.folder / "trackers.json").read_text())
    return record


class KilledError(BaseException):
    """As kill -9: nothing is saved on the way out."""


class Recorder:
    """A tracker that keeps what it is sent; its `log` raises from step `fails_at` on."""

    all: list["Recorder"]
    fails_at = 99

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.tracker, self.id = self, "own-id"
        self.settings: dict[str, Any] | None = None
        self.steps: list[int] = []
        self.finished = 0
        self.all.append(self)

    def start(self) -> None:
        print("welcome")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings = values

    def log(self, values: dict[str, float], step: int) -> None:
        if step >= self.fails_at:
            raise ConnectionError("no route to host\nand much more")
        assert set(values) >= {"reward", "seconds/sample"}
        self.steps.append(step)

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """Stands in for Weights & Biases, whose runs have an id of their own."""
    monkeypatch.setattr(Recorder, "all", [], raising=False)
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "wandb", Recorder)
    monkeypatch.setitem(trackers.AVAILABLE, "wandb", lambda: True)
    return Recorder.all


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def assert_scalars_are_the_metrics(logged: Mapping[str, list[tuple[int, float]]], tracked_job: Job) -> None:
    expected: dict[str, list[tuple[int, Any]]] = {}
    for record in metrics(tracked_job):
        for name, value in flatten({key: each for key, each in record.items() if key != "step"}).items():
            # TensorBoard keeps single precision
            expected.setdefault(name, []).append((record["step"], pytest.approx(value, rel=1e-6)))
    assert logged == expected


def test_records_are_flattened_to_numbers() -> None:
    record = {
        "reward": 0.5,
        "groups": 4,
        "length_correct": None,
        "old_logps_from": "update",
        "alarm": None,
        "reward_parts": {"final_digit": 0.25, "form": None},
        "causes": {"it isn't a number (1, 2)": 3},
        "deep": {"er": {"still": 1.5}},
        "evaluation": {},
    }
    assert flatten(record) == {
        "reward": 0.5,
        "groups": 4,
        "reward_parts/final_digit": 0.25,
        "causes/it isn_t a number _1_ 2_": 3,
        "deep/er/still": 1.5,
    }


def test_settings_are_the_identity_on_one_level() -> None:
    identity = {
        "config": "grpo.kl = @k3\ntrain.steps = 3\npolicy.model = 'embedded'\nfiles.split = None\nadamw.rate = 1e-4\n",
        "seed": 7,
        "library versions": {"torch": "2.13"},
        "source of your parts": {},
    }
    assert settings_of(identity) == {
        "grpo/kl": "@k3",
        "train/steps": 3,
        "policy/model": "embedded",
        "files/split": "None",
        "adamw/rate": 1e-4,
        "seed": 7,
        "library versions/torch": "2.13",
    }


def test_a_misspelt_tracker_is_refused_with_the_near_names() -> None:
    with pytest.raises(GrpoLabError, match="--track tensorbord: unknown tracker; did you mean tensorboard"):
        check_trackers(["tensorbord"])
    assert check_trackers(["tensorboard", "tensorboard"]) == ("tensorboard",)


@pytest.mark.parametrize("command", ["train", "compare", "ablate", "tune"])
def test_a_missing_package_is_refused_before_anything_is_run(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(trackers.AVAILABLE, "wandb", lambda: False)
    monkeypatch.setattr("experiments.launchers.local.launch", lambda *_, **__: pytest.fail("a run was started"))
    more = {
        "train": ["-c", "embedded"],
        "compare": ["-c", "demo"],
        "ablate": ["-c", "ablate_dapo"],
        "tune": ["-c", "demo", "--rates", "1e-4,3e-4"],
    }[command]
    assert main([command, *more, "--out", str(tmp_path / "runs"), "--track", "wandb"]) == 2
    assert "--track wandb needs its package: pip install 'grpo-lab[wandb]'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_tensorboard_shows_what_metrics_say(tmp_path: Path) -> None:
    tracked_job = job(tmp_path, "tensorboard")
    run_job(tracked_job, ignore, notify=fail_on_message)
    logged = scalars(tracked_job.store.folder / "tensorboard")
    assert [step for step, _ in logged["reward"]] == [1, 2, 3]
    assert {"reward_parts/final_digit", "seconds/sample", "evaluation/test"} <= set(logged)
    assert_scalars_are_the_metrics(logged, tracked_job)
    (settings,) = (tracked_job.store.folder / "tensorboard").glob("*/hparams.yml")
    assert "train/group_size: 2" in settings.read_text()


def test_a_tracked_run_is_the_run_that_it_would_be(tmp_path: Path) -> None:
    plain, tracked = job(tmp_path / "plain"), job(tmp_path / "tracked", "tensorboard")
    for tracked_job in (plain, tracked):
        run_job(tracked_job, ignore, notify=fail_on_message)
    assert not (plain.store.folder / "trackers.json").exists()
    ours, theirs = plain.store.manifest, tracked.store.manifest
    assert (ours["identity"], ours["hashes"]) == (theirs["identity"], theirs["hashes"])
    assert ours["files"].keys() == theirs["files"].keys()


@pytest.mark.parametrize("how", [Interrupted, KilledError])
def test_a_resumed_run_goes_on_without_duplicates(tmp_path: Path, how: type[BaseException]) -> None:
    """Killed in step 3, a run goes on with step 3 again."""
    tracked_job = job(tmp_path, "tensorboard")
    cut = 2 if how is Interrupted else 3
    with pytest.raises(how):
        run_job(
            replace(tracked_job, config=tracked_job.config.replace("steps = 3", "steps = 4")),
            stop_after(cut, how),
            notify=fail_on_message,
        )
    assert sent(tracked_job)["tensorboard"]["step"] == cut
    if how is KilledError:  # after the tracker had the step, before that was written down
        (tracked_job.store.folder / "trackers.json").write_text('{"tensorboard": {"id": null, "step": 2}}')
    run_job(
        replace(tracked_job, config=tracked_job.config.replace("steps = 3", "steps = 4")),
        ignore,
        notify=fail_on_message,
    )
    logged = scalars(tracked_job.store.folder / "tensorboard")
    assert [step for step, _ in logged["reward"]] == [1, 2, 3, 4]
    assert_scalars_are_the_metrics(logged, tracked_job)
    assert len(list((tracked_job.store.folder / "tensorboard").glob("*/hparams.yml"))) == 1


def test_a_tracker_that_joins_later_gets_the_earlier_steps(tmp_path: Path, recorders: list[Recorder]) -> None:
    with pytest.raises(Interrupted):
        run_job(job(tmp_path, "wandb"), stop_after(2, Interrupted), notify=fail_on_message)
    run_job(job(tmp_path, "wandb", "tensorboard"), ignore, notify=fail_on_message)
    first, second = recorders
    assert (first.steps, second.steps) == ([1, 2], [3])
    assert (first.arguments["id"], second.arguments["id"]) == (None, "own-id")
    titled = {"run_name": "small", "name": "a seed 0", "group": "a", "resume": "allow"}
    assert first.arguments.items() >= titled.items() <= second.arguments.items()
    assert first.settings is not None
    assert first.settings.items() >= {"arm": "a", "seed": 0, "train/group_size": 2}.items()
    assert second.settings == first.settings
    logged = scalars(job(tmp_path).store.folder / "tensorboard")
    assert [step for step, _ in logged["reward"]] == [1, 2, 3]
    assert all(math.isfinite(value) for _, value in logged["reward"])


def test_what_a_killed_process_kept_in_memory_is_sent_again(tmp_path: Path, recorders: list[Recorder]) -> None:
    """Weights & Biases has on disk only what it finished."""
    tracked_job = job(tmp_path, "wandb")
    killed = {}

    def look(record: Mapping[str, Any]) -> None:
        killed[record["step"]] = (tracked_job.store.folder / "trackers.json").read_text()

    run_job(tracked_job, look, notify=fail_on_message)
    assert [json.loads(text)["wandb"] for text in killed.values()] == [{"id": "own-id", "step": 0}] * 3
    assert sent(tracked_job)["wandb"] == {"id": "own-id", "step": 3}
    shutil.rmtree(tracked_job.store.folder)
    with pytest.raises(Interrupted):
        run_job(tracked_job, stop_after(2, Interrupted), notify=fail_on_message)
    (tracked_job.store.folder / "trackers.json").write_text(killed[2])
    run_job(tracked_job, ignore, notify=fail_on_message)
    assert [recorder.steps for recorder in recorders] == [[1, 2, 3], [1, 2], [1, 2, 3]]


@pytest.mark.parametrize("how", [Interrupted, KeyboardInterrupt, RuntimeError])
def test_trackers_are_closed_when_the_run_ends_early(
    tmp_path: Path, recorders: list[Recorder], how: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(how):
        run_job(job(tmp_path, "wandb"), stop_after(1, how), notify=fail_on_message)
    (recorder,) = recorders
    assert (recorder.steps, recorder.finished) == ([1], 1)
    assert "welcome" not in capsys.readouterr().out


def test_a_tracker_that_fails_does_not_end_the_run(
    tmp_path: Path, recorders: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recorder, "fails_at", 2)
    lines: list[str] = []
    tracked_job = job(tmp_path, "wandb", "tensorboard")
    run_job(tracked_job, ignore, notify=lines.append)
    assert lines == ["wandb failed, and the run goes on without it: ConnectionError: no route to host"]
    (recorder,) = recorders
    assert (recorder.steps, recorder.finished) == ([1], 1)
    assert tracked_job.store.is_finished
    assert [record["step"] for record in metrics(tracked_job)] == [1, 2, 3]
    assert {name: state["step"] for name, state in sent(tracked_job).items()} == {"wandb": 0, "tensorboard": 3}
    assert_scalars_are_the_metrics(scalars(tracked_job.store.folder / "tensorboard"), tracked_job)


@pytest.mark.parametrize("when", ["start", "finish"])
def test_a_tracker_may_fail_at_either_end(
    tmp_path: Path, recorders: list[Recorder], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def fail(recorder: Recorder) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr(Recorder, when, fail)
    lines: list[str] = []
    tracked_job = job(tmp_path, "wandb")
    run_job(tracked_job, ignore, notify=lines.append)
    assert lines == ["wandb failed, and the run goes on without it: ConnectionError: refused"]
    assert tracked_job.store.is_finished


def interrupt_and_resume(tracked_job: Job) -> None:
    with pytest.raises(Interrupted):
        run_job(tracked_job, stop_after(2, Interrupted), notify=fail_on_message)
    run_job(tracked_job, ignore, notify=fail_on_message)


@pytest.mark.filterwarnings("default")
def test_mlflow_goes_on_in_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tracked_job = job(tmp_path, "mlflow")
    interrupt_and_resume(tracked_job)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("small")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.run_name) == (sent(tracked_job)["mlflow"]["id"], "a seed 0")
    assert run.data.params.items() >= {"train/group_size": "2", "seed": "0"}.items()
    for name in ("reward", "seconds/sample", "reward_parts/final_digit"):
        history = client.get_metric_history(run.info.run_id, name)
        expected = [(record["step"], flatten(record)[name]) for record in metrics(tracked_job)]
        assert sorted((point.step, point.value) for point in history) == expected


@pytest.mark.filterwarnings("default")
def test_trackio_goes_on_in_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio")
    tracked_job = job(tmp_path, "trackio")
    interrupt_and_resume(tracked_job)
    with closing(sqlite3.connect(tmp_path / "trackio" / "small.db")) as database:
        rows = database.execute("select run_id, run_name, step, metrics from metrics order by id").fetchall()
        ((settings,),) = database.execute("select config from configs").fetchall()
    assert json.loads(settings)["train/group_size"] == 2
    assert len({run for run, *_ in rows}) == 1
    expected = [("a seed 0", record["step"], record["reward"]) for record in metrics(tracked_job)]
    assert [(name, step, json.loads(values)["reward"]) for _, name, step, values in rows] == expected


@pytest.mark.filterwarnings("default")
def test_wandb_offline_goes_on_under_the_same_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    tracked_job = job(tmp_path, "wandb")
    interrupt_and_resume(tracked_job)
    own = sent(tracked_job)["wandb"]["id"]
    assert len(list(tmp_path.glob(f"wandb/offline-run-*-{own}*/run-{own}.wandb"))) == 2
