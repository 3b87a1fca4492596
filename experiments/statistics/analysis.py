"""The decision procedure: scores by arm and seed in, verdicts out.

The test is chosen by the number of seeds alone, since a choice that looks at the data (a normality check, say)
has no error rate one could state:

    seeds    verdict decided by                                       label
    1-2      nothing                                                  descriptive
    3-7      paired t, Holm over the family                           model-based
    8-20     step-down max-T over all joint sign flips                distribution-free
    > 20     the same over 99,999 random flips                        distribution-free

Where the answers behind the scores are known, no standard error is finer than they allow (`answers.py`), and from 8
seeds on a difference must also be one by a t test with that standard error.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from experiments.statistics.answers import Answers, Basis, least_error, p_of_answers
from experiments.statistics.coupling import correlation
from experiments.statistics.effects import hedges_j, probability_of_improvement, win_rate
from experiments.statistics.multiplicity import holm, max_t
from experiments.statistics.paired import TINY, paired_t, standard_error, tost, widened, wilcoxon_exact
from experiments.statistics.power import minimum_detectable_effect
from experiments.statistics.records import Analysis, ArmSummary, Comparison, Family, Label, Questions, Verdict
from experiments.statistics.samples import Array, Interval, check_level, differences, is_constant, mean_difference
from experiments.statistics.scalars import interquartile_mean
from experiments.statistics.sign_flips import sign_flip_interval, sign_flip_p
from experiments.statistics.two_level import crossed_t
from experiments.statistics.wording import (
    ANSWERS_TEST,
    FLIP_SEEDS,
    POWER,
    T_SEEDS,
    Rule,
    answers_notes,
    comparison_notes,
    removal_notes,
    sentence,
    small_n_note,
)


def analyze(
    scores: Mapping[str, Mapping[int, float]],
    *,
    baseline: str,
    metric: str = "final",
    axis: str = "",
    alpha: float = 0.05,
    margin: float = 0.01,
    family: Family = "baseline",
    higher_is_better: bool = True,
    answers: Answers | None = None,
    questions: Questions = "fixed",
    families: Sequence[str] | None = None,
    planned: int | None = None,
    largest: float = math.inf,
    seed: int = 0,
) -> Analysis:
    """Judge `scores`, {arm: {seed: score}}, by differences paired by seed; one verdict per comparison.

    A comparison is `better` or `worse` when its adjusted p <= alpha (see the table above), else `equivalent`
    when TOST with Holm gives p <= alpha for `margin`, the smallest difference of interest in the metric's unit,
    else `inconclusive`. It is `untestable` below 3 seeds and where all differences agree. The family is every
    arm against the baseline, m = V - 1, or all pairs, m = V(V - 1)/2. Seeds that some arm lacks leave every
    arm, and a note says so. `axis` names what was equal when the scores were taken (steps, sampled tokens). `seed`
    starts the generator of the random flips; all comparisons share the flips.

    `answers` tells what the scores are means of: {arm: {seed: score of each question [Q], or by sample [Q, K]}},
    the same questions everywhere, or the number of answers. No standard error, interval or p is then finer than these
    allow (`answers.py`); without it they rest on how far the seeds agree.

    `questions`: "population" makes the claim one about questions like these, not these questions, and takes `answers`
    by question for every score. Seeds and questions are then both a sample, and `crossed_t` decides at any n.
    `families` [Q] names the template or source of each question, where related ones are to count as one.

    `largest` is the largest difference that the metric can have; nobody is told to look for a larger one.

    `planned`: how many comparisons were declared, where not all can be made yet; p by t is adjusted for so many.

    Raises ValueError: fewer than 2 arms, unknown baseline or family, non-finite score, no shared seed, alpha
    outside (0, 0.5), margin <= 0, answers that cannot be those of the scores.
    """
    _check(scores, baseline, alpha, margin, family)
    seeds, notes = _shared_seeds(scores)
    table = {arm: np.array([float(runs[s]) for s in seeds]) for arm, runs in scores.items()}
    others = [arm for arm in table if arm != baseline]
    pairs = [(arm, baseline) for arm in others]
    if family == "all":
        pairs += [(arm, reference) for reference, arm in combinations(others, 2)]
    if questions not in ("fixed", "population"):
        raise ValueError(f"analyze: unknown questions {questions!r}; choose 'fixed' or 'population'")
    rule = Rule(
        metric,
        axis,
        alpha,
        margin,
        higher_is_better,
        n=len(seeds),
        m=max(len(pairs), planned or 0),
        largest=largest,
        crossed=questions == "population",
    )

    measured = []
    for pair in pairs:
        found = least_error(answers, pair, seeds, table[pair[0]], table[pair[1]])
        measured.append(_measure(pair, table, rule, seed, *found))
    if rule.crossed:
        cells = _cells(answers, table, seeds)
        measured = [_over_questions(c, differences(cells[c.arm], cells[c.baseline]), rule, families) for c in measured]
        if families:
            notes.append(
                f"Questions come in {len(set(families))} families, which take their place in the test: differences are "
                "means over families of the mean over a family's questions."
            )
    comparisons = _decide(measured, _columns(pairs, table), rule, seed)
    small_n = small_n_note(rule, comparisons)
    notes += [*([small_n] if small_n else []), *answers_notes(comparisons)]
    for comparison in comparisons:
        notes += comparison_notes(comparison)
    return Analysis(
        metric=metric,
        axis=axis,
        baseline=baseline,
        alpha=alpha,
        margin=margin,
        family=family,
        higher_is_better=higher_is_better,
        seeds=seeds,
        arms=tuple(summary(arm, x) for arm, x in table.items()),
        comparisons=tuple(comparisons),
        notes=tuple(notes),
    )


def _check(scores: Mapping[str, Mapping[int, float]], baseline: str, alpha: float, margin: float, family: str) -> None:
    if len(scores) < 2:
        raise ValueError(f"analyze: {len(scores)} arm(s) given; a comparison needs at least 2")
    if baseline not in scores:
        near = sorted(scores, key=lambda arm: -SequenceMatcher(None, arm, baseline).ratio())
        raise ValueError(f"analyze: unknown baseline {baseline!r}; the arms are {', '.join(near)}")
    if family not in ("baseline", "all"):
        raise ValueError(f"analyze: unknown family {family!r}; choose 'baseline' or 'all'")
    check_level("alpha", alpha, high=0.5)
    check_level("margin", margin, high=math.inf)
    for arm, runs in scores.items():
        if not runs:
            raise ValueError(f"analyze: arm {arm!r} has no seeds; leave it out or run it")
        for seed, score in runs.items():
            if not isinstance(seed, int | np.integer):
                raise ValueError(f"analyze: arm {arm!r} has seed {seed!r}; seeds are integers")
            if not _is_finite(score):
                raise ValueError(
                    f"analyze: arm {arm!r}, seed {seed}: score {score} is not a finite number; "
                    "give a failed run its declared floor score, or leave the seed out if the machine failed"
                )


def _is_finite(score: object) -> bool:
    return isinstance(score, int | float | np.integer | np.floating) and math.isfinite(score)


def _shared_seeds(scores: Mapping[str, Mapping[int, float]]) -> tuple[tuple[int, ...], list[str]]:
    """The sorted seeds that every arm has, and what to say about the others."""
    planned = sorted({int(seed) for runs in scores.values() for seed in runs})
    missing = {arm: [seed for seed in planned if seed not in runs] for arm, runs in scores.items()}
    shared = tuple(seed for seed in planned if all(seed in runs for runs in scores.values()))
    if not shared:
        counts = ", ".join(f"{arm} {sorted(runs)}" for arm, runs in scores.items())
        raise ValueError(f"analyze: no seed is shared by all arms ({counts}); run every arm on one list of seeds")
    return shared, removal_notes(missing, len(planned))


def summary(arm: str, scores: ArrayLike) -> ArmSummary:
    """An arm's scores [n] in brief."""
    x = np.asarray(scores, dtype=np.float64)
    return ArmSummary(
        arm=arm,
        n=x.size,
        mean=float(x.mean()),
        sd=float(x.std(ddof=1)) if x.size > 1 else None,
        interquartile_mean=interquartile_mean(x),
        minimum=float(x.min()),
        maximum=float(x.max()),
        scores=tuple(x.tolist()),
    )


