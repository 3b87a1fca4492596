"""Sampled against greedy answers: whether an arm knows more, or only answers more surely.

Training can raise the accuracy of sampled answers by lowering the entropy alone. Greedy answers do not gain by that.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from experiments.statistics.answers import noise
from experiments.statistics.multiplicity import holm
from experiments.statistics.numbers import rounded
from experiments.statistics.paired import paired_t
from experiments.statistics.records import Analysis
from experiments.statistics.rule import T_SEEDS
from experiments.statistics.runs import SCALARS, Plan, Trajectory, answers_of
from experiments.statistics.samples import Array, Interval, differences, mean_difference, within

BESIDE: Final = {
    "accuracy": "greedy_accuracy",
    "adjusted_accuracy": "greedy_accuracy",
    "greedy_accuracy": "accuracy",
}
_HOW: Final = {"accuracy": "sampled", "adjusted_accuracy": "sampled", "greedy_accuracy": "greedy"}


@dataclass(frozen=True)
class Beside:
    """One comparison on the declared metric and, over the same finished seeds, on its counterpart.

    `difference` and `other` are mean differences, arm - baseline, on the declared metric and on the counterpart;
    `excess` is their difference, whose p (paired t, Holm over the comparisons) says whether the two differ. They
    `disagree` where the declared verdict is better or worse, the two differ (p at most α), and the counterpart does not
    go the same way: its interval does not lie on the same side of 0.
    """

    arm: str
    baseline: str
    metric: str
    """The counterpart."""
    n: int
    difference: float
    other: float
    interval: Interval | None
    """Of `other`."""
    excess: float
    excess_interval: Interval | None
    p: float
    disagree: bool


def beside(plan: Plan, runs: Sequence[Trajectory], budget: float, analysis: Analysis) -> tuple[Beside, ...]:
    """Every comparison beside its counterpart; none where that was not measured, or at fewer than 3 finished seeds."""
    suite, _, name = plan.metric.rpartition("/")
    if name not in BESIDE:
        return ()
    counterpart = f"{suite}/{BESIDE[name]}" if suite else BESIDE[name]
    tables = [_scores(plan, runs, metric, budget) for metric in (plan.metric, counterpart)]
    answers = [
        answers_of(replace(plan, metric=metric), runs, plan.axis, budget) for metric in (plan.metric, counterpart)
    ]
    rows: list[Beside] = []
    for c in analysis.comparisons:
        pair = (c.arm, c.baseline)
        seeds = [s for s in analysis.seeds if all((arm, s) in table for arm in pair for table in tables)]
        if len(seeds) < T_SEEDS:
            continue
        ours, others = (
            differences(*(np.array([table[arm, seed] for seed in seeds]) for arm in pair)) for table in tables
        )
        cells = [_cells(table, pair, seeds) for table in answers]
        rows.append(_compare(c.arm, c.baseline, counterpart, ours, others, plan, _least_errors(*cells)))
    adjusted = holm([each.p for each in rows]).tolist() if rows else []
    verdicts = {(c.arm, c.baseline): c.verdict for c in analysis.comparisons}
    return tuple(
        replace(each, p=p, disagree=verdicts[each.arm, each.baseline] in ("better", "worse") and _differ(each, p, plan))
        for each, p in zip(rows, adjusted, strict=True)
    )


def sharpening_warnings(plan: Plan, rows: Sequence[Beside]) -> list[str]:
    """Which verdicts are about how surely an arm answers rather than about what it knows."""
    warnings = []
    for each in rows:
        if each.disagree:
            ours, others = (_HOW[metric.rpartition("/")[2]] for metric in (plan.metric, each.metric))
            gains = (each.difference > 0) == plan.higher_is_better
            p = rounded(each.p, 2, [plan.alpha])
            warnings.append(
                f"Sampled and greedy answers disagree: {each.arm} vs {each.baseline} differs by {each.difference:+.3g} "
                f"in {ours} answers, but by {each.other:+.3g}{_shown(each.interval)} in {others} ones (that both are "
                f"alike: p = {p}). The {'gain' if gains else 'loss'} is one in how surely it answers"
                f"{' (sharpening)' if gains and ours == 'sampled' else ''}, not in which answer it holds most likely."
            )
    return warnings


def _compare(
    arm: str, baseline: str, metric: str, ours: Array, others: Array, plan: Plan, least: tuple[float, float]
) -> Beside:
    """`least`: the least standard errors of the excess and of the counterpart, by the answers."""
    excess = differences(ours, others)
    p, excess_interval = paired_t(excess, 1 - plan.alpha, least[0])
    _, interval = paired_t(others, 1 - plan.alpha, least[1])
    return Beside(
        arm=arm,
        baseline=baseline,
        metric=metric,
        n=ours.size,
        difference=mean_difference(ours),
        other=mean_difference(others),
        interval=within(interval, plan.largest),
        excess=mean_difference(excess),
        excess_interval=within(excess_interval, 2 * plan.largest),
        p=p,
        disagree=False,
    )


def _differ(each: Beside, p: float, plan: Plan) -> bool:
    excludes_zero = each.interval is not None and each.interval[0] * each.interval[1] > 0
    same_direction = excludes_zero and each.other * each.difference > 0
    return p <= plan.alpha and each.excess * each.difference > 0 and not same_direction


def _shown(interval: Interval | None) -> str:
    return f" [{', '.join(rounded(end, 3, [0.0], sign='+') for end in interval)}]" if interval else ""


def _cells(answers: Mapping[str, Mapping[int, Array]], pair: tuple[str, str], seeds: Sequence[int]) -> Array | None:
    """Differences by question [S, Q], where every run has them."""
    if not all(seed in answers.get(arm, ()) and answers[arm][seed].ndim == 2 for arm in pair for seed in seeds):
        return None
    x, y = (np.array([answers[arm][seed].mean(axis=1) for seed in seeds]) for arm in pair)
    return differences(x, y)


def _least_errors(ours: Array | None, others: Array | None) -> tuple[float, float]:
    """The least standard errors of the difference of the two mean differences, and of the second."""
    if others is None:
        return 0.0, 0.0
    of_others = math.sqrt(noise(others) / others.size)
    if ours is None or ours.shape != others.shape:
        return of_others, of_others
    return math.sqrt(noise(differences(ours, others)) / others.size), of_others


def _scores(plan: Plan, runs: Sequence[Trajectory], metric: str, budget: float) -> dict[tuple[str, int], float]:
    """The declared scalar of finished runs, where the metric was measured at every evaluation up to the budget."""
    table = {}
    for run in runs:
        curve = run.curves.get(metric)
        if run.status != "finished" or curve is None or plan.axis not in curve.spent:
            continue
        spent = curve.spent[plan.axis]
        if all(np.isfinite(value) for value, at in zip(curve.values, spent, strict=True) if at <= budget):
            table[run.arm, run.seed] = SCALARS[plan.scalar](spent, curve.values, budget)
    return table
