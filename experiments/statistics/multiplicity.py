"""Adjusted p-values that keep the chance of any false claim within a family of comparisons below α."""

import numpy as np
from numpy.typing import ArrayLike

from experiments.statistics.samples import TIE, Array
from experiments.statistics.sign_flips import flip_sums, share


def holm(p: ArrayLike) -> Array:
    """Holm's step-down adjusted p-values, in the order of p [m].

        p̃_(i) = min(1, max_{k <= i} (m - k + 1) p_(k)),   p_(1) <= ... <= p_(m)

    Valid under any dependence. ValueError for values outside [0, 1]. Holm 1979.
    """
    p = np.asarray(p, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("holm: expected one p-value in [0, 1] per comparison")
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def max_t(differences: ArrayLike, rng: np.random.Generator | None = None) -> Array:
    """Step-down max-T adjusted p-values [m] of differences [n, m], over joint sign flips of the seeds (rows).

        T_j = |Σ_s ε_s d_sj| / √(Σ_s d_sj²)

    The comparisons are ordered by their observed T; each is set against the largest flipped T among itself
    and those below it, then p is made monotone. T orders flips as |t| does but never divides by a zero spread
    (a column of zeros has T = 0 and p = 1). One ε serves all columns, so their correlation is used: the
    smallest possible p stays 2 / 2^n for any m. Exact enumeration for n <= 20, else random flips from `rng`.
    Westfall and Young 1993, with joint flips as by Romano and Wolf 2005.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 2 or 0 in d.shape or not np.isfinite(d).all():
        raise ValueError(f"max_t: expected finite differences [seeds, comparisons], got shape {d.shape}")
    norms = np.sqrt((d**2).sum(axis=0))
    unit = d / np.where(norms > 0, norms, 1.0)
    observed = np.abs(unit.sum(axis=0))
    order = np.argsort(observed, kind="stable")
    threshold = observed[order][:, None] - TIE
    counts = np.zeros(order.size, dtype=np.int64)
    for sums in flip_sums(unit[:, order], rng):
        counts += np.count_nonzero(np.maximum.accumulate(np.abs(sums), axis=0) >= threshold, axis=1)
    p = np.array([share(int(count), d.shape[0]) for count in counts])
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[::-1])[::-1]
    return adjusted


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
