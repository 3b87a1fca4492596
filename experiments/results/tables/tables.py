"""From measurements to a judgement: runs are assembled, what is missing is noted, and the runs are judged.

files or rows -> measurements -> `Table`: runs with curves -> `judge_table`: a plan and settled runs -> `judge`
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from core.errors import near
from experiments.results.tables.bounds import bounded
from experiments.results.tables.failures import NOTHING_LEFT, complete, floor_of, is_scored, settle
from experiments.results.tables.formats import SCORED, UNNAMED, Content, Measurement, Names, content_of, holds_results
from experiments.results.tables.sheets import Sheet, TableError, csv_files, read_sheet, sheet_of
from experiments.statistics import Curve, Judgement, Plan, Trajectory, judge
from experiments.statistics.budgets import SLACK
from experiments.statistics.grown import Look
from experiments.statistics.records import Family
from experiments.statistics.runs import Policy, Status

MARGIN = 0.01


@dataclass(frozen=True)
class Question:
    """How a table is to be judged; None where the table or an assumption, which is reported, decides.

    The fields are those of `experiments.statistics.Plan`.
    """

    baseline: str
    metric: str | None = None
    scalar: str = "final"
    axis: str = "steps"
    budget: float | None = None
    margin: float | None = None
    alpha: float = 0.05
    family: Family = "baseline"
    higher_is_better: bool = True
    failures: Policy = "worst"
    floor: float | None = None
    answers: int | None = None
    """How many answers every value is the mean of, where the table has no column that says so."""
    seen: tuple[Look, ...] = ()


@dataclass(frozen=True)
class Table:
    """Runs in the order in which they appear, and what was assumed when they were read."""

    source: str
    runs: tuple[Trajectory, ...]
    notes: tuple[str, ...]

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms, in order of appearance."""
        return tuple(dict.fromkeys(run.arm for run in self.runs))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every seed that some arm has, in ascending order: the order in which they were run is not known."""
        return tuple(sorted({run.seed for run in self.runs}))

    @property
    def lacking(self) -> dict[str, list[int]]:
        """By arm the seeds that another arm has and it has not, or has lost; arms that lack none are left out."""
        have = {(run.arm, run.seed) for run in self.runs if run.status != "lost"}
        absent = {arm: [seed for seed in self.seeds if (arm, seed) not in have] for arm in self.arms}
        return {arm: seeds for arm, seeds in absent.items() if seeds}

    @property
    def metrics(self) -> tuple[str, ...]:
        """Everything that some run has measured."""
        return tuple(dict.fromkeys(metric for run in self.runs for metric in run.curves))


def read_tables(paths: Sequence[Path], pattern: str | None = None) -> Table:
    """Read CSV files, and those in folders, as one table; the layout of each is recognised by its header.

    `pattern`, for exports that name a run in one word, is a regular expression with groups `arm`, `seed` and perhaps
    `metric` that matches the whole name: a file's path without suffix below what all paths share, or W&B's run name.
    Raises TableError with file, line and remedy.
    """
    files = [file for path in paths for file in (csv_files(path) if path.is_dir() else [path])]
    if not files:
        raise TableError(f"{', '.join(map(str, paths))}: no CSV file here; name the files, or the folder they are in")
    if len(paths) == 1 and paths[0].is_dir():
        root = str(paths[0])
    else:
        root = os.path.commonpath([file.absolute().parent for file in files])
    names = Names.of(pattern)
    named = {file: Path(os.path.relpath(file, root)).with_suffix("").as_posix() for file in dict.fromkeys(files)}
    sheets = {file: read_sheet(file, name) for file, name in named.items()}
    results = [file for file, sheet in sheets.items() if holds_results(sheet)]
    if results and (len(results) == len(sheets) or any(file in paths for file in results)):
        raise TableError(
            f"{results[0]}: these are results, not runs; give the scores.csv that was written beside it, or the "
            "study's folder"
        )
    contents = [content_of(sheet, names) for file, sheet in sheets.items() if file not in results]
    if pattern is not None and not any(content.named for content in contents):
        raise TableError(f"--runs {pattern!r} has no effect: these tables have columns for arm and seed; leave it out")
    return _table(contents, ", ".join(map(str, paths)))


def read_rows(rows: Iterable[Mapping[str, object]], source: str = "the table") -> Table:
    """Read a tidy table in memory, one mapping a row, such as a data frame's `to_dict("records")`."""
    sheet: Sheet = sheet_of(rows, source)
    if not sheet.rows:
        raise TableError(f"{source}: no rows; a table has one for each evaluation of each run")
    return _table([content_of(sheet, Names.of(None))], source)


