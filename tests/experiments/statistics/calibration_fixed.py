"""Studies with a fixed number of seeds: error rates, power, coverage, equivalence, two levels of noise."""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, special, stats

from experiments.statistics import Comparison, Judgement, power, seeds_needed
from experiments.statistics.bootstrap import percentile_interval
from experiments.statistics.checkpoints import CAVEAT, compare_checkpoints
from experiments.statistics.records import Family
from tests.experiments.statistics.calibration import Events, Row, Simulation, each, never
from tests.experiments.statistics.simulations import Evaluation, false_claims
from tests.experiments.statistics.studies import (
    SD,
    STEPS,
    UNTRAINED,
    Array,
    claims,
    curves,
    fixed,
    of_runs,
    of_table,
    only,
)
from tests.experiments.statistics.test_power import SEEDS

Counts: TypeAlias = NDArray[np.int64]

ALPHA = 0.05
AGREEMENT = re.compile(r"no (significant )?difference|\bequal|same|equivalent|identical", re.IGNORECASE)
BETTER_OR_WORSE = "called better or worse"


def attained(n: int) -> float:
    """The level of a sign-flip test of one comparison without ties, whose p has steps of 2 / 2^n."""
    flips: int = 2 ** (n - 1)
    return math.floor(ALPHA * flips) / flips


def rejects(p: float | None) -> bool:
    return p is not None and p <= ALPHA


def holds(interval: tuple[float, float] | None, truth: float) -> bool:
    return interval is not None and interval[0] < truth < interval[1]


def reads_as_agreement(judgement: Judgement) -> bool:
    """Whether an inconclusive comparison is worded as if the arms agreed; "at equal steps" is about the budget."""
    sentences = [c.sentence for c in judgement.analysis.comparisons if c.verdict == "inconclusive"]
    return any(AGREEMENT.search(sentence.replace("at equal steps", "")) for sentence in sentences)


def notes_the_limit_of_five_seeds(judgement: Judgement) -> bool:
    note_part = "0.0625 > 0.05 — no data could be significant without assuming normality"
    return any(note_part in note for note in judgement.analysis.notes)


# equal arms


def few_equal_arms(n: int, rng: np.random.Generator) -> tuple[bool, ...]:
    """Too few for an exact test at 0.05; the t test decides."""
    judgement = of_table(curves("normal", 2, n, rng))
    c = only(judgement)
    events = (
        claims(judgement.analysis),
        rejects(fixed(c).p_flip),
        rejects(fixed(c).p_wilcoxon),
        holds(c.effect.interval, 0.0),
        reads_as_agreement(judgement),
    )
    if n != 5:
        return events
    x, y = (np.array(arm.scores) for arm in judgement.analysis.arms)
    percentile = percentile_interval(y - x, resamples=499, rng=rng)
    return (*events, holds(percentile, 0.0), not notes_the_limit_of_five_seeds(judgement))


def many_equal_arms(n: int, rng: np.random.Generator) -> tuple[bool, ...]:
    """Enough for the sign flips, which decide."""
    judgement = of_table(curves("normal", 2, n, rng))
    c = only(judgement)
    return (
        claims(judgement.analysis),
        rejects(fixed(c).p_t),
        rejects(fixed(c).p_wilcoxon),
        holds(c.effect.interval, 0.0),
        holds(fixed(c).flip_interval, 0.0),
        reads_as_agreement(judgement),
    )


def odd_equal_arms(kind: str, n: int, rng: np.random.Generator) -> tuple[bool, ...]:
    judgement = of_table(curves(kind, 2, n, rng))
    return claims(judgement.analysis), rejects(fixed(only(judgement)).p_t)


def skewed_arms(n: int, rng: np.random.Generator) -> tuple[bool, ...]:
    """Equal means, different shapes: one arm is exponential, the other constant."""
    values = np.full((2, n, len(STEPS)), UNTRAINED)
    values[:, :, 1:] = 1.0
    values[1, :, 1:] = rng.exponential(size=n)[:, None]
    return (claims(of_table(values).analysis),)


