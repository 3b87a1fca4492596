"""What a run needs of the machine that it is to run on."""

from typing import Final

from core.loop.recipe import Recipe
from experiments.launchers.job import Needs
from experiments.launchers.launcher import Where
from experiments.memory.forecast import forecast
from experiments.study.processes import Processes

KEPT: Final = 1.35
"""What a process holds over its forecast, since glibc keeps what is freed: 1.18 to 1.32 measured on SmolLM2-135M with
all weights trained."""
KEPT_WITH_ADAPTERS: Final = 2.4
"""The same where adapters are trained: 1.44 and 2.33 measured at two shapes, not while the model is read."""
LIBRARIES: Final = 0.5 * 2**30
"""Bytes of a process that has imported everything and read no model: 0.4 GiB measured, on CPU."""


def needs_of(recipe: Recipe, processes: Processes, where: Where) -> Needs:
    """What a run of `recipe` needs: as declared, else its processes' threads, no GPU, and what memory is forecast."""
    memory = where.memory
    if memory is None:
        memory = _memory(recipe, processes) if where.launcher.forecasts_memory else 0
    return Needs(where.cpus or processes.number * recipe.threads, where.gpus, memory)


def _memory(recipe: Recipe, processes: Processes) -> int:
    """Bytes of all processes of a run, by the forecast."""
    predicted = forecast(recipe, processes=processes.number, sharded=processes.sharding is not None)
    kept = KEPT_WITH_ADAPTERS if recipe.policy.lora else KEPT
    return processes.number * int(kept * predicted.peak + LIBRARIES)
