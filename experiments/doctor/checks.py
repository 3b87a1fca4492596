"""All checks, in their order: what is there, then one thing after the other, each on the ground of those before."""

from typing import Final

from experiments.doctor.agreement import check_packed, check_sampler, check_vllm
from experiments.doctor.devices import check_devices
from experiments.doctor.grading import check_grading
from experiments.doctor.lengths import check_lengths
from experiments.doctor.libraries import check_libraries
from experiments.doctor.machine import check_disk, check_processor, check_programs
from experiments.doctor.precisions import check_precisions
from experiments.doctor.ranks import check_ranks
from experiments.doctor.speed import check_speed
from experiments.doctor.training import check_identical, check_resumed, check_step
from experiments.doctor.visit import EMBEDDED, RANDOM, Check
from experiments.doctor.weighing import check_memory

CHECKS: Final = (
    Check("libraries", "what is installed is what was tried", 30, check_libraries, quick=True),
    Check("processor and memory", "a small run fits", 30, check_processor, quick=True),
    Check("disk", "runs can be written", 60, check_disk, quick=True),
    Check("programs", "what some commands use is there", 30, check_programs, quick=True),
    Check("devices", "runs compute where they should, with the same noise", 60, check_devices, quick=True),
    Check("precisions", "a precision is in the hardware, and right", 60, check_precisions, quick=True),
    Check("grading", "models' programs can be graded, shut in", 60, check_grading, quick=True),
    Check("step", "the loop trains", 120, check_step, "each", quick=True),
    Check("identical", "two runs are the same bits", 90, check_identical, "each", quick=True),
    Check("resumed", "a stopped run loses nothing", 90, check_resumed, "each"),
    Check("packed", "rows in one pass do not see each other", 90, check_packed, "each"),
    Check("sampler", "what is sampled is what is trained on", 90, check_sampler, "each"),
    Check("vllm", "another engine samples from the same model", 180, check_vllm, "each"),
    Check("memory", "a forecast can be relied on", 120, check_memory, "heavy"),
    Check("long", "longer responses take no more memory than their length", 90, check_lengths, "heavy"),
    Check("speed", "the machine's products become tokens", 90, check_speed, "heavy"),
    Check("ranks", "several processes take one run's steps", 240, check_ranks, "own"),
)


def by_name(name: str) -> Check:
    """The check of this name."""
    return next(check for check in CHECKS if check.name == name)


def models_of(check: Check, given: str | None, *, on_gpu: bool) -> list[str]:
    """The models that a check is of, one process each."""
    if check.models == "none":
        return [EMBEDDED]
    # the embedded one is too small to be weighed and timed
    own = [given or EMBEDDED] if check.models != "heavy" or given else []
    return own + ([RANDOM] if (on_gpu and check.models != "own") or not own else [])