WORDS = never(11, "an inconclusive comparison reads as agreement")
PERCENTILE = Row(5, "percentile bootstrap interval holds the truth, as documented", 0.835, width=0.016)
NO_SENTENCE = never(11, "the sentence on what five seeds cannot show is missing")


def equal(n: int, fast: int, slow: int) -> Simulation:
    name = f"two equal arms, normal, {n} seeds, as a table"
    if n < 8:
        rows = (
            Row(1, f"{BETTER_OR_WORSE} (paired t)", ALPHA),
            never(1, "sign-flip p ≤ 0.05"),
            never(1, "Wilcoxon p ≤ 0.05"),
            Row(5, "95 % t interval holds the truth", 0.95),
            WORDS,
            *((PERCENTILE, NO_SENTENCE) if n == 5 else ()),
        )
        return Simulation(name, each(partial(few_equal_arms, n)), rows, fast, slow)
    rows = (
        Row(1, f"{BETTER_OR_WORSE} (sign flips; the attainable level)", attained(n)),
        Row(1, "paired t p ≤ 0.05", ALPHA),
        Row(1, "Wilcoxon p ≤ 0.05", ALPHA, "more"),
        Row(5, "95 % t interval holds the truth", 0.95),
        Row(5, "95 % sign-flip interval holds the truth", 0.95, "less"),
        WORDS,
    )
    return Simulation(name, each(partial(many_equal_arms, n)), rows, fast, slow)


KINDS = {
    "lognormal": "lognormal",
    "collapsing": "one run in ten loses 10 sd",
    "30 items": "accuracy on 30 items (ties)",
}


def odd(kind: str, n: int, fast: int, slow: int) -> Simulation:
    rows = (Row(2, BETTER_OR_WORSE, ALPHA, "more"), Row(2, "paired t p ≤ 0.05", ALPHA, "more"))
    name = f"two equal arms, {KINDS[kind]}, {n} seeds, as a table"
    return Simulation(name, each(partial(odd_equal_arms, kind, n)), rows, fast, slow)


def skewed(n: int, documented: float, fast: int, slow: int) -> Simulation:
    """Outside the null that the tests are about; the rate is what the documentation warns of."""
    row = Row(2, f"{BETTER_OR_WORSE}, as documented: shapes are not covered", documented, width=0.01)
    name = f"equal means, exponential against constant, {n} seeds, as a table"
    return Simulation(name, each(partial(skewed_arms, n)), (row,), fast, slow)


# families


def family_of(arms: int, n: int, family: Family, better: int, rng: np.random.Generator) -> tuple[bool, ...]:
    """The last arms gain 1.5 sd of a run's noise."""
    shifts = (*[0.0] * (arms - better), *[1.5 * SD / math.sqrt(2)] * better)
    judgement = of_runs(curves("normal", arms, n, rng, shifts), family=family)
    return false_claims(judgement.analysis, shifts), reads_as_agreement(judgement)


def families(arms: int, n: int, family: Family, better: int, fast: int, slow: int) -> Simulation:
    truth = f"{better} of {arms} arms better" if better else f"{arms} equal arms"
    name = f"{truth}, {'against the baseline' if family == 'baseline' else 'all pairs'}, {n} seeds"
    rows = (Row(3, "any false better or worse", ALPHA, "more"), WORDS)
    return Simulation(name, each(partial(family_of, arms, n, family, better)), rows, fast, slow)


# power and equivalence


def shifted_arm(
    n: int, d_z: float, count: Callable[[Comparison], tuple[bool, ...]]
) -> Callable[[np.random.Generator], tuple[bool, ...]]:
    return lambda rng: count(only(of_runs(curves("normal", 2, n, rng, (0.0, d_z * SD)))))


