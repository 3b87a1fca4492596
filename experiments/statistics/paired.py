"""Tests on one column of paired differences: Student's t, equivalence, exact Wilcoxon.

d [n] holds one difference per seed. When all differences agree there is no spread to judge them by: the
t-based tests then return p = 1 and no interval, where the textbook formula is 0/0 or claims certainty.
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from experiments.statistics.samples import TIE, Array, Interval, check_level, is_constant, sample

TINY = float(np.finfo(np.float64).tiny)  # a p-value is never reported as 0


def standard_error(d: ArrayLike, least: float = 0.0) -> float:
    """Standard error of the mean of d [n], sd(d) / √n, and at least `least`: what the answers behind d allow.

    sd divides by n - 1; all differences equal, rounding aside, have none. ValueError for n < 2.
    """
    d = sample(d, least=2)
    return max(0.0 if is_constant(d) else float(d.std(ddof=1)) / math.sqrt(d.size), least)


def paired_t(d: ArrayLike, level: float = 0.95, least_error: float = 0.0) -> tuple[float, Interval | None]:
    """Two-sided p of the paired t test, and the t interval for the mean difference at `level`.

        t = mean(d) / e,   p = P(|T_{n-1}| >= |t|),   mean(d) ± t_{(1+level)/2, n-1} e
        e = max(sd(d) / √n, least_error)

    sd divides by n - 1. `least_error`: see `answers.py`. All differences equal: (1.0, None). ValueError for n < 2.
    Student 1908.
    """
    d = sample(d, least=2)
    check_level("level", level)
    if is_constant(d):
        return 1.0, None
    mean, error, df = float(d.mean()), standard_error(d, least_error), d.size - 1
    p = 2 * float(special.stdtr(df, -abs(mean / error)))
    half_width = float(special.stdtrit(df, (1 + level) / 2)) * error
    return max(p, TINY), (mean - half_width, mean + half_width)


def tost(d: ArrayLike, margin: float, least_error: float = 0.0) -> float:
    """p of the two one-sided tests for equivalence, H0: |mean difference| >= margin (in the unit of d).

        p = P(T_{n-1} >= (margin - |mean(d)|) / e),   e = max(sd(d) / √n, least_error)

    p <= α exactly when the 1 - 2α t interval lies inside (-margin, margin). All differences equal: 1.0.
    ValueError for n < 2 or margin <= 0. Schuirmann 1987.
    """
    d = sample(d, least=2)
    check_level("margin", margin, high=math.inf)
    if is_constant(d):
        return 1.0
    error = standard_error(d, least_error)
    return max(float(special.stdtr(d.size - 1, (abs(float(d.mean())) - margin) / error)), TINY)


def widened(interval: Interval, d: ArrayLike, level: float, least_error: float) -> Interval:
    """An interval for the mean of d [n], no narrower than the t interval with `least_error` for a standard error."""
    d = sample(d, least=2)
    mean, half = float(d.mean()), float(special.stdtrit(d.size - 1, (1 + level) / 2)) * least_error
    return min(interval[0], mean - half), max(interval[1], mean + half)


def wilcoxon_exact(d: ArrayLike) -> float:
    """Exact two-sided p of Wilcoxon's signed-rank test: zeros are dropped, ties share their mid-rank.

        p = P(|W - E W| >= |w - E W|),   W = sum of the ranks that receive a + by fair coins

    The distribution of W is conditional on the ranks at hand, so ties need no normal approximation (at five
    seeds that one returns p = 0.043, below the smallest possible 0.0625). All zero: 1.0. Wilcoxon 1945.
    """
    d = sample(d)
    size = np.abs(d)
    kept = size > TIE * size.max()
    ranks = _doubled_mid_ranks(size[kept])
    total = int(ranks.sum())
    chances = np.zeros(total + 1)  # of the doubled rank sum of the + signs: doubling makes mid-ranks integers
    chances[0] = 1.0
    for rank in ranks:
        shifted = np.zeros_like(chances)
        shifted[rank:] = chances[: total + 1 - rank]
        chances = (chances + shifted) / 2
    observed = int(ranks[d[kept] > 0].sum())
    extreme = np.abs(2 * np.arange(total + 1) - total) >= abs(2 * observed - total)
    return max(float(chances[extreme].sum()), TINY)


def _doubled_mid_ranks(size: Array) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Twice the mid-ranks of size [n] > 0, in its order; values closer than rounding tie."""
    order = np.argsort(size, kind="stable")
    new_group = np.diff(size[order], prepend=-np.inf) > TIE * size.max(initial=0.0)
    group = np.cumsum(new_group) - 1
    last = np.cumsum(np.bincount(group))  # ranks first..last within a group average to (first + last) / 2
    first = np.append(0, last[:-1]) + 1
    ranks = np.empty(size.size, dtype=np.int64)
    ranks[order] = (first + last)[group] if size.size else 0
    return ranks
