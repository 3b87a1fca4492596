"""Which device this process computes on: an accelerator that can do what a run needs, else the CPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

import torch

from core.errors import GrpoLabError
from core.randomness import row_keys, uniform

VARIABLE: Final = "GRPOLAB_DEVICE"
"""The environment variable that chooses: `cpu`, or the accelerator's kind (`cuda`), which is then taken or an error."""


WORKSPACE: Final = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""Workspaces with which cuBLAS adds up in one order; read when its first handle is made, so before the first tensor."""


def takes_cpu() -> bool:
    """Whether runs of this process are to compute on the CPU; raises `GrpoLabError` for a choice that cannot be had."""
    return _decide(os.environ.get(VARIABLE, ""))[0]


def device_note() -> str | None:
    """Why an accelerator of this machine is not used, in one line; None where there is nothing to report."""
    return _decide(os.environ.get(VARIABLE, ""))[1]


def precision_note(dtype: str) -> str | None:
    """Why a model's precision makes runs slow on this machine, in one line; None where it does not."""
    if dtype != "bfloat16" or not takes_cpu() or multiplies_bfloat16():
        return None
    return (
        "policy.dtype = 'bfloat16': this processor has no instructions for it, and products take many times as long as "
        "in float32: bind policy.dtype = 'float32'"
    )


def multiplies_bfloat16() -> bool:
    """Whether torch's CPU kernels for bfloat16 are made for this processor; also where torch cannot tell."""
    kernels = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return kernels is None or bool(kernels())


def missing_capability(device: torch.device) -> str | None:
    """What `device` cannot do of what every run does there; None when all is well.

    Sampling noise is computed from 64-bit keys in float64, and has to be the same on every device.
    """
    slots, samples = torch.arange(4)[:, None], torch.arange(3)
    expected = uniform(row_keys(2**61 + 1, slots, samples))
    try:
        computed = uniform(row_keys(2**61 + 1, slots.to(device), samples.to(device))).cpu()
    except Exception as error:  # each backend has exceptions of its own for what it lacks
        return str(error).strip().split("\n")[0] or type(error).__name__
    return None if torch.equal(computed, expected) else "its 64-bit arithmetic gives other numbers than the CPU's"


def be_deterministic() -> None:
    """Have CUDA's kernels give the same bits every time, or raise where torch has none that does."""
    torch.use_deterministic_algorithms(True)
    # it would fill every new tensor, to show what reads one that was never written
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def keeping_random_state() -> Iterator[None]:
    """Leave torch's global random states as they are: the CPU's, and that of the device which this process uses."""
    accelerator = None if takes_cpu() else torch.accelerator.current_accelerator()
    kind, used = (accelerator.type, [torch.accelerator.current_device_index()]) if accelerator else ("cuda", [])
    with torch.random.fork_rng(devices=used, device_type=kind):
        yield


@cache
def _decide(choice: str) -> tuple[bool, str | None]:
    """Whether to use the CPU, and a note on why."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if choice not in ("", "cpu", accelerator.type if accelerator else "cpu"):
        here = f"only cpu and {accelerator.type}" if accelerator else "no accelerator, only cpu"
        raise GrpoLabError(f"{VARIABLE}={choice}: this machine has {here}")
    if accelerator is None or choice == "cpu":
        return True, f"{accelerator.type} is not used: {VARIABLE}=cpu" if accelerator else None
    if accelerator.type == "cuda":
        os.environ.update({**WORKSPACE, **os.environ})
    missing = missing_capability(accelerator)
    if missing and choice:
        raise GrpoLabError(f"{VARIABLE}={choice}: {accelerator.type} lacks what a run needs ({missing}); use cpu")
    note = f"runs compute on the CPU: {accelerator.type} lacks what they need ({missing})" if missing else None
    return missing is not None, note


@contextmanager
def forget_decision() -> Iterator[None]:
    """Forget the decision before and after, for tests that pretend another machine."""
    _decide.cache_clear()
    try:
        yield
    finally:
        _decide.cache_clear()
