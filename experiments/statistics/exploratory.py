"""For tables outside the declared family: false discovery rates, collapse counts, and ranks with their cliques."""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from experiments.statistics.samples import Array, Interval, check_level, differences


def benjamini_hochberg(p: ArrayLike) -> Array:
    """Benjamini and Hochberg's q-values, in the order of p [m]; q <= α keeps the false discovery rate below α.

        q_(i) = min_{k >= i} min(1, m p_(k) / k),   p_(1) <= ... <= p_(m)

    Valid for independent and for positively dependent p. ValueError for values outside [0, 1].
    Benjamini & Hochberg 1995.
    """
    p = np.asarray(p, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("benjamini_hochberg: expected one p-value in [0, 1] per comparison")
    order = np.argsort(p, kind="stable")[::-1]
    steps = np.minimum.accumulate(p[order] * p.size / np.arange(p.size, 0, -1))
    q = np.empty_like(p)
    q[order] = np.minimum(steps, 1.0)
    return q


def binomial_interval(k: int, n: int, level: float = 0.95) -> Interval:
    """Exact interval for a rate of which k of n runs showed the event: no binomial test at it rejects.

        low:  P(K >= k) = (1 - level) / 2,   high:  P(K <= k) = (1 - level) / 2

    The low end is 0 for k = 0 and the high end 1 for k = n. ValueError unless 0 <= k <= n, n >= 1, level in (0, 1).
    Clopper & Pearson 1934.
    """
    if not 0 <= k <= n or n < 1:
        raise ValueError(f"binomial_interval: {k} of {n} runs; expected 0 <= k <= n and at least one run")
    check_level("level", level)
    tail = (1 - level) / 2
    low = float(special.betaincinv(k, n - k + 1, tail)) if k > 0 else 0.0
    high = float(special.betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return low, high


def collapse_rate_upper(n: int, level: float = 0.95) -> float:
    """The largest collapse rate that no collapse in n runs is compatible with: 1 - (1 - level)^{1/n}, one-sided.

    63 % at 3 runs and 14 % at 20: few seeds cannot show that a method is safe. ValueError for n < 1.
    """
    if n < 1:
        raise ValueError(f"collapse_rate_upper: n = {n}; at least one run is needed")
    check_level("level", level)
    return 1 - float((1 - level) ** (1 / n))


def mean_ranks(scores: ArrayLike, higher_is_better: bool = True) -> Array:
    """Mean over seeds of each arm's rank within the seed, [V] for `scores` [n, V]; the best arm of a seed has rank 1.

    Ties, rounding aside, share their mid-rank, so that the ranks of a seed always sum to V(V + 1)/2.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or 0 in table.shape or not np.isfinite(table).all():
        raise ValueError(f"mean_ranks: expected finite scores [seeds, arms], got shape {table.shape}")
    lead = differences(table[:, :, None], table[:, None, :]) * (1 if higher_is_better else -1)
    ranks = 1 + (lead < 0).sum(axis=2) + ((lead == 0).sum(axis=2) - 1) / 2  # every arm ties with itself
    return np.asarray(ranks.mean(axis=0), dtype=np.float64)


def cliques(mean_rank: Mapping[str, float], significant: Collection[tuple[str, str]]) -> list[tuple[str, ...]]:
    """The bars of a critical-difference diagram: maximal runs of two or more arms without a significant pair.

    Arms are lined up by `mean_rank` (equal ones in the order given), and a bar joins neighbours on that line
    only. `significant` holds the pairs whose adjusted p is at most α, each in either order; arms under one bar are
    not thereby shown to be equal. ValueError for a pair with an unknown arm. Demšar 2006, with pairs judged by
    seed instead of Nemenyi's test, whose answer for two arms depends on which others are drawn.
    """
    order = sorted(mean_rank, key=lambda arm: mean_rank[arm])
    for arm in {arm for pair in significant for arm in pair}:
        if arm not in mean_rank:
            raise ValueError(f"cliques: a pair names {arm!r}, which has no rank; the arms are {', '.join(order)}")
    apart = {frozenset(pair) for pair in significant}
    found: list[tuple[str, ...]] = []
    reached = 0  # end of the last clique: one that ends no later lies within it
    for start, first in enumerate(order):
        end = start + 1
        while end < len(order) and not any(frozenset((order[end], arm)) in apart for arm in order[start:end]):
            end += 1
        if end > max(reached, start + 1):
            found.append((first, *order[start + 1 : end]))
            reached = end
    return found
