"""The machine: contracts, and the one loop. Knows no variant, part, task or paradigm by name.

The public names are imported when they are asked for: torch takes seconds, and a command line is read without it.
"""

import importlib
from typing import TYPE_CHECKING

from core.errors import GrpoLabError

if TYPE_CHECKING:
    from core.parts.batch import Batch
    from core.parts.contracts import (
        TokenLoss,
        advantage,
        aggregator,
        correction,
        credit,
        filter,
        generator,
        kl,
        objective,
        provider,
        reward,
        selection,
        setting,
        shaping,
        source,
        task,
        value_loss,
    )
    from core.parts.environments import Environment, Step, Turn, environment
    from core.parts.problems import Problem, Score
    from core.parts.registry import (
        ADVANTAGES,
        AGGREGATORS,
        CORRECTIONS,
        CREDITS,
        ENVIRONMENTS,
        FILTERS,
        GENERATORS,
        KLS,
        OBJECTIVES,
        PROVIDERS,
        REWARDS,
        SELECTIONS,
        SETTINGS,
        SHAPINGS,
        SOURCES,
        TASKS,
        VALUE_LOSSES,
        VARIANTS,
        Part,
    )
    from core.parts.variant import Variant, variant

__all__ = [
    "ADVANTAGES",
    "AGGREGATORS",
    "CORRECTIONS",
    "CREDITS",
    "ENVIRONMENTS",
    "FILTERS",
    "GENERATORS",
    "KLS",
    "OBJECTIVES",
    "PROVIDERS",
    "REWARDS",
    "SELECTIONS",
    "SETTINGS",
    "SHAPINGS",
    "SOURCES",
    "TASKS",
    "VALUE_LOSSES",
    "VARIANTS",
    "Batch",
    "Environment",
    "GrpoLabError",
    "Part",
    "Problem",
    "Score",
    "Step",
    "TokenLoss",
    "Turn",
    "Variant",
    "advantage",
    "aggregator",
    "correction",
    "credit",
    "environment",
    "filter",
    "generator",
    "kl",
    "objective",
    "provider",
    "reward",
    "selection",
    "setting",
    "shaping",
    "source",
    "task",
    "value_loss",
    "variant",
]


if not TYPE_CHECKING:

    def __getattr__(name):
        modules = ("batch", "contracts", "environments", "problems", "registry", "variant")
        for module in modules if name in __all__ else ():
            attributes = vars(importlib.import_module(f"core.parts.{module}"))
            if name in attributes:
                return attributes[name]
        raise AttributeError(f"module 'core' has no attribute '{name}'")
