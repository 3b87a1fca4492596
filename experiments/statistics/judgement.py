"""A whole study judged as it was planned: runs in, verdicts out, with everything a verdict might depend on beside it.

    runs (curves) -> one number a run -> failures settled -> paired by seed -> verdicts
                                                              and again: the other failure policy, the other budget
                                                              axes, other scalars

Nothing here knows where the runs come from: a study's folder, or anybody's table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from experiments.statistics.analysis import analyze
from experiments.statistics.answers import Answers
from experiments.statistics.bootstrap import MIN_SEEDS, bootstrap_t_interval
from experiments.statistics.coupling import Coupling, coupling
from experiments.statistics.exploration import Exploratory, explore
from experiments.statistics.grown import Grown, Look, grown
from experiments.statistics.outcomes import Outcomes, collapse_warnings, failure_notes, outcomes, pending_notes
from experiments.statistics.paired import widened
from experiments.statistics.predictions import ClaimVerdict, assess
from experiments.statistics.records import Analysis, Comparison, to_plain
from experiments.statistics.runs import (
    CLOCK,
    POLICIES,
    Plan,
    Policy,
    Trajectory,
    answers_of,
    arms_of,
    check,
    least_spent,
    scores,
)
from experiments.statistics.samples import Array, Interval, differences
from experiments.statistics.scalars import last_evaluations
from experiments.statistics.sequential import Sequential, analyze_sequentially
from experiments.statistics.sharpening import Beside, beside, sharpening_warnings
from experiments.statistics.two_level import VarianceComponents, variance_components
from experiments.statistics.wording import MANY_REMOVED, T_SEEDS, removal_notes

SHORT: Final = 0.1
"""Share of the budget that a run may leave unspent without a word: steps are not divisible."""

DECIDED: Final = frozenset(("better", "worse", "equivalent"))


@dataclass(frozen=True)
class Judgement:
    """The verdicts of a study, and whether they hold when something beside the method is looked at differently.

    A study that is raced or has looks knows no fixed-n p: `policies`, `axes` and `exploratory` are empty there.
    """

    plan: Plan
    analysis: Analysis
    """As declared: metric, scalar, axis, budget, failure policy, racing."""
    sequential: Sequential | None
    """How far a race or a study with looks has come, and why it ended."""
    policies: Mapping[str, Analysis | None]
    """The same under each failure policy; None where nothing is left to compare."""
    axes: Mapping[str, Analysis | None]
    """The same at equal budgets on each axis that was recorded."""
    outcomes: tuple[Outcomes, ...]
    couplings: Mapping[tuple[str, str], Coupling]
    """By (arm, baseline): what identical seeds bought."""
    variances: Mapping[tuple[str, str], VarianceComponents]
    """By (arm, baseline): how much of the noise is seeds, questions and samples; empty without answers by question."""
    exploratory: tuple[Exploratory, ...]
    claim: ClaimVerdict | None
    """The outcome of what was predicted before the first run."""
    warnings: tuple[str, ...]
    """What belongs beside the verdict: runs that collapsed, and on what else it hangs: how failures are handled, the
    axis, earlier looks, how answers are drawn."""
    grown: Grown | None = None
    """What earlier looks did to the error rate."""
    beside: tuple[Beside, ...] = ()
    """Sampled answers beside greedy ones, where both were measured."""

    def bootstrap_t(self, comparison: Comparison) -> Interval | None:
        """The bootstrap-t interval of a comparison, for differences that may be skewed; None below five seeds.

        Wider than the t interval (1.3 times at five normal differences) and nearer to its level where they are skewed;
        no finer than the answers allow. None as well where the study may end early, and where an end is infinite.
        """
        scores = {each.arm: each.scores for each in self.analysis.arms}
        if self.sequential or comparison.effect.n < MIN_SEEDS:
            return None
        d = differences(*(np.array(scores[arm]) for arm in (comparison.arm, comparison.baseline)))
        interval = bootstrap_t_interval(d, 1 - self.plan.alpha, rng=np.random.default_rng(0))
        if interval is None or not np.isfinite(interval).all():
            return None
        return widened(interval, d, 1 - self.plan.alpha, comparison.effect.answers_error or 0.0)

    def to_json(self) -> dict[str, Any]:
        """The analysis as JSON, and beside it all else that was looked at."""
        return self.analysis.to_json() | {
            "plan": to_plain(self.plan),
            "sequential": to_plain(self.sequential),
            "grown": to_plain(self.grown),
            "warnings": list(self.warnings),
            "failure_policies": _verdicts(self.policies),
            "axes": _verdicts(self.axes),
            "outcomes": to_plain(self.outcomes),
            "coupling": {f"{arm} vs {base}": to_plain(c) for (arm, base), c in self.couplings.items()},
            "bootstrap_t": {
                f"{c.arm} vs {c.baseline}": to_plain(self.bootstrap_t(c)) for c in self.analysis.comparisons
            },
            "variance": {f"{arm} vs {base}": to_plain(v) for (arm, base), v in self.variances.items()},
            "exploratory": to_plain(self.exploratory),
            "sampled_and_greedy": to_plain(self.beside),
            "claim": to_plain(self.claim),
        }


def judge(plan: Plan, runs: Sequence[Trajectory]) -> Judgement | None:
    """Judge `runs` as planned; None when there is nothing to compare yet.

    Raises ValueError: a run twice, a seed or metric that the plan does not know, an unknown scalar or policy, a curve
    that cannot be reduced, a race of fewer than ten seeds, a prediction about an arm that is not there.
    """
    check(plan, runs)
    budget = plan.budget if plan.budget is not None else least_spent(plan, runs, plan.axis)
    policies: dict[str, Analysis | None] = {}
    axes: dict[str, Analysis | None] = {}
    sequential = None
    if plan.sequential:
        table = scores(plan, runs, plan.axis, budget, plan.failures)
        known = answers_of(plan, runs, plan.axis, budget)
        sequential, analysis = analyze_sequentially(plan, table, known)
    else:
        analysis = _analysis(plan, runs, plan.axis, budget, plan.failures)
        failed = any(run.status == "failed" for run in runs)
        policies = {
            policy: _analysis(plan, runs, plan.axis, budget, policy) if failed and policy != plan.failures else analysis
            for policy in POLICIES
        }
    if analysis is None:
        return None
    if plan.questions == "population":
        axes = {plan.axis: analysis}  # answers by question are those at the declared budget
    elif not plan.sequential:
        axes = {axis: analysis if axis == plan.axis else _at_equal(axis, plan, runs) for axis in _axes(plan, runs)}
    found = outcomes(plan, runs, budget, analysis)
    notes = [*([] if sequential else pending_notes(plan, runs, analysis)), *failure_notes(plan, found)]
    notes += [*([] if sequential else _removal_notes(plan, runs, plan.failures)), *_short_notes(plan, runs)]
    claim, unassessed = _claim(plan, runs, budget)
    notes += [*unassessed, *analysis.notes]
    pairs = [(c.arm, c.baseline) for c in analysis.comparisons]
    growth = _grown(plan, runs, analysis, budget)
    both = () if plan.sequential else beside(plan, runs, budget, analysis)
    return Judgement(
        plan=plan,
        analysis=replace(analysis, notes=tuple(notes)),
        sequential=sequential,
        policies=policies,
        axes=axes,
        outcomes=found,
        couplings=_couplings(analysis, pairs),
        variances=_variances(answers_of(plan, runs, plan.axis, budget), analysis.seeds, pairs),
        exploratory=() if plan.sequential else explore(plan, runs, budget),
        claim=claim,
        warnings=(
            *((growth.sentence,) if growth else ()),
            *collapse_warnings(plan, found),
            *_policy_warnings(policies),
            *_axis_warnings(analysis, axes, plan.axis),
            *sharpening_warnings(plan, both),
        ),
        grown=growth,
        beside=both,
    )


def where_it_stands(plan: Plan, runs: Sequence[Trajectory]) -> Sequential:
    """Which arms of a race, or of a study with looks, run at which seeds next."""
    table = scores(plan, runs, plan.axis, plan.budget, plan.failures)
    answers = answers_of(plan, runs, plan.axis, plan.budget)
    return analyze_sequentially(plan, table, answers)[0]


def _analysis(
    plan: Plan, runs: Sequence[Trajectory], axis: str, budget: float | None, policy: Policy
) -> Analysis | None:
    table = {arm: row for arm, row in scores(plan, runs, axis, budget, policy).items() if row}
    shared = set.intersection(*map(set, table.values())) if table else set()
    if plan.baseline not in table or len(table) < 2 or not shared:
        return None
    # what was removed is told from what became of the runs, not from which scores are missing
    table = {arm: {seed: score for seed, score in row.items() if seed in shared} for arm, row in table.items()}
    arms = len(arms_of(runs))
    answers = answers_of(plan, runs, axis, budget)
    if plan.questions == "population":
        answers = _declared_answers(answers, table)
    analysis = analyze(
        table,
        baseline=plan.baseline,
        metric=plan.metric,
        axis=axis,
        alpha=plan.alpha,
        margin=plan.margin,
        family=plan.family,
        higher_is_better=plan.higher_is_better,
        largest=plan.largest,
        planned=arms - 1 if plan.family == "baseline" else arms * (arms - 1) // 2,
        answers=answers or None,
        questions=plan.questions,
        families=_families(runs),
    )
    gone = _removed(runs, policy)
    return _unranked(analysis, len(gone), len(plan.seeds)) if _too_many(plan, gone) else analysis


def _grown(plan: Plan, runs: Sequence[Trajectory], analysis: Analysis, budget: float | None) -> Grown | None:
    """What looks under earlier declarations did; a race and declared looks keep their error rate however they grow."""
    if plan.sequential or not plan.seen:
        return None
    looks = (*plan.seen, Look(len(analysis.seeds), len(analysis.arms), plan.alpha, plan.further))
    fresh = plan.seeds[max(look.seeds for look in plan.seen) :]
    alone = None
    if len(set(fresh) & set(analysis.seeds)) >= T_SEEDS:
        since = [run for run in runs if run.seed in fresh]
        alone = _analysis(replace(plan, seeds=fresh), since, plan.axis, budget, plan.failures)
    return grown(looks, alone, len(fresh), plan.family)


def _removed(runs: Sequence[Trajectory], policy: Policy) -> dict[int, list[str]]:
    """Seeds that leave every arm, with the arms that lack them for good."""
    gone: dict[int, list[str]] = {}
    for run in runs:
        if run.status == "lost" or (run.status == "failed" and policy == "intersect"):
            gone.setdefault(run.seed, []).append(run.arm)
    return gone


def _too_many(plan: Plan, gone: Mapping[int, object]) -> bool:
    return len(gone) > MANY_REMOVED * len(plan.seeds)


def _removal_notes(plan: Plan, runs: Sequence[Trajectory], policy: Policy) -> list[str]:
    gone = _removed(runs, policy)
    missing = {arm: [seed for seed in plan.seeds if arm in gone.get(seed, ())] for arm in arms_of(runs)}
    return removal_notes(missing, len(plan.seeds))


def _unranked(analysis: Analysis, removed: int, planned: int) -> Analysis:
    """No arm is ranked when so many seeds are gone that those left may be the easy ones."""
    why = (
        f"untestable ({removed} of {planned} planned seeds were removed, more than {100 * MANY_REMOVED:.0f} %: arms "
        "are not ranked before the missing runs are made up)"
    )
    comparisons = tuple(
        Comparison(
            c.arm,
            c.baseline,
            c.effect,
            c.fixed_n,
            sentence=f"{c.arm} vs {c.baseline} on {analysis.metric}: {why}; mean difference "
            f"{c.effect.mean_difference:+.3g} over {c.effect.n} seeds, descriptive only.",
        )
        for c in analysis.comparisons
    )
    return replace(analysis, comparisons=comparisons)


def _at_equal(axis: str, plan: Plan, runs: Sequence[Trajectory]) -> Analysis | None:
    """The analysis at equal budgets on an axis that was not declared; None where the scalar is undefined on it."""
    try:
        return _analysis(plan, runs, axis, None, plan.failures)
    except ValueError:
        return None


def _declared_answers(
    answers: Mapping[str, Mapping[int, Array]], table: Mapping[str, Mapping[int, float]]
) -> dict[str, dict[int, Array]]:
    """Answers for every score of the table: a failed run has its declared score on every question."""
    shape = next((each.shape for row in answers.values() for each in row.values()), ())
    found: dict[str, dict[int, Array]] = {arm: {} for arm in table}
    for arm, row in table.items():
        for seed, score in row.items():
            known = answers.get(arm, {}).get(seed, np.full(shape, score))
            if not known.ndim:
                raise ValueError(
                    f"judge: arm {arm!r}, seed {seed} lacks the answers by question that a claim about questions like "
                    "these needs; declare questions = 'fixed'"
                )
            found[arm][seed] = known
    return found


def _families(runs: Sequence[Trajectory]) -> tuple[str, ...] | None:
    """The family of each question, where all runs name the same and there are several."""
    named = {run.families for run in runs if run.status == "finished"}
    found = named.pop() if len(named) == 1 else None
    return found if found and len(set(found)) > 1 else None


def _axes(plan: Plan, runs: Sequence[Trajectory]) -> list[str]:
    """The declared axis, and those that every finished run has recorded."""
    spent = [run.curves[plan.metric].spent.keys() for run in runs if run.status == "finished"]
    return [axis for axis in (spent[0] if spent else ()) if all(axis in each for each in spent)]


def _short_notes(plan: Plan, runs: Sequence[Trajectory]) -> list[str]:
    """Finished runs that ended well before the declared budget, or were evaluated too rarely for their score."""
    done = [run for run in runs if run.status == "finished"]
    if plan.budget is None:
        return []
    axis, notes = plan.axis.replace("_", " "), []
    ends = [(run, run.curves[plan.metric].spent[plan.axis][-1]) for run in done]
    short = [(run, last) for run, last in ends if last < plan.budget * (1 - SHORT)]
    if short:
        run, end = min(short, key=lambda pair: pair[1])
        notes.append(
            f"{len(short)} of {len(done)} finished runs ended more than {100 * SHORT:.0f} % before the declared budget "
            f"of {plan.budget:g} {axis}, the first ({run.arm} seed {run.seed}) at {end:g}: they are judged by less."
        )
    least = last_evaluations(1)
    spent = {(run.arm, run.seed): run.curves[plan.metric].spent[plan.axis] for run in done}
    rare = [key for key, x in spent.items() if x[0] == 0 and sum(0 < each <= plan.budget for each in x) < least]
    if rare and plan.scalar == "final":
        notes.append(
            f"{len(rare)} of {len(done)} finished runs were evaluated less than {least} times between the start and "
            f"the budget, the first {rare[0][0]} seed {rare[0][1]}: their score has the untrained model in it; "
            "evaluate more often."
        )
    return notes


def _couplings(analysis: Analysis, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Coupling]:
    table = {each.arm: each.scores for each in analysis.arms}
    found = {}
    for arm, baseline in pairs:
        n = min(len(table[arm]), len(table[baseline]))  # in a race arms leave early
        if n > 1:
            found[arm, baseline] = coupling(table[arm][:n], table[baseline][:n])
    return found


def _variances(
    answers: Mapping[str, Mapping[int, Array]], seeds: Sequence[int], pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], VarianceComponents]:
    """Where every run of a pair has answers [Q, K] of one shape, at least 2 x 2, over at least 2 seeds."""
    found = {}
    for pair in pairs:
        shared = [seed for seed in seeds if all(seed in answers.get(arm, ()) for arm in pair)]
        cells = [[answers[arm][seed] for seed in shared] for arm in pair]
        shapes = {each.shape for row in cells for each in row}
        shape = shapes.pop() if len(shapes) == 1 else ()
        if len(shared) > 1 and len(shape) == 2 and min(shape) > 1:
            found[pair] = variance_components(*(np.array(row) for row in cells))
    return found


def _claim(plan: Plan, runs: Sequence[Trajectory], budget: float) -> tuple[ClaimVerdict | None, list[str]]:
    """What came of the predictions, once no planned run is under way; or why nothing can be said of them."""
    planned = {(arm, seed) for arm in arms_of(runs) for seed in plan.seeds}
    ended = {(run.arm, run.seed) for run in runs if run.status != "pending"}
    if not plan.predictions:
        return None, []
    if planned != ended:
        return None, ["What was predicted is judged when all planned runs have ended."]
    if _too_many(plan, _removed(runs, plan.failures)):
        return None, ["What was predicted is not judged before the runs that are missing are made up."]

    def scores_of(metric: str) -> Mapping[str, Mapping[int, float]]:
        if metric == plan.metric:
            return scores(plan, runs, plan.axis, budget, plan.failures)
        # no score is declared for failed runs on other metrics, and a metric may be undefined at some evaluations,
        # or in a whole run (the length of wrong responses, where none is wrong)
        known = [replace(run, curves={metric: run.curves[metric].measured}) for run in runs if metric in run.curves]
        measured = [run for run in known if run.curves[metric].values]
        left_out.update({(run.arm, run.seed) for run in runs} - {(run.arm, run.seed) for run in measured})
        left_out.update((run.arm, run.seed) for run in measured if run.status == "failed")
        return scores(replace(plan, metric=metric), measured, plan.axis, budget, "intersect")

    def known_answers(metric: str) -> Answers:
        measured = [
            replace(run, curves={metric: curve.measured})
            for run in runs
            if (curve := run.curves.get(metric)) is not None and curve.measured.values
        ]
        return answers_of(replace(plan, metric=metric), measured, plan.axis, budget)

    left_out: set[tuple[str, int]] = set()
    try:
        claim = assess(plan.predictions, scores_of, plan.alpha, known_answers)
    except ValueError as error:
        return None, [f"What was predicted cannot be judged: {error}."]
    notes = [] if claim else ["What was predicted is not judged: a prediction has fewer than 3 seeds to go by."]
    if left_out:
        runs_left = ", ".join(f"{arm} seed {seed}" for arm, seed in sorted(left_out))
        notes.append(f"Predictions on other metrics leave out the seeds of runs without a value: {runs_left}.")
    return claim, notes


def departs(declared: Comparison, other: Comparison) -> bool:
    """Whether looking otherwise leads to another verdict, and one of the two decides anything."""
    return other.verdict != declared.verdict and bool({other.verdict, declared.verdict} & DECIDED)


def _policy_warnings(policies: Mapping[str, Analysis | None]) -> list[str]:
    """A verdict that is another one when failures are handled otherwise is no finding about the method alone."""
    worst, intersect = policies.get("worst"), policies.get("intersect")
    if worst is None or intersect is None:
        return [] if worst is intersect else ["Depends on failure handling: without the failed runs nothing is left."]
    other = {(c.arm, c.baseline): c for c in intersect.comparisons}
    told = [
        f"{c.arm} vs {c.baseline} is {c.verdict} with the failed runs at their declared score (n = {c.effect.n}), "
        f"{other[c.arm, c.baseline].verdict} without their seeds (n = {other[c.arm, c.baseline].effect.n})"
        for c in worst.comparisons
        if (c.arm, c.baseline) in other and c.verdict != other[c.arm, c.baseline].verdict
    ]
    return [f"Depends on failure handling: {'; '.join(told)}."] if told else []


def _axis_warnings(declared: Analysis, axes: Mapping[str, Analysis | None], axis: str) -> list[str]:
    """A verdict that is another one on another budget axis belongs beside the headline.

    But for clocks: what else the machine did decides what was spent by them, so that two equal studies differ.
    """
    found = []
    verdicts = {(c.arm, c.baseline): c for c in declared.comparisons}
    for name, analysis in axes.items():
        for c in analysis.comparisons if analysis is not None and name not in (axis, CLOCK) else ():
            ours = verdicts.get((c.arm, c.baseline))
            if ours is None or not departs(ours, c):
                continue
            found.append(
                f"Depends on the budget: {c.arm} vs {c.baseline} is {ours.verdict} "
                f"({ours.effect.mean_difference:+.3g}) at equal {axis.replace('_', ' ')}, {c.verdict} "
                f"({c.effect.mean_difference:+.3g}) at equal {name.replace('_', ' ')}."
            )
    return found


def _verdicts(of: Mapping[str, Analysis | None]) -> dict[str, Any]:
    return {
        name: None if a is None else {f"{c.arm} vs {c.baseline}": _in_brief(c) for c in a.comparisons}
        for name, a in of.items()
    }


def _in_brief(comparison: Comparison) -> Any:
    return to_plain(
        {
            "verdict": comparison.verdict,
            "mean_difference": comparison.effect.mean_difference,
            "n": comparison.effect.n,
            "adjusted_p": comparison.adjusted_p,
        }
    )
