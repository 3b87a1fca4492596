"""What a question about a table leaves open: assumptions, which the notes state, and what they cannot be."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from experiments.results.tables.measurements import SCORED
from experiments.results.tables.sheets import TableError
from experiments.statistics import Plan, Trajectory
from experiments.statistics.budgets import SLACK
from experiments.statistics.scalars import last_evaluations


def count(
    source: str, metric: str, answers: int | None, runs: tuple[Trajectory, ...]
) -> tuple[tuple[Trajectory, ...], list[str]]:
    """The runs with how many answers the metric's values are means of; a note where that is unknown but may matter."""
    curves = [run.curves[metric] for run in runs if metric in run.curves]
    has_counts = any(curve.answers is not None or curve.samples is not None for curve in curves)
    if answers is None:
        values = [value for curve in curves for value in curve.values]
        shares = not has_counts and all(0 <= value <= 1 for value in values if math.isfinite(value))
        how = "If the values are means of answers, right or wrong, say of how many: --answers N, or a column 'answers'."
        return runs, [how] if shares else []
    if has_counts:
        raise TableError(f"{source}: --answers {answers}, but the table has a column 'answers'; leave one out")
    if answers < 1:
        raise TableError(f"--answers {answers}: give how many answers a value is the mean of, 1 or more")
    return tuple(
        replace(run, curves={**run.curves, metric: replace(curve, answers=[answers] * len(curve.values))})
        if (curve := run.curves.get(metric)) is not None
        else run
        for run in runs
    ), []


def check_budget(source: str, plan: Plan, runs: Iterable[Trajectory]) -> None:
    """Refuse a budget that a finished run did not reach."""
    for run in runs:
        if run.status == "finished" and plan.budget is not None:
            last = run.curves[plan.metric].spent[plan.axis][-1]
            if last < plan.budget * (1 - SLACK):
                raise TableError(
                    f"{source}: arm {run.arm!r}, seed {run.seed} ends at {last:g} {_words(plan.axis)}, before "
                    f"--budget {plan.budget:g}; choose a budget that every run reaches, or give this one the status "
                    "failed or lost"
                )


def assumed(plan: Plan, runs: Iterable[Trajectory], *, margin_given: bool) -> list[str]:
    """Notes on what the question leaves open."""
    notes = []
    if not margin_given:
        notes.append(
            f"Assumed: the smallest difference of interest is {plan.margin:g}, in the metric's unit (--margin)."
        )
    done = [run for run in runs if run.status == "finished"]
    if plan.axis == SCORED:
        notes.append("Scores are as the table has them: the budget at which they were taken is not known.")
    elif plan.budget is None and done:
        ends = {(run.arm, run.seed): run.curves[plan.metric].spent[plan.axis][-1] for run in done}
        first, last = min(ends, key=lambda run: ends[run]), max(ends.values())
        shortest, axis = ends[first], _words(plan.axis)
        notes.append(f"Assumed: the budget is {shortest:g} {axis}, the least that a finished run has spent (--budget).")
        if shortest < last:
            notes.append(
                f"{first[0]}, seed {first[1]} ends at {shortest:g} {axis} and others at up to {last:g}: what comes "
                f"after {shortest:g} counts in no run. If that run broke off, give it the status failed or lost."
            )
    return notes


def in_percent(plan: Plan, runs: Iterable[Trajectory], *, margin_given: bool) -> list[str]:
    """A warning where scores seem to be percentages, for which the margin that was assumed is tiny."""
    ends = [run.curves[plan.metric].values[-1] for run in runs if run.status == "finished"]
    if margin_given or not ends or min(ends) <= 1:
        return []
    return [
        f"All scores are above 1, and the smallest difference of interest, which was not given, is {plan.margin:g}: of "
        "percentages that is a hundredth of a point. Say with --margin which difference would matter to you."
    ]


def uneven(plan: Plan, runs: Iterable[Trajectory]) -> list[str]:
    """A warning where the last evaluations, which a score averages, were not at the same steps in all runs."""
    done = [run for run in runs if run.status == "finished"]
    if (plan.axis, plan.scalar) != ("steps", "final") or not done:
        return []
    steps = {(run.arm, run.seed): run.curves[plan.metric].spent["steps"] for run in done}
    budget = min(of[-1] for of in steps.values()) if plan.budget is None else plan.budget
    used = {run: _averaged(of, budget) for run, of in steps.items()}
    first = next(iter(used))
    other = next((run for run in used if used[run] != used[first]), None)
    if other is None:
        return []
    one, two = (f"{_listed(used[run])} in {run[0]}, seed {run[1]}" for run in (first, other))
    return [
        f"A score is the mean of a run's last evaluations, and these were not at the same steps: {one}, but {two}. "
        "Where values still rise or fall, that alone makes a difference: keep the steps at which all runs were "
        "evaluated, and take out the others."
    ]


def _averaged(steps: Sequence[float], budget: float) -> Sequence[float]:
    """The steps of the evaluations that `final` averages."""
    within = [step for step in steps if step <= budget * (1 + SLACK)]
    return within[-last_evaluations(len(within)) :]


def _listed(steps: Sequence[float]) -> str:
    if len(steps) <= 5:
        return ", ".join(f"{step:g}" for step in steps) or "none"
    return f"{len(steps)} from {steps[0]:g} to {steps[-1]:g}"


def _words(axis: str) -> str:
    return axis.replace("_", " ")
