"""A whole study judged as it was planned: runs in, verdicts out, with everything a verdict might depend on beside it.

    runs (curves) -> one number a run -> failures settled -> paired by seed -> `analyze` -> verdicts
                                                                              and again: the other failure policy,
                                                                              the other budget axes, other scalars

Nothing here knows where the runs come from: a study's folder, or anybody's table.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np

from experiments.statistics.analysis import analyze
from experiments.statistics.coupling import Coupling, coupling
from experiments.statistics.exploratory import benjamini_hochberg, binomial_interval, collapse_rate_upper
from experiments.statistics.paired import paired_t, wilcoxon_exact
from experiments.statistics.samples import Interval, differences, is_constant
from experiments.statistics.scalars import auc, collapsed, drawdown, final, time_to
from experiments.statistics.verdict import Analysis, Comparison, Family, to_plain
from experiments.statistics.wording import T_SEEDS

Policy: TypeAlias = Literal["worst", "intersect"]
Status: TypeAlias = Literal["finished", "failed", "lost", "pending"]


class Scalar(Protocol):
    """Reduces a curve to one number."""

    def __call__(self, budget: Sequence[float], values: Sequence[float], common_budget: float) -> float:
        """`budget` and `values` [N]."""


SCALARS: Final[Mapping[str, Scalar]] = {"final": final, "auc": auc}
"""What a run may be judged by: its last evaluations, or the area under its curve."""
POLICIES: Final[tuple[Policy, ...]] = ("worst", "intersect")


@dataclass(frozen=True)
class Plan:
    """What was declared before the first run; anything else is exploratory."""

    metric: str
    baseline: str
    seeds: tuple[int, ...]
    """In the order in which they are run."""
    axis: str = "steps"
    budget: float | None = None
    """In units of the axis; None: the least that a finished run has spent (tables without a declaration)."""
    scalar: str = "final"
    family: Family = "baseline"
    alpha: float = 0.05
    margin: float = 0.01
    """The smallest difference of interest, in the metric's unit."""
    higher_is_better: bool = True
    failures: Policy = "worst"
    floor: float = 0.0
    """The score of a failed run that was not even evaluated at step 0; a failed run never scores better than this."""
    threshold: float | None = None
    """For `time_to`: the score to be reached."""


@dataclass(frozen=True)
class Curve:
    """One metric of one run, evaluation by evaluation."""

    spent: Mapping[str, Sequence[float]]
    """By axis, [N]: what had been spent at each evaluation."""
    values: Sequence[float]


@dataclass(frozen=True)
class Trajectory:
    """One planned run.

    `finished`: it reached its budget. `failed`: of the method's own doing, or for an unknown cause. `lost`: the
    machine's doing (a full disk, a lost worker), so the method is not to blame. `pending`: it has not come to its end.
    """

    arm: str
    seed: int
    status: Status
    curves: Mapping[str, Curve] = field(default_factory=dict, repr=False)
    cause: str = ""


@dataclass(frozen=True)
class Outcomes:
    """What became of an arm's planned runs, and how often the method itself went wrong.

    `imputed` of the failed runs entered the verdict with their declared score. `collapsed` are finished runs whose
    score fell below that of the base model after having been better. `failure_rate` is the exact 95 % interval of the
    share of runs that fail or collapse, of those that came to an end.
    """

    arm: str
    planned: int
    finished: int
    failed: int
    lost: int
    pending: int
    imputed: int
    collapsed: int
    causes: tuple[str, ...]
    failure_rate: Interval | None


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


