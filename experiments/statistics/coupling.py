"""What identical seeds buy: the precision of a paired comparison against one of unrelated runs.

Arms that share initialisation, prompts and sampling noise tend to be lucky together. That part of the noise leaves
their difference, so fewer seeds settle it; how many fewer follows from the scores of the two arms alone.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from experiments.statistics.samples import TIE, Array, Interval, check_level, differences, is_constant, sample


@dataclass(frozen=True)
class Coupling:
    """Two arms over n shared seeds; variances are of the mean difference, in the metric's unit squared.

        variance_paired   = var(x - y) / n
        variance_unpaired = (var(x) + var(y)) / n          what n unrelated runs per arm would give
        ratio             = variance_paired / variance_unpaired,   1 - ρ for arms of equal variance
        equivalent_unpaired_seeds = n / ratio              runs per arm that give the paired precision unpaired

    var divides by n - 1. A ratio above 1 means that pairing harmed. At few seeds all of this is an estimate as
    rough as `correlation_interval` is wide. None stands for what is not defined: the correlation below 3 seeds or
    of an arm without spread, its interval below 4 seeds or at ±1, the ratio when neither arm has spread, and the
    equivalent seeds when the differences have none (no number of unpaired seeds would be as precise).
    """

    n: int
    correlation: float | None
    correlation_interval: Interval | None
    variance_paired: float
    variance_unpaired: float
    ratio: float | None
    equivalent_unpaired_seeds: float | None


def coupling(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> Coupling:
    """Compare the paired with the unpaired variance for scores x [n] and y [n] of two arms, in the same seed order.

    `level` is that of the interval for the correlation, tanh(artanh r ± z_{(1+level)/2} / √(n-3)), which takes
    scores to be normal (Fisher 1921). ValueError: n < 2, lengths differ, a non-finite score, level outside (0, 1).
    """
    x, y = sample(x, least=2, what="coupling"), sample(y, least=2, what="coupling")
    if x.size != y.size:
        raise ValueError(f"coupling: {x.size} scores against {y.size}; give both arms on the same seeds, in one order")
    check_level("level", level)
    r = correlation(x, y)
    paired = _variance(differences(x, y)) / x.size
    unpaired = (_variance(x) + _variance(y)) / x.size
    ratio = paired / unpaired if unpaired else None
    return Coupling(
        n=x.size,
        correlation=r,
        correlation_interval=_fisher_interval(r, x.size, level),
        variance_paired=paired,
        variance_unpaired=unpaired,
        ratio=ratio,
        equivalent_unpaired_seeds=x.size / ratio if ratio else None,
    )


def _variance(x: Array) -> float:
    return 0.0 if is_constant(x) else float(x.var(ddof=1))


def correlation(x: Array, y: Array) -> float | None:
    """Pearson's r of scores x and y [n]; None below 3 seeds, and where an arm has no spread."""
    if x.size < 3 or is_constant(x) or is_constant(y):
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _fisher_interval(r: float | None, n: int, level: float) -> Interval | None:
    if r is None or n < 4 or 1 - abs(r) <= TIE:
        return None
    half_width = float(special.ndtri((1 + level) / 2)) / math.sqrt(n - 3)
    return math.tanh(math.atanh(r) - half_width), math.tanh(math.atanh(r) + half_width)
