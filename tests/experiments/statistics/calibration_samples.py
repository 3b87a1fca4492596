"""Studies with more samples at their scored evaluations, judged by accuracy and by it less what chance made of it.

A simulated answer is right if all of its `CHOICES` are; each is one of two tokens, of which the likelihood is known and
so the surprise, log p + entropy. One more choice decides nothing. Real answers are those of `real_answers.py`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
from scipy import special

from experiments.statistics import Comparison, Curve, Plan, Trajectory, judge
from experiments.statistics.ability import adjusted
from experiments.statistics.power import minimum_detectable_effect, power
from tests.experiments.statistics.calibration import Row, Simulation, each, never
from tests.experiments.statistics.calibration_answers import (
    ALIKE,
    ALONE,
    MANY,
    RUNS,
    SATURATED,
    Noise,
    claimed,
    is_finer,
)
from tests.experiments.statistics.calibration_fixed import ALPHA, BETTER_OR_WORSE, attained, holds
from tests.experiments.statistics.real_answers import ANSWERS, READINGS, Reading, scores
from tests.experiments.statistics.studies import Array

ITEM: Final = 16
QUESTIONS: Final = 128
SAMPLES: Final = (2, 2, 2, 8, 8, 8)
"""A question, by evaluation: the first is before training, the last three make the score."""
SHAPE: Final = "128 questions x 2 samples, 8 at the last three evaluations"
CHOICES: Final = 4
WIDTH: Final = 0.01
"""How far a rate may be off beside, of a few real runs that stand for all."""
METRICS: Final = ("accuracy", "adjusted_accuracy")

Answers: TypeAlias = tuple[Array, Array]
"""Right or wrong, and surprise: [Q, K] each."""


def comparison(runs: Mapping[tuple[str, int], list[Answers]], metric: str) -> Comparison:
    """The comparison of a study of two arms, from every run's answers by evaluation, by the public entry."""
    trajectories = []
    for (arm, seed), evaluations in runs.items():
        tables = [right if metric == "accuracy" else adjusted(right, c) for right, c in evaluations]
        curve = Curve({"steps": range(len(tables))}, [float(t.mean()) for t in tables], samples=tables, largest=1.0)
        trajectories.append(Trajectory(arm, seed, "finished", {metric: curve}))
    seeds = tuple(dict.fromkeys(seed for _, seed in runs))
    judgement = judge(Plan(metric, "a", seeds, budget=len(evaluations) - 1), trajectories)
    assert judgement is not None
    (found,) = judgement.analysis.comparisons
    return found


# simulated answers


def answered(p: Array, choices: Array) -> Answers:
    """Answers that are right with probability p [Q], from uniform numbers [Q, K, CHOICES + 1]."""
    one = np.concatenate([np.repeat(p[:, None] ** (1 / CHOICES), CHOICES, 1), np.full((len(p), 1), 0.7)], axis=1)
    one = np.clip(one, 1e-9, 1 - 1e-9)[:, None]
    is_right = choices < one
    surprise = np.log(np.where(is_right, one, 1 - one)) + special.entr(one) + special.entr(1 - one)
    return is_right[..., :CHOICES].all(-1).astype(np.float64), surprise.sum(-1)


def study(
    truth: Noise, n: int, rng: np.random.Generator, difference: float = 0.0
) -> dict[tuple[str, int], list[Answers]]:
    """Two arms as `Noise.draw` has them; the second is better by `difference` in truth."""
    free = QUESTIONS - sum(round(share * QUESTIONS) for share in SATURATED)
    right = round(SATURATED[0] * QUESTIONS)
    runs: dict[tuple[str, int], list[Answers]] = {}
    for seed in range(n):
        shared = [rng.random((QUESTIONS, k, CHOICES + 1)) for k in SAMPLES]
        for arm, gain in (("a", 0.0), ("b", difference * QUESTIONS / free)):
            p = np.linspace(0.35, 0.7, free) + gain + truth.run * rng.normal()
            p = p + (rng.uniform(-0.15, 0.15, free) if truth.question else 0.0)
            p = np.concatenate([np.clip(p, 0, 1), np.ones(right), np.zeros(QUESTIONS - free - right)])
            drawn = shared if truth.shared else [rng.random(each.shape) for each in shared]
            runs[arm, seed] = [answered(p, each) for each in drawn]
    return runs


def equal(truth: Noise, n: int, fast: int) -> Simulation:
    def count(rng: np.random.Generator) -> tuple[bool, ...]:
        found = [comparison(drawn, metric) for drawn in [study(truth, n, rng)] for metric in METRICS]
        return tuple(
            event for c in found for event in (claimed(c), no_spread(c) or holds(c.effect.interval, 0.0), is_finer(c))
        )

    level = ALPHA if n < 8 else attained(n)
    rows = [
        row
        for metric in METRICS
        for row in (
            Row(ITEM, f"{metric}: {BETTER_OR_WORSE}", level, "more"),
            Row(ITEM, f"{metric}: 95 % interval holds the truth", 0.95, "less"),
            never(ITEM, f"{metric}: an interval is finer than the answers"),
        )
    ]
    return Simulation(f"two equal arms {truth.text}, {n} seeds, {SHAPE}", each(count), tuple(rows), fast, MANY)