def planned(n: int, d_z: float, fast: int, slow: int) -> Simulation:
    by_t = power(d_z, n)
    name = f"a true difference of {d_z:g} sd, {n} seeds"
    if n < 8:
        rows = [Row(4, "called better; planned: power", by_t)]
        flips = n == 6 and d_z == 1
        if flips:
            rows.append(Row(4, "sign-flip p ≤ 0.05, as documented", 0.35, width=0.01))
        return Simulation(
            name,
            each(
                shifted_arm(n, d_z, lambda c: (c.verdict == "better", *([rejects(fixed(c).p_flip)] if flips else ())))
            ),
            tuple(rows),
            fast,
            slow,
        )
    rows = [
        Row(4, "paired t p ≤ 0.05; planned: power", by_t),
        Row(4, "called better (sign flips): at most 0.025 less than the t test", by_t - 0.025, "less"),
    ]
    count = each(shifted_arm(n, d_z, lambda c: (rejects(fixed(c).p_t), c.verdict == "better")))
    return Simulation(name, count, tuple(rows), fast, slow)


def table_of_seeds(rng: np.random.Generator, R: int) -> Events:
    entries = [(d_z, ALPHA / m, n) for d_z, row in SEEDS.items() for m, n in zip((1, 3, 7, 28), row, strict=True)]
    assert len(entries) == R
    return np.array(
        [
            (seeds_needed(d_z, alpha) != n, not power(d_z, n - 1, alpha) < 0.8 <= power(d_z, n, alpha))
            for d_z, alpha, n in entries
        ]
    )


def chance_of_equivalence(n: int, ratio: float) -> float:
    """P(TOST p <= α) for no true difference and a margin of ratio sd, integrated over the observed sd."""
    t, shift = float(stats.t.isf(ALPHA, n - 1)), ratio * math.sqrt(n)

    def given(r: float) -> float:
        density = 2 * (n - 1) * r * stats.chi2.pdf((n - 1) * r * r, n - 1)
        return float(density * (2 * special.ndtr(shift - t * r) - 1))

    return float(integrate.quad(given, 0.0, shift / t)[0])


def margins(n: int, ratio: float, apart: bool, fast: int, slow: int) -> Simulation:
    """Arms that are just not equivalent (apart by the margin), or equal."""

    def study(rng: np.random.Generator) -> tuple[bool, ...]:
        values = curves("normal", 2, n, rng, (0.0, ratio * SD * apart))
        c = only(of_runs(values, margin=ratio * SD))
        return (c.verdict == "equivalent" or c.smaller_than_margin,)

    nominal = ALPHA if apart else chance_of_equivalence(n, ratio)
    truth = "a true difference of the margin" if apart else "no true difference, margin"
    row = Row(6, "called equivalent" if apart else "called equivalent; planned", nominal, "more" if apart else "both")
    return Simulation(f"{truth}, {ratio:g} sd, {n} seeds", each(study), (row,), fast, slow)


# two levels of noise


def answered(x: Counts, y: Counts, K: int) -> tuple[Array, Array]:
    """Curves [2, S, N] and answers [2, S, Q, K] from counts of right answers, each [S, Q]."""
    answers = (np.arange(K) < np.stack([x, y])[..., None]).astype(np.float64)
    values = np.full((*answers.shape[:2], len(STEPS)), UNTRAINED)
    values[:, :, 1:] = answers.mean(axis=(2, 3))[:, :, None]
    return values, answers


def two_levels(evaluation: Evaluation, rng: np.random.Generator) -> tuple[bool, ...]:
    x, y = next(evaluation.draw(1, rng))
    values, answers = answered(x, y, evaluation.K)
    fixed, population = (of_runs(values, answers, questions=q) for q in ("fixed", "population"))
    one_seed = compare_checkpoints(answers[0, 0], answers[1, 0])
    return claims(fixed.analysis), claims(population.analysis), CAVEAT not in one_seed.sentence, rejects(one_seed.p_t)


def questions(
    setting: str, evaluation: Evaluation, fixed: Row, population: float, checkpoints: Row | None, fast: int, slow: int
) -> Simulation:
    """`population`: how far a claim about questions like these may be off."""
    e = evaluation
    rows = [
        fixed,
        Row(7, f"{BETTER_OR_WORSE} in a claim about questions like these", ALPHA, "more", population),
        never(7, "two checkpoints compared without the caveat"),
        *([checkpoints] if checkpoints else []),
    ]
    events = partial(two_levels, evaluation)
    name = f"two equal arms{setting}, {e.S} seeds, {e.Q} questions, {e.K} samples"
    return Simulation(name, each(lambda rng: events(rng)[: len(rows)]), tuple(rows), fast, slow)


