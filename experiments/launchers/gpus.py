"""Which GPUs of this machine a run of the local launcher computes on.

A worker sees those alone that it was started for. Each process of a run takes one; runs share a GPU as far as they are
forecast to fit into what was free there at the start, or by the share that they declare (`--gpus 0.5`). The GPU that is
taken least is next, and one without a run takes any.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from core.device import takes_cpu
from core.errors import GrpoLabError
from experiments.launchers.job import Job, Needs

VARIABLES: Final = {"cuda": "CUDA_VISIBLE_DEVICES", "xpu": "ZE_AFFINITY_MASK"}
"""By kind of device, what a process finds the names of those in that it may use."""
ROUNDING: Final = 1e-6


@dataclass(frozen=True)
class Gpu:
    """One, with its bytes."""

    name: str
    """Its number in the whole machine, or what else a process is told to see it."""
    free: int
    """At the start of the command."""
    total: int

    def share(self, needs: Needs) -> float:
        """How much of it a process of a run takes, of 1."""
        if needs.gpus:
            return min(1.0, needs.gpus)
        return (needs.gpu_memory + needs.gpu_utilization * self.total) / max(1, self.free)


@dataclass(frozen=True)
class Place:
    """Where a run is, and how much of each of these it takes."""

    gpus: tuple[Gpu, ...] = ()
    shares: tuple[float, ...] = ()

    def __str__(self) -> str:
        return f"GPU{'s' * (len(self.gpus) > 1)} {', '.join(gpu.name for gpu in self.gpus)}"

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process see these alone, set before it starts."""
        return {_variable(): ",".join(gpu.name for gpu in self.gpus)} if self.gpus else {}


ANYWHERE: Final = Place()
"""Where a run is that nothing was chosen for."""


def machine_gpus() -> list[Gpu]:
    """Those that this process sees and runs can use; none where runs compute on the CPU."""
    if takes_cpu() or not _variable():
        return []
    count = torch.accelerator.device_count()
    named = [name.strip() for name in os.environ.get(_variable(), "").split(",") if name.strip()]
    names = named[:count] if len(named) >= count else [str(index) for index in range(count)]
    return [Gpu(name, *torch.accelerator.get_memory_info(index)) for index, name in enumerate(names)]


def check(job: Job, gpus: Sequence[Gpu]) -> None:
    """Raise `GrpoLabError` where a run could never begin: for want of GPUs, declared or one for every process."""
    declared, processes, here = job.needs.gpus, job.processes.number, f"this machine has {len(gpus)} that runs can use"
    if declared > len(gpus):
        raise GrpoLabError(f"--gpus {declared:g}: {here}; leave it out")
    if gpus and processes > len(gpus):
        raise GrpoLabError(f"--processes {processes}: every process takes a GPU, and {here}; GRPOLAB_DEVICE=cpu: none")
    if declared and processes > max(1, declared):
        raise GrpoLabError(f"--gpus {declared:g}: every process takes a GPU, and a run has {processes}; leave it out")


def place(job: Job, gpus: Sequence[Gpu], taken: Sequence[Place]) -> Place | None:
    """Where the run can begin beside those that are under way; None where nowhere."""
    if not gpus:
        return ANYWHERE
    loads = {
        gpu: [share for at in taken for other, share in zip(at.gpus, at.shares, strict=True) if other == gpu]
        for gpu in gpus
    }
    number = max(job.processes.number, int(job.needs.gpus))
    shares = {gpu: gpu.share(job.needs) for gpu in gpus}
    open_ones = [gpu for gpu in gpus if not loads[gpu] or sum(loads[gpu]) + shares[gpu] <= 1 + ROUNDING]
    chosen = sorted(open_ones, key=lambda gpu: sum(loads[gpu]))[:number]
    if len(chosen) < number:
        return None
    return Place(tuple(chosen), tuple(shares[gpu] for gpu in chosen))


def limit(job: Job, gpus: Sequence[Gpu]) -> str:
    """Why no more runs are under way, where it is for want of GPUs."""
    if job.needs.gpus:
        return f"each takes {job.needs.gpus:g} of {len(gpus)}"
    free, needs = min(gpu.free for gpu in gpus), job.needs
    takes = max(needs.gpu_memory + needs.gpu_utilization * gpu.total for gpu in gpus)
    return (
        f"{free / 2**30:.1f} GiB were free on each of {len(gpus)} at least, and the next run needs {takes / 2**30:.1f} "
        "GiB on one; --gpus X declares a share"
    )


def _variable() -> str:
    accelerator = torch.accelerator.current_accelerator()
    return VARIABLES.get(accelerator.type, "") if accelerator else ""
