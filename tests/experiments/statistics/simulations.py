"""Simulated studies whose error rates, power and coverage are known or measured: noise in, rates out.

Every function takes R, the number of replicates, and a seed, so that the fast tests and a longer calibration run
share them. A rate p from R replicates has a Monte-Carlo standard error of √(p (1 - p) / R).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from experiments.statistics.betting import anytime_interval, log_e_process
from experiments.statistics.checkpoints import compare_checkpoints
from experiments.statistics.paired import paired_t
from experiments.statistics.racing import RaceState, race
from experiments.statistics.records import Analysis, Family
from experiments.statistics.two_level import crossed_t

Array = NDArray[np.float64]

NULLS = ("normal", "t3", "cauchy", "exponential", "collapsing", "30 items")


def band(p: float, R: int) -> float:
    return 3 * math.sqrt(p * (1 - p) / R)


def noise(kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Scores of runs; arms that all have them are exchangeable within a seed."""
    if kind == "normal":
        return rng.normal(size=shape)
    if kind == "t3":
        return rng.standard_t(3, size=shape)
    if kind == "cauchy":
        return rng.standard_cauchy(size=shape)
    if kind == "exponential":
        return rng.exponential(size=shape)
    if kind == "lognormal":
        return rng.lognormal(size=shape)
    if kind == "collapsing":  # one run in ten loses ten standard deviations
        return rng.normal(size=shape) - 10.0 * (rng.random(shape) < 0.1)
    if kind == "30 items":
        return rng.binomial(30, 0.6, shape) / 30
    raise ValueError(kind)


def null_differences(kind: str, R: int, n: int, rng: np.random.Generator) -> Array:
    """Differences [R, n] of arms that are exchangeable within a seed; "skewed" alone has mean 0 but no symmetry."""
    if kind == "skewed":
        return rng.exponential(size=(R, n)) - 1
    x, y = noise(kind, rng, (2, R, n))
    return np.asarray(x - y)


def ever_rejected(d: Array, alpha: float = 0.05) -> NDArray[np.bool_]:
    """Whether E reached 1/α by each prefix of d [R, n]."""
    return np.asarray(np.maximum.accumulate(log_e_process(d), axis=-1) >= -math.log(alpha))


def false_race_rates(kind: str, R: int, seed: int = 0) -> tuple[float, float]:
    """P(ever reject) by n = 20 and n = 50."""
    ever = ever_rejected(null_differences(kind, R, 50, np.random.default_rng([seed, *kind.encode()])))
    return float(ever[:, 19].mean()), float(ever[:, 49].mean())


def race_power(d_z: float, R: int, seed: int = 0) -> tuple[float, float, float]:
    """P(reject by n = 10), P(reject by n = 20), mean number of seeds used when at most 20 are."""
    d = np.random.default_rng([seed, round(100 * d_z)]).normal(d_z, 1.0, (R, 20))
    ever = ever_rejected(d)
    return float(ever[:, 9].mean()), float(ever[:, 19].mean()), float(20 - ever[:, :-1].sum(axis=1).mean())


def peeked_t(d: Array) -> NDArray[np.bool_]:
    """Whether some paired t among those after 3, 4, ..., n seeds rejects at 0.05, for each row of d [R, n]."""
    k = np.arange(1, d.shape[1] + 1)
    mean = d.cumsum(axis=1) / k
    variance = ((d**2).cumsum(axis=1) / k - mean**2)[:, 2:] * (k / np.maximum(k - 1, 1))[2:]
    t = np.abs(mean[:, 2:]) / np.sqrt(variance / k[2:])
    return np.asarray((t >= stats.t.isf(0.025, k[2:] - 1)).any(axis=1))


def peeking_t_rate(R: int, n: int, seed: int = 0) -> float:
    """P(some paired t among those after 3, 4, ..., n seeds rejects at 0.05), with no true difference."""
    return float(peeked_t(np.random.default_rng(seed).normal(size=(R, n))).mean())


def interval_coverage(R: int, n: int, seed: int = 0) -> float:
    """Share of anytime intervals after n normal differences that hold 0: at n, every earlier one is used too."""
    d = np.random.default_rng(seed).normal(size=(R, n))
    intervals = [anytime_interval(row) for row in d]
    return sum(i is not None and i[0] < 0 < i[1] for i in intervals) / R


def races(
    shifts: tuple[float, ...], R: int, *, family: Family = "all", margin: float = 1e-6, seed: int = 0
) -> Iterator[RaceState]:
    """Races over at most 20 seeds of arms a0 (the baseline), a1, ... with normal scores around `shifts`."""
    rng = np.random.default_rng([seed, len(shifts)])
    for scores in rng.normal(size=(R, len(shifts), 20)) + np.array(shifts)[:, None]:
        table = {f"a{k}": dict(enumerate(row.tolist())) for k, row in enumerate(scores)}
        yield race(table, seeds=range(20), baseline="a0", family=family, margin=margin)


def false_claims(state: RaceState | Analysis, shifts: tuple[float, ...]) -> bool:
    """Whether a difference is claimed where there is none, or in the wrong direction; arm ak is better by shifts[k]."""
    gains = [(c.verdict, shifts[int(c.arm[1:])] - shifts[int(c.baseline[1:])]) for c in state.comparisons]
    return any((verdict == "better" and g <= 0) or (verdict == "worse" and g >= 0) for verdict, g in gains)


@dataclass(frozen=True)
class Evaluation:
    """Two arms of one algorithm, evaluated: S seeds, Q questions, K samples; logit-scale standard deviations."""

    S: int
    Q: int
    K: int = 4
    question: float = 1.5
    run: float = 0.2
    run_question: float = 0.5
    variant_question: float = 0.0

    def draw(self, R: int, rng: np.random.Generator) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """R pairs of counts of correct samples, each [S, Q] out of K."""
        S, Q = self.S, self.Q
        for _ in range(R):
            logits = self.question * rng.normal(size=(1, 1, Q)) + self.variant_question * rng.normal(size=(2, 1, Q))
            logits = logits + self.run * rng.normal(size=(2, S, 1)) + self.run_question * rng.normal(size=(2, S, Q))
            correct = rng.binomial(self.K, special.expit(logits))
            yield correct[0], correct[1]


def two_level_rates(evaluation: Evaluation, R: int, seed: int = 0) -> tuple[float, float, float]:
    """False positives at 0.05 of the paired t over seeds, of the crossed t, and of one pair of checkpoints."""
    rng = np.random.default_rng([seed, evaluation.S, evaluation.Q, round(10 * evaluation.variant_question)])
    wrong = np.zeros(3)
    for x, y in evaluation.draw(R, rng):
        cells = (x - y) / evaluation.K
        checkpoints = compare_checkpoints(x[0][:, None] / evaluation.K, y[0][:, None] / evaluation.K)
        p = (paired_t(cells.mean(axis=1))[0], crossed_t(cells).p, checkpoints.p_t)
        wrong += np.array(p) <= 0.05
    seeds, crossed, one_seed = (wrong / R).tolist()
    return seeds, crossed, one_seed
