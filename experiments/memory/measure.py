"""The most memory that a run holds, measured in a process of its own.

On a GPU that is what torch had allocated. On CPU it is the process's resident memory, as the kernel kept its maximum,
above what the process held when everything was imported and no model was read. A C library that keeps what is freed
for later would blur that: glibc raises the size from which memory is mapped, and so given back at once, up to 32 MiB as
a program runs. The process that is measured keeps that size down, so that what is resident is what is in use;
with `keeps_freed` glibc does as it does in training. In bfloat16 on CPU a run holds some hundred MiB that are not in
the forecast; kernels that oneDNN compiles for every new shape and keeps are the likely reason, which was not confirmed.
"""

import ctypes
import gc
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import torch

from core import GrpoLabError
from core.device import takes_cpu
from core.loop.train import run
from core.parts.registry import config
from core.store.integrity import METRICS
from core.store.run_folder import RunStore
from experiments.memory.forecast import forecast
from experiments.study.configs import build

STEPS: Final = 2
"""AdamW's state is there from the second step on."""
GIVEN_BACK: Final = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@dataclass(frozen=True)
class Measured:
    """What the first steps of a run took."""

    peak: int
    """Bytes at the most."""
    length: float
    """Mean tokens of a response: the forecast takes every one to be as long as it may be."""
    seconds: float
    """Of a step after the first, the median, evaluation apart; freed memory that is given back at once takes time."""


def measure(text: str, *, keeps_freed: bool = False, steps: int = STEPS) -> Measured:
    """The peak of the first steps of a run of the config `text`; GrpoLabError when the run fails.

    With `keeps_freed` the C library may keep what the run has freed, as it does in training.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe()
    with _environment({} if keeps_freed else GIVEN_BACK):
        process = context.Process(target=_measured, args=(sender, text, steps), daemon=True)
        process.start()
    sender.close()
    result: Measured | str | None = None
    with suppress(EOFError):
        result = receiver.recv()
    process.join()
    if not isinstance(result, Measured):
        died = f"its process died (exit code {process.exitcode}; -9 is often a lack of memory)"
        raise GrpoLabError(f"the run to be measured failed: {result or died}")
    return result


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for processes that are started inside."""
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        for name in more:
            del os.environ[name]
        os.environ.update(before)


def _measured(pipe: Connection, text: str, steps: int) -> None:
    """Run the first steps and send their peak, or the error message."""
    from experiments.setup import import_parts, quiet_libraries

    import_parts()
    quiet_libraries()
    try:
        with config(text=text, bindings=[f"train.steps = {steps}"]):
            recipe = build("train")
        forecast(recipe)  # imports what reading the model will need
        with tempfile.TemporaryDirectory() as folder:
            meter, store = Meter(), RunStore(Path(folder))
            run(recipe, 0, store, facts={"identity": {}}, watch=_ignore)
            lines = [json.loads(line) for line in (store.folder / METRICS).read_text().splitlines()]
            lengths = [line["length"] for line in lines]
            seconds = [sum(s for phase, s in line["seconds"].items() if phase != "evaluate") for line in lines[1:]]
            pipe.send(Measured(meter.peak(), sum(lengths) / len(lengths), statistics.median(seconds)))
    except GrpoLabError as error:
        pipe.send(str(error))


def _ignore(record: Mapping[str, Any]) -> None:
    """No progress."""


class Meter:
    """Peak memory above what is held at the start."""

    def __init__(self) -> None:
        gc.collect()
        self._status = Path("/proc/self/status")
        if not takes_cpu():
            torch.accelerator.reset_peak_memory_stats()
        elif self._status.exists():
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # the maximum begins anew
        self._start = self._high_water_mark()

    def _high_water_mark(self) -> int:
        if not takes_cpu():
            return int(torch.accelerator.max_memory_allocated())
        if self._status.exists():
            return 1024 * next(
                int(line.split()[1]) for line in self._status.read_text().splitlines() if line.startswith("VmHWM")
            )
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def peak(self) -> int:
        """Bytes since the start."""
        return self._high_water_mark() - self._start
