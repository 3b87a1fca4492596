"""What the answers behind a score say of a difference: its standard error is not finer than they allow.

A difference d_s of two arms is a mean over Q questions of D_sq, the difference of their scores on question q at seed s:

    D_sq = μ + question_q + seed_s + e_sq,   Var(e) = σ² = σ²_seed×question + σ²_sample / K
    Var(mean d) = (Q σ²_seed + σ²) / (S Q)          the questions are fixed
    E MS_S = Q σ²_seed + σ²,   E MS_E = σ²          mean squares of the two-way table D [S, Q]

The paired t test takes MS_S for Q σ²_seed + σ², with S - 1 degrees of freedom: three seeds may agree by luck far more
closely than two sets of sampled answers can. No variance is negative, so that σ² / (S Q) is the least that Var(mean d)
can be; and σ², at least σ²_sample / K, is known by many degrees of freedom, (S - 1)(Q - 1) and S Q (K - 1).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from experiments.statistics.samples import TIE, Array, differences

Answers: TypeAlias = float | Mapping[str, Mapping[int, ArrayLike]]
"""How many answers every score is the mean of; or {arm: {seed: how many, or the score of each question}}, then [Q] or,
by sample, [Q, K]."""
Basis: TypeAlias = Literal["by question", "by number", "unknown"]
"""What is known of the answers."""


def mean_squares(table: Array) -> tuple[float, float, float]:
    """(MS of rows, MS of columns, residual MS) of a two-way table [S, Q] with one value per cell."""
    S, Q = table.shape
    rows, columns = table.mean(axis=1), table.mean(axis=0)
    residual = table - rows[:, None] - columns[None, :] + table.mean()
    return (
        Q * float(rows.var(ddof=1)),
        S * float(columns.var(ddof=1)),
        float((residual**2).sum()) / ((S - 1) * (Q - 1)),
    )


def noise(d: Array) -> float:
    """σ² of differences D_sq, from d [S, Q], or [S, Q, K] paired by sample: max(MS_E, v / K) for v = mean var_K(d)."""
    if d.ndim == 2 or d.shape[2] == 1:
        variance = mean_squares(d.reshape(d.shape[:2]))[2]
    else:
        variance = max(mean_squares(d.mean(axis=2))[2], float(d.var(axis=2, ddof=1).mean()) / d.shape[2])
    return 0.0 if math.sqrt(variance) <= TIE * np.abs(d).max() else variance  # residuals that are rounding alone


def counted_error(x: Array, y: Array, n_x: Array, n_y: Array) -> float:
    """The least standard error of the mean of x - y [n], shares of right answers among n_x and n_y.

        Var(x_s - y_s) = Σ p̃ (1 - p̃) / N over the two arms,   p̃ = (N p + 1) / (N + 2)

    Binomial and unpaired: where arms share their questions or sampling noise the truth is smaller, by how much a number
    of answers does not show. Laplace's p̃ leaves an arm that is always right a doubt of one answer.
    """
    variances = []
    for p, n in ((x, n_x), (y, n_y)):
        smoothed = (n * p + 1) / (n + 2)
        variances.append(smoothed * (1 - smoothed) / n)
    return math.sqrt(float(np.mean(variances[0] + variances[1])) / x.size)


def least_error(
    answers: Answers | None, pair: tuple[str, str], seeds: Sequence[int], x: Array, y: Array
) -> tuple[float | None, Basis]:
    """The least standard error of the mean of x - y [n], scores of the two arms of `pair` at `seeds`; None: unknown.

    Seeds of which one arm has no answers, as where a failed run has a declared score, are taken to be as noisy as the
    others. By question it takes two seeds and two questions. ValueError: questions that differ in number, a number of
    answers below 1, or one for scores that are no shares in [0, 1].
    """
    if answers is None:
        return None, "unknown"
    if not isinstance(answers, Mapping):
        return _counted(x, y, np.full(x.size, float(answers)), np.full(x.size, float(answers)))
    both = [
        (place, np.asarray(answers[pair[0]][seed], np.float64), np.asarray(answers[pair[1]][seed], np.float64))
        for place, seed in enumerate(seeds)
        if seed in answers.get(pair[0], ()) and seed in answers.get(pair[1], ())
    ]
    if both and all(each.ndim == 0 for _, *arms in both for each in arms):
        at = [place for place, *_ in both]
        n_x, n_y = (np.array([float(row[arm]) for row in both]) for arm in (1, 2))
        error, basis = _counted(x[at], y[at], n_x, n_y)
        return (error * math.sqrt(len(both) / x.size) if error is not None else None), basis
    questions = {each.shape[:1] for _, *arms in both for each in arms}
    if len(questions) > 1 or () in questions:
        counts = " and ".join(str(shape[0]) if shape else "a number of" for shape in sorted(questions))
        raise ValueError(
            f"answers of {pair[0]!r} and {pair[1]!r} to {counts} questions; give the scores of the same questions at "
            "every seed, or the number of answers alone"
        )
    if len(both) < 2 or questions.pop()[0] < 2:
        return None, "unknown"
    if len({each.shape for _, *arms in both for each in arms}) > 1:
        both = [(place, _by_question(a), _by_question(b)) for place, a, b in both]
    d = differences(np.array([a for _, a, _ in both]), np.array([b for _, _, b in both]))
    return math.sqrt(noise(d) / (x.size * d.shape[1])), "by question"


def p_of_answers(mean: float, error: float | None, n: int) -> float | None:
    """Two-sided p of the mean of n differences by the least standard error: P(|T_{n-1}| >= |mean| / error)."""
    if error is None:
        return None
    tiny = float(np.finfo(np.float64).tiny)
    if not error:
        return tiny if mean else 1.0
    return max(2 * float(special.stdtr(n - 1, -abs(mean) / error)), tiny)


def _counted(x: Array, y: Array, n_x: Array, n_y: Array) -> tuple[float | None, Basis]:
    least = min(n_x.min(), n_y.min())
    if not least >= 1 or not np.isfinite([n_x, n_y]).all():
        raise ValueError(f"answers: {least:g} answers behind a score; give how many it is the mean of, 1 or more")
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    if low < 0 or high > 1:
        raise ValueError(
            f"answers: scores from {low:g} to {high:g} are no shares of right answers, from 0 to 1; divide percentages "
            "by 100, or leave the number of answers out"
        )
    return counted_error(x, y, n_x, n_y), "by number"


def _by_question(scores: Array) -> Array:
    return scores if scores.ndim == 1 else scores.mean(axis=1)
