"""A whole study judged as it was planned: runs in, verdicts out, and beside them what they might depend on.

    runs (curves) -> one number a run -> failures settled -> paired by seed -> verdicts
                                                              and again: the other failure policy, the other budget
                                                              axes, other scalars

The runs may come from a study's folder or from any table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import numpy as np

from experiments.statistics.bootstrap import MIN_SEEDS, bootstrap_t_interval
from experiments.statistics.claim import judge_claim
from experiments.statistics.coupling import Coupling, coupling
from experiments.statistics.declared import analyze_at_equal, analyze_runs, removed_seeds
from experiments.statistics.departures import axis_warnings, policy_warnings
from experiments.statistics.grown import Grown, Look, grown
from experiments.statistics.outcomes import Outcomes, collapse_warnings, failure_notes, outcomes, pending_notes
from experiments.statistics.paired import widened
from experiments.statistics.predictions import ClaimVerdict
from experiments.statistics.records import Analysis, Comparison, to_plain
from experiments.statistics.rule import T_SEEDS
from experiments.statistics.runs import (
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
from experiments.statistics.samples import Array, Interval, differences, within
from experiments.statistics.scalars import last_evaluations
from experiments.statistics.sequential import Sequential, analyze_sequentially
from experiments.statistics.sharpening import Beside, beside, sharpening_warnings
from experiments.statistics.two_level import VarianceComponents, variance_components
from experiments.statistics.undeclared import Exploratory, explore
from experiments.statistics.wording import removal_notes

SHORT: Final = 0.1
"""Share of the budget that a run may leave unspent without a note: steps are not divisible."""


@dataclass(frozen=True)
class Judgement:
    """The verdicts of a study, and whether they depend on the failure policy, the budget axis or the scalar.

    A race or a study with looks has no fixed-n p: `policies`, `axes` and `exploratory` are empty there.
    """

    plan: Plan
    analysis: Analysis
    """As declared: metric, scalar, axis, budget, failure policy, racing."""
    sequential: Sequential | None
    """How far a race or a study with looks has come, and why it ended."""
    policies: Mapping[str, Analysis | None]
    """The same under each failure policy; None where nothing is left to compare."""
    axes: Mapping[str, Analysis | None]
    """The same at equal budgets on each axis that was recorded (`analyze_at_equal`)."""
    outcomes: tuple[Outcomes, ...]
    couplings: Mapping[tuple[str, str], Coupling]
    """By (arm, baseline): what identical seeds bought."""
    variances: Mapping[tuple[str, str], VarianceComponents]
    """By (arm, baseline): how much of the noise is seeds, questions and samples; empty without answers by question."""
    claim: ClaimVerdict | None
    """The outcome of what was predicted before the first run."""
    warnings: tuple[str, ...]
    """What belongs beside the verdict: runs that collapsed, and what else it depends on: how failures are handled,
    the axis, earlier looks, how answers are drawn."""
    runs: tuple[Trajectory, ...] = field(repr=False, compare=False)
    budget: float
    """At which arms were compared: the declared one, or the least that a run has spent."""
    grown: Grown | None = None
    """What earlier looks did to the error rate."""
    beside: tuple[Beside, ...] = ()
    """Sampled answers beside greedy ones, where both were measured."""

    @cached_property
    def exploratory(self) -> tuple[Exploratory, ...]:
        """What was not declared, computed when it is first asked for: no verdict depends on it."""
        return () if self.plan.sequential else explore(self.plan, self.runs, self.budget)

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
        whole = widened(interval, d, 1 - self.plan.alpha, comparison.effect.answers_error or 0.0)
        return within(whole, self.plan.largest)

    def to_json(self) -> dict[str, Any]:
        """The analysis as JSON, with all other analyses beside it."""
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

    Raises ValueError: a run twice, a seed or metric that is not in the plan, an unknown scalar or policy, a curve
    that cannot be reduced, a race of fewer than ten seeds, a prediction about an arm that is not there.
    """
    check(plan, runs)
    budget = plan.budget if plan.budget is not None else least_spent(plan, runs, plan.axis)
    policies: dict[str, Analysis | None] = {}
    axes: dict[str, Analysis | None] = {}
    sequential = None
    if plan.sequential:
        table = scores(plan, runs, plan.axis, budget, plan.failures)
        answers = answers_of(plan, runs, plan.axis, budget)
        sequential, analysis = analyze_sequentially(plan, table, answers)
    else:
        analysis = analyze_runs(plan, runs, plan.axis, budget, plan.failures)
        policies = dict.fromkeys(POLICIES, analysis)
        for policy in POLICIES:
            if policy != plan.failures and any(run.status == "failed" for run in runs):
                policies[policy] = analyze_runs(plan, runs, plan.axis, budget, policy)
    if analysis is None:
        return None
    if plan.questions == "population":
        axes = {plan.axis: analysis}  # answers by question are those at the declared budget
    elif not plan.sequential:
        axes = {
            axis: analysis if axis == plan.axis else analyze_at_equal(axis, plan, runs, analysis)
            for axis in _axes(plan, runs)
        }
    arm_outcomes = outcomes(plan, runs, budget, analysis)
    notes = [*([] if sequential else pending_notes(plan, runs, analysis)), *failure_notes(plan, arm_outcomes)]
    notes += [*([] if sequential else _removal_notes(plan, runs, plan.failures)), *_short_notes(plan, runs)]
    claim, unassessed = judge_claim(plan, runs, budget)
    notes += [*unassessed, *analysis.notes]
    pairs = [(c.arm, c.baseline) for c in analysis.comparisons]
    growth = _grown(plan, runs, analysis, budget)
    counterparts = () if plan.sequential else beside(plan, runs, budget, analysis)
    return Judgement(
        plan=plan,
        analysis=replace(analysis, notes=tuple(notes)),
        sequential=sequential,
        policies=policies,
        axes=axes,
        outcomes=arm_outcomes,
        couplings=_couplings(analysis, pairs),
        variances=_variances(answers_of(plan, runs, plan.axis, budget), analysis.seeds, pairs),
        claim=claim,
        warnings=(
            *((growth.sentence,) if growth else ()),
            *collapse_warnings(plan, arm_outcomes),
            *policy_warnings(policies),
            *axis_warnings(analysis, axes, plan.axis, {axis: least_spent(plan, runs, axis) for axis in axes}),
            *sharpening_warnings(plan, counterparts),
        ),
        runs=tuple(runs),
        budget=budget,
        grown=growth,
        beside=counterparts,
    )


