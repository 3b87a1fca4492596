"""A process of its own for what is to run on the pretend device, which a process that has it cannot give back."""

import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

from core.store import plain
from experiments.setup import import_parts, quiet_libraries
from tests.forked import Forked
from tests.pretend.device import install
from tests.pretend.tensor import PretendTensor

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class FailedThereError(AssertionError):
    """What was to run on the device failed; the message is its traceback."""


def on_pretend(
    work: Callable[Parameters, Result], /, *arguments: Parameters.args, **settings: Parameters.kwargs
) -> Result:
    """What `work` returns where torch's accelerator is the pretend one, chosen as a user would choose a device."""
    with tempfile.TemporaryDirectory() as scratch:
        output, result = Path(scratch, "output"), Path(scratch, "result")
        environment = {**os.environ, "ACCELERATE_TORCH_DEVICE": "pretend:0"}
        process = Forked(
            _work,
            result,
            work,
            arguments,
            settings,
            folder=Path(scratch),
            output=(output, output),
            environment=environment,
        )
        try:
            code = process.wait()
        finally:
            process.end()
        if code:
            raise FailedThereError(output.read_text())
        found: Result = pickle.loads(result.read_bytes())
        return found


def _work(result: Path, work: Callable[..., Any], arguments: tuple[Any, ...], settings: dict[str, Any]) -> None:
    quiet_libraries()
    torch.set_num_threads(1)  # a fork begins with as many as the machine has, which wait for each other
    import_parts()
    have_device()
    result.write_bytes(pickle.dumps(work(*arguments, **settings)))


def have_device() -> None:
    """Give this process the device."""
    install()
    plain.__dict__["_PLAIN"] = (*plain._PLAIN, PretendTensor)  # CUDA's are of torch's own type