@dataclass(frozen=True)
class Judgement:
    """The verdicts of a study, and whether they hold when something beside the method is looked at differently."""

    plan: Plan
    analysis: Analysis
    """As declared: metric, scalar, axis, budget, failure policy."""
    policies: Mapping[str, Analysis | None]
    """The same under each failure policy; None where nothing is left to compare."""
    axes: Mapping[str, Analysis | None]
    """The same at equal budgets on each axis that was recorded."""
    outcomes: tuple[Outcomes, ...]
    couplings: Mapping[tuple[str, str], Coupling]
    """By (arm, baseline): what identical seeds bought."""
    exploratory: tuple[Exploratory, ...]
    warnings: tuple[str, ...]
    """What belongs beside the verdict: it hangs on how failures are handled, or on the axis."""

    def to_json(self) -> dict[str, Any]:
        """The analysis as JSON, and beside it all else that was looked at."""

        def verdicts(of: Mapping[str, Analysis | None]) -> dict[str, Any]:
            return {
                name: None if a is None else {f"{c.arm} vs {c.baseline}": _in_brief(c) for c in a.comparisons}
                for name, a in of.items()
            }

        return self.analysis.to_json() | {
            "plan": to_plain(self.plan),
            "warnings": list(self.warnings),
            "failure_policies": verdicts(self.policies),
            "axes": verdicts(self.axes),
            "outcomes": to_plain(self.outcomes),
            "coupling": {f"{arm} vs {base}": to_plain(c) for (arm, base), c in self.couplings.items()},
            "exploratory": to_plain(self.exploratory),
        }


def judge(plan: Plan, runs: Sequence[Trajectory]) -> Judgement | None:
    """Judge `runs` as planned; None when there is nothing to compare yet.

    Raises ValueError: a run twice, a seed or metric that the plan does not know, a scalar that is none, a curve that
    does not reach the budget, more than a fifth of the planned pairs removed.
    """
    _check(plan, runs)
    budget = plan.budget if plan.budget is not None else _least_spent(plan, runs, plan.axis)
    policies: dict[str, Analysis | None] = {
        policy: _analysis(plan, runs, plan.axis, budget, policy) for policy in POLICIES
    }
    analysis = policies[plan.failures]
    if analysis is None:
        return None
    axes = {
        axis: analysis if axis == plan.axis else _analysis(plan, runs, axis, None, plan.failures)
        for axis in _axes(plan, runs)
    }
    outcomes = tuple(_outcomes(plan, runs, arm, budget, analysis) for arm in _arms(runs))
    warnings = [*_policy_warnings(policies), *_axis_warnings(analysis, axes, plan.axis)]
    notes = [*_pending_notes(plan, runs, analysis), *_failure_notes(plan, outcomes), *analysis.notes]
    scores = {each.arm: each.scores for each in analysis.arms}
    return Judgement(
        plan=plan,
        analysis=replace(analysis, notes=tuple(notes)),
        policies=policies,
        axes=axes,
        outcomes=outcomes,
        couplings={
            (c.arm, c.baseline): coupling(scores[c.arm], scores[c.baseline]) for c in analysis.comparisons if c.n > 1
        },
        exploratory=_exploratory(plan, runs, budget),
        warnings=tuple(warnings),
    )


def scores(
    plan: Plan, runs: Iterable[Trajectory], axis: str, budget: float | None, policy: Policy
) -> dict[str, dict[int, float]]:
    """One number a run, {arm: {seed: score}}: finished runs by their curve, failed ones as the policy has it.

    `worst` gives a failed run the worse of its score before training and the declared floor: known before any later
    seed is seen. `intersect` leaves its seed out of every arm, as both do with lost and pending runs.
    """
    runs = list(runs)
    if budget is None:
        budget = _least_spent(plan, runs, axis)
    table: dict[str, dict[int, float]] = {arm: {} for arm in _arms(runs)}
    for run in sorted(runs, key=lambda r: plan.seeds.index(r.seed)):
        if run.status == "finished":
            table[run.arm][run.seed] = _score(run, plan.metric, plan.scalar, axis, budget)
        elif run.status == "failed" and policy == "worst":
            table[run.arm][run.seed] = _imputed(plan, run)
    return table


def _check(plan: Plan, runs: Sequence[Trajectory]) -> None:
    if plan.scalar not in SCALARS:
        raise ValueError(f"judge: unknown scalar {plan.scalar!r}; choose one of {', '.join(SCALARS)}")
    if plan.failures not in POLICIES:
        raise ValueError(f"judge: unknown failure policy {plan.failures!r}; choose one of {', '.join(POLICIES)}")
    seen: set[tuple[str, int]] = set()
    for run in runs:
        if (run.arm, run.seed) in seen:
            raise ValueError(f"judge: arm {run.arm!r}, seed {run.seed} is there twice; a seed has one run in an arm")
        seen.add((run.arm, run.seed))
        if run.seed not in plan.seeds:
            raise ValueError(f"judge: arm {run.arm!r} has seed {run.seed}, which the plan does not know")
        if run.status == "finished" and plan.metric not in run.curves:
            raise ValueError(
                f"judge: arm {run.arm!r}, seed {run.seed} is finished but has no {plan.metric!r}; it has "
                f"{', '.join(run.curves) or 'nothing'}"
            )


