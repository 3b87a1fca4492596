"""Studies whose answers are known: no standard error is finer than they allow; how often verdicts are wrong then."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from experiments.statistics import Comparison, analyze
from experiments.statistics.answers import noise
from experiments.statistics.power import minimum_detectable_effect
from tests.experiments.statistics.calibration import CHUNK, Events, Row, Simulation, never
from tests.experiments.statistics.calibration_fixed import ALPHA, BETTER_OR_WORSE, attained, holds
from tests.experiments.statistics.studies import Array, fixed

SATURATED: Final = (0.4, 0.1)
"""Shares of the questions that every run solves, and that none does."""
QUESTION: Final = 0.15
"""On the others the chance of a right answer varies from run to run by ± this, evenly."""


@dataclass(frozen=True)
class Noise:
    """What two arms have in common and what not, beside answers that are sampled."""

    text: str
    run: float = 0.0
    """The sd of a run's chance of a right answer, on questions that are not saturated."""
    question: bool = True
    shared: bool = False
    """Sampling noise is the seed's, so that arms alike give answers alike: most cells tie."""
    collapsing: bool = False
    """One run in ten loses 0.3."""

    def variance(self, Q: int, K: int) -> float:
        """Of a difference of two arms over the seeds, where they share nothing."""
        free = 1 - sum(SATURATED)
        p = np.linspace(0.35, 0.7, round(free * Q))
        by_question = QUESTION**2 / 3 if self.question else 0.0
        cell = by_question + float((p * (1 - p)).mean() - by_question) / K
        return 2 * free * (free * self.run**2 + cell / Q)

    def draw(self, rng: np.random.Generator, R: int, n: int, Q: int, K: int, difference: float = 0.0) -> Array:
        """Right or wrong [R, 2, n, Q, K]; the second arm is better by `difference` in truth."""
        right, wrong = (round(share * Q) for share in SATURATED)
        free = Q - right - wrong
        p = np.broadcast_to(np.linspace(0.35, 0.7, free), (R, 2, n, free)) + self.run * rng.normal(size=(R, 2, n, 1))
        if self.question:
            p = p + rng.uniform(-QUESTION, QUESTION, size=p.shape)
        if self.collapsing:
            p = p - 0.3 * (rng.random((R, 2, n, 1)) < 0.1)
        p = p + np.array([0.0, difference * Q / free])[:, None, None]
        drawn = rng.random((R, 1 if self.shared else 2, n, free, K)) < p[..., None]
        always = [np.full((R, 2, n, size, K), value) for size, value in ((right, True), (wrong, False))]
        return np.concatenate([drawn, *always], axis=3).astype(np.float64)


ALONE = Noise("whose seeds differ by sampled answers alone", question=False)
RUNS = Noise("whose runs differ", run=0.045)
ALIKE = Noise("nearly alike, with the sampling noise of the seed", run=0.01, shared=True)
COLLAPSING = Noise("whose runs differ, one in ten much worse", run=0.045, collapsing=True)
SHAPES = ((128, 2), (64, 4))


def compared(answers: Array, margin: float = 0.01) -> Comparison:
    """The comparison of a study [2, n, Q, K] by the public entry."""
    arms = {f"a{a}": dict(enumerate(runs)) for a, runs in enumerate(answers)}
    scores = {arm: {seed: float(run.mean()) for seed, run in runs.items()} for arm, runs in arms.items()}
    (c,) = analyze(scores, baseline="a0", margin=margin, answers=arms).comparisons
    return c


def claimed(c: Comparison) -> bool:
    return c.verdict in ("better", "worse")


def by_seeds_alone(c: Comparison) -> bool:
    """Whether a paired t test of the seeds' spread alone rejects."""
    return (
        bool(c.effect.seeds_error)
        and 2 * stats.t.sf(abs(c.effect.mean_difference) / c.effect.seeds_error, c.effect.n - 1) <= ALPHA
    )


def is_finer(c: Comparison) -> bool:
    """Whether some interval is narrower than the t interval that the answers alone allow."""
    least = 2 * stats.t.isf(ALPHA / 2, c.effect.n - 1) * (c.effect.answers_error or math.inf) * (1 - 1e-9)
    return any(each is not None and each[1] - each[0] < least for each in (c.effect.interval, fixed(c).flip_interval))


def studies(answers: Array, count: Callable[[Comparison], tuple[bool, ...]], margin: float = 0.01) -> Events:
    return np.array([count(compared(study, margin)) for study in answers], dtype=np.bool_)


def agreeing(answers: Array) -> Events:
    """Whether the seeds of studies [R, 2, n, Q, K] agree more closely than the answers allow."""
    d = answers[:, 1] - answers[:, 0]
    spread = d.mean(axis=(2, 3)).var(axis=1, ddof=1)
    return np.array([0 < s < noise(each) / each.shape[1] for s, each in zip(spread, d, strict=True)])


