"""Reduce a curve to the one number that is compared, and several numbers to a robust centre.

A curve is budget [n], strictly increasing, and values [n], one evaluation each. Every scalar looks at the
evaluations at or before the common budget B only, and raises ValueError for lengths that differ, a budget that
does not increase, no evaluation at or before B, and a value there that is not finite: such a run has failed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from experiments.statistics.budgets import SLACK, evaluations, value_at
from experiments.statistics.samples import ROUNDING, Array, check_level, sample

_WINDOW = 3  # evaluations in a running mean


@dataclass(frozen=True)
class TimeTo:
    """Budget at which a threshold was reached; where it was not, `time` is the common budget (right-censored)."""

    time: float
    reached: bool


def final(budget: Sequence[float], values: Sequence[float], common_budget: float) -> float:
    """Mean over the last k evaluations at or before the common budget, in the unit of `values`.

        k = max(3, ceil(n / 10)),   n = number of evaluations at or before `common_budget`

    The evaluation before training (budget 0) counts; with fewer than k evaluations all are used. There is no
    "best checkpoint": picking the largest of noisy evaluations rewards noise.
    """
    _, used = finite_evaluations(budget, values, common_budget, "final")
    return float(used[-last_evaluations(used.size) :].mean())


def last_evaluations(n: int) -> int:
    """How many of n evaluations `final` averages."""
    return max(3, -(-n // 10))  # integer arithmetic: 0.1 * 30 exceeds 3 in floats


def auc(budget: Sequence[float], values: Sequence[float], common_budget: float) -> float:
    """Mean height of the curve over the budget, in the unit of `values`: trapezoids from 0 to B, over B.

        1/B ∫_0^B v(b) db,   v linear between evaluations

    ValueError unless the first evaluation is at 0 and the last at or beyond B (within 1e-9 of it), B > 0.
    """
    check_level("auc: common_budget", common_budget, high=math.inf)
    spent, used = finite_evaluations(budget, values, common_budget, "auc")
    _check_start(spent, "auc")
    x = np.append(spent, common_budget)
    y = np.append(used, value_at(budget, values, common_budget))
    return float(np.trapezoid(y, x)) / common_budget


def time_to(
    budget: Sequence[float],
    values: Sequence[float],
    common_budget: float,
    threshold: float,
    higher_is_better: bool = True,
) -> TimeTo:
    """First budget at which the running mean reaches `threshold`; not reached: right-censored at B.

    The running mean is over an evaluation and the two before it; the first is itself and the second the mean of
    two, so a run that starts at the threshold has the time of its first evaluation. ValueError where the
    threshold is not reached and the curve ends before B: such a run was not watched until B.
    """
    check_level("time_to: threshold", threshold, low=-math.inf, high=math.inf)
    spent, used = finite_evaluations(budget, values, common_budget, "time_to")
    means, goal = (_running_mean(used), threshold) if higher_is_better else (-_running_mean(used), -threshold)
    reached = np.flatnonzero(means >= goal - ROUNDING * max(np.abs(used).max(), abs(goal)))
    if reached.size:
        return TimeTo(float(spent[reached[0]]), True)
    if budget[-1] < common_budget - SLACK * abs(common_budget):
        raise ValueError(
            f"time_to: not reached by the last evaluation at {budget[-1]:g}, and nothing is known from there to the "
            f"common budget {common_budget:g}; compare at a budget that every run reaches"
        )
    return TimeTo(float(common_budget), False)


def drawdown(
    budget: Sequence[float], values: Sequence[float], common_budget: float, higher_is_better: bool = True
) -> float:
    """Largest fall from a peak to any later evaluation, in the unit of `values`; 0 for a curve that never falls."""
    _, used = finite_evaluations(budget, values, common_budget, "drawdown")
    height = used if higher_is_better else -used
    return float((np.maximum.accumulate(height) - height).max())


def interquartile_mean(x: ArrayLike) -> float:
    """Mean of x [n] after cutting floor(n / 4) values at each end; n = 3 cuts none, n = 5 one at each end.

    Agarwal et al. 2021, arXiv:2108.13264.
    """
    ordered = np.sort(sample(x, what="interquartile_mean"))
    cut = ordered.size // 4
    return float(ordered[cut : ordered.size - cut].mean())


def finite_evaluations(
    budget: Sequence[float], values: Sequence[float], common_budget: float, what: str
) -> tuple[Array, Array]:
    """Budgets and values of the evaluations at or before the common budget: at least one, all of them finite."""
    check_level(f"{what}: common_budget", common_budget, low=-math.inf, high=math.inf)
    spent, scores = evaluations(budget, values, what)
    n = int(np.searchsorted(spent, common_budget, side="right"))
    if n == 0:
        raise ValueError(
            f"{what}: no evaluation at or before the common budget {common_budget:g}; the first is at {spent[0]:g}"
        )
    if not np.isfinite(scores[:n]).all():
        where = int(np.flatnonzero(~np.isfinite(scores[:n]))[0])
        raise ValueError(
            f"{what}: the evaluation at budget {spent[where]:g} is {scores[where]}; treat the run as failed"
        )
    return spent[:n], scores[:n]


def _check_start(spent: Array, what: str) -> None:
    if spent[0] != 0:
        raise ValueError(f"{what}: the first evaluation is at {spent[0]:g}, not 0; evaluate before training as well")


def _running_mean(values: Array) -> Array:
    return np.array([values[max(0, i + 1 - _WINDOW) : i + 1].mean() for i in range(values.size)])
