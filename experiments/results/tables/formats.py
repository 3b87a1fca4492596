"""Four layouts of a CSV file, recognised by the header, and the measurements that each holds.

tidy table    arm, seed, step, value, and optionally metric, answers, sampled_tokens, seconds, status: a row each
scores        arm, seed, score, and optionally status and imputed: a row a run, as the bench writes scores.csv
TensorBoard   Wall time, Step, Value: one file for each run and tag
W&B           Step or a step metric of one's own, and "<run> - <metric>" for each run, with companions that end in
              __MIN and __MAX
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from core.errors import near
from experiments.results.tables.columns import NEEDED, is_curve, without_columns
from experiments.results.tables.sheets import Sheet, TableError
from experiments.statistics.runs import Status

UNNAMED: Final = "value"
"""The metric of a file that does not name one."""
AXES: Final = ("sampled_tokens", "seconds")
"""Columns that count a budget beside the steps."""
STATUSES: Final = ("finished", "failed", "lost")
SCORED: Final = "budget"
"""The axis of scores, which were taken at a budget that is not in the table."""
_COMPANIONS = ("__MIN", "__MAX")
_INTERNAL = ("_step", "_runtime", "_timestamp")
"""What W&B keeps with every run, beside what the run logged."""
_UNFINISHED: Final[Mapping[str, Status]] = {"not started": "pending", "running": "pending", "interrupted": "pending"}
"""The bench's own words for a run that has not ended."""
_IGNORED = ("imputed", "course", "steps", "sampled_tokens", "seconds")
"""Columns of scores that change no verdict."""
_RESULTS = ({"arm", "baseline", "verdict"}, {"arm", "planned", "imputed", "causes"})
"""Columns by which the bench's tables of results are recognised."""


class Measurement(NamedTuple):
    """One number of a run, or (without a value) only its status, or (nan, nothing spent) that it has none."""

    arm: str
    seed: int
    metric: str
    spent: dict[str, float]
    """By axis: `steps` and perhaps others, or SCORED alone."""
    value: float | None
    status: Status | None
    source: str
    line: int
    answers: float | None = None
    """How many answers, each right or wrong, the value is the mean of."""

    @property
    def place(self) -> str:
        """The file and line."""
        return f"{self.source}, line {self.line}"


@dataclass(frozen=True)
class Content:
    """What a sheet holds, and what was assumed on the way."""

    measurements: list[Measurement]
    notes: list[str]
    named: bool
    """Whether arm and seed were read from the names of files or runs."""


@dataclass(frozen=True)
class Names:
    """Reads arm, seed and perhaps metric from the name of a file or run.

    A name is tried against each pattern in turn, as a whole.
    """

    patterns: tuple[re.Pattern[str], ...]
    given: str | None

    @classmethod
    def of(cls, pattern: str | None) -> "Names":
        """By a regular expression with groups `arm` and `seed`; None: seeds marked `seed` or `s`, else a last number.

        Without a pattern, TensorBoard's own `run-RUN-tag-TAG` is taken apart too.
        """
        if pattern is None:
            run, metric = r"(?:run-)?(?P<arm>(?:(?!-tag-).)+)[-_/]", r"(?:(?:-tag-|/)(?P<metric>.+))?"
            return cls(
                tuple(re.compile(f"{run}{mark}(?P<seed>\\d+){metric}") for mark in ("(?:seed|s)[=_-]?", "")), None
            )
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise TableError(f"--runs {pattern!r} is no regular expression: {error}") from None
        absent = [group for group in ("arm", "seed") if group not in compiled.groupindex]
        if absent:
            raise TableError(
                f"--runs {pattern!r} has no group {absent[0]!r}; write e.g. '(?P<arm>.+)-(?P<seed>[0-9]+)'"
            )
        return cls((compiled,), pattern)

    def read(self, name: str, place: str) -> tuple[str, int, str | None]:
        """Arm, seed and metric; TableError for a name that does not match."""
        match = next((match for pattern in self.patterns if (match := pattern.fullmatch(name))), None)
        if match is None:
            tried = (
                "is not matched by --runs"
                if self.given
                else "does not say which arm and seed it is, as grpo-seed3 does"
            )
            raise TableError(
                f"{place}: the name {name!r} {tried}; give --runs a regular expression for the whole name, e.g. "
                "'(?P<arm>.+)-(?P<seed>[0-9]+)'"
            )
        groups = match.groupdict()
        if not groups["arm"] or not re.fullmatch(r"\d+", groups["seed"] or ""):
            raise TableError(
                f"{place}: --runs reads arm {groups['arm']!r} and seed {groups['seed']!r} from {name!r}; an arm is a "
                "name, a seed a whole number"
            )
        return groups["arm"], int(groups["seed"]), groups.get("metric")


