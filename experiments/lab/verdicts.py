"""Verdicts as an object: judged from a study or from anybody's numbers, read as a table, sentences and plots."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from core.errors import GrpoLabError, near
from core.parts.arguments import checked, in_python
from experiments.lab.frames import data_frame, html_or_text
from experiments.options import TABLE_LIMITS
from experiments.report.sentences import plain_sentence
from experiments.report.tables import compared_means
from experiments.results.tables.measurements import SCORED
from experiments.results.tables.sheets import TableError
from experiments.results.tables.tables import Question, Table, judge_table, read_rows
from experiments.statistics import Comparison, Curve, Judgement, Trajectory
from experiments.statistics.records import Family
from experiments.statistics.runs import Policy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

Measured: TypeAlias = float | Sequence[float] | tuple[Sequence[float], Sequence[float]] | ArrayLike
"""One run's result: a score; its answers [Q] or [Q, K] by question and sample; or a curve, (steps, values)."""


@dataclass(frozen=True, eq=False, repr=False)
class Verdicts:
    """What was judged: one comparison for each arm against the baseline, or for all pairs.

    `judgement` holds everything that was computed (`experiments.statistics.Judgement`). `verdicts["dr_grpo"]` is one
    comparison; iterating gives all of them.
    """

    judgement: Judgement
    title: str = ""

    def __iter__(self) -> Iterator[Comparison]:
        return iter(self.judgement.analysis.comparisons)

    def __len__(self) -> int:
        return len(self.judgement.analysis.comparisons)

    @checked()
    def __getitem__(self, arm: str) -> Comparison:
        """The comparison of an arm with the baseline; GrpoLabError for an arm that was not compared."""
        for comparison in self:
            if comparison.arm == arm and comparison.baseline == self.judgement.analysis.baseline:
                return comparison
        known = [each.arm for each in self if each.baseline == self.judgement.analysis.baseline]
        raise GrpoLabError(f"no verdict on '{arm}': {near(arm, known)}")

    @property
    def summary(self) -> list[str]:
        """Every verdict as one plain sentence."""
        return [plain_sentence(each, self.judgement) for each in self]

    @property
    def sentences(self) -> list[str]:
        """Every verdict in words, with what it rests on."""
        return [comparison.sentence for comparison in self]

    @property
    def notes(self) -> list[str]:
        """What to know of the data and of the design."""
        return list(self.judgement.analysis.notes)

    @property
    def warnings(self) -> list[str]:
        """What belongs beside the verdict: collapsed runs, and on what else the verdict hangs."""
        return list(self.judgement.warnings)

    def table(self) -> "DataFrame":
        """One row for each comparison: means, difference with its interval, adjusted p, effect size and verdict.

        Differences are arm - baseline, in the metric's unit; `low` and `high` are the ends of the 1 - alpha interval.
        Means are over the seeds that were compared: in a race arms leave early.
        """
        means = [compared_means(self.judgement, each) for each in self]
        return data_frame(
            {
                "arm": each.arm,
                "baseline": each.baseline,
                "seeds": each.effect.n,
                "mean": mean,
                "baseline_mean": baseline_mean,
                "difference": each.effect.mean_difference,
                "low": each.effect.interval[0] if each.effect.interval else None,
                "high": each.effect.interval[1] if each.effect.interval else None,
                "adjusted_p": each.adjusted_p,
                "g_z": each.effect.g_z,
                "verdict": each.verdict,
                "label": each.label,
            }
            for each, (mean, baseline_mean) in zip(self, means, strict=True)
        )

    def scores(self) -> "DataFrame":
        """The scores that were compared: a row for each seed, a column for each arm."""
        analysis = self.judgement.analysis
        rows = [
            {"seed": seed} | {each.arm: each.scores[place] for each in analysis.arms if place < len(each.scores)}
            for place, seed in enumerate(analysis.seeds)
        ]
        return data_frame(rows, ["seed"]).set_index("seed")

    def to_json(self) -> dict[str, Any]:
        """Everything that was computed, ready for `json.dumps`."""
        return self.judgement.to_json()

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """The differences with their intervals, as `lab.plot_differences` draws them."""
        from experiments.plots import plot_differences

        return plot_differences(self.judgement, ax=ax)

    def __str__(self) -> str:
        return "\n".join([*([self.title] if self.title else []), *self.summary, *self.warnings])

    __repr__ = __str__

    def _repr_html_(self) -> str | None:
        """For notebooks: the table, and the sentences below it."""
        return html_or_text(self._html)

    def _html(self) -> str:
        said = "".join(f"<li>{escape(line)}</li>" for line in (*self.summary, *self.warnings))
        title = f"<b>{escape(self.title)}</b>" if self.title else ""
        return f"{title}{self.table().to_html(index=False, float_format='{:.4g}'.format)}<ul>{said}</ul>"


