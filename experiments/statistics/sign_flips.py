"""Sign-flip tests: exact whatever the distribution, when two arms are exchangeable within a seed.

If swapping two arms within a seed changes nothing in law, each difference is as likely to be +d as -d. Up to
20 seeds all 2^n flips are counted; beyond, 99,999 random ones, and the observed flip is counted with them.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from experiments.statistics.samples import TIE, Array, check_level, sample

EXACT_SEEDS = 20
RANDOM_FLIPS = 99_999
_LOW_SEEDS = 15  # flips come in blocks of 2^14, which stay in the processor's cache


def sign_flip_p(d: ArrayLike, rng: np.random.Generator | None = None) -> float:
    """Two-sided p of the sign-flip test for paired differences d [n].

        p = share of flips ε ∈ {-1, 1}^n with |Σ_s ε_s d_s| >= |Σ_s d_s|

    Exact, and a multiple of 2 / 2^n, for n <= 20; for n > 20 p = (b + 1) / (R + 1) with b of R = 99,999 flips
    from `rng`, which is then required. All differences 0: 1.0. Fisher 1935.
    """
    d = sample(d)
    unit = d / (np.linalg.norm(d) or 1.0)
    threshold = abs(unit.sum()) - TIE
    if threshold <= 0:
        return 1.0
    if d.size > EXACT_SEEDS:
        blocks = flip_sums(unit[:, None], rng)
        return share(sum(int(np.count_nonzero(np.abs(sums) >= threshold)) for sums in blocks), d.size)
    # A flip is one of each half of the seeds: sort the sums of one half, look up what each of the other lacks.
    half = (d.size + 1) // 2
    left = np.sort(unit[0] + _all_sums(unit[1:half, None])[0])
    right = _all_sums(unit[half:, None])[0]
    above = left.size - np.searchsorted(left, threshold - right, side="left")
    below = np.searchsorted(left, -threshold - right, side="right")
    return share(int((above + below).sum()), d.size)


def sign_flip_interval(
    d: ArrayLike, level: float = 0.95, rng: np.random.Generator | None = None
) -> tuple[float, float]:
    """All shifts μ for which the sign-flip test of d - μ does not reject at 1 - level, as (low, high).

    A flip that keeps the seeds K and turns the others N reaches the observed statistic exactly when μ lies
    between mean(d_K) and mean(d_N); counting these ranges gives the ends without a search. Infinite ends where
    n is too small for the level (2 / 2^n > 1 - level). For n > 20 `rng` is required; equal generators give
    the flips of `sign_flip_p`, so that test and interval agree.
    """
    d = sample(d)
    check_level("level", level)
    n, centre = d.size, d.mean()
    columns = np.column_stack([d - centre, np.ones(n)])
    blocks = np.concatenate(list(flip_sums(columns, rng)), axis=1)
    sums, signs = blocks[0], np.rint(blocks[1])
    if n > EXACT_SEEDS:  # the observed flip counts beside the random ones
        sums, signs = np.append(sums, 0.0), np.append(signs, n)
    whole = np.abs(signs) == n  # nothing or everything flipped: reaches the statistic at every μ
    kept = np.divide(sums, n + signs, out=np.full_like(sums, np.inf), where=~whole)
    turned = np.divide(-sums, n - signs, out=np.full_like(sums, -np.inf), where=~whole)
    low, high = np.minimum(kept, turned), np.maximum(kept, turned)
    skip = int((1 - level) * low.size + TIE)  # so many flips may be lost before p falls to 1 - level
    return (
        float(centre + np.partition(low, skip)[skip]),
        float(centre + np.partition(high, -1 - skip)[-1 - skip]),
    )


def flip_sums(d: Array, rng: np.random.Generator | None) -> Iterator[Array]:
    """Yield Σ_s ε_s d_sj for joint flips ε of the rows of d [n, m], in blocks [m, flips].

    For n <= 20 every flip with ε_1 = +1 comes once (its mirror image has the same absolute sum), else
    `RANDOM_FLIPS` from `rng`; which flips come does not depend on m.
    """
    n = d.shape[0]
    if n <= EXACT_SEEDS:
        low = _all_sums(d[1:_LOW_SEEDS]) + d[0][:, None]
        for high in _all_sums(d[_LOW_SEEDS:]).T:
            yield low + high[:, None]
        return
    if rng is None:
        raise ValueError(f"sign flips: {n} seeds are too many to enumerate; pass rng=np.random.default_rng(seed)")
    for start in range(0, RANDOM_FLIPS, 2**14):
        size = (n, min(2**14, RANDOM_FLIPS - start))
        yield d.T @ (2.0 * rng.integers(0, 2, size=size) - 1.0)


def share(count: int, n: int) -> float:
    """The p-value when `count` of the flips that `flip_sums` yields for n seeds reach the statistic."""
    return count / 2 ** (n - 1) if n <= EXACT_SEEDS else (count + 1) / (RANDOM_FLIPS + 1)


def _all_sums(d: Array) -> Array:
    """Σ_s ε_s d_sj for all 2^k flips of d [k, m], as [m, 2^k]; each row doubles the table."""
    sums = np.zeros((d.shape[1], 1))
    for row in d:
        sums = np.concatenate([sums + row[:, None], sums - row[:, None]], axis=1)
    return sums