def content_of(sheet: Sheet, names: Names) -> Content:
    """The measurements of a sheet in any of the layouts; TableError for one that is in none."""
    columns = [column.lower() for column in sheet.header]
    if sorted(columns) == ["step", "value", "wall time"]:
        return Content(list(_tensorboard(sheet, names)), [], named=True)
    if any(" - " in column for column in columns[1:]) and not {"arm", "seed"} & set(columns):
        note = f"{sheet.source}: the horizontal axis is {sheet.header[0]!r}, taken for the steps."
        return Content(list(_wandb(sheet, names)), [note] * (columns[0] != "step"), named=True)
    if {"arm", "seed", "score"} <= set(columns) and not {"step", "value"} & set(columns) and not is_curve(sheet):
        return _scores(sheet)
    return _tidy(sheet)


def holds_results(sheet: Sheet) -> bool:
    """Whether a table is of verdicts or counts, as the bench writes them, and not of runs."""
    return any(columns <= set(sheet.header) for columns in _RESULTS)


def _scores(sheet: Sheet) -> Content:
    """One number a run; that of a failed run, if there is one, is its declared score."""
    at = {name: sheet.column(name) for name in ("arm", "seed", "score", "status", "imputed", "metric", "answers")}
    unused = [column for column in sheet.header if column.lower() not in (*at, *_IGNORED)]
    notes = [f"{sheet.source}: not used: {', '.join(map(repr, unused))}."] if unused else []
    measurements = []
    for line, cells in sheet.rows:
        row = {name: cells[place] for name, place in at.items() if place is not None}
        arm = row["arm"] or sheet.refuse(line, "arm is empty; name the method that ran")
        word = row.get("status", "").lower()
        status = _UNFINISHED.get(word) or _status(sheet, line, word)
        imputed = row.get("imputed", "").lower() in ("true", "1", "yes") or status == "failed"
        metric = row.get("metric") or UNNAMED
        value, spent = None, {SCORED: 0.0 if imputed else 1.0}  # a failed run keeps what it had before training
        if row["score"] or status in (None, "finished"):  # an empty cell is how nan is often written
            value = sheet.number(line, row["score"] or "nan", "score", "write nan where the run diverged")
            status = "failed" if imputed else status
        number = row.get("answers")
        answers = _answer_count(sheet, line, number) if number else None
        seed = _seed(sheet, line, row["seed"])
        measurements.append(Measurement(arm, seed, metric, spent, value, status, sheet.source, line, answers))
    return Content(measurements, notes, named=False)


def _tidy(sheet: Sheet) -> Content:
    places = {name: sheet.column(name) for name in (*NEEDED, "metric", "answers", "status", *AXES)}
    if any(places[name] is None for name in NEEDED):
        raise TableError(without_columns(sheet))
    unused = [column for column in sheet.header if column.lower() not in places]
    notes = [f"{sheet.source}: not used: {', '.join(map(repr, unused))}."] if unused else []
    if places["metric"] is None:
        notes.append(f"{sheet.source}: no column 'metric', so all values are of one.")
    at = cast("dict[str, int]", {name: place for name, place in places.items() if place is not None})
    return Content([_tidy_row(sheet, line, cells, at) for line, cells in sheet.rows], notes, named=False)


