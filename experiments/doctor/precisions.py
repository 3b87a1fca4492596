"""Which precisions the device really has: right values, and not slower than float32.

Values: in a product of small whole numbers every precision here is exact, and so is a sum of 4,096 ones where sums are
kept in float32; summed in bfloat16 it would stop at 256, and in float16 at 2,048.
"""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from experiments.doctor.finding import CAVEAT, FAILS, WORKS, Finding
from experiments.doctor.visit import Visit

if TYPE_CHECKING:
    import torch

ONES: Final = 4096
EMULATED: Final = 0.7
"""A lower precision that multiplies at less than this share of float32's rate has no instructions of its own."""
SECONDS: Final = 0.4
"""For each rate, about."""


def check_precisions(_: Visit) -> Iterator[Finding]:
    """A row for each precision: its values, and its rate beside float32's."""
    import torch

    device = device_of_runs()
    plain = rate(torch.float32, device)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        yield judge_precision(dtype, device, plain if dtype == torch.float32 else rate(dtype, device), plain)


def judge_precision(dtype: "torch.dtype", device: str, here: float, plain: float) -> Finding:
    """The row of a precision that multiplies at `here` operations a second, where float32 does at `plain`."""
    name = str(dtype).removeprefix("torch.")
    times = here / plain
    seen = f"{device}: {here / 1e9:.3g} GFLOP/s in a matrix product" + (
        "" if name == "float32" else f", {times:.2g} times float32"
    )
    numbers: dict[str, Any] = {"rate": here, "device": device}
    if wrong := wrong_value(dtype, device):
        return Finding(
            name,
            FAILS,
            f"{seen}; {wrong}",
            f"Do not bind policy.dtype = '{name}' here, and try another version of torch."
            if name != "float32"
            else "Try another version of torch, or GRPOLAB_DEVICE=cpu: no run here can be trusted.",
            numbers,
        )
    if name != "float32" and times < EMULATED:
        return Finding(
            name,
            CAVEAT,
            f"{seen}: it is emulated",
            f"Bind policy.dtype = 'float32' where memory allows: {name} saves memory here, and costs time.",
            numbers,
        )
    return Finding(name, WORKS, seen, numbers=numbers)


def device_of_runs() -> str:
    """The kind of device that runs compute on."""
    import torch

    from core.device import takes_cpu

    return "cpu" if takes_cpu() else str(torch.accelerator.current_accelerator())


def wrong_value(dtype: "torch.dtype", device: str) -> str | None:
    """What products in this precision get wrong; None where they are right."""
    import torch

    ones = torch.ones(64, ONES, dtype=dtype, device=device)
    if (found := float((ones @ ones.T).float().min())) != ONES:
        return f"{ONES} ones add up to {found:g}"
    # sums of at most 64 products of at most 4: whole numbers up to 256, which bfloat16 has
    a, b = (torch.arange(64 * 64).mul(step).remainder(5).sub(2).view(64, 64) for step in (7, 11))
    if not torch.equal((a.to(device, dtype) @ b.to(device, dtype)).cpu().long(), a @ b):
        return "products of small whole numbers are wrong"
    if not torch.equal((ones[:1, :8] * 3 / 4).cpu().float(), torch.full((1, 8), 0.75)):
        return "three quarters is not 0.75"
    return None


def rate(dtype: "torch.dtype", device: str) -> float:
    """Operations a second of a matrix product in this precision; the best of several, in float32 as runs compute it."""
    import torch

    size, best, clock = 256, 0.0, clock_of(device)
    deadline = clock() + SECONDS
    while True:
        a, b = (torch.full((size, size), 0.5, dtype=dtype, device=device) for _ in range(2))
        a @ b
        synchronize(device)
        start = clock()
        a @ b
        synchronize(device)
        seconds = clock() - start
        best = max(best, 2 * size**3 / max(seconds, 1e-9))
        if clock() > deadline:
            return best
        if seconds < SECONDS / 40 and size < 8192:  # too short to be timed: one eight times as long
            size *= 2


def clock_of(device: str) -> Callable[[], float]:
    """Processor time for what one thread computes, which other work does not lengthen; for a GPU, the time of day."""
    return time.process_time if device == "cpu" else time.perf_counter


def synchronize(device: str) -> None:
    """Wait for the device."""
    import torch

    if device != "cpu":
        torch.accelerator.synchronize()
