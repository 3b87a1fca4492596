"""The runs of a study analysed as planned: scores paired by seed, with the seeds that no arm may lack."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from experiments.statistics.analysis import analyze
from experiments.statistics.budgets import mean_at
from experiments.statistics.departures import any_departs
from experiments.statistics.records import Analysis, Comparison
from experiments.statistics.rule import MAX_REMOVED
from experiments.statistics.runs import Plan, Policy, Reading, Trajectory, answers_of, arms_of, cheapest_window, scores
from experiments.statistics.samples import Array


def analyze_runs(
    plan: Plan,
    runs: Sequence[Trajectory],
    axis: str,
    budget: float | None,
    policy: Policy,
    *,
    read: Reading | None = None,
) -> Analysis | None:
    """The analysis at one axis, budget and failure policy; None where no seed is left to compare.

    `read` stands in for the declared scalar at the budget.
    """
    table = {arm: row for arm, row in scores(plan, runs, axis, budget, policy, read=read).items() if row}
    shared = set.intersection(*map(set, table.values())) if table else set()
    if plan.baseline not in table or len(table) < 2 or not shared:
        return None
    # removed seeds are counted by the status of the runs, not by which scores are missing
    table = {arm: {seed: score for seed, score in row.items() if seed in shared} for arm, row in table.items()}
    arms = len(arms_of(runs))
    answers = answers_of(plan, runs, axis, budget, read=read)
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
    removed = removed_seeds(runs, policy)
    return _unranked(analysis, len(removed), len(plan.seeds)) if too_many_removed(plan, removed) else analysis


def removed_seeds(runs: Sequence[Trajectory], policy: Policy) -> dict[int, list[str]]:
    """Seeds that are removed from every arm, with the arms that will never have them."""
    removed: dict[int, list[str]] = {}
    for run in runs:
        if run.status == "lost" or (run.status == "failed" and policy == "intersect"):
            removed.setdefault(run.seed, []).append(run.arm)
    return removed


def too_many_removed(plan: Plan, removed: Mapping[int, object]) -> bool:
    """Whether so many of the planned seeds left every arm that none is ranked."""
    return len(removed) > MAX_REMOVED * len(plan.seeds)


def _unranked(analysis: Analysis, removed: int, planned: int) -> Analysis:
    """No arm is ranked when so many seeds are removed that those left may be the easy ones."""
    why = (
        f"untestable ({removed} of {planned} planned seeds were removed, more than {100 * MAX_REMOVED:.0f} %: arms "
        "are not ranked before the missing runs are made up)"
    )
    comparisons = tuple(
        Comparison(
            c.arm,
            c.baseline,
            c.effect,
            c.fixed_n,
            sentence=f"{c.arm} vs {c.baseline} on {analysis.metric}: {why}; mean difference "
            f"{c.effect.mean_difference:+.3g} over {c.effect.n} seed{'s' * (c.effect.n > 1)}, descriptive only.",
        )
        for c in analysis.comparisons
    )
    return replace(analysis, comparisons=comparisons)


def analyze_at_equal(axis: str, plan: Plan, runs: Sequence[Trajectory], declared: Analysis) -> Analysis | None:
    """The analysis at equal budgets on an axis that was not declared; None where the scalar is undefined on it.

    Every run is cut at its last evaluation before the common budget. That favours the run whose own end the budget is:
    it alone loses nothing. So where a verdict departs from the declared one, cut so or read evenly, the analysis is of
    `final` read evenly: at the budgets of the last evaluations of that run, in every run. `auc` is even in any case.
    """
    try:
        cut = analyze_runs(plan, runs, axis, None, plan.failures)
        if cut is None or plan.scalar != "final":
            return cut
    except ValueError:
        return None
    read = partial(mean_at, points=cheapest_window(plan, runs, axis))
    try:
        even = analyze_runs(plan, runs, axis, None, plan.failures, read=read)
    except ValueError:  # an evaluation beyond the budget that is not finite
        return cut
    return even if even and (any_departs(declared, cut) or any_departs(declared, even)) else cut


def _declared_answers(
    answers: Mapping[str, Mapping[int, Array]], table: Mapping[str, Mapping[int, float]]
) -> dict[str, dict[int, Array]]:
    """Answers for every score of the table: a failed run has its declared score on every question."""
    shape = next((each.shape for row in answers.values() for each in row.values()), ())
    complete: dict[str, dict[int, Array]] = {arm: {} for arm in table}
    for arm, row in table.items():
        for seed, score in row.items():
            cell = answers.get(arm, {}).get(seed, np.full(shape, score))
            if not cell.ndim:
                raise ValueError(
                    f"judge: arm {arm!r}, seed {seed} lacks the answers by question that a claim about questions like "
                    "these needs; declare questions = 'fixed'"
                )
            complete[arm][seed] = cell
    return complete


def _families(runs: Sequence[Trajectory]) -> tuple[str, ...] | None:
    """The family of each question, where all runs name the same and there are several."""
    named = {run.families for run in runs if run.status == "finished"}
    families = named.pop() if len(named) == 1 else None
    return families if families and len(set(families)) > 1 else None
