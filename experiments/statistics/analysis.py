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

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from experiments.statistics.answers import Answers, least_error
from experiments.statistics.measure import measure_crossed, measure_fixed
from experiments.statistics.multiplicity import holm, max_t
from experiments.statistics.records import (
    Analysis,
    ArmSummary,
    Comparison,
    Effect,
    Family,
    FixedN,
    Label,
    Questions,
    Verdict,
)
from experiments.statistics.rule import ANSWERS_TEST, T_SEEDS, Rule
from experiments.statistics.samples import Array, check_level, differences, is_constant
from experiments.statistics.scalars import interquartile_mean
from experiments.statistics.wording import answers_notes, comparison_notes, removal_notes, sentence, small_n_note


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

    `answers` is what the scores are means of: {arm: {seed: score of each question [Q], or by sample [Q, K]}},
    the same questions everywhere, or the number of answers. No standard error, interval or p is then finer than these
    allow (`answers.py`); without it they rest on how far the seeds agree.

    `questions`: "population" makes the claim one about questions like these, not these questions, and takes `answers`
    by question for every score. Seeds and questions are then both a sample, and `crossed_t` decides at any n.
    `families` [Q] names the template or source of each question, where related ones are to count as one.

    `largest` is the largest difference that the metric can have; no sentence asks for a larger one.

    `planned`: how many comparisons were declared, where not all can be made yet; p by t is adjusted for so many.

    Raises ValueError: fewer than 2 arms, unknown baseline or family, non-finite score, no shared seed, alpha
    outside (0, 0.5), margin <= 0, answers that cannot be those of the scores.
    """
    _check(scores, baseline, alpha, margin, family, questions)
    seeds, removed = _shared_seeds(scores)
    table = {arm: np.array([float(runs[s]) for s in seeds]) for arm, runs in scores.items()}
    pairs = _pairs(list(table), baseline, family)
    m, crossed = max(len(pairs), planned or 0), questions == "population"
    rule = Rule(metric, axis, alpha, margin, higher_is_better, len(seeds), m, largest, crossed)
    measured = _measure(table, seeds, pairs, rule, seed, answers, families)
    comparisons = _decide(measured, _columns(pairs, table), rule, seed)
    arms = tuple(summary(arm, x) for arm, x in table.items())
    notes = (*removed, *_notes(rule, comparisons, families))
    return Analysis(
        metric, axis, baseline, alpha, margin, family, higher_is_better, seeds, arms, tuple(comparisons), notes
    )


def _check(
    scores: Mapping[str, Mapping[int, float]], baseline: str, alpha: float, margin: float, family: str, questions: str
) -> None:
    if len(scores) < 2:
        raise ValueError(f"analyze: {len(scores)} arm(s) given; a comparison needs at least 2")
    if baseline not in scores:
        near = sorted(scores, key=lambda arm: -SequenceMatcher(None, arm, baseline).ratio())
        raise ValueError(f"analyze: unknown baseline {baseline!r}; the arms are {', '.join(near)}")
    if family not in ("baseline", "all"):
        raise ValueError(f"analyze: unknown family {family!r}; choose 'baseline' or 'all'")
    if questions not in ("fixed", "population"):
        raise ValueError(f"analyze: unknown questions {questions!r}; choose 'fixed' or 'population'")
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
    """The sorted seeds that every arm has, and notes on the others."""
    planned = sorted({int(seed) for runs in scores.values() for seed in runs})
    missing = {arm: [seed for seed in planned if seed not in runs] for arm, runs in scores.items()}
    shared = tuple(seed for seed in planned if all(seed in runs for runs in scores.values()))
    if not shared:
        counts = ", ".join(f"{arm} {sorted(runs)}" for arm, runs in scores.items())
        raise ValueError(f"analyze: no seed is shared by all arms ({counts}); run every arm on one list of seeds")
    return shared, removal_notes(missing, len(planned))


def _pairs(arms: Sequence[str], baseline: str, family: Family) -> list[tuple[str, str]]:
    """The comparisons of the family, (arm, baseline)."""
    others = [arm for arm in arms if arm != baseline]
    rest = combinations(others, 2) if family == "all" else ()
    return [*((arm, baseline) for arm in others), *((arm, reference) for reference, arm in rest)]


def _measure(
    table: Mapping[str, Array],
    seeds: Sequence[int],
    pairs: Sequence[tuple[str, str]],
    rule: Rule,
    seed: int,
    answers: Answers | None,
    families: Sequence[str] | None,
) -> list[tuple[str, str, Effect, FixedN]]:
    """Every pair by itself, with raw p-values."""
    cells = _cells(answers, table, seeds) if rule.crossed else {}
    measured = []
    for arm, baseline in pairs:
        x, y = table[arm], table[baseline]
        effect, fixed = measure_fixed(x, y, rule, seed, *least_error(answers, (arm, baseline), seeds, x, y))
        if rule.crossed and effect.interval is not None:
            effect, fixed = measure_crossed(effect, differences(cells[arm], cells[baseline]), rule, families)
        measured.append((arm, baseline, effect, fixed))
    return measured


def _notes(rule: Rule, comparisons: Sequence[Comparison], families: Sequence[str] | None) -> list[str]:
    """What to know of the comparisons beside their verdicts."""
    notes = []
    if rule.crossed and families:
        notes.append(
            f"Questions come in {len(set(families))} families, which take their place in the test: differences are "
            "means over families of the mean over a family's questions."
        )
    small_n = small_n_note(rule, comparisons)
    notes += [*([small_n] if small_n else []), *answers_notes(comparisons)]
    for comparison in comparisons:
        notes += comparison_notes(comparison)
    return notes


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
    for arm, per_seed in rows.items():
        if any(not row.ndim for row in per_seed):
            raise ValueError(
                f"analyze: arm {arm!r} lacks the score of each question at some seed, which a claim about questions "
                "like these takes; leave out questions='population'"
            )
    if len({row.shape for per_seed in rows.values() for row in per_seed}) > 1:
        rows = {arm: [row if row.ndim == 1 else row.mean(axis=1) for row in per_seed] for arm, per_seed in rows.items()}
    return {arm: np.array(per_seed) for arm, per_seed in rows.items()}


def _decide(
    measured: Sequence[tuple[str, str, Effect, FixedN]], columns: Array, rule: Rule, seed: int
) -> list[Comparison]:
    """Adjust p over the family, then settle the verdict and its sentence."""
    if rule.n < T_SEEDS:
        return [_worded(Comparison(*each), rule) for each in measured]
    fixed = [each[3] for each in measured]
    padding = [1.0] * (rule.m - len(measured))
    by_t = holm([*(f.p_t or 1.0 for f in fixed), *padding]).tolist()
    by_flips = max_t(columns, np.random.default_rng(seed)).tolist() if not rule.crossed else [None] * len(measured)
    by_answers = holm([*(f.p_answers or 0.0 for f in fixed), *padding]).tolist()
    equivalence = holm([*(f.p_equivalence or 1.0 for f in fixed), *padding]).tolist()
    decided = []
    for (arm, baseline, effect, raw), p_t, p_flip, p_answers, p_equivalence in zip(
        measured, by_t, by_flips, by_answers, equivalence, strict=False
    ):
        adjusted_p = max(p_flip, p_answers) if rule.flips else p_t
        rests_on_t = not rule.flips or p_answers > p_flip
        verdict, label = _verdict(
            effect, adjusted_p, p_equivalence, "model-based" if rests_on_t else "distribution-free", rule
        )
        settled = Comparison(
            arm,
            baseline,
            effect,
            replace(raw, adjusted_p_t=p_t, adjusted_p_flip=p_flip, p_equivalence=p_equivalence),
            verdict=verdict,
            label=label,
            test="" if label == "descriptive" else ANSWERS_TEST if rule.flips and rests_on_t else rule.test,
            adjusted_p=adjusted_p,
            smaller_than_margin=verdict in ("better", "worse") and p_equivalence <= rule.alpha,
        )
        decided.append(_worded(settled, rule))
    return decided


def _worded(comparison: Comparison, rule: Rule) -> Comparison:
    return replace(comparison, sentence=sentence(comparison, rule))


def _verdict(effect: Effect, p: float, p_equivalence: float, label: Label, rule: Rule) -> tuple[Verdict, Label]:
    if not effect.sd_difference:
        return "untestable", "descriptive"
    if p <= rule.alpha:
        return ("better" if (effect.mean_difference > 0) == rule.higher_is_better else "worse"), label
    if p_equivalence <= rule.alpha:
        return "equivalent", "model-based"  # TOST is a t test at any n
    return "inconclusive", label
