"""How large a difference of a table's metrics can be, where their names and values say so."""

import math
from collections.abc import Sequence
from dataclasses import replace

from experiments.results.stored_run import is_share
from experiments.statistics import Trajectory


def bounded(runs: Sequence[Trajectory]) -> tuple[Trajectory, ...]:
    """The runs, whose curves know the largest difference that their metric can have."""
    largest = {metric: _largest(metric, runs) for run in runs for metric in run.curves}
    return tuple(
        replace(run, curves={name: replace(curve, largest=largest[name]) for name, curve in run.curves.items()})
        for run in runs
    )


def _largest(metric: str, runs: Sequence[Trajectory]) -> float:
    """1 where the metric is a share by its name and by its values, 100 where it is one in percent, else unknown."""
    values = [value for run in runs for value in (run.curves[metric].values if metric in run.curves else ())]
    measured = [value for value in values if math.isfinite(value)]
    if not is_share(metric) or min(measured, default=0.0) < 0:
        return math.inf
    return next((whole for whole in (1.0, 100.0) if max(measured, default=0.0) <= whole), math.inf)
