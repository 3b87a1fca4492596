"""What a run needs of the machine that it is to run on."""

from typing import Final

from core.device import takes_cpu
from core.generation.vllm import Vllm
from core.loop.recipe import Recipe
from experiments.launchers.job import Needs
from experiments.launchers.launcher import Where
from experiments.memory.forecast import Forecast, forecast
from experiments.study.processes import Processes

KEPT: Final = 1.35
"""What a process holds over its forecast, since glibc keeps what is freed: 1.18 to 1.32 measured on SmolLM2-135M with
all weights trained."""
KEPT_WITH_ADAPTERS: Final = 2.4
"""The same where adapters are trained: 1.44 and 2.33 measured at two shapes, not while the model is read."""
CONTEXT: Final = 2**29
"""Bytes that a process takes of a GPU before its first tensor: an estimate, measured on none."""
LIBRARIES: Final = 0.5 * 2**30
"""Bytes of a process that has imported everything and read no model: 0.4 GiB measured, on CPU."""


def needs_of(recipe: Recipe, processes: Processes, where: Where) -> Needs:
    """What a run of `recipe` needs: as declared, else its processes' threads, and what memory is forecast.

    On a GPU that is the GPU's, and of the host what reading and keeping the weights takes. Where no GPU is declared, a
    launcher may share out those of this machine.
    """
    cpus, memory = where.cpus or processes.number * recipe.threads, where.memory
    on_gpu = bool(where.gpus) or (where.launcher.shares_gpus and not takes_cpu())
    if not where.launcher.forecasts_memory or (memory is not None and (where.gpus or not on_gpu)):
        return Needs(cpus, where.gpus, memory or 0)
    predicted = forecast(recipe, processes=processes.number, sharded=processes.sharding is not None)
    kept = KEPT_WITH_ADAPTERS if recipe.policy.lora else KEPT
    held = processes.number * int(kept * (host_memory(predicted) if on_gpu else predicted.peak) + LIBRARIES)
    of_gpu = (predicted.peak + CONTEXT, engine_share(recipe)) if on_gpu else ()
    return Needs(cpus, where.gpus, held if memory is None else memory, *of_gpu)


def host_memory(predicted: Forecast) -> int:
    """Bytes that a process on a GPU holds in the host's memory at the most: reading the model, or a checkpoint."""
    kept = sum(predicted.parts["train"][name] for name in ("weights", "master weights", "optimizer state"))
    return max(predicted.moments["load"].bytes, kept)


def engine_share(recipe: Recipe) -> float:
    """The share of a GPU that an engine beside the trainer takes: 0 where there is none, and of a server's."""
    engine = recipe.generator
    return engine.gpu_memory_utilization if isinstance(engine, Vllm) and engine.url is None else 0.0
