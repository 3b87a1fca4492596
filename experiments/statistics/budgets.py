"""Curves on a budget axis: checked, read between evaluations, laid on a common grid.

The axis may be optimiser steps, where all runs are evaluated at the same points, or sampled tokens or seconds,
where each run has points of its own. The scalars (`final`, `auc`, ...) serve every axis, since each run is
reduced at its own evaluations: the last k of them at or before the common budget B need no value in between, and
only the value at B itself is interpolated. Runs are not laid on a grid before that, because interpolated
points are averages of their neighbours, and a run with few evaluations would look the smoother for it.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from experiments.statistics.samples import Array

Curve: TypeAlias = tuple[Sequence[float], Sequence[float]]  # budgets and values, in the order of the evaluations

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
    if not np.isfinite(spent).all() or (np.diff(spent) <= 0).any():
        raise ValueError(
            f"{what}: budgets must be finite and strictly increasing; sort, drop repeated evaluations, or choose "
            "an axis on which the run advances"
        )
    return spent, np.asarray(values, dtype=np.float64)


def value_at(budget: Sequence[float], values: Sequence[float], at: float) -> float:
    """The value at budget `at`, by linear interpolation between the evaluations on either side.

    At an evaluation it is that evaluation. Never extrapolates: ValueError where `at` lies before the first or
    beyond the last evaluation (by more than 1e-9 of it), and where an evaluation it needs is not finite.
    """
    spent, scores = evaluations(budget, values, "value_at")
    value = float(_interpolate(spent, scores, np.array([at], dtype=np.float64))[0])
    if np.isnan(value):
        if not spent[0] <= at <= spent[-1]:
            raise ValueError(
                f"value_at: budget {at:g} lies outside the curve, which runs from {spent[0]:g} to {spent[-1]:g}; "
                "choose a budget that every run has evaluated on both sides"
            )
        raise ValueError(f"value_at: an evaluation next to budget {at:g} is not finite; treat the run as failed")
    return value


def common_budget(curves: Iterable[Curve]) -> float:
    """The largest budget that all `curves` reach: the smallest of their last budgets.

    For tables that come without a declared budget; a declared one goes before. Pass completed runs only: a run
    that failed or collapsed must not lower what the others are compared at. ValueError for no curve or a bad one.
    """
    last = [float(evaluations(*curve, f"common_budget, curve {i}")[0][-1]) for i, curve in enumerate(curves)]
    if not last:
        raise ValueError("common_budget: no curve given; at least one run must have completed")
    return min(last)


def on_grid(curves: Iterable[Curve], grid: ArrayLike) -> Array:
    """Values [S, N] of S runs at the N budgets of `grid`, linearly interpolated, for mean curves with bands.

    NaN marks what was not observed: grid points outside a run's evaluations, or next to one that is not finite.
    The mean over runs beyond the shortest one is a mean over fewer, so cut the grid at the common budget.
    ValueError for no curve, a bad one, or a grid that is not a finite list of budgets.
    """
    points = np.asarray(grid, dtype=np.float64)
    if points.ndim != 1 or not np.isfinite(points).all():
        raise ValueError(f"on_grid: expected a list of finite budgets as grid, got shape {points.shape}")
    rows = [_interpolate(*evaluations(*curve, f"on_grid, curve {i}"), points) for i, curve in enumerate(curves)]
    if not rows:
        raise ValueError("on_grid: no curve given")
    return np.stack(rows)


def _interpolate(spent: Array, scores: Array, at: Array) -> Array:
    """Values at budgets `at` [N]; NaN where the curve does not say."""
    end = spent[-1]
    inside = np.where(np.abs(at - end) <= SLACK * abs(end), end, at)
    known = np.where(np.isfinite(scores), scores, np.nan)
    return np.asarray(np.interp(inside, spent, known, left=np.nan, right=np.nan), dtype=np.float64)