ON_THESE = f"{BETTER_OR_WORSE} in a claim about these questions"
WRONG_CLAIM = f"{ON_THESE}, as documented: not what is meant"
ONE_SEED = "two checkpoints called different"
OTHER_SKILLS = " that solve different questions"
FAST_FAMILIES: dict[tuple[int, int, Family, int], int] = {
    (4, 5, "baseline", 0): 250,
    (4, 8, "all", 2): 150,
    (8, 8, "baseline", 3): 100,
}
SLOW_FAMILIES: tuple[tuple[int, Family, int], ...] = (
    (4, "baseline", 20_000),
    (4, "all", 3000),
    (8, "baseline", 2500),
    (8, "all", 1000),
)

FIXED: tuple[Simulation, ...] = (
    equal(3, 300, 20_000),
    equal(5, 2000, 20_000),
    equal(8, 2000, 20_000),
    equal(10, 200, 20_000),
    equal(20, 20, 3000),
    *(
        odd(kind, n, fast, slow)
        for kind in KINDS
        for n, fast, slow in ((5, 200, 10_000), (8, 150, 10_000), (10, 0, 10_000), (20, 0, 1500))
    ),
    skewed(5, 0.115, 150, 10_000),
    skewed(8, 0.097, 0, 10_000),
    *(
        families(arms, n, family, better, FAST_FAMILIES.get((arms, n, family, better), 0), slow)
        for arms, family, slow in SLOW_FAMILIES
        for better in (0, 2 if arms == 4 else 3)
        for n in (5, 8, 10)
    ),
    planned(5, 1.0, 500, 20_000),
    planned(5, 1.5, 500, 20_000),
    planned(6, 1.0, 0, 10_000),
    planned(8, 1.0, 200, 10_000),
    planned(10, 1.0, 200, 10_000),
    planned(20, 0.5, 20, 1500),
    Simulation(
        "the 28 entries of the table of seeds for 80 % power",
        table_of_seeds,
        (never(4, "`seeds_needed` gives another number"), never(4, "not power(n - 1) < 0.8 ≤ power(n)")),
        28,
        28,
    ),
    *(
        margins(n, ratio, True, fast, slow)
        for n, ratio, fast, slow in (
            (5, 1.0, 500, 10_000),
            (5, 2.0, 0, 10_000),
            (10, 1.0, 0, 10_000),
            (20, 1.0, 0, 1500),
        )
    ),
    *(
        margins(n, ratio, False, fast, slow)
        for n, ratio, fast, slow in ((5, 1.5, 0, 10_000), (10, 1.0, 0, 5000), (10, 1.5, 200, 10_000))
    ),
    questions(
        "",
        Evaluation(5, 500),
        Row(7, ON_THESE, ALPHA, "more"),
        0.015,
        Row(7, f"{ONE_SEED}, as documented", 0.55, width=0.05),
        200,
        1000,
    ),
    questions(
        " without a run effect",
        Evaluation(5, 500, run=0.0),
        Row(7, ON_THESE, ALPHA, "more"),
        0.015,
        Row(7, ONE_SEED, ALPHA, width=0.005),
        0,
        1000,
    ),
    questions("", Evaluation(10, 100), Row(7, ON_THESE, attained(10), "more"), 0.0, None, 0, 1000),
    questions(
        OTHER_SKILLS,
        Evaluation(5, 100, variant_question=0.7),
        Row(7, WRONG_CLAIM, 0.08, width=0.02),
        0.005,
        None,
        150,
        1000,
    ),
    questions(
        OTHER_SKILLS,
        Evaluation(10, 30, 8, variant_question=0.7),
        Row(7, WRONG_CLAIM, 0.25, width=0.03),
        0.005,
        None,
        0,
        1000,
    ),
)