def judge_table(table: Table, question: Question) -> Judgement:
    """Judge a table's runs; the notes say what was assumed.

    Runs with a value of the metric that is not finite have failed, and a warning names them. A seed that some arm
    lacks leaves every arm. Raises TableError for a baseline, metric or axis that the table does not have, and where
    nothing is left to compare.
    """
    if len(table.arms) < 2:
        raise TableError(f"{table.source}: only one arm, {table.arms[0]!r}; a comparison needs another")
    if question.baseline not in table.arms:
        raise TableError(
            f"{table.source}: no arm {question.baseline!r} for --baseline; {near(question.baseline, table.arms)}"
        )
    metric, runs = _measured(table, question.metric)
    runs, failed = settle(table.source, metric, runs)
    runs, missing = complete(runs)
    if is_scored(runs):
        if (question.axis, question.budget, question.scalar) != ("steps", None, "final"):
            raise TableError(
                f"{table.source}: one score a run, taken when the table was made; leave out --axis, --budget, --scalar"
            )
        question = replace(question, axis=SCORED)
    runs = _on_axis(table, metric, question.axis, runs)
    runs, counted = _count(table, metric, question.answers, runs)
    floor, floored = floor_of(table.source, question.floor, runs, metric, higher_is_better=question.higher_is_better)
    runs = bounded(runs)
    plan = Plan(
        metric=metric,
        baseline=question.baseline,
        seeds=table.seeds,
        axis=question.axis,
        budget=question.budget,
        scalar=question.scalar,
        family=question.family,
        alpha=question.alpha,
        margin=MARGIN if question.margin is None else question.margin,
        higher_is_better=question.higher_is_better,
        failures=question.failures,
        floor=floor,
        largest=max((run.curves[metric].largest for run in runs if metric in run.curves), default=math.inf),
        seen=question.seen,
    )
    _check_budget(table, plan, runs)
    notes = [*_assumed(plan, question, runs), *floored, *counted]
    percent = _in_percent(plan, question, runs)
    try:
        judgement = judge(plan, runs)
    except ValueError as error:
        raise TableError(f"{table.source}: {error}") from None
    if judgement is None:
        left = {arm: [run.seed for run in runs if run.arm == arm and run.status == "finished"] for arm in table.arms}
        listed = "; ".join(f"{arm} {', '.join(map(str, seeds)) or 'none'}" for arm, seeds in left.items())
        raise TableError(
            f"{table.source}: nothing to compare; give {plan.baseline} and another arm a seed in common (seeds of "
            f"finished runs: {listed})"
        )
    analysis = replace(judgement.analysis, notes=(*judgement.analysis.notes, *notes, *table.notes))
    return replace(judgement, analysis=analysis, warnings=(*missing, *failed, *percent, *judgement.warnings))


def _table(contents: Sequence[Content], source: str) -> Table:
    by_run: dict[tuple[str, int], list[Measurement]] = {}
    for content in contents:
        for each in content.measurements:
            by_run.setdefault((each.arm, each.seed), []).append(each)
    table = Table(source, tuple(_run(*key, measured) for key, measured in by_run.items()), ())
    notes = [note for content in contents for note in content.notes]
    if any(content.named for content in contents):
        notes.append(
            f"Read from names: arm{'s' * (len(table.arms) > 1)} {', '.join(table.arms)}; "
            f"seed{'s' * (len(table.seeds) > 1)} {', '.join(map(str, table.seeds))}."
        )
    return replace(table, notes=tuple(notes))


def _run(arm: str, seed: int, measured: Sequence[Measurement]) -> Trajectory:
    """A run's curves in order of steps; a TableError for what one run cannot be."""
    by_status: dict[Status, Measurement] = {}
    by_metric: dict[str, dict[float, Measurement]] = {}
    never = next((each for each in measured if each.value is not None and not each.spent), None)
    for each in measured:
        if each.status is not None:
            by_status.setdefault(each.status, each)
        if each.value is None or not each.spent:
            continue
        at = by_metric.setdefault(each.metric, {})
        step = next(iter(each.spent.values()))
        if step in at:
            raise TableError(
                f"{each.place}: arm {arm!r}, seed {seed} has {each.metric!r} at step {step:g} already, from "
                f"{at[step].place}; keep one (of a resumed run, the later), and give each metric its own name"
            )
        at[step] = each
    if len(by_status) > 1:
        (one, first), (other, second) = list(by_status.items())[:2]
        raise TableError(
            f"{second.place}: arm {arm!r}, seed {seed} is {other}, but {one} in {first.place}; a run has one status"
        )
    curves = {metric: _curve(arm, seed, [at[step] for step in sorted(at)]) for metric, at in by_metric.items()}
    status: Status = next(iter(by_status), "finished")
    if status == "finished" and never is not None:
        return Trajectory(arm, seed, "failed", curves, cause=f"no step and no value in {never.place}")
    return Trajectory(arm, seed, status, curves)


