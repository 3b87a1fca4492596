"""How far a judge's values agree with gold verdicts, on M questions with N responses each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from experiments.statistics.samples import Array, Interval, check_level

BINS = 5


@dataclass(frozen=True)
class PairShare:
    """The share of pairs of different gold verdicts in which the right response has the higher value; ties are half."""

    value: float | None
    """None without such a pair."""
    pairs: int
    interval: Interval | None = None
    """Over questions; None below two of them."""


@dataclass(frozen=True)
class Bin:
    """Responses with a value in [low, high), the last closed: how many, their mean value, the share that is right."""

    low: float
    high: float
    responses: int
    value: float
    right: float


@dataclass(frozen=True)
class Agreement:
    """Of a judge with gold verdicts."""

    questions: int
    responses: int
    unjudged: int
    """Responses without a value, left out of everything else."""
    right: float | None
    """Share of the responses that are right: what a judge that always says so has for accuracy."""
    accuracy: float | None
    """Share of the responses of which "value over 1/2" is the gold verdict."""
    overall: PairShare
    """Over all pairs (the area under the ROC curve)."""
    within: PairShare
    """Over pairs that answer the same question: what group-relative advantages are made of."""
    calibration: tuple[Bin, ...]
    calibration_error: float | None
    """Mean over responses of |mean value - share right| of their bin (ECE, Naeini et al. 2015)."""


def agreement(values: ArrayLike, right: ArrayLike, level: float = 0.95) -> Agreement:
    """Agreement of `values` [M, N] in [0, 1], NaN where there is none, with the gold verdicts `right` [M, N] bool.

    The interval of `within` is of a ratio of sums over questions, w_q wins in n_q pairs (linearised, t with M' - 1
    degrees of freedom for the M' questions that have pairs):

        r = sum w_q / sum n_q,   r ± t sqrt(M' / (M' - 1) sum (w_q - r n_q)^2) / sum n_q

    cut to [0, 1]. ValueError for shapes that differ or a level outside (0, 1).
    """
    v, gold = np.asarray(values, dtype=np.float64), np.asarray(right, dtype=bool)
    if v.shape != gold.shape or v.ndim != 2:
        raise ValueError(f"agreement: values {v.shape} and verdicts {gold.shape}; expected the same shape [M, N]")
    check_level("level", level)
    judged = np.isfinite(v)
    flat, verdicts = v[judged], gold[judged]
    wins = [_wins(row[k & g], row[k & ~g]) for row, k, g in zip(v, judged, gold, strict=True)]
    bins = _bins(flat, verdicts)
    return Agreement(
        questions=len(v),
        responses=v.size,
        unjudged=int((~judged).sum()),
        right=_mean(verdicts),
        accuracy=_mean((flat > 0.5) == verdicts),
        overall=_share([_wins(flat[verdicts], flat[~verdicts])], level),
        within=_share(wins, level),
        calibration=bins,
        calibration_error=sum(b.responses * abs(b.value - b.right) for b in bins) / flat.size if flat.size else None,
    )


def _mean(x: Array) -> float | None:
    return float(x.mean()) if x.size else None


def _wins(high: Array, low: Array) -> tuple[float, int]:
    """Pairs won, ties as half, and pairs."""
    d = high[:, None] - low
    return float((d > 0).sum() + (d == 0).sum() / 2), d.size


def _share(wins: Sequence[tuple[float, int]], level: float) -> PairShare:
    w, n = (np.array(column, dtype=np.float64) for column in zip(*[x for x in wins if x[1]] or [(0, 0)], strict=True))
    pairs = int(n.sum())
    if not pairs:
        return PairShare(None, 0)
    r = float(w.sum() / pairs)
    if len(w) < 2:
        return PairShare(r, pairs)
    half = stats.t.ppf((1 + level) / 2, len(w) - 1) * np.sqrt(len(w) / (len(w) - 1) * ((w - r * n) ** 2).sum()) / pairs
    return PairShare(r, pairs, (max(0.0, r - float(half)), min(1.0, r + float(half))))


def _bins(values: Array, right: Array) -> tuple[Bin, ...]:
    """Equal parts of [0, 1] that have responses."""
    place = np.minimum((values * BINS).astype(int), BINS - 1)
    return tuple(
        Bin(b / BINS, (b + 1) / BINS, int(inside.sum()), float(values[inside].mean()), float(right[inside].mean()))
        for b in range(BINS)
        if (inside := place == b).any()
    )