def apart(truth: Noise, n: int, lost: float, gained: float, fast: int) -> Simulation:
    """Arms apart by what the plain t test detects with 80 % power by accuracy."""
    scored = 3 * SAMPLES[-1]
    difference = minimum_detectable_effect(n, ALPHA) * math.sqrt(truth.variance(QUESTIONS, scored))

    def count(rng: np.random.Generator) -> tuple[bool, ...]:
        found = [comparison(drawn, metric) for drawn in [study(truth, n, rng, difference)] for metric in METRICS]
        return (
            *(c.verdict == "better" for c in found),
            *(no_spread(c) or holds(c.effect.interval, difference) for c in found),
        )

    rows = (
        Row(ITEM, f"accuracy: called better: at most {lost:g} less than planned", 0.8 - lost, "less"),
        Row(ITEM, "adjusted_accuracy: called better: no less than planned for accuracy", 0.8 + gained, "less"),
        *(Row(ITEM, f"{metric}: 95 % interval holds the truth", 0.95, "less") for metric in METRICS),
    )
    return Simulation(
        f"two arms {truth.text}, apart by what a t test shows with 80 % power by accuracy, {n} seeds, {SHAPE}",
        each(count),
        rows,
        fast,
        MANY,
    )


def no_spread(c: Comparison) -> bool:
    """All seeds alike: untestable, and there is no interval."""
    return not c.effect.sd_difference


# real runs


ARMS, SEEDS = ANSWERS["weights"].right.shape[:2]


def of_real(arms: Sequence[Sequence[tuple[int, int]]], reading: Reading) -> Comparison:
    """The comparison of two arms of real runs, each by its (arm, place of its seed)."""
    answers, samples = ANSWERS[reading.who], reading.samples
    runs = {
        (name, place): [
            (right[:, :samples], surprise[:, :samples])
            for right, surprise in zip(answers.right[run], answers.surprise[run], strict=True)
        ]
        for name, arm in zip("ab", arms, strict=True)
        for place, run in enumerate(arm)
    }
    return comparison(runs, reading.metric)


def same_recipe(n: int, fast: int) -> Simulation:
    """Two arms of n real runs each, drawn without replacement from those of one recipe."""

    def count(rng: np.random.Generator) -> tuple[bool, ...]:
        recipe, seeds = int(rng.integers(ARMS)), rng.permutation(SEEDS).tolist()
        arms = [[(recipe, seed) for seed in part] for part in (seeds[:n], seeds[n : 2 * n])]
        found = [of_real(arms, reading) for reading in READINGS.values()]
        return tuple(event for c in found for event in (claimed(c), no_spread(c) or holds(c.effect.interval, 0.0)))

    level = ALPHA if n < 8 else attained(n)
    rows = [
        row
        for name in READINGS
        for row in (
            Row(ITEM, f"{name}: {BETTER_OR_WORSE}", level, "more", WIDTH),
            Row(ITEM, f"{name}: 95 % interval holds 0", 0.95, "less", WIDTH),
        )
    ]
    name = f"real runs of one recipe as two arms, {n} seeds each, of {SEEDS}"
    return Simulation(name, each(count), tuple(rows), fast, MANY)


def real_pairs(n: int, lost: float, fast: int) -> Simulation:
    """Two recipes of real runs at n seeds, drawn with replacement: the truth is the mean of all."""
    differences = [other - one for one, other in (scores(reading) for reading in READINGS.values())]
    truths = [float(d.mean()) for d in differences]
    planned = [power(truth / float(d.std()), n) for truth, d in zip(truths, differences, strict=True)]

    def count(rng: np.random.Generator) -> tuple[bool, ...]:
        seeds = rng.integers(SEEDS, size=n).tolist()
        arms = [[(arm, seed) for seed in seeds] for arm in range(2)]
        found = [of_real(arms, reading) for reading in READINGS.values()]
        return tuple(
            event
            for c, truth in zip(found, truths, strict=True)
            for event in (no_spread(c) or holds(c.effect.interval, truth), c.verdict == "better")
        )

    rows = [
        row
        for name, chance in zip(READINGS, planned, strict=True)
        for row in (
            Row(ITEM, f"{name}: 95 % interval holds the mean of all", 0.95, "less", WIDTH),
            Row(ITEM, f"{name}: called better: at most {lost:g} less than planned", chance - lost, "less", WIDTH),
        )
    ]
    name = f"real runs of two recipes, {n} of {SEEDS} pairs drawn with replacement"
    return Simulation(name, each(count), tuple(rows), fast, MANY)


SAMPLED: tuple[Simulation, ...] = (
    *(
        equal(truth, n, fast)
        for truth, n, fast in ((ALONE, 3, 40), (ALIKE, 5, 0), (RUNS, 3, 0), (RUNS, 5, 0), (RUNS, 8, 40))
    ),
    *(
        apart(truth, n, lost, gained, fast)
        for truth, n, lost, gained, fast in (
            (ALONE, 3, 0.08, 0.0, 40),
            (ALONE, 5, 0.08, 0.0, 0),
            (RUNS, 5, 0.02, -0.02, 0),
        )
    ),
    *(same_recipe(n, fast) for n, fast in ((3, 0), (5, 40), (8, 0))),
    *(real_pairs(n, 0.08, fast) for n, fast in ((5, 40),)),
)
