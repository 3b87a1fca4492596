"""What every layout and every log becomes: one number of one run, by arm, seed, metric and what had been spent."""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from experiments.statistics.runs import Status

UNNAMED: Final = "value"
"""The metric of a file that does not name one."""
SCORED: Final = "budget"
"""The axis of scores, which were taken at a budget that is not in the table."""


class Measurement(NamedTuple):
    """One number of a run, or (without a value) only its status, or (nan, nothing spent) that it has none."""

    arm: str
    seed: int
    metric: str
    spent: dict[str, float]
    """By axis: `steps` and perhaps others, or SCORED alone."""
    value: float | None
    status: Status | None
    source: str
    line: int
    answers: float | None = None
    """How many answers, each right or wrong, the value is the mean of."""
    unit: str = "line"
    """What of the source is counted."""

    @property
    def place(self) -> str:
        """The file and line."""
        return f"{self.source}, {self.unit} {self.line}"


@dataclass(frozen=True)
class Content:
    """What a sheet or the logs hold, and what was assumed on the way."""

    measurements: list[Measurement]
    notes: list[str]
    named: bool
    """Whether arm and seed were read from the names of files or runs."""
    warnings: list[str] = field(default_factory=list)
    stopped: dict[tuple[str, int], str] = field(default_factory=dict)
    """By arm and seed: where a run broke off before its planned end, as a log says."""
    unmeasured: dict[tuple[str, int], str] = field(default_factory=dict)
    """By arm and seed: the file of a run that never logged the metric."""
