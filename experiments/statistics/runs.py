"""The runs of a study, as the statistics take them: what was planned, what became of each run, and its one number."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal, Protocol, TypeAlias

import numpy as np

from experiments.statistics.grown import Look
from experiments.statistics.predictions import Prediction
from experiments.statistics.records import Family, Questions
from experiments.statistics.samples import Array
from experiments.statistics.scalars import auc, final, last_evaluations

Reading: TypeAlias = Callable[[Sequence[float], Sequence[float]], float]
"""Reduces budgets and values [N] of a curve to one number, which is linear in the values."""
Policy: TypeAlias = Literal["worst", "intersect"]
Status: TypeAlias = Literal["finished", "failed", "lost", "pending"]


class Scalar(Protocol):
    """Reduces a curve to one number, which is linear in the values."""

    def __call__(self, budget: Sequence[float], values: Sequence[float], common_budget: float) -> float:
        """`budget` and `values` [N]."""


SCALARS: Final[Mapping[str, Scalar]] = {"final": final, "auc": auc}
"""What a run may be judged by: its last evaluations, or the area under its curve."""
CLOCK: Final = "seconds"
"""The axis that is measured by a clock."""
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
    largest: float = math.inf
    """The largest difference that the metric can have: 1 of a share."""
    failures: Policy = "worst"
    floor: float = 0.0
    """The score of a failed run that was not even evaluated at step 0; a failed run never scores better than this."""
    threshold: float | None = None
    """For `time_to`: the score to be reached."""
    questions: Questions = "fixed"
    """What the claim is about: these questions, or questions like these, so that they are a sample as seeds are."""
    race: bool = False
    """Look after every seed, and stop when all is decided."""
    looks: tuple[tuple[int, float], ...] = ()
    """Looks after so many seeds, each at its own level."""
    predictions: tuple[Prediction, ...] = ()
    seen: tuple[Look, ...] = ()
    """Looks at the study under earlier declarations, from which it grew."""
    further: int = 0
    """How many further questions final models were asked, on which the metric is then measured, once, at the end."""
    followed: str | None = None
    """The metric measured during training, where the verdict rests on further questions."""

    @property
    def course_metric(self) -> str:
        """The metric whose curve shows how a run went."""
        return self.followed or self.metric

    @property
    def sequential(self) -> bool:
        """Whether the study may end before its last seed."""
        return self.race or bool(self.looks)

    @property
    def measured(self) -> str:
        """The metric, and at equal what the arms are compared."""
        return f"{self.metric} at equal {self.axis.replace('_', ' ')}"


@dataclass(frozen=True)
class Curve:
    """One metric of one run, evaluation by evaluation."""

    spent: Mapping[str, Sequence[float]]
    """By axis, [N]: what had been spent at each evaluation."""
    values: Sequence[float]
    answers: Sequence[float] | None = None
    """[N]: how many answers, each right or wrong, every value is the mean of; None where that is not known."""
    samples: Array | Sequence[Array] | None = field(default=None, repr=False, compare=False)
    """[N, Q, K]: the scores by question and sample that every value is the mean of, the same questions at every
    evaluation and in every run; evaluations may differ in K. None where they are not known."""
    largest: float = field(default=math.inf, compare=False)
    """The largest difference that the metric can have: 1 of a share."""

    @property
    def measured(self) -> "Curve":
        """The evaluations at which there was something to measure."""
        if all(map(math.isfinite, self.values)):
            return self
        finite = [place for place, value in enumerate(self.values) if math.isfinite(value)]
        spent = {axis: [each[place] for place in finite] for axis, each in self.spent.items()}
        answers = None if self.answers is None else [self.answers[place] for place in finite]
        samples = None if self.samples is None else [self.samples[place] for place in finite]
        return Curve(spent, [self.values[place] for place in finite], answers, samples, self.largest)


@dataclass(frozen=True)
class Trajectory:
    """One planned run.

    `finished`: it reached its budget. `failed`: because of the method, or for an unknown cause. `lost`: because of the
    machine (a full disk, a lost worker), so that the method is not to blame. `pending`: it has not ended.
    """

    arm: str
    seed: int
    status: Status
    curves: Mapping[str, Curve] = field(default_factory=dict, repr=False)
    cause: str = ""
    families: tuple[str, ...] | None = field(default=None, repr=False, compare=False)
    """[Q]: the template or source that each question comes from, where the task names them."""


def check(plan: Plan, runs: Sequence[Trajectory]) -> None:
    """ValueError for an impossible plan, and for runs that do not belong to it."""
    if plan.scalar not in SCALARS:
        raise ValueError(f"judge: unknown scalar {plan.scalar!r}; choose one of {', '.join(SCALARS)}")
    if plan.failures not in POLICIES:
        raise ValueError(f"judge: unknown failure policy {plan.failures!r}; choose one of {', '.join(POLICIES)}")
    if plan.race and plan.looks:
        raise ValueError("judge: a study is raced or has looks, not both")
    if plan.sequential and plan.failures != "worst":
        raise ValueError("judge: a study that may end early takes failed runs at their declared score ('worst')")
    if plan.questions == "population" and (plan.sequential or plan.scalar != "final"):
        raise ValueError("judge: a claim about questions like these takes the scalar 'final' and all seeds")
    if plan.predictions and (plan.sequential or plan.questions == "population"):
        raise ValueError("judge: predictions take all seeds and these questions: no race, no looks, no population")
    seen: set[tuple[str, int]] = set()
    for run in runs:
        if (run.arm, run.seed) in seen:
            raise ValueError(f"judge: arm {run.arm!r}, seed {run.seed} is there twice; a seed has one run in an arm")
        seen.add((run.arm, run.seed))
        if run.seed not in plan.seeds:
            raise ValueError(f"judge: arm {run.arm!r} has seed {run.seed}, which is not in the plan")
        for metric, each in run.curves.items():
            _check_samples(run, metric, each)
        curve = run.curves.get(plan.metric)
        if run.status == "finished" and curve is not None and plan.axis not in curve.spent:
            raise ValueError(
                f"judge: arm {run.arm!r}, seed {run.seed} has no {plan.axis!r}; it has {', '.join(curve.spent)}"
            )
        if run.status == "finished" and curve is None:
            raise ValueError(
                f"judge: arm {run.arm!r}, seed {run.seed} is finished but has no {plan.metric!r}; it has "
                f"{', '.join(run.curves) or 'nothing'}"
            )


def _check_samples(run: Trajectory, metric: str, curve: Curve) -> None:
    if curve.samples is None:
        return
    where = f"judge: arm {run.arm!r}, seed {run.seed}"
    values = np.asarray(curve.values, dtype=np.float64)
    shapes = [each.shape for each in curve.samples]
    if len(shapes) != values.size or any(len(shape) != 2 or shape[0] != shapes[0][0] for shape in shapes):
        listed = " and ".join(str(shape) for shape in dict.fromkeys(shapes))
        raise ValueError(
            f"{where}: samples of shape {listed} at {len(shapes)} evaluations, for {values.size} of {metric!r}; give "
            "[questions, samples] for each, of the same questions"
        )
    means = np.array([each.mean() for each in curve.samples])
    off = np.flatnonzero(~np.isclose(means, values, rtol=1e-5, atol=1e-6, equal_nan=True))
    if off.size:
        at = int(off[0])
        raise ValueError(
            f"{where}: the samples of evaluation {at} have mean {means[at]:.6g}, but its {metric!r} is "
            f"{values[at]:.6g}; a score is the mean of its samples"
        )


def scores(
    plan: Plan,
    runs: Iterable[Trajectory],
    axis: str,
    budget: float | None,
    policy: Policy,
    *,
    read: Reading | None = None,
) -> dict[str, dict[int, float]]:
    """One number a run, {arm: {seed: score}}: finished runs by their curve, failed ones as the policy has it.

    `worst` gives a failed run the worse of its score before training and the declared floor: known before any later
    seed is seen. `intersect` leaves its seed out of every arm, as both do with lost and pending runs. `read` stands in
    for the declared scalar at the budget.
    """
    runs = list(runs)
    read = read or _declared(plan, runs, axis, budget)
    table: dict[str, dict[int, float]] = {arm: {} for arm in arms_of(runs)}
    for run in sorted(runs, key=lambda r: plan.seeds.index(r.seed)):
        if run.status == "finished":
            table[run.arm][run.seed] = _score(run, plan.metric, read, axis)
        elif run.status == "failed" and policy == "worst":
            table[run.arm][run.seed] = _imputed(plan, run)
    return table


def answers_of(
    plan: Plan, runs: Iterable[Trajectory], axis: str, budget: float | None, *, read: Reading | None = None
) -> dict[str, dict[int, Array]]:
    """What the scores of finished runs are means of, where that is known: {arm: {seed: [Q, K], or a number}}.

    Runs with other questions than the baseline's are no pair with it, question by question: theirs are left out.
    `read` stands in for the declared scalar at the budget.
    """
    runs = list(runs)
    read = read or _declared(plan, runs, axis, budget)
    table: dict[str, dict[int, Array]] = {}
    for run in runs:
        curve = run.curves.get(plan.metric)
        if run.status == "finished" and curve is not None and axis in curve.spent:
            reduced = _answers(curve, read, axis)
            if reduced is not None:
                table.setdefault(run.arm, {})[run.seed] = reduced
    questions = next((each.shape[:1] for each in table.get(plan.baseline, {}).values()), None)
    return {
        arm: {seed: each for seed, each in row.items() if each.shape[:1] == questions} for arm, row in table.items()
    }


def _answers(curve: Curve, read: Reading, axis: str) -> Array | None:
    """The samples of a curve [N, Q, K] reduced as its values are, [Q, K]; else how many answers its score rests on.

    Where evaluations differ in K, each has its samples averaged into as many as divide all their numbers, in order: a
    mean of all has the same variance, and so has what is estimated of it. A score Σ w_i v_i of means v_i of n_i
    independent answers has the variance of a mean of 1 / Σ (w_i² / n_i) of them.
    """
    if curve.samples is None and curve.answers is None:
        return None
    weights = _weights(curve, read, axis)
    used = weights != 0
    if curve.samples is not None:
        if len({each.shape for each in curve.samples}) > 1:
            tables = [each for each, counts in zip(curve.samples, used, strict=True) if counts]
            K = math.gcd(*(each.shape[1] for each in tables))
            grouped = [each.reshape(len(each), K, -1).mean(axis=2) for each in tables]
            return np.asarray(np.tensordot(weights[used], np.array(grouped), axes=1))
        return np.asarray(np.tensordot(weights, np.array(curve.samples), axes=1))
    return np.asarray(1 / np.sum(weights[used] ** 2 / np.asarray(curve.answers)[used]))


def samples_behind(plan: Plan, run: Trajectory) -> tuple[float, int] | None:
    """How many samples a question a finished run's score rests on, and over how many evaluations; None: unknown.

    A score Σ w_i v_i of means v_i of K_i samples has the variance of a mean of 1 / Σ (w_i² / K_i) of them.
    """
    curve = run.curves[plan.metric]
    if curve.samples is None or plan.budget is None:
        return None
    weights = _weights(curve, _declared(plan, [run], plan.axis, plan.budget), plan.axis)
    share = sum(weight**2 / table.shape[1] for weight, table in zip(weights, curve.samples, strict=True))
    return round(float(1 / share), 9), int(np.count_nonzero(weights))


def _declared(plan: Plan, runs: Iterable[Trajectory], axis: str, budget: float | None) -> Reading:
    """The declared scalar at a budget; None: the least that a finished run has spent."""
    return partial(SCALARS[plan.scalar], common_budget=least_spent(plan, runs, axis) if budget is None else budget)


def _weights(curve: Curve, read: Reading, axis: str) -> Array:
    """By which every evaluation enters the score, [N]."""
    units = np.eye(len(curve.values)).tolist()
    return np.array([read(curve.spent[axis], unit) for unit in units])


def arms_of(runs: Iterable[Trajectory]) -> list[str]:
    """The arms, in order of appearance."""
    return list(dict.fromkeys(run.arm for run in runs))


def least_spent(plan: Plan, runs: Iterable[Trajectory], axis: str) -> float:
    """The budget that every finished run has: on an axis without a declared one."""
    return min((run.curves[plan.metric].spent[axis][-1] for run in runs if run.status == "finished"), default=0.0)


def cheapest_window(plan: Plan, runs: Iterable[Trajectory], axis: str) -> list[float]:
    """What the finished run that spent least had spent at the evaluations which its `final` averages, [k].

    Less those before another run's first evaluation, which no score between evaluations can be read at.
    """
    finished = [run.curves[plan.metric].spent[axis] for run in runs if run.status == "finished"]
    spent = min(finished, key=lambda each: each[-1], default=())
    first = max((each[0] for each in finished), default=0.0)
    return [each for each in spent[-last_evaluations(len(spent)) :] if each >= first]


def _score(run: Trajectory, metric: str, read: Reading, axis: str) -> float:
    curve = run.curves[metric]
    try:
        return read(curve.spent[axis], curve.values)
    except ValueError as error:
        raise ValueError(f"arm {run.arm!r}, seed {run.seed}: {error}") from None


def _imputed(plan: Plan, run: Trajectory) -> float:
    curve = run.curves.get(plan.course_metric)
    worse = min if plan.higher_is_better else max
    untrained = curve is not None and any(spent[0] == 0 for spent in curve.spent.values() if len(spent))
    before = [value for value in (curve.values[:1] if curve and untrained else ()) if math.isfinite(value)]
    return worse([plan.floor, *before])