def _columns(pairs: Sequence[tuple[str, str]], table: Mapping[str, Array]) -> Array:
    """Differences [n, m] as the joint test takes them: a constant column carries no information, so it is 0."""
    columns = [differences(table[arm], table[reference]) for arm, reference in pairs]
    return np.column_stack([np.zeros_like(d) if is_constant(d) else d for d in columns])


def _cells(answers: Answers | None, table: Mapping[str, Array], seeds: Sequence[int]) -> dict[str, Array]:
    """The score of each question by arm, [S, Q], or [S, Q, K] where all have K samples."""
    rows = {
        arm: [np.asarray(answers[arm].get(s, math.nan), dtype=np.float64) for s in seeds]
        if isinstance(answers, Mapping) and arm in answers
        else [np.asarray(math.nan)]
        for arm in table
    }
    for arm, found in rows.items():
        if any(not row.ndim for row in found):
            raise ValueError(
                f"analyze: arm {arm!r} lacks the score of each question at some seed, which a claim about questions "
                "like these takes; leave out questions='population'"
            )
    if len({row.shape for found in rows.values() for row in found}) > 1:
        rows = {arm: [row if row.ndim == 1 else row.mean(axis=1) for row in found] for arm, found in rows.items()}
    return {arm: np.array(found) for arm, found in rows.items()}