def sequential_state(plan: Plan, runs: Sequence[Trajectory]) -> Sequential:
    """Which arms of a race, or of a study with looks, run at which seeds next."""
    table = scores(plan, runs, plan.axis, plan.budget, plan.failures)
    answers = answers_of(plan, runs, plan.axis, plan.budget)
    return analyze_sequentially(plan, table, answers)[0]


def _grown(plan: Plan, runs: Sequence[Trajectory], analysis: Analysis, budget: float | None) -> Grown | None:
    """What looks under earlier declarations did; a race and declared looks keep their error rate however they grow."""
    if plan.sequential or not plan.seen:
        return None
    looks = (*plan.seen, Look(len(analysis.seeds), len(analysis.arms), plan.alpha, plan.further))
    fresh = plan.seeds[max(look.seeds for look in plan.seen) :]
    fresh_analysis = None
    if len(set(fresh) & set(analysis.seeds)) >= T_SEEDS:
        since = [run for run in runs if run.seed in fresh]
        fresh_analysis = analyze_runs(replace(plan, seeds=fresh), since, plan.axis, budget, plan.failures)
    return grown(looks, fresh_analysis, len(fresh), plan.family)


def _removal_notes(plan: Plan, runs: Sequence[Trajectory], policy: Policy) -> list[str]:
    removed = removed_seeds(runs, policy)
    missing = {arm: [seed for seed in plan.seeds if arm in removed.get(seed, ())] for arm in arms_of(runs)}
    return removal_notes(missing, len(plan.seeds))


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
    result = {}
    for arm, baseline in pairs:
        n = min(len(table[arm]), len(table[baseline]))  # in a race arms leave early
        if n > 1:
            result[arm, baseline] = coupling(table[arm][:n], table[baseline][:n])
    return result


def _variances(
    answers: Mapping[str, Mapping[int, Array]], seeds: Sequence[int], pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], VarianceComponents]:
    """Where every run of a pair has answers [Q, K] of one shape, at least 2 x 2, over at least 2 seeds."""
    components = {}
    for pair in pairs:
        shared = [seed for seed in seeds if all(seed in answers.get(arm, ()) for arm in pair)]
        cells = [[answers[arm][seed] for seed in shared] for arm in pair]
        shapes = {each.shape for row in cells for each in row}
        shape = shapes.pop() if len(shapes) == 1 else ()
        if len(shared) > 1 and len(shape) == 2 and min(shape) > 1:
            components[pair] = variance_components(*(np.array(row) for row in cells))
    return components


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