def _curve(arm: str, seed: int, points: Sequence[Measurement]) -> Curve:
    axes = [axis for axis in points[0].spent if all(axis in each.spent for each in points)]
    for axis in axes:
        for before, after in pairwise(points):
            if after.spent[axis] <= before.spent[axis]:
                raise TableError(
                    f"{after.place}: {axis} of arm {arm!r}, seed {seed} does not grow from step "
                    f"{before.spent['steps']:g} to {after.spent['steps']:g}; count what was spent since the start"
                )
    spent = {axis: [each.spent[axis] for each in points] for axis in axes}
    answers = [each.answers for each in points if each.answers is not None]
    values = [each.value for each in points if each.value is not None]
    return Curve(spent, values, answers if len(answers) == len(points) else None)


def _measured(table: Table, requested: str | None) -> tuple[str, tuple[Trajectory, ...]]:
    """The metric, and the runs; values without a name take the one that is requested."""
    if table.metrics == (UNNAMED,) and requested is not None:
        runs = (replace(run, curves={requested: run.curves[UNNAMED]}) if run.curves else run for run in table.runs)
        return requested, tuple(runs)
    if not table.metrics:
        raise TableError(f"{table.source}: {NOTHING_LEFT}")
    if requested is None:
        if len(table.metrics) != 1:
            raise TableError(f"{table.source}: choose a metric with --metric; there are {', '.join(table.metrics)}")
        return table.metrics[0], table.runs
    if requested not in table.metrics:
        raise TableError(f"{table.source}: no metric {requested!r}; {near(requested, table.metrics)}")
    return requested, table.runs


def _on_axis(table: Table, metric: str, axis: str, runs: Iterable[Trajectory]) -> tuple[Trajectory, ...]:
    """The runs with the curves that can be laid on the axis; the metric's must be among them."""
    runs = tuple(runs)
    for run in runs:
        if run.status == "finished" and axis not in run.curves[metric].spent:
            raise TableError(
                f"{table.source}: arm {run.arm!r}, seed {run.seed} has no column {axis!r} for --axis; "
                f"{near(axis, run.curves[metric].spent)}"
            )
    return tuple(
        replace(run, curves={name: curve for name, curve in run.curves.items() if axis in curve.spent}) for run in runs
    )


def _count(
    table: Table, metric: str, answers: int | None, runs: tuple[Trajectory, ...]
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
        raise TableError(f"{table.source}: --answers {answers}, but the table has a column 'answers'; leave one out")
    if answers < 1:
        raise TableError(f"--answers {answers}: give how many answers a value is the mean of, 1 or more")
    return tuple(
        replace(run, curves={**run.curves, metric: replace(curve, answers=[answers] * len(curve.values))})
        if (curve := run.curves.get(metric)) is not None
        else run
        for run in runs
    ), []


def _check_budget(table: Table, plan: Plan, runs: Iterable[Trajectory]) -> None:
    """Refuse a budget that a finished run did not reach."""
    for run in runs:
        if run.status == "finished" and plan.budget is not None:
            last = run.curves[plan.metric].spent[plan.axis][-1]
            if last < plan.budget * (1 - SLACK):
                raise TableError(
                    f"{table.source}: arm {run.arm!r}, seed {run.seed} ends at {last:g} {_words(plan.axis)}, before "
                    f"--budget {plan.budget:g}; choose a budget that every run reaches, or give this one the status "
                    "failed or lost"
                )


def _assumed(plan: Plan, question: Question, runs: Iterable[Trajectory]) -> list[str]:
    """Notes on what the question leaves open."""
    notes = []
    if question.margin is None:
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


def _in_percent(plan: Plan, question: Question, runs: Iterable[Trajectory]) -> list[str]:
    """A warning where scores seem to be percentages, for which the margin that was assumed is tiny."""
    ends = [run.curves[plan.metric].values[-1] for run in runs if run.status == "finished"]
    if question.margin is not None or not ends or min(ends) <= 1:
        return []
    return [
        f"All scores are above 1, and the smallest difference of interest, which was not given, is {plan.margin:g}: of "
        "percentages that is a hundredth of a point. Say with --margin which difference would matter to you."
    ]


def _words(axis: str) -> str:
    return axis.replace("_", " ")
