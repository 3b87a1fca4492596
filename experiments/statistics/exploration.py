"""What was not declared: other scalars of the metric, and other metrics. No verdict follows from it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from experiments.statistics.exploratory import benjamini_hochberg
from experiments.statistics.paired import paired_t, wilcoxon_exact
from experiments.statistics.runs import SCALARS, Plan, Trajectory
from experiments.statistics.samples import Interval, differences, is_constant
from experiments.statistics.scalars import drawdown, final, time_to
from experiments.statistics.wording import T_SEEDS


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


def explore(plan: Plan, runs: Sequence[Trajectory], budget: float) -> tuple[Exploratory, ...]:
    """Other scalars of the metric, and other metrics: finished runs only, one Benjamini-Hochberg family."""
    done = [run for run in runs if run.status == "finished"]
    quantities: dict[str, dict[str, dict[int, float]]] = {}

    def add(name: str, metric: str, reduce: Callable[[Sequence[float], Sequence[float]], float]) -> None:
        for run in done:
            curve = run.curves.get(metric)
            if curve is None or plan.axis not in curve.spent:
                continue
            known = curve.measured
            if known.values:
                try:
                    value = reduce(known.spent[plan.axis], known.values)
                except ValueError:  # measured too rarely for this scalar
                    continue
                quantities.setdefault(name, {}).setdefault(run.arm, {})[run.seed] = value

    for scalar in SCALARS.keys() - {plan.scalar}:
        add(f"{plan.metric}, {scalar}", plan.metric, partial(SCALARS[scalar], common_budget=budget))
    add(f"{plan.metric}, drawdown", plan.metric, lambda x, y: drawdown(x, y, budget, plan.higher_is_better))
    if plan.threshold is not None:
        level, up = plan.threshold, plan.higher_is_better
        name = f"{plan.axis.replace('_', ' ')} to {plan.metric} {level:g}"
        add(name, plan.metric, lambda x, y: time_to(x, y, budget, level, up).time)
        for run in runs:  # a failed run never got there: censored at the budget like any other that did not
            if run.status == "failed" and name in quantities:
                quantities[name].setdefault(run.arm, {})[run.seed] = budget
    for metric in dict.fromkeys(metric for run in done for metric in run.curves if metric != plan.metric):
        add(f"{metric}, final", metric, lambda x, y: final(x, y, budget))
    rows = []
    for quantity, table in quantities.items():
        ranked = quantity.startswith(f"{plan.axis.replace('_', ' ')} to ")  # censored at the budget: ranks, no t
        rows += [
            row for arm in table if arm != plan.baseline and plan.baseline in table
            if (row := _explored(quantity, arm, plan, table, ranked)) is not None
        ]  # fmt: skip
    if not rows:
        return ()
    q = benjamini_hochberg([row.p for row in rows]).tolist()
    return tuple(replace(row, q=each) for row, each in zip(rows, q, strict=True))


def _explored(
    quantity: str, arm: str, plan: Plan, table: Mapping[str, Mapping[int, float]], ranked: bool
) -> Exploratory | None:
    seeds = [seed for seed in plan.seeds if seed in table[arm] and seed in table[plan.baseline]]
    if len(seeds) < T_SEEDS:
        return None
    d = differences(*(np.array([table[each][seed] for seed in seeds]) for each in (arm, plan.baseline)))
    if is_constant(d):
        return None
    p, interval = paired_t(d, 1 - plan.alpha)
    if ranked:
        p, interval = wilcoxon_exact(d), None
    test = "Wilcoxon signed rank, exact" if ranked else "paired t"
    return Exploratory(quantity, arm, plan.baseline, len(seeds), float(d.mean()), interval, test, p, q=1.0)
