"""Trackers: what a run writes to metrics.jsonl, also sent to TensorBoard, Weights & Biases, trackio or MLflow.

Every (study, arm, seed) is a tracker run of its own. It is sent the lines of metrics.jsonl that it does not have yet;
trackers.json in the run's folder holds the last step sent to each tracker and its id of the run. Trackers are no
part of a run's identity: a resumed run may have others, which then get its earlier steps as well.

TensorBoard writes into the run's folder. Where the others keep their data, and whether they use a network, is set by
their own environment variables: WANDB_MODE=offline, MLFLOW_TRACKING_URI, TRACKIO_DIR.
"""

import ast
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from accelerate.utils import is_mlflow_available, is_tensorboard_available, is_trackio_available, is_wandb_available

from core.errors import GrpoLabError, near
from core.store.files import (
    read_json,
    write_json,
)
from core.store.integrity import METRICS
from core.store.lock import lock

AVAILABLE: Final[Mapping[str, Callable[[], bool]]] = {
    "mlflow": is_mlflow_available,
    "tensorboard": is_tensorboard_available,
    "trackio": is_trackio_available,
    "wandb": is_wandb_available,
}
"""The trackers by accelerate's names for them, and whether the package of each is installed."""

LOCK_TIMEOUT_SECONDS: Final = 600.0
"""Seconds to wait while other runs of the study begin theirs."""


def check_trackers(names: Sequence[str]) -> tuple[str, ...]:
    """The named trackers, each once; GrpoLabError for an unknown one and for one whose package is not installed."""
    for name in names:
        if name not in AVAILABLE:
            raise GrpoLabError(f"--track {name}: unknown tracker; {near(name, AVAILABLE)}")
        if not AVAILABLE[name]():
            raise GrpoLabError(f"--track {name} needs its package: pip install 'grpo-lab[{name}]'")
    return tuple(dict.fromkeys(names))


def flatten(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a record, nested keys joined by '/'; None and text are left out.

    Characters that MLflow refuses in the name of a metric become '_'.
    """
    numbers: dict[str, float] = {}
    for key, value in record.items():
        name = prefix + re.sub(r"[^\w./: -]", "_", key)
        if isinstance(value, Mapping):
            numbers |= flatten(value, f"{name}/")
        elif isinstance(value, int | float):
            numbers[name] = value
    return numbers


def settings_of(identity: Mapping[str, Any]) -> dict[str, Any]:
    """A run's identity as one level of settings: `train.steps = 4` as `train/steps`, and so on with nested keys."""
    settings: dict[str, Any] = {}
    for line in identity["config"].splitlines():
        key, binds, value = line.partition(" = ")
        if binds:
            # Weights & Biases takes a '.' in a key for a level
            settings[key.replace(".", "/")] = _literal(value)
    for name, value in identity.items():
        if isinstance(value, Mapping):
            settings |= {f"{name}/{key}": each for key, each in value.items()}
        elif name != "config":
            settings[name] = value
    return settings


def _literal(text: str) -> bool | int | float | str:
    """A number, truth value or string of gin's as such, everything else as its text."""
    with suppress(ValueError, SyntaxError):
        value = ast.literal_eval(text)
        if isinstance(value, bool | int | float | str):
            return value
    return text


class Trackers:
    """The trackers of one run; one that fails is reported once, through `notify`, and left out from then on."""

    def __init__(
        self,
        names: Sequence[str],
        folder: Path,
        *,
        arm: str,
        seed: int,
        identity: Mapping[str, Any],
        notify: Callable[[str], None],
    ) -> None:
        self._names = list(names)
        self._folder, self._file, self._study = folder, folder / "trackers.json", folder.parents[1].name
        self._arm, self._title = arm, f"{arm} seed {seed}"
        self._identity, self._notify = identity, notify
        self._begun: dict[str, Any] = {}
        self._sent: dict[str, Any] = {}
        self._logged: dict[str, int] = {}
        self._lines: IO[str] | None = None
        self._opened = ExitStack()

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()
        for name, tracker in self._begun.copy().items():
            with self._tolerated(name):
                tracker.finish()
                self._note(name)

    def send(self) -> None:
        """Send every tracker the steps of metrics.jsonl that it does not have yet."""
        if not self._names:
            return
        if self._lines is None:
            # not earlier: until its first step a resumed run takes back lines
            self._lines = self._opened.enter_context((self._folder / METRICS).open())
            if self._file.is_file():
                self._sent = read_json(self._file)
        records = [json.loads(line) for line in self._lines]
        for name in self._names.copy():
            with self._tolerated(name):
                self._send(name, records)

    def _send(self, name: str, records: Sequence[Mapping[str, Any]]) -> None:
        if name not in self._begun:
            self._begin(name)
        for record in records:
            if record["step"] > self._logged[name]:
                values = {key: value for key, value in record.items() if key != "step"}
                self._begun[name].log(flatten(values), step=record["step"])
                self._logged[name] = record["step"]
        # until it is finished, Weights & Biases may keep all steps in memory; those that it has, it does not take twice
        if name != "wandb":
            self._note(name)

    def _note(self, name: str) -> None:
        """Store the last step sent to a tracker."""
        self._sent[name]["step"] = self._logged[name]
        write_json(self._file, self._sent)

    def _begin(self, name: str) -> None:
        """Start the tracker's run, or resume it."""
        previous = self._sent.get(name)
        run = previous["id"] if previous else None
        last = previous["step"] if previous else 0
        names = {"name": self._title, "group": self._arm}
        arguments: dict[str, dict[str, Any]] = {
            "mlflow": {"experiment_name": self._study, "run_name": self._title, "run_id": run},
            # steps from here on, which a killed process may have sent without noting it, are purged
            "tensorboard": {"run_name": "tensorboard", "logging_dir": self._folder, "purge_step": last + 1},
            "trackio": {"run_name": self._study, **names, "resume": "must" if previous else "never"},
            "wandb": {
                "run_name": self._study,
                **names,
                "id": run,
                "resume": "allow",
                "settings": {"silent": True, "console": "off"},
            },
        }
        tracker = self._begun[name] = LOGGER_TYPE_TO_CLASS[name](**arguments[name])
        # MLflow makes its database and experiment where they are missing, which two processes cannot do at once
        with lock(self._folder.parents[1], LOCK_TIMEOUT_SECONDS) if name == "mlflow" else nullcontext():
            tracker.start()
        self._logged[name] = last
        # TensorBoard would show another run for it every time; trackio would forget it
        if previous is None or name != "tensorboard":
            tracker.store_init_configuration({"arm": self._arm, **settings_of(self._identity)})
        client = tracker.tracker
        run = client.info.run_id if name == "mlflow" else client.id if name == "wandb" else None
        self._sent[name] = {"id": run, "step": last}
        write_json(self._file, self._sent)

    @contextmanager
    def _tolerated(self, name: str) -> Iterator[None]:
        """Whatever the client of a tracker raises must not end the run."""
        try:
            # clients greet on standard output, once for every run
            with redirect_stdout(io.StringIO()):
                yield
        except Exception as error:
            self._names.remove(name)
            tracker = self._begun.pop(name, None)
            with suppress(Exception), redirect_stdout(io.StringIO()):
                if tracker:
                    tracker.finish()
            cause = next(iter(str(error).splitlines()), "")
            self._notify(f"{name} failed, and the run goes on without it: {type(error).__name__}: {cause}")