def equal(truth: Noise, n: int, Q: int, K: int, fast: int, slow: int) -> Simulation:
    rows = [
        Row(13, BETTER_OR_WORSE, ALPHA if n < 8 else attained(n), "more"),
        Row(13, "95 % interval holds the truth", 0.95, "less"),
        never(13, "an interval is finer than the answers"),
    ]
    flips = [Row(13, "95 % sign-flip interval holds the truth", 0.95, "less")] if n >= 8 else []

    def count(c: Comparison) -> tuple[bool, ...]:
        nothing = not c.effect.sd_difference  # all seeds alike: untestable, and there is no interval
        covered = [nothing or holds(each, 0.0) for each in (c.effect.interval, fixed(c).flip_interval)]
        return claimed(c), covered[0], is_finer(c), *covered[1 : 1 + len(flips)]

    return Simulation(
        f"two equal arms {truth.text}, {n} seeds, {Q} questions x {K} samples",
        lambda rng, R: studies(truth.draw(rng, R, n, Q, K), count),
        (*rows, *flips),
        fast,
        slow,
    )


def lucky(truth: Noise, n: int, ruled: Row, alone: float, fast: int) -> Simulation:
    """Of equal arms, the studies in which the answers give the standard error."""
    Q, K = SHAPES[0]

    def draw(rng: np.random.Generator, R: int) -> Events:
        lucky_draws: list[Array] = []
        while sum(map(len, lucky_draws)) < R:
            drawn = truth.draw(rng, CHUNK, n, Q, K)
            lucky_draws.append(drawn[agreeing(drawn)])
        return studies(np.concatenate(lucky_draws)[:R], lambda c: (claimed(c), by_seeds_alone(c)))

    rows = (ruled, Row(13, "paired t of the seeds alone p ≤ 0.05, as documented", alone, width=0.015))
    name = (
        f"of two equal arms {truth.text}, {n} seeds, {Q} questions x {K} samples: seeds agree better than answers allow"
    )
    return Simulation(name, draw, rows, fast, MANY)


def apart(truth: Noise, n: int, Q: int, K: int, fast: int, slow: int) -> Simulation:
    """Arms that are just not equivalent: apart by a margin of two standard deviations of a difference."""
    margin = 2 * math.sqrt(truth.variance(Q, K))
    row = Row(13, "called equivalent", ALPHA, "more")
    return Simulation(
        f"two arms {truth.text}, apart by the margin, {n} seeds, {Q} questions x {K} samples",
        lambda rng, R: studies(
            truth.draw(rng, R, n, Q, K, margin),
            lambda c: (c.verdict == "equivalent" or c.smaller_than_margin,),
            margin,
        ),
        (row,),
        fast,
        slow,
    )


def powerful(truth: Noise, n: int, Q: int, K: int, lost: float, fast: int, slow: int) -> Simulation:
    """Arms apart by what the plain t test detects with 80 % power."""
    difference = minimum_detectable_effect(n, ALPHA) * math.sqrt(truth.variance(Q, K))
    rows = (
        Row(13, "paired t of the seeds alone p ≤ 0.05; planned", 0.8, width=0.015),
        Row(13, f"called better: at most {lost:g} less", 0.8 - lost, "less"),
    )
    return Simulation(
        f"two arms {truth.text}, apart by what a t test shows with 80 % power, {n} seeds, {Q} questions x {K} samples",
        lambda rng, R: studies(
            truth.draw(rng, R, n, Q, K, difference), lambda c: (by_seeds_alone(c), c.verdict == "better")
        ),
        rows,
        fast,
        slow,
    )


def counted(n: int, N: int, fast: int, slow: int) -> Simulation:
    """Arms of which the number of answers is all that is known."""

    def study(scores: Array) -> tuple[bool, ...]:
        table = {f"a{a}": dict(enumerate(row)) for a, row in enumerate(scores.tolist())}
        (c,) = analyze(table, baseline="a0", answers=N).comparisons
        return claimed(c), not c.effect.sd_difference or holds(c.effect.interval, 0.0), is_finer(c)

    rows = (
        Row(13, BETTER_OR_WORSE, ALPHA if n < 8 else attained(n), "more"),
        Row(13, "95 % interval holds the truth", 0.95, "less"),
        never(13, "an interval is finer than the answers"),
    )
    return Simulation(
        f"two equal arms, {n} seeds, of each {N} answers whose number alone is known",
        lambda rng, R: np.array([study(each) for each in rng.binomial(N, 0.9, (R, 2, n)) / N]),
        rows,
        fast,
        slow,
    )


# which standard error: rules that were not taken, beside the one that was


def half_widths(n: int, seeds: Array, answers: Array) -> Mapping[str, Array]:
    """Half the width of a 95 % interval by each rule, from the standard errors of seeds [R] and answers [R]."""
    t, z = (float(stats.t.isf(ALPHA / 2, df)) for df in (n - 1, math.inf))
    prior = 4
    moderated = np.sqrt((prior * answers**2 + (n - 1) * seeds**2) / (prior + n - 1))
    return {
        "the seeds alone, t": t * seeds,
        "the larger error, t (the rule)": t * np.maximum(seeds, answers),
        "the larger of t with the seeds' and z with the answers'": np.maximum(t * seeds, z * answers),
        "z with the answers' where it is larger, else t (Satterthwaite)": np.where(
            seeds < answers, z * answers, t * seeds
        ),
        "moderated t, a prior of 4 degrees of freedom": float(stats.t.isf(ALPHA / 2, prior + n - 1)) * moderated,
    }


