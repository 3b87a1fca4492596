"""Whether a run takes the memory that `grpolab memory` forecasts."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from experiments.doctor.finding import CAVEAT, WORKS, Finding
from experiments.doctor.models import Subject, subject_of
from experiments.doctor.training import name, small_bindings
from experiments.doctor.visit import Visit

if TYPE_CHECKING:
    from experiments.memory.forecast import Forecast
    from experiments.memory.measure import Measured

MIB: Final = 2**20
WITHIN: Final = (0.8, 1.3)
"""Forecast over measured: docs/scaling.md has 0.87 to 1.07 for a model of 135M parameters."""
HEAVY: Final = (
    "train.minibatches = 1",
    "train.prompts = 4",
    "train.group_size = 8",
    "train.max_tokens = 32",
    "train.micro_tokens = 1024",
)
ON_GPU: Final = ("train.prompts = 16", "train.max_tokens = 256", "train.micro_tokens = 8192")


def check_memory(visit: Visit) -> Iterator[Finding]:
    """The peak of two steps, in a process of their own, beside the forecast from the configuration alone."""
    import core.parts.registry as registry
    from experiments.memory.forecast import forecast
    from experiments.memory.measure import measure
    from experiments.setup import import_parts, quiet_libraries
    from experiments.study.configs import CONFIGS, build, find_config, run_text

    import_parts()
    quiet_libraries()
    subject = subject_of(visit)
    with registry.config([find_config("embedded")], heavy_bindings(subject), include_from=[CONFIGS]):
        recipe, text = build("train"), run_text()
    yield judge_memory(name("memory as forecast", visit), forecast(recipe), measure(text))


def heavy_bindings(subject: Subject) -> list[str]:
    """A recipe of which the model and its activations decide what is held."""
    return [*small_bindings(subject), *HEAVY, *(ON_GPU if subject.on_gpu else ())]


def judge_memory(title: str, predicted: "Forecast", measured: "Measured") -> Finding:
    """The row of a forecast and what was measured."""
    ratio = predicted.peak / measured.peak
    sizes = [f"{bytes_ / MIB:,.0f} MiB" for bytes_ in (predicted.peak, measured.peak)]
    seen = f"forecast {sizes[0]} (in phase '{predicted.phase}'), measured {sizes[1]}: ratio {ratio:.2f}"
    numbers = {"forecast": predicted.peak, "measured": measured.peak, "ratio": ratio, "length": measured.length}
    if WITHIN[0] <= ratio <= WITHIN[1]:
        return Finding(title, WORKS, seen, numbers=numbers)
    share = 1 / ratio
    return Finding(
        title,
        CAVEAT,
        seen,
        f"Take forecasts times {share:.1f} here, and look at one run with grpolab memory --measure before a study.",
        numbers,
    )