def _arms(runs: Iterable[Trajectory]) -> list[str]:
    return list(dict.fromkeys(run.arm for run in runs))


def _axes(plan: Plan, runs: Sequence[Trajectory]) -> list[str]:
    """The declared axis, and those that every finished run has recorded."""
    spent = [run.curves[plan.metric].spent.keys() for run in runs if run.status == "finished"]
    return [axis for axis in (spent[0] if spent else ()) if all(axis in each for each in spent)]


def _least_spent(plan: Plan, runs: Iterable[Trajectory], axis: str) -> float:
    """The budget that every finished run has: on an axis without a declared one."""
    return min((run.curves[plan.metric].spent[axis][-1] for run in runs if run.status == "finished"), default=0.0)


def _score(run: Trajectory, metric: str, scalar: str, axis: str, budget: float) -> float:
    curve = run.curves[metric]
    if axis not in curve.spent:
        raise ValueError(f"judge: arm {run.arm!r}, seed {run.seed} has no {axis!r}; it has {', '.join(curve.spent)}")
    try:
        return SCALARS[scalar](curve.spent[axis], curve.values, budget)
    except ValueError as error:
        raise ValueError(f"arm {run.arm!r}, seed {run.seed}: {error}") from None


def _imputed(plan: Plan, run: Trajectory) -> float:
    curve = run.curves.get(plan.metric)
    worse = min if plan.higher_is_better else max
    before = [value for value in (curve.values[:1] if curve else ()) if math.isfinite(value)]
    return worse([plan.floor, *before])


def _analysis(
    plan: Plan, runs: Sequence[Trajectory], axis: str, budget: float | None, policy: Policy
) -> Analysis | None:
    table = {arm: row for arm, row in scores(plan, runs, axis, budget, policy).items() if row}
    if plan.baseline not in table or len(table) < 2 or not set.intersection(*map(set, table.values())):
        return None
    return analyze(
        table, baseline=plan.baseline, metric=plan.metric, axis=axis, alpha=plan.alpha, margin=plan.margin,
        family=plan.family, higher_is_better=plan.higher_is_better,
    )  # fmt: skip


def _outcomes(plan: Plan, runs: Sequence[Trajectory], arm: str, budget: float, analysis: Analysis) -> Outcomes:
    own = [run for run in runs if run.arm == arm]
    by_status = {status: [r for r in own if r.status == status] for status in ("finished", "failed", "lost", "pending")}
    fell = sum(_fell(plan, run.curves[plan.metric], budget) for run in by_status["finished"])
    ended = len(by_status["finished"]) + len(by_status["failed"])
    judged = plan.failures == "worst" and arm in {each.arm for each in analysis.arms}
    return Outcomes(
        arm=arm,
        planned=len(plan.seeds),
        finished=len(by_status["finished"]),
        failed=len(by_status["failed"]),
        lost=len(by_status["lost"]),
        pending=len(plan.seeds) - ended - len(by_status["lost"]),
        imputed=sum(run.seed in analysis.seeds for run in by_status["failed"]) if judged else 0,
        collapsed=fell,
        causes=tuple(dict.fromkeys(run.cause for run in own if run.cause)),
        failure_rate=binomial_interval(fell + len(by_status["failed"]), ended) if ended else None,
    )


def _fell(plan: Plan, curve: Curve, budget: float) -> bool:
    """Whether a finished run collapsed; without an evaluation before training nobody can tell."""
    spent = curve.spent[plan.axis]
    return spent[0] == 0 and collapsed(spent, curve.values, budget, plan.margin, plan.higher_is_better)


