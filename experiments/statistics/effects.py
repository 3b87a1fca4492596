"""Effect sizes: how large a difference is, whatever its p-value."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from experiments.statistics.samples import differences, sample


def hedges_j(n: int) -> float:
    """Factor that removes the small-sample bias of d_z: g_z = J d_z for n paired differences.

        J = Γ(ν/2) / (√(ν/2) Γ((ν-1)/2)),   ν = n - 1

    J(5) = 0.798, and J tends to 1. ValueError for n < 3, where d_z has no expectation. Hedges 1981.
    """
    if n < 3:
        raise ValueError(f"hedges_j: n = {n}; the correction needs at least 3 paired seeds")
    half = (n - 1) / 2
    return math.exp(math.lgamma(half) - math.lgamma(half - 0.5)) / math.sqrt(half)


def win_rate(d: ArrayLike) -> float:
    """Share of seeds with d > 0, plus half the share with d = 0, for paired differences d [n]."""
    d = sample(d, what="win_rate")
    return float((d > 0).mean() + 0.5 * (d == 0).mean())


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> float:
    """Chance that a random run of x [n_x] beats a random run of y [n_y]: U / (n_x n_y), ties count half.

    Unpaired, unlike `win_rate`: five seeds that each gain 0.01 while seeds lie 0.1 apart win 5 of 5 pairs,
    but only 15 of the 25 cross pairs. Agarwal et al. 2021, arXiv:2108.13264.
    """
    x = sample(x, what="probability_of_improvement")
    y = sample(y, what="probability_of_improvement")
    return win_rate(differences(x[:, None], y[None, :]).ravel())


def friedman(scores: ArrayLike) -> tuple[float, float, float]:
    """Friedman's chi-squared over ranks within seeds, its Iman-Davenport F, and the p of F; description, no gate.

        F = (n - 1) chi2 / (n (V - 1) - chi2),   with V - 1 and (V - 1)(n - 1) degrees of freedom

    `scores` is [n, V], n seeds and V >= 3 arms. Arms that all tie on every seed give (0, 0, 1); the same order on every
    seed gives an infinite F and p = 0 in the approximation. Iman & Davenport 1980.
    """
    table: NDArray[Any] = np.asarray(scores, dtype=float)
    n, arms = table.shape
    if arms < 3 or n < 2:
        raise ValueError(f"friedman needs at least 2 seeds and 3 arms, not {n} and {arms}")
    if (table == table[:, :1]).all():
        return 0.0, 0.0, 1.0
    chi2 = float(stats.friedmanchisquare(*table.T).statistic)
    rest = n * (arms - 1) - chi2
    f = (n - 1) * chi2 / rest if rest > 1e-9 else math.inf
    return chi2, f, float(stats.f.sf(f, arms - 1, (arms - 1) * (n - 1)))
