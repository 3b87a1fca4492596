"""The course of a run's score: whether it kept what it had gained, lost it, or lost it for a while.

The end of a run is held against its start and its peak, and every difference against the noise of the evaluations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from scipy import special

from experiments.statistics.runs import Curve, Plan, Trajectory
from experiments.statistics.samples import ROUNDING, Array, check_level
from experiments.statistics.scalars import finite_evaluations, last_evaluations

Kind: TypeAlias = Literal["steady", "dipped", "declined", "collapsed"]

ALPHA: Final = 0.001
"""Bound of the probability that noise alone makes a run look as if it had fallen at any time."""
_ENDS: Final[Mapping[Kind, float]] = {"collapsed": 0.5, "declined": 0.9}
"""Share of its gain that a run keeps at least if it has not ended so."""
_MEDIAN_CHI2: Final = 0.45493642311957283  # of one degree of freedom


@dataclass(frozen=True)
class Course:
    """A run's course from its start over its peak to its end, in the metric's unit; budgets in that of the axis.

    `end` is the mean of the last `averaged` evaluations and of so many `answers` (None: not known); `lowest`, at
    `lowest_at`, is where a run that dipped was.
    """

    kind: Kind
    start: float
    peak: float
    peak_at: float
    end: float
    averaged: int
    answers: float | None
    lowest: float
    lowest_at: float


def course(
    budget: Sequence[float],
    values: Sequence[float],
    common_budget: float,
    margin: float,
    *,
    answers: Sequence[float] | None = None,
    noise: float = 0.0,
    higher_is_better: bool = True,
) -> Course:
    """Judge the end of a run against its start s, the evaluation at budget 0, and its peak P, the best evaluation.

    A mean E of evaluations lies below the level that keeps the share λ of the gain, L = s + λ (P - s), if

        L - E > max(Δ, z √(var E + λ² var P + (1 - λ)² var s)),   z = Φ⁻¹(1 - α/m),   m = N (N + 1) / 2

    for N evaluations after the start, margin Δ and α = 0.001; upside down where lower is better.

        collapsed   so is, at λ = 1/2, the last evaluation or the mean of the last two, ..., k after the peak, and the
                    last evaluation is itself no higher than L
        declined    not so, but that holds at λ = 0.9
        dipped      neither, but an evaluation in between was so at λ = 1/2, with P the best before it
        steady      none of these

    k is as in `final`. The mean of n answers that are right or wrong has var = q (1 - q) / n with q = (x + 2) / (n + 4)
    for x right ones (Agresti and Coull 1998); n is the sum of `answers` [N + 1] over its evaluations. Without them, a
    mean of j evaluations has var = `noise`² / j. ValueError unless margin > 0 and the first evaluation is at 0.
    """
    check_level("course: margin", margin, high=np.inf)
    spent, used = finite_evaluations(budget, values, common_budget, "course")
    if spent[0] != 0:
        raise ValueError(f"course: the first evaluation is at {spent[0]:g}, not 0; evaluate before training as well")
    n = None if answers is None else np.asarray(answers, dtype=np.float64)[: used.size]
    run = _RunValues(used if higher_is_better else -used, used, n, noise, margin)
    kind, end, low = run.judged()
    peak = run.peak
    return Course(
        kind=kind,
        start=float(used[0]),
        peak=float(used[peak]),
        peak_at=float(spent[peak]),
        end=float(used[end].mean()),
        averaged=end.stop - end.start,
        answers=None if n is None else float(n[end].sum()),
        lowest=float(used[low]),
        lowest_at=float(spent[low]),
    )


@dataclass(frozen=True)
class _RunValues:
    """The evaluations of one run, [N + 1], as `course` judges them."""

    height: Array
    """The values, upside down where lower is better."""
    values: Array
    answers: Array | None
    noise: float
    margin: float

    @property
    def after(self) -> int:
        """How many evaluations there are after the start."""
        return self.height.size - 1

    @property
    def peak(self) -> int:
        """The best evaluation, the last of equals."""
        return self.after - int(self.height[::-1].argmax())

    def judged(self) -> tuple[Kind, slice, int]:
        """What became of the run, the evaluations that show it as its end, and its lowest evaluation or dip."""
        size, last = self.height.size, min(last_evaluations(self.height.size), self.after - self.peak)
        tails = [slice(size - k, size) for k in range(1, 1 + last)]
        low = int(self.height.argmin())
        for name, kept in _ENDS.items():
            # one low evaluation before the last is a dip
            sunk = self.height[-1] < self._level(self.peak, kept)
            fallen = [tail for tail in tails if sunk and self._is_below(tail, self.peak, kept)]
            if fallen:
                return name, fallen[-1], low
        end = tails[-1] if tails else slice(self.after, size)
        before = [int(self.height[:i].argmax()) for i in range(1, self.after)]  # the best before each in between
        dips = [
            i for i, peak in enumerate(before, start=1) if self._is_below(slice(i, i + 1), peak, _ENDS["collapsed"])
        ]
        return ("dipped", end, min(dips, key=lambda i: self.height[i])) if dips else ("steady", end, low)

    def _level(self, peak: int, kept: float) -> float:
        return float(self.height[0] + kept * (self.height[peak] - self.height[0]))

    def _is_below(self, place: slice, peak: int, kept: float) -> bool:
        z = float(special.ndtri(1 - ALPHA / max(1, self.after * (self.after + 1) / 2)))
        of_peak, of_start = self._variance(slice(peak, peak + 1)), self._variance(slice(0, 1))
        # at the start they are the very same evaluation
        spread = of_start if peak == 0 else kept**2 * of_peak + (1 - kept) ** 2 * of_start
        error = float(np.sqrt(spread + self._variance(place)))
        gap = self._level(peak, kept) - self.height[place].mean()
        return bool(gap > max(self.margin, z * error) + ROUNDING * np.abs(self.values).max())

    def _variance(self, place: slice) -> float:
        """Of the mean of some evaluations."""
        if self.answers is None:
            return self.noise**2 / self.values[place].size
        n = float(self.answers[place].sum())
        q = (n * float(self.values[place].mean()) + 2) / (n + 4)
        return max(0.0, q * (1 - q)) / n


def courses(plan: Plan, runs: Sequence[Trajectory], budget: float) -> dict[tuple[str, int], Course | None]:
    """The course of every finished run, by arm and seed; None without an evaluation before training, or after it.

    Where it is not known how many answers an evaluation rests on, its noise is taken from all of these runs.
    """
    done = [run for run in runs if run.status == "finished"]
    noise = _noise(plan, [run.curves[plan.course_metric] for run in done], budget)
    result: dict[tuple[str, int], Course | None] = {}
    for run in done:
        curve = run.curves[plan.course_metric]
        spent = curve.spent[plan.axis]
        measured = spent[0] == 0 and len(spent) > 1 and spent[1] <= budget
        result[run.arm, run.seed] = (
            None
            if not measured
            else course(
                spent,
                curve.values,
                budget,
                plan.margin,
                answers=curve.answers,
                noise=noise,
                higher_is_better=plan.higher_is_better,
            )
        )
    return result


def _noise(plan: Plan, curves: Sequence[Curve], budget: float) -> float:
    """The sd of an evaluation, from successive ones: √(median (v_{i+1} - v_i)² / (2 · 0.455)) over all runs.

    For normal noise that is its sd (0.455 is the median of χ² with one degree of freedom). Learning between two
    evaluations makes it larger; a few falls do not.
    """
    steps = [
        np.diff(np.asarray(curve.values, dtype=np.float64)[np.asarray(curve.spent[plan.axis]) <= budget])
        for curve in curves
    ]
    moved = np.concatenate(steps) if steps else np.empty(0)
    return float(np.sqrt(np.median(moved**2) / (2 * _MEDIAN_CHI2))) if moved.size else 0.0