@checked(meant=dict.fromkeys(("confidence", "level", "ci"), "alpha, 1 - the level: 0.05 for 95 %"), **TABLE_LIMITS)
def judge(
    measured: "Mapping[str, Mapping[int, Measured]] | DataFrame",
    *,
    baseline: str,
    metric: str | None = None,
    scalar: Literal["final", "auc"] = "final",
    axis: str = "steps",
    budget: float | None = None,
    margin: float | None = None,
    alpha: float = 0.05,
    family: Family = "baseline",
    higher_is_better: bool = True,
    failures: Policy = "worst",
    floor: float | None = None,
    answers: int | None = None,
) -> Verdicts:
    """Judge anybody's results, paired by seed: `{arm: {seed: result}}`, or a tidy data frame.

    A result is a score; the answers [Q] or [Q, K] by question and sample, which say how fine a score can be; or a
    curve, a tuple of steps (or whatever `axis` counts) and values, reduced by `scalar` at equal `budget`. A data frame
    has the columns, or levels of its index, of docs/tables.md: `arm`, `seed`, perhaps `step`, and one that is named
    like `metric`, or `value`. A score that is not finite is a failed run. The other parameters are those of `grpolab
    analyze`.

    Raises GrpoLabError for a baseline or metric that is not there, and for results that cannot be compared.
    """
    question = Question(
        baseline=baseline,
        metric=metric,
        scalar=scalar,
        axis=axis,
        budget=budget,
        margin=margin,
        alpha=alpha,
        family=family,
        higher_is_better=higher_is_better,
        failures=failures,
        floor=floor,
        answers=answers,
    )
    if hasattr(measured, "columns") and hasattr(measured, "index"):
        _check_tidy(measured, baseline)
        return _judged(lambda: read_rows(_records(measured, metric), "the data frame"), question)
    if not isinstance(measured, Mapping) or not measured:
        raise GrpoLabError(_nothing_in(measured))
    given = measured.items()
    for arm, _ in given:
        if not isinstance(arm, str):
            raise GrpoLabError(f"arm {arm!r}: the name of an arm is text; call it {str(arm)!r}, for the baseline too")
    paired = {arm: by_seed if hasattr(by_seed, "items") else _unpaired(arm, by_seed) for arm, by_seed in given}
    runs = [
        Trajectory(arm, _seed(arm, seed), "finished", {metric or "score": _curve(arm, seed, result, axis)})
        for arm, by_seed in paired.items()
        for seed, result in by_seed.items()
    ]
    if not runs:
        raise GrpoLabError("nothing to judge: give results as {arm: {seed: score}}")
    _check_questions(runs)
    return _judged(lambda: Table("the results", tuple(runs), ()), question)


def _nothing_in(measured: object) -> str:
    """The message for what holds no results: its type, and how to give what it may stand for."""
    remedy = "give results as {arm: {seed: score}}"
    if isinstance(measured, str | Path):
        remedy = f"read the file, pandas.read_csv({str(measured)!r}), or {remedy}"
    elif isinstance(measured, list | tuple) and measured and all(isinstance(row, Mapping) for row in measured):
        remedy = f"make a table of the rows, pandas.DataFrame(rows), or {remedy}"
    return f"nothing to judge: measured is of type {type(measured).__name__}; {remedy}"


def _check_tidy(frame: "DataFrame", baseline: str) -> None:
    """Refuse a data frame in which arms are columns, or rows: the message says how to turn it."""
    if "arm" in frame.columns:
        return
    by_seed = "frame.set_index('seed')" if "seed" in frame.columns else "frame"
    if baseline in frame.columns:
        raise GrpoLabError(
            f"the data frame has a column for each arm: give results by arm and seed, {by_seed}.to_dict()"
        )
    if "seed" not in {*frame.columns, *frame.index.names} and baseline in frame.index and frame.index.is_unique:
        raise GrpoLabError("the data frame has a row for each arm: give results by arm and seed, frame.T.to_dict()")


