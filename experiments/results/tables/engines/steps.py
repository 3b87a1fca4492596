"""Which number of a record is the step.

W&B and trackio count calls of `log`; a trainer that logs more than once a step counts steps in a number of its own.
"""

from collections.abc import Mapping
from typing import Any, Final

from experiments.results.tables.engines.log import number_in

STEPS: Final = ("train/global_step", "global_step", "training/global_step", "step", "_step")
"""Names of the step, the surest first."""
BESIDE: Final = frozenset((*STEPS, "epoch", "train/epoch", "time", "_timestamp", "timestamp", "_wandb", "producer"))
"""What is logged beside the metrics."""


def step_of(record: Mapping[str, Any]) -> float | None:
    """The step, None where no name of it has a finite number."""
    return next((step for name in STEPS if (step := number_in(record, name)) is not None), None)
