"""Reduce a curve to the one number that is compared, and several numbers to a robust centre."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from experiments.statistics.samples import sample


def final(budget: Sequence[float], values: Sequence[float], common_budget: float) -> float:
    """Mean over the last k evaluations at or before the common budget, in the unit of `values`.

        k = max(3, ceil(n / 10)),   n = number of evaluations at or before `common_budget`

    The evaluation before training (budget 0) counts; with fewer than k evaluations all are used. There is no
    "best checkpoint": picking the largest of noisy evaluations rewards noise.

    Args: budget [n], strictly increasing; values [n]; both in the order of the evaluations.
    Raises ValueError: lengths differ, budget not increasing, nothing at or before the common budget, or a
    non-finite value there.
    """
    if len(budget) != len(values):
        raise ValueError(f"final: {len(budget)} budgets for {len(values)} values; give one budget per evaluation")
    spent = np.asarray(budget, dtype=np.float64)
    if not np.isfinite(spent).all() or (np.diff(spent) <= 0).any():
        raise ValueError("final: budgets must be finite and strictly increasing; sort, and drop repeated evaluations")
    n = int(np.searchsorted(spent, common_budget, side="right"))
    if n == 0:
        first = f"the first is at {spent[0]:g}" if len(spent) else "the curve is empty"
        raise ValueError(f"final: no evaluation at or before the common budget {common_budget:g}; {first}")
    used = np.asarray(values[:n], dtype=np.float64)
    if not np.isfinite(used).all():
        where = int(np.flatnonzero(~np.isfinite(used))[0])
        raise ValueError(f"final: the evaluation at budget {spent[where]:g} is {used[where]}; treat the run as failed")
    k = max(3, -(-n // 10))  # integer arithmetic: 0.1 * 30 exceeds 3 in floats
    return float(used[-k:].mean())


def interquartile_mean(x: ArrayLike) -> float:
    """Mean of x [n] after cutting floor(n / 4) values at each end; n = 3 cuts none, n = 5 one at each end.

    Agarwal et al. 2021, arXiv:2108.13264.
    """
    ordered = np.sort(sample(x, what="interquartile_mean"))
    cut = ordered.size // 4
    return float(ordered[cut : ordered.size - cut].mean())