def rules(n: int, ratio: float, only_agreeing: bool, effect: float, rates: tuple[float, ...]) -> Simulation:
    """Normal seeds; `ratio`: the variance of runs over that of their answers, which is 1 and known."""

    def draw(rng: np.random.Generator, R: int) -> Events:
        total = math.sqrt((1 + ratio) / n)
        seeds = total * np.sqrt(rng.chisquare(n - 1, 40 * R) / (n - 1))
        if only_agreeing:
            seeds = seeds[seeds < math.sqrt(1 / n)]
        seeds = seeds[:R]
        assert seeds.size == R
        mean = total * (effect * math.sqrt(n) + rng.normal(size=R))
        return np.stack(
            [np.abs(mean) > h for h in half_widths(n, seeds, np.full(R, math.sqrt(1 / n))).values()], axis=1
        )

    what = "power" if effect else "rejects"
    names = half_widths(n, np.ones(1), np.ones(1))
    rows = tuple(Row(14, f"{what}: {name}", rate, width=0.01) for name, rate in zip(names, rates, strict=True))
    whose = ", seeds agree better than answers allow" if only_agreeing else ""
    description = "apart by what a t test shows with 80 % power" if effect else "equal"
    description += (
        f", runs vary {ratio:g} times what their answers do" if ratio else ", seeds differ by sampled answers alone"
    )
    return Simulation(f"{n} normal differences of arms {description}{whose}", draw, rows, 2000, 20_000)


MANY: Final = 600
"""Studies a simulation by `make calibrate`; there are many simulations."""
WRONG: Final = Row(13, BETTER_OR_WORSE, ALPHA, "more")
FAST: Final = {(3, 128, ALONE): 300, (5, 64, RUNS): 200, (4, 128, ALIKE): 200, (8, 64, COLLAPSING): 100}

ANSWERS: tuple[Simulation, ...] = (
    *(
        equal(truth, n, Q, K, FAST.get((n, Q, truth), 0), MANY)
        for truth in (ALONE, RUNS, ALIKE, COLLAPSING)
        for Q, K in SHAPES
        for n in (3, 4, 5, 8)
    ),
    *(counted(n, N, fast, MANY) for n, N, fast in ((3, 768, 200), (5, 256, 0), (8, 256, 0))),
    *(
        apart(truth, n, Q, K, fast, MANY)
        for truth, n, Q, K, fast in (
            (ALONE, 3, 128, 2, 200),
            (ALONE, 5, 64, 4, 0),
            (RUNS, 3, 128, 2, 0),
            (RUNS, 4, 64, 4, 0),
            (RUNS, 5, 128, 2, 0),
            (RUNS, 8, 64, 4, 0),
        )
    ),
    *(
        powerful(truth, n, Q, K, lost, fast, MANY)
        for truth, n, Q, K, lost, fast in (
            (ALONE, 3, 128, 2, 0.08, 200),
            (ALONE, 4, 128, 2, 0.08, 0),
            (ALONE, 5, 64, 4, 0.08, 0),
            (ALONE, 8, 128, 2, 0.1, 0),
            (RUNS, 3, 128, 2, 0.02, 0),
            (RUNS, 5, 64, 4, 0.02, 0),
            (RUNS, 8, 128, 2, 0.05, 0),
        )
    ),
    lucky(ALONE, 3, WRONG, 0.08, 200),
    lucky(ALONE, 5, WRONG, 0.083, 0),
    lucky(ALONE, 8, WRONG, 0.083, 0),
    lucky(RUNS, 3, WRONG, 0.128, 0),
    lucky(RUNS, 5, Row(13, BETTER_OR_WORSE, ALPHA, "more", 0.01), 0.16, 0),
    lucky(RUNS, 8, Row(13, f"{BETTER_OR_WORSE}, as documented", 0.093, width=0.015), 0.17, 0),
    *(
        rules(*each)
        for each in (
            (3, 1.0, False, 0.0, (0.05, 0.001, 0.028, 0.065, 0.07)),
            (3, 1.0, True, 0.0, (0.128, 0.002, 0.072, 0.165, 0.119)),
            (3, 0.0, False, minimum_detectable_effect(3, ALPHA), (0.80, 0.75, 0.80, 0.81, 1.00)),
            (5, 1.0, False, 0.0, (0.05, 0.021, 0.039, 0.051, 0.072)),
            (5, 1.0, True, 0.0, (0.16, 0.05, 0.118, 0.165, 0.147)),
            (5, 0.0, False, minimum_detectable_effect(5, ALPHA), (0.80, 0.74, 0.80, 0.81, 0.92)),
            (8, 1.0, False, 0.0, (0.05, 0.037, 0.044, 0.048, 0.067)),
            (8, 1.0, True, 0.0, (0.17, 0.093, 0.139, 0.165, 0.161)),
            (8, 0.0, False, minimum_detectable_effect(8, ALPHA), (0.80, 0.75, 0.79, 0.80, 0.85)),
        )
    ),
)