def _measure(
    pair: tuple[str, str], table: Mapping[str, Array], rule: Rule, seed: int, answers_error: float | None, basis: Basis
) -> Comparison:
    """All that concerns one pair alone: effects, intervals and raw p-values. The verdict is still open."""
    x, y = (table[arm] for arm in pair)
    n, d = x.size, differences(x, y)
    better = 1.0 if rule.higher_is_better else -1.0
    constant = is_constant(d)
    testable = n >= T_SEEDS and not constant
    no_evidence = 1.0 if n >= T_SEEDS else None

    mean = mean_difference(d)
    least = answers_error or 0.0
    sd = None if n < 2 else 0.0 if constant else float(d.std(ddof=1))
    error = standard_error(d, least) if n > 1 else None
    spread = error * math.sqrt(n) if error and sd else None
    d_z = mean / spread if spread else None
    p_t, interval = paired_t(d, 1 - rule.alpha, least) if testable else (no_evidence, None)
    return Comparison(
        arm=pair[0],
        baseline=pair[1],
        n=n,
        mean_difference=mean,
        sd_difference=sd,
        standard_error=error,
        answers_error=answers_error,
        answers=basis,
        correlation=correlation(x, y),
        interval=interval,
        simultaneous_interval=paired_t(d, 1 - rule.family_alpha, least)[1] if testable else None,
        flip_interval=_flip_interval(d, rule.alpha, seed, least) if testable else None,
        p_t=p_t,
        p_flip=sign_flip_p(d, np.random.default_rng(seed)) if testable else no_evidence,
        p_wilcoxon=wilcoxon_exact(d) if testable else no_evidence,
        p_answers=p_of_answers(mean, answers_error, n) if testable else None,
        adjusted_p_t=None,
        adjusted_p_flip=None,
        adjusted_p=None,
        p_equivalence=tost(d, rule.margin, least) if testable else no_evidence,
        d_z=d_z,
        g_z=d_z * hedges_j(n) if d_z is not None and n >= T_SEEDS else None,
        d_av=_d_av(mean, x, y),
        win_rate=win_rate(better * d),
        probability_of_improvement=probability_of_improvement(better * x, better * y),
        detectable=minimum_detectable_effect(n, rule.family_alpha, POWER) * spread if spread else None,
        seeds_for_margin=rule.seeds_for(spread) if spread else None,
        seeds_for_margin_high=rule.seeds_for(rule.upper_sd(spread)) if spread else None,
        equal_shift=n >= 2 and constant and mean != 0,
        verdict="untestable",
        label="descriptive",
        test="",
        smaller_than_margin=False,
        sentence="",
    )


