"""Mean ranks of arms, and the bars of a critical-difference diagram."""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import ArrayLike

from experiments.statistics.samples import Array, differences


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
    bars: list[tuple[str, ...]] = []
    reached = 0  # end of the last clique: one that ends no later lies within it
    for start, first in enumerate(order):
        end = start + 1
        while end < len(order) and not any(frozenset((order[end], arm)) in apart for arm in order[start:end]):
            end += 1
        if end > max(reached, start + 1):
            bars.append((first, *order[start + 1 : end]))
            reached = end
    return bars
