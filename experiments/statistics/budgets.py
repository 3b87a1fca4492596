"""Curves on a budget axis: checked, and read between evaluations.

The axis may be optimiser steps, where all runs are evaluated at the same points, or sampled tokens or seconds,
where each run has points of its own. The scalars (`final`, `auc`, ...) serve every axis, since each run is
reduced at its own evaluations: the last k of them at or before the common budget B need no value in between, and
only the value at B itself is interpolated. Runs are not laid on a grid before that, because interpolated
points are averages of their neighbours, and a run with few evaluations would look the smoother for it.

Where B is the least that a run has spent, and not declared, that run alone has an evaluation at B. All others would be
cut up to one interval before it, so that the cheapest arm would gain. They are then read at its last k evaluations
(`mean_at`), before it is said that a verdict depends on the axis.
"""

import math
from collections.abc import Sequence

import numpy as np

from experiments.statistics.samples import Array

SLACK = 1e-9  # relative to the budget: a curve that ends this close before it counts as reaching it


def evaluations(budget: Sequence[float], values: Sequence[float], what: str) -> tuple[Array, Array]:
    """Return budget [n] and values [n] of one run as arrays; values may be non-finite, budgets may not.

    Raises ValueError, headed by `what`: lengths differ, no evaluation, budget not finite or not strictly increasing.
    """
    if len(budget) != len(values):
        raise ValueError(f"{what}: {len(budget)} budgets for {len(values)} values; give one budget per evaluation")
    if not len(budget):
        raise ValueError(f"{what}: the curve is empty; leave out runs that were never evaluated")
    spent = np.asarray(budget, dtype=np.float64)
    if not np.isfinite(spent).all() or (spent[1:] <= spent[:-1]).any():
        raise ValueError(
            f"{what}: budgets must be finite and strictly increasing; sort, drop repeated evaluations, or choose "
            "an axis on which the run advances"
        )
    return spent, np.asarray(values, dtype=np.float64)


def mean_at(budget: Sequence[float], values: Sequence[float], points: Sequence[float]) -> float:
    """The mean of the values at `points` [k], in the unit of `values`.

        1/k Σ_i v(points_i),   v linear between evaluations

    ValueError without points, and as `value_at` has it.
    """
    if not len(points):
        raise ValueError("mean_at: no points to read the curve at; give one at least")
    return float(np.mean([value_at(budget, values, at) for at in points]))


def value_at(budget: Sequence[float], values: Sequence[float], at: float) -> float:
    """The value at budget `at`, by linear interpolation between the evaluations on either side.

    At an evaluation it is that evaluation. Never extrapolates: ValueError where `at` lies before the first or
    beyond the last evaluation (by more than 1e-9 of it), and where an evaluation it needs is not finite.
    """
    spent, scores = evaluations(budget, values, "value_at")
    inside = spent[-1] if abs(at - spent[-1]) <= SLACK * abs(spent[-1]) else at
    finite = np.where(np.isfinite(scores), scores, np.nan)
    value = float(np.interp(inside, spent, finite, left=math.nan, right=math.nan))
    if math.isnan(value):
        if not spent[0] <= at <= spent[-1]:
            raise ValueError(
                f"value_at: budget {at:g} lies outside the curve, which runs from {spent[0]:g} to {spent[-1]:g}; "
                "choose a budget that every run has evaluated on both sides"
            )
        raise ValueError(f"value_at: an evaluation next to budget {at:g} is not finite; treat the run as failed")
    return value
