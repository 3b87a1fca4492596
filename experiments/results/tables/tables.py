"""From measurements to a judgement: runs are assembled, what is missing is noted, and the runs are judged.

files or rows -> measurements -> `Table`: runs with curves -> `judge_table`: a plan and settled runs -> `judge`
"""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.errors import near
from experiments.results.tables.assumptions import assumed, check_budget, count, in_percent, uneven
from experiments.results.tables.bounds import bounded
from experiments.results.tables.engines.content import content_of_logs
from experiments.results.tables.failures import NOTHING_LEFT, complete, floor_of, is_scored, settle
from experiments.results.tables.formats import content_of
from experiments.results.tables.gather import gather
from experiments.results.tables.measurements import SCORED, UNNAMED, Content, Measurement
from experiments.results.tables.metrics import chosen
from experiments.results.tables.names import Names
from experiments.results.tables.runs import run_of
from experiments.results.tables.sheets import Sheet, TableError, sheet_of
from experiments.results.tables.wide import is_wide, wide_logs
from experiments.statistics import Judgement, Plan, Trajectory, judge
from experiments.statistics.grown import Look
from experiments.statistics.records import Family
from experiments.statistics.runs import Policy

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
    warnings: tuple[str, ...] = ()

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


def read_tables(
    paths: Sequence[Path], pattern: str | None = None, metric: str | None = None, regrade: str | None = None
) -> Table:
    """Read CSV files and trainers' logs, and those in folders, as one table; each is recognised by what is in it.

    `pattern`, for runs that are named in one word, is a regular expression with groups `arm`, `seed` and perhaps
    `metric` that matches the whole name: the path without suffix below what all share, or the run's own name in W&B
    or trackio. Of logs the metric alone is read; it may be a pattern as in `chosen`. `regrade` names a verifier that
    grades stored answers anew, whose strict verdict then is the metric unless another is given.
    Raises TableError with file, line and remedy.
    """
    source = ", ".join(map(str, paths))
    found = gather(paths, regrade)
    metric = f"*regraded/{regrade}" if metric is None and regrade is not None else metric
    names = Names.of(pattern)
    contents = [content_of(sheet, names) for sheet in found.sheets]
    empty = [f"{file} is empty: if it is the log of a run, that run is in no comparison." for file in found.empty]
    if found.logs:
        beside = {each.metric for content in contents for each in content.measurements if each.value is not None}
        contents.append(
            content_of_logs(
                found.logs,
                names,
                source=source,
                metric=metric,
                root=found.root,
                hydra=found.hydra,
                beside=beside,
            )
        )
    if pattern is not None and not any(content.named for content in contents):
        raise TableError(f"--runs {pattern!r} has no effect: these tables have columns for arm and seed; leave it out")
    table = _table(contents, source)
    return replace(table, warnings=(*empty, *table.warnings))


def read_rows(rows: Iterable[Mapping[str, object]], source: str = "the table") -> Table:
    """Read a tidy table in memory, one mapping a row, such as a data frame's `to_dict("records")`."""
    sheet: Sheet = sheet_of(rows, source)
    if not sheet.rows:
        raise TableError(f"{source}: no rows; a table has one for each evaluation of each run")
    if is_wide(sheet) and sheet.column("arm") is not None:
        return _table([content_of_logs(wide_logs(sheet), Names.of(None), source=source, every=True)], source)
    return _table([content_of(sheet, Names.of(None))], source)


def judge_table(table: Table, question: Question) -> Judgement:
    """The judgement of `judge_runs`."""
    return judge_runs(table, question)[0]


def judge_runs(table: Table, question: Question) -> tuple[Judgement, tuple[Trajectory, ...]]:
    """Judge a table's runs; the notes say what was assumed. Beside the judgement: the runs as they were judged.

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
    metric, runs, matched = _measured(table, question.metric)
    runs, failed = settle(table.source, metric, runs)
    runs, missing = complete(runs)
    if is_scored(runs):
        if (question.axis, question.budget, question.scalar) != ("steps", None, "final"):
            raise TableError(
                f"{table.source}: one score a run, taken when the table was made; leave out --axis, --budget, --scalar"
            )
        question = replace(question, axis=SCORED)
    runs = _on_axis(table, metric, question.axis, runs)
    runs, counted = count(table.source, metric, question.answers, runs)
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
    check_budget(table.source, plan, runs)
    notes = [*matched, *assumed(plan, runs, margin_given=question.margin is not None), *floored, *counted]
    percent = in_percent(plan, runs, margin_given=question.margin is not None)
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
    warnings = (*missing, *failed, *percent, *uneven(plan, runs), *table.warnings, *judgement.warnings)
    return replace(judgement, analysis=analysis, warnings=warnings), tuple(runs)


def _table(contents: Sequence[Content], source: str) -> Table:
    by_run: dict[tuple[str, int], list[Measurement]] = {}
    for content in contents:
        for each in content.measurements:
            by_run.setdefault((each.arm, each.seed), []).append(each)
    _check_measured(contents, by_run.keys())
    table = Table(source, tuple(run_of(*key, measured) for key, measured in by_run.items()), ())
    notes = [note for content in contents for note in content.notes]
    if any(content.named for content in contents):
        notes.append(
            f"Read from names: arm{'s' * (len(table.arms) > 1)} {', '.join(table.arms)}; "
            f"seed{'s' * (len(table.seeds) > 1)} {', '.join(map(str, table.seeds))}."
        )
    finished = {(run.arm, run.seed) for run in table.runs if run.status == "finished"}
    stopped = [said for content in contents for run, said in content.stopped.items() if run in finished]
    warnings = [warning for content in contents for warning in content.warnings]
    return replace(table, notes=tuple(notes), warnings=(*stopped, *warnings))


def _check_measured(contents: Iterable[Content], runs: Container[tuple[str, int]]) -> None:
    """Refuse a run that never logged the metric, unless a table says what became of it."""
    for content in contents:
        for (arm, seed), said in content.unmeasured.items():
            if (arm, seed) not in runs:
                raise TableError(
                    f"{said}; if it failed before its first evaluation, say so in a CSV file beside it: "
                    f"the header arm,seed,step,value,status and the line {arm},{seed},,,failed (or lost, if the "
                    "machine failed)"
                )


def _measured(table: Table, requested: str | None) -> tuple[str, tuple[Trajectory, ...], list[str]]:
    """The metric, the runs, and a note on what a pattern chose; values without a name take the one requested."""
    if table.metrics == (UNNAMED,) and requested is not None:
        runs = (replace(run, curves={requested: run.curves[UNNAMED]}) if run.curves else run for run in table.runs)
        return requested, tuple(runs), []
    if not table.metrics:
        raise TableError(f"{table.source}: {NOTHING_LEFT}")
    metric, notes = chosen(requested, table.metrics, table.source)
    return metric, table.runs, notes


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