def _over_questions(c: Comparison, cells: Array, rule: Rule, families: Sequence[str] | None) -> Comparison:
    """The comparison with seeds and questions both random; cells [S, Q] are its differences."""
    if c.interval is None:
        return c
    crossed = crossed_t(cells, 1 - rule.alpha, families)
    simultaneous = crossed_t(cells, 1 - rule.family_alpha, families).interval
    mean = crossed.mean if families else c.mean_difference
    p_equivalence = 1.0
    if crossed.df is not None:
        p_equivalence = float(special.stdtr(crossed.df, (abs(crossed.mean) - rule.margin) / crossed.standard_error))
    return dataclasses.replace(
        c,
        mean_difference=mean,
        standard_error=crossed.standard_error,
        p_t=crossed.p,
        interval=crossed.interval,
        simultaneous_interval=simultaneous,
        flip_interval=None,
        p_flip=None,
        p_wilcoxon=None,
        p_answers=None,
        p_equivalence=max(p_equivalence, TINY),
        detectable=None,
        seeds_for_margin=None,
        seeds_for_margin_high=None,
    )


def _decide(measured: Sequence[Comparison], columns: Array, rule: Rule, seed: int) -> list[Comparison]:
    """Adjust p over the family, then settle the verdict and its sentence."""
    if rule.n < T_SEEDS:
        return [dataclasses.replace(c, sentence=sentence(c, rule)) for c in measured]
    not_made = [1.0] * (rule.m - len(measured))
    by_t = holm([*(c.p_t or 1.0 for c in measured), *not_made]).tolist()
    by_flips = max_t(columns, np.random.default_rng(seed)).tolist() if not rule.crossed else [None] * len(measured)
    by_answers = holm([*(c.p_answers or 0.0 for c in measured), *not_made]).tolist()
    equivalence = holm([*(c.p_equivalence or 1.0 for c in measured), *not_made]).tolist()
    decided = []
    for c, p_t, p_flip, p_answers, p_equivalence in zip(
        measured, by_t, by_flips, by_answers, equivalence, strict=False
    ):
        primary = max(p_flip, p_answers) if rule.flips else p_t
        by_t_alone = not rule.flips or p_answers > p_flip
        verdict, label = _verdict(c, primary, p_equivalence, "model-based" if by_t_alone else "distribution-free", rule)
        settled = dataclasses.replace(
            c,
            adjusted_p_t=p_t,
            adjusted_p_flip=p_flip,
            adjusted_p=primary,
            p_equivalence=p_equivalence,
            verdict=verdict,
            label=label,
            test="" if label == "descriptive" else ANSWERS_TEST if rule.flips and by_t_alone else rule.test,
            smaller_than_margin=verdict in ("better", "worse") and p_equivalence <= rule.alpha,
        )
        decided.append(dataclasses.replace(settled, sentence=sentence(settled, rule)))
    return decided


def _verdict(c: Comparison, p: float, p_equivalence: float, label: Label, rule: Rule) -> tuple[Verdict, Label]:
    if not c.sd_difference:
        return "untestable", "descriptive"
    if p <= rule.alpha:
        return ("better" if (c.mean_difference > 0) == rule.higher_is_better else "worse"), label
    if p_equivalence <= rule.alpha:
        return "equivalent", "model-based"  # TOST is a t test at any n
    return "inconclusive", label


def _d_av(mean: float, x: Array, y: Array) -> float | None:
    spread = math.sqrt((x.var(ddof=1) + y.var(ddof=1)) / 2) if x.size > 1 else 0.0
    return mean / spread if spread and not (is_constant(x) and is_constant(y)) else None


def _flip_interval(d: Array, alpha: float, seed: int, least: float) -> Interval | None:
    """The inverted sign-flip test, where n suffices for a bounded interval; no finer than the answers allow."""
    if d.size < FLIP_SEEDS:
        return None
    interval = sign_flip_interval(d, 1 - alpha, np.random.default_rng(seed))
    return widened(interval, d, 1 - alpha, least) if math.isfinite(interval[0]) else None