def _tidy_row(sheet: Sheet, line: int, cells: list[str], at: dict[str, int]) -> Measurement:
    arm = cells[at["arm"]] or sheet.refuse(line, "arm is empty; name the method that ran")
    seed = _seed(sheet, line, cells[at["seed"]])
    status = _status(sheet, line, cells[at["status"]]) if "status" in at else None
    step, value = cells[at["step"]], cells[at["value"]]
    if not value and status in ("failed", "lost"):  # the row is there for its status
        return Measurement(arm, seed, "", {}, None, status, sheet.source, line)
    if not step and value.lower() in ("", "nan"):  # it was never evaluated
        return Measurement(arm, seed, "", {}, math.nan, status, sheet.source, line)
    spent = {"steps": sheet.number(line, step, "step", "give the number of training steps so far")}
    diverged = value.lower() in ("", "nan")  # what it had spent, and on how many answers it rests, need not be known
    for axis in AXES:
        if axis in at and (cells[at[axis]] or not diverged):
            spent[axis] = sheet.number(line, cells[at[axis]], axis, "fill it in every row, or take the column out")
    for axis, amount in spent.items():
        if not abs(amount) < float("inf"):
            sheet.refuse(line, f"{'step' if axis == 'steps' else axis} is {amount}; a budget is a finite number")
    number = sheet.number(line, value or "nan", "value", "write nan where the run diverged")
    metric = UNNAMED
    if "metric" in at:
        metric = cells[at["metric"]] or sheet.refuse(line, "metric is empty; name what was measured")
    counted = "answers" in at and (cells[at["answers"]] or not diverged)
    answers = _answer_count(sheet, line, cells[at["answers"]]) if counted else None
    return Measurement(arm, seed, metric, spent, number, status, sheet.source, line, answers)


def _tensorboard(sheet: Sheet, names: Names) -> Iterator[Measurement]:
    arm, seed, metric = names.read(sheet.name, sheet.source)
    step, value = sheet.column("step"), sheet.column("value")
    assert step is not None
    assert value is not None
    for line, cells in sheet.rows:
        yield Measurement(
            arm,
            seed,
            metric or UNNAMED,
            {"steps": _step(sheet, line, cells[step])},
            sheet.number(line, cells[value], "Value", "export the run anew"),
            None,
            sheet.source,
            line,
        )


def _wandb(sheet: Sheet, names: Names) -> Iterator[Measurement]:
    runs: list[tuple[int, str, int, str]] = []
    for place, column in enumerate(sheet.header):
        name, dash, metric = column.rpartition(" - ")
        if dash and not metric.endswith(_COMPANIONS) and metric not in _INTERNAL:
            arm, seed, _ = names.read(name, f"{sheet.source}, column {column!r}")
            runs.append((place, arm, seed, metric))
    for line, cells in sheet.rows:
        step = _step(sheet, line, cells[0])
        for place, arm, seed, metric in runs:
            if cells[place]:  # a run that logged nothing at this step
                number = sheet.number(line, cells[place], repr(sheet.header[place]), "export the panel anew")
                yield Measurement(arm, seed, metric, {"steps": step}, number, None, sheet.source, line)


def _step(sheet: Sheet, line: int, cell: str) -> float:
    step = sheet.number(line, cell, "Step", "export with the step on the horizontal axis")
    if not abs(step) < float("inf"):
        sheet.refuse(line, f"Step is {step}; a budget is a finite number")
    return step


def _answer_count(sheet: Sheet, line: int, cell: str) -> float:
    """How many answers a value is the mean of."""
    answers = sheet.number(line, cell, "answers", "fill it in every row, or take the column out")
    if not 1 <= answers < float("inf"):
        sheet.refuse(line, f"answers is {answers:g}; give how many answers the value is the mean of, 1 or more")
    return answers


def _seed(sheet: Sheet, line: int, cell: str) -> int:
    """A seed; data frames write 3 as 3.0."""
    try:
        number = float(cell)
    except ValueError:
        number = 0.5
    if number != number // 1:
        sheet.refuse(line, f"seed is {cell!r}; give each run the whole number that its arms share")
    return int(number)


def _status(sheet: Sheet, line: int, cell: str) -> Status | None:
    if not cell:
        return None
    if cell.lower() not in STATUSES:
        sheet.refuse(line, f"status is {cell!r}; {near(cell.lower(), STATUSES)}")
    return cast("Status", cell.lower())