def _judged(read: Callable[[], Table], question: Question) -> Verdicts:
    """A table's verdicts; notes and errors name parameters as Python has them."""
    try:
        judgement = judge_table(read(), question)
    except TableError as error:
        raise GrpoLabError(in_python(str(error))) from None
    notes, warnings = (tuple(map(in_python, each)) for each in (judgement.analysis.notes, judgement.warnings))
    return Verdicts(replace(judgement, analysis=replace(judgement.analysis, notes=notes), warnings=warnings))


def _records(frame: "DataFrame", metric: str | None) -> list[dict[str, Any]]:
    """A data frame's rows; what is missing is an empty cell."""
    levels = [name for name in frame.index.names if name is not None and name not in frame.columns]
    if levels:
        frame = frame.reset_index(level=levels)
    if metric in frame.columns and metric != "value" and not {"metric", "score"} & set(frame.columns):
        frame = frame.drop(columns="value", errors="ignore").rename(columns={metric: "value"})  # one for each metric
    if "value" in frame.columns and not {"step", "score"} & set(frame.columns):
        frame = frame.rename(columns={"value": "score"})
    return [
        {str(name): None if missing[name] else cell for name, cell in row.items()}
        for row, missing in zip(frame.to_dict("records"), frame.isna().to_dict("records"), strict=True)
    ]


def _unpaired(arm: str, given: object) -> Mapping[int, Measured]:
    raise GrpoLabError(f"arm '{arm}': give results by seed, {{0: 0.61, 1: 0.58}}; got {type(given).__name__}")


def _seed(arm: str, seed: Any) -> int:
    """A seed; JSON writes 3 as "3", data frames as 3.0."""
    try:
        number = int(seed)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or not (isinstance(seed, str) or number == seed):
        raise GrpoLabError(f"arm '{arm}': seed {seed!r} is no whole number; give each run the one that its arms share")
    return number


def _check_questions(runs: Sequence[Trajectory]) -> None:
    """Answers are paired by question, so that every run has the same."""
    of = {
        (run.arm, run.seed): len(curve.samples[0])
        for run in runs
        for curve in run.curves.values()
        if curve.samples is not None
    }
    for (arm, seed), number in of.items():
        (first, at), expected = next(iter(of.items()))
        if number != expected:
            raise GrpoLabError(
                f"arm '{arm}', seed {seed}: answers {number} questions, but arm '{first}', seed {at} has {expected}; "
                "give all runs the same questions in the same order, or each run's mean instead of its answers"
            )


def _curve(arm: str, seed: int, result: Measured, axis: str) -> Curve:
    """A run's result as the statistics take it."""
    where = f"arm '{arm}', seed {seed}"
    try:
        if isinstance(result, tuple):
            spent, values = (np.asarray(each, dtype=np.float64) for each in result)
            if spent.shape != values.shape or spent.ndim != 1 or not len(spent):
                raise GrpoLabError(
                    f"{where}: a curve is (steps, values), two lists of one length; got {list(spent.shape)} and "
                    f"{list(values.shape)}"
                )
            if (np.diff(spent) <= 0).any():
                raise GrpoLabError(f"{where}: the steps of a curve must grow; count what was spent since the start")
            return Curve({axis: spent.tolist()}, values.tolist())
        array = np.asarray(result, dtype=np.float64)
    except (ValueError, TypeError):
        raise GrpoLabError(
            f"{where}: {result!r} is no result: give a number, answers [Q] or [Q, K], or a curve (steps, values)"
        ) from None
    if array.ndim > 2 or not array.size:
        raise GrpoLabError(
            f"{where}: answers have shape {list(array.shape)}: give [Q], one for each question, or [Q, K]"
        )
    if array.ndim == 0:
        return Curve({SCORED: [1.0]}, [float(array)])
    samples = array.reshape(1, len(array), -1) if np.isfinite(array).all() else None  # what failed answered nothing
    return Curve({SCORED: [1.0]}, [float(array.mean())], samples=samples)
