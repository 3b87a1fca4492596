"""What was not declared: other scalars of the metric, and other metrics. No verdict follows from it."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from experiments.statistics.answers import Answers, least_error
from experiments.statistics.multiplicity import benjamini_hochberg
from experiments.statistics.paired import paired_t, wilcoxon_exact
from experiments.statistics.rule import T_SEEDS
from experiments.statistics.runs import SCALARS, Plan, Trajectory, answers_of
from experiments.statistics.samples import Interval, differences, is_constant, mean_difference, within
from experiments.statistics.scalars import drawdown, final, time_to

Table: TypeAlias = dict[str, dict[int, float]]


@dataclass(frozen=True)
class Exploratory:
    """One comparison that was not declared; `q` is Benjamini-Hochberg over all of them. No verdict follows."""

    quantity: str
    arm: str
    baseline: str
    n: int
    mean_difference: float
    interval: Interval | None
    test: str
    p: float
    q: float
    reached: tuple[float, float] | None = None
    """Of the time to a threshold: the shares of the runs, arm's and baseline's, that reached it within the budget."""


def explore(plan: Plan, runs: Sequence[Trajectory], budget: float) -> tuple[Exploratory, ...]:
    """Other scalars of the metric, and other metrics: finished runs only, one Benjamini-Hochberg family."""
    done = [run for run in runs if run.status == "finished"]
    metric = plan.course_metric  # a curve, where the score is measured once
    quantities: dict[str, Table] = {}
    answers: dict[str, Answers] = {}
    for scalar in SCALARS.keys() - {plan.scalar}:
        reduce = partial(SCALARS[scalar], common_budget=budget)
        quantities[f"{metric}, {scalar}"] = table = _table(plan, done, metric, reduce)
        answers[f"{metric}, {scalar}"] = _answers(plan, done, metric, scalar, table, budget)
    quantities[f"{metric}, drawdown"] = _table(
        plan, done, metric, lambda x, y: drawdown(x, y, budget, plan.higher_is_better)
    )
    time_name = f"{plan.axis.replace('_', ' ')} to {metric} {plan.threshold or 0:g}"
    reached: Table = {}
    if plan.threshold is not None:
        quantities[time_name], reached = _times(plan, runs, plan.threshold, budget)
    for other in dict.fromkeys(other for run in done for other in run.curves if other != plan.metric):
        quantities[f"{other}, final"] = table = _table(plan, done, other, partial(final, common_budget=budget))
        answers[f"{other}, final"] = _answers(plan, done, other, "final", table, budget)
    rows = [
        row
        for quantity, table in quantities.items()
        for arm in table
        if arm != plan.baseline
        and plan.baseline in table
        and (row := _explored(quantity, arm, plan, table, quantity == time_name, answers.get(quantity))) is not None
    ]
    if not rows:
        return ()
    of_metric = {quantity: quantity.rpartition(", ")[0] for quantity in quantities}
    largest = {
        quantity: max((run.curves[name].largest for run in done if name in run.curves), default=math.inf)
        for quantity, name in of_metric.items()
    }
    q = benjamini_hochberg([row.p for row in rows]).tolist()
    shares = {arm: sum(row.values()) / len(row) for arm, row in reached.items()}
    return tuple(
        replace(
            row,
            q=each,
            interval=within(row.interval, largest[row.quantity]),
            reached=(shares[row.arm], shares[row.baseline]) if row.quantity == time_name else None,
        )
        for row, each in zip(rows, q, strict=True)
    )


def _table(
    plan: Plan, done: Sequence[Trajectory], metric: str, reduce: Callable[[Sequence[float], Sequence[float]], float]
) -> Table:
    """{arm: {seed: number}}, where the metric was measured often enough."""
    table: Table = {}
    for run in done:
        curve = run.curves.get(metric)
        if curve is None or plan.axis not in curve.spent or not curve.measured.values:
            continue
        with suppress(ValueError):  # measured too rarely for this scalar
            table.setdefault(run.arm, {})[run.seed] = reduce(curve.measured.spent[plan.axis], curve.measured.values)
    return {arm: row for arm, row in table.items() if row}


def _answers(plan: Plan, done: Sequence[Trajectory], metric: str, scalar: str, table: Table, budget: float) -> Answers:
    """What the numbers of a table are means of, as far as that is known."""
    on = replace(plan, metric=metric, scalar=scalar)
    with_metric = [
        replace(run, curves={metric: run.curves[metric].measured}) for run in done if run.seed in table.get(run.arm, ())
    ]
    return answers_of(on, with_metric, plan.axis, budget)


def _times(plan: Plan, runs: Sequence[Trajectory], threshold: float, budget: float) -> tuple[Table, Table]:
    """Budgets at which runs reached the threshold, capped at the common one, and whether they did (1 or 0)."""
    done = [run for run in runs if run.status == "finished"]
    up = plan.higher_is_better
    metric = plan.course_metric
    times = _table(plan, done, metric, lambda x, y: time_to(x, y, budget, threshold, up).time)
    reached = _table(plan, done, metric, lambda x, y: time_to(x, y, budget, threshold, up).reached)
    for run in runs:  # a failed run never got there: censored at the budget like any other that did not
        if run.status == "failed":
            times.setdefault(run.arm, {})[run.seed] = budget
            reached.setdefault(run.arm, {})[run.seed] = 0.0
    return times, reached


def _explored(
    quantity: str, arm: str, plan: Plan, table: Mapping[str, Mapping[int, float]], ranked: bool, answers: Answers | None
) -> Exploratory | None:
    seeds = [seed for seed in plan.seeds if seed in table[arm] and seed in table[plan.baseline]]
    if len(seeds) < T_SEEDS:
        return None
    x, y = (np.array([table[each][seed] for seed in seeds]) for each in (arm, plan.baseline))
    d = differences(x, y)
    if is_constant(d):
        return None
    least = None
    with suppress(ValueError):  # a number of answers for what is no share of right ones
        least, _ = least_error(answers, (arm, plan.baseline), seeds, x, y)
    p, interval = paired_t(d, 1 - plan.alpha, least or 0.0)
    if ranked:
        p, interval = wilcoxon_exact(d), None
    test = "Wilcoxon signed rank, exact" if ranked else "paired t"
    return Exploratory(quantity, arm, plan.baseline, len(seeds), mean_difference(d), interval, test, p, q=1.0)
