"""Two levels of noise: training seeds, and the questions and samples of the final evaluation.

A benchmark score varies because training was repeated, because its questions are a sample, because runs differ
on which questions they solve, and because answers are sampled. What a study claims decides what counts:

    fixed questions           "on this benchmark": `paired_t` over seeds, on differences averaged over questions
    population of questions   "on problems like these": `crossed_t`, seeds and questions both random

More questions or samples never replace seeds: the first term of the variance shrinks with seeds alone. Either claim has
one standard error: the root of the sum of its terms, none of which is below 0 (`answers.py` says why).
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from experiments.statistics.answers import mean_squares, noise
from experiments.statistics.paired import TINY
from experiments.statistics.samples import TIE, Array, Interval, check_level, differences

Doubled = Literal["seeds", "questions", "samples"]
WORTH_SAMPLING: Final = 0.1
"""Share of sampling noise in the variance below which more samples a question are not worth their cost."""


@dataclass(frozen=True)
class VarianceComponents:
    """Estimates of the four terms of Var(mean d), in the squared unit of the score.

        Var(mean d) = σ²_seed / S + σ²_question / Q + σ²_seed×question / (S Q) + σ²_sampling / (S Q K)

    Each field holds its whole term, divisor included. Estimates below 0, which chance produces where a component is
    small, are set to 0 and named in `truncated`. The claim "on this benchmark" leaves out the question term.
    `standard_error` is that of the verdict on the claim: `Effect.standard_error`.
    """

    seed: float
    question: float
    seed_question: float
    sampling: float
    truncated: tuple[str, ...]

    @property
    def total(self) -> float:
        """Var(mean d): the sum of the four terms."""
        return self.seed + self.question + self.seed_question + self.sampling

    @property
    def standard_error(self) -> float:
        """√Var(mean d), in the unit of the score."""
        return math.sqrt(self.total)

    @property
    def sampling_share(self) -> float:
        """Share of the total that more samples can remove; 0 for total 0."""
        return self.sampling / self.total if self.total else 0.0

    @property
    def on_these_questions(self) -> "VarianceComponents":
        """Of the claim "on this benchmark": without the question term."""
        return replace(self, question=0.0)

    def doubling(self) -> dict[Doubled, tuple[float, float]]:
        """Standard error (before, after) if only the number of seeds, of questions, or of samples were doubled."""
        both = self.seed_question + self.sampling
        saved: dict[Doubled, float] = {
            "seeds": (self.seed + both) / 2,
            "questions": (self.question + both) / 2,
            "samples": self.sampling / 2,
        }
        return {what: (self.standard_error, math.sqrt(self.total - half)) for what, half in saved.items()}


class CrossedT(NamedTuple):
    """The t test of a mean difference; `seeds_only` says that the paired t over seeds stood in.

    Differences without spread carry no evidence: p = 1, and neither df nor interval.
    """

    mean: float
    standard_error: float
    df: float | None
    p: float
    interval: Interval | None
    seeds_only: bool


def variance_components(x: ArrayLike, y: ArrayLike) -> VarianceComponents:
    """Split the variance of the mean difference x - y of two arms; x and y are [S, Q, K], paired by seed and question.

    With D [S, Q] the differences of the means over K samples, and MS the mean squares of its two-way table:

        seed = (MS_S - σ²) / (S Q)             seed×question = (MS_E - v / K) / (S Q)
        question = (MS_Q - σ²) / (S Q)         sampling = v / (S Q K)
        σ² = max(MS_E, v / K),   v = mean over cells of var_K(x - y), which divides by K - 1

    Samples are paired as well, so that noise which two arms share is none of their difference; unpaired ones may come
    in any order. Unbiased before truncation. ValueError: shapes differ or are not [S >= 2, Q >= 2, K >= 2], non-finite
    scores.
    """
    x, y = _table(x, 3, "variance_components"), _table(y, 3, "variance_components")
    if x.shape != y.shape:
        raise ValueError(f"variance_components: shapes {x.shape} and {y.shape} differ; give both arms the same cells")
    S, Q, K = x.shape
    if K < 2:
        raise ValueError(
            "variance_components: with 1 sample per question sampling noise cannot be told from seed×question; "
            "evaluate with 2 samples or more, or use crossed_t, which needs no such split"
        )
    rows, columns, residual = mean_squares(differences(x.mean(axis=2), y.mean(axis=2)))
    d = differences(x, y)
    within, error = float(d.var(axis=2, ddof=1).mean()) / K, noise(d)
    raw = {
        "seed": rows - error,
        "question": columns - error,
        "seed_question": residual - within,
        "sampling": within,
    }
    terms = {name: max(0.0, value) / (S * Q) for name, value in raw.items()}
    return VarianceComponents(**terms, truncated=tuple(name for name, value in raw.items() if value < 0))


def crossed_t(cells: ArrayLike, level: float = 0.95, families: Sequence[Hashable] | None = None) -> CrossedT:
    """Test the mean of `cells`, differences D [S, Q], with seeds and questions both random: "on problems like these".

        Var = (MS_S + MS_Q - MS_E) / (S Q)
        df = (MS_S + MS_Q - MS_E)² / (MS_S² / (S-1) + MS_Q² / (Q-1) + MS_E² / ((S-1)(Q-1)))
        MS_S = Q var_s(D_s·), at least MS_E,   MS_Q = S var_q(D_·q),   MS_E = two-way residual

    If Var < MS_S / (S Q) the paired t over seeds stands in, Var = MS_S / (S Q) with S - 1 df. D by sample, [S, Q, K],
    is averaged over samples first; MS_E is then at least their variance, v / K (`variance_components`). `families` [Q]
    names the template or source of each question: related questions are averaged, and families take the place of
    questions. For a claim on these very questions use `paired_t(D.mean(axis=1))`. ValueError: not [S >= 2, Q >= 2]
    after averaging, non-finite, wrong number of families. Satterthwaite 1946.
    """
    check_level("level", level)
    samples = np.asarray(cells, dtype=np.float64)
    table = _table(samples if samples.ndim < 3 else samples.mean(axis=2), 2, "crossed_t")
    if families is not None:
        table = _table(_family_means(table, families), 2, "crossed_t, questions averaged by family")
    S, Q = table.shape
    rows, columns, residual = mean_squares(table)
    if families is None and samples.ndim == 3:
        residual = noise(samples)
    rows = max(rows, residual)
    seeds_only = columns < residual
    spread = rows if seeds_only else rows + columns - residual
    mean, error = float(table.mean()), math.sqrt(spread / (S * Q))
    if error <= TIE * np.abs(table).max():
        return CrossedT(mean, 0.0, None, 1.0, None, seeds_only)
    crossed = rows**2 / (S - 1) + columns**2 / (Q - 1) + residual**2 / ((S - 1) * (Q - 1))
    df = S - 1.0 if seeds_only else spread**2 / crossed
    p = 2 * float(special.stdtr(df, -abs(mean / error)))
    half_width = float(special.stdtrit(df, (1 + level) / 2)) * error
    return CrossedT(mean, error, df, max(p, TINY), (mean - half_width, mean + half_width), seeds_only)


def _table(values: ArrayLike, dimensions: int, what: str) -> Array:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != dimensions:
        raise ValueError(f"{what}: expected an array of {dimensions} axes, got shape {table.shape}")
    if min(table.shape[:2]) < 2:
        raise ValueError(f"{what}: shape {table.shape}; at least 2 seeds and 2 questions are needed")
    if not np.isfinite(table).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(table))[0])
        raise ValueError(f"{what}: the score at {where} is {table[where]}; replace or leave out failed runs first")
    return table


def _family_means(table: Array, families: Sequence[Hashable]) -> Array:
    """Average the columns of table [S, Q] that share a family: [S, number of families]."""
    if len(families) != table.shape[1]:
        raise ValueError(f"crossed_t: {len(families)} families for {table.shape[1]} questions; name one per question")
    members: dict[Hashable, list[int]] = {}
    for question, family in enumerate(families):
        members.setdefault(family, []).append(question)
    return np.column_stack([table[:, questions].mean(axis=1) for questions in members.values()])