def _policy_warnings(policies: Mapping[str, Analysis | None]) -> list[str]:
    """A verdict that is another one when failures are handled otherwise is no finding about the method alone."""
    worst, intersect = policies["worst"], policies["intersect"]
    if worst is None or intersect is None:
        return [] if worst is intersect else ["Depends on failure handling: without the failed runs nothing is left."]
    other = {(c.arm, c.baseline): c for c in intersect.comparisons}
    told = [
        f"{c.arm} vs {c.baseline} is {c.verdict} with the failed runs at their declared score (n = {c.n}), "
        f"{other[c.arm, c.baseline].verdict} without their seeds (n = {other[c.arm, c.baseline].n})"
        for c in worst.comparisons
        if (c.arm, c.baseline) in other and c.verdict != other[c.arm, c.baseline].verdict
    ]
    return [f"Depends on failure handling: {'; '.join(told)}."] if told else []


def _axis_warnings(declared: Analysis, axes: Mapping[str, Analysis | None], axis: str) -> list[str]:
    """A change of sign or verdict between budget axes belongs beside the headline."""
    found = []
    verdicts = {(c.arm, c.baseline): c for c in declared.comparisons}
    for name, analysis in axes.items():
        for c in analysis.comparisons if analysis is not None and name != axis else ():
            ours = verdicts.get((c.arm, c.baseline))
            if ours is None or (ours.verdict == c.verdict and ours.mean_difference * c.mean_difference >= 0):
                continue
            found.append(
                f"Depends on the budget: {c.arm} vs {c.baseline} is {ours.verdict} "
                f"({ours.mean_difference:+.3g}) at equal {axis.replace('_', ' ')}, {c.verdict} "
                f"({c.mean_difference:+.3g}) at equal {name.replace('_', ' ')}."
            )
    return found


def _pending_notes(plan: Plan, runs: Sequence[Trajectory], analysis: Analysis) -> list[str]:
    arms = _arms(runs)
    judged = {each.arm for each in analysis.arms}
    notes = [f"{arm} has no finished run: it is compared with nothing." for arm in arms if arm not in judged]
    waiting = len(plan.seeds) - len(analysis.seeds)
    if waiting and sum(r.status == "pending" for r in runs) + len(arms) * len(plan.seeds) > len(runs):
        notes.append(
            f"Interim: {len(analysis.seeds)} of the {len(plan.seeds)} declared seeds are finished in every arm. A "
            "verdict at this point is provisional, and stopping here because of it would invalidate the test."
        )
    return notes


def _failure_notes(plan: Plan, outcomes: Sequence[Outcomes]) -> list[str]:
    """How often runs failed, and what a clean record at this n can and cannot exclude."""
    notes = []
    for each in outcomes:
        if each.failed or each.collapsed:
            assert each.failure_rate is not None
            how = "kept with their declared score" if plan.failures == "worst" else "left out, with their seeds"
            low, high = each.failure_rate
            ended = each.finished + each.failed
            notes.append(
                f"{each.arm}: {each.failed} of {ended} runs failed ({how}) and {each.collapsed} collapsed; the "
                f"95 % interval of the rate is {100 * low:.0f} % to {100 * high:.0f} %."
            )
    clean = [each.finished for each in outcomes if each.finished and not each.failed and not each.collapsed]
    if clean:
        n = min(clean)
        notes.append(
            f"No failure in {n} seed{'s' * (n > 1)} is compatible with a failure rate of up to "
            f"{100 * collapse_rate_upper(n):.0f} % (95 %): no test at this n sees a rare collapse."
        )
    return notes


def _exploratory(plan: Plan, runs: Sequence[Trajectory], budget: float) -> tuple[Exploratory, ...]:
    """Other scalars of the metric, and other metrics: finished runs only, one Benjamini-Hochberg family."""
    done = [run for run in runs if run.status == "finished"]
    quantities: dict[str, dict[str, dict[int, float]]] = {}

    def add(name: str, metric: str, reduce: Callable[[Sequence[float], Sequence[float]], float]) -> None:
        for run in done:
            curve = run.curves.get(metric)
            pairs = zip(curve.spent[plan.axis], curve.values, strict=True) if curve else ()
            known = [(x, y) for x, y in pairs if math.isfinite(y)]
            if known:
                try:
                    value = reduce(*map(list, zip(*known, strict=True)))
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


def _in_brief(comparison: Comparison) -> dict[str, Any]:
    return {
        "verdict": comparison.verdict, "mean_difference": comparison.mean_difference, "n": comparison.n,
        "adjusted_p": comparison.adjusted_p,
    }  # fmt: skip
