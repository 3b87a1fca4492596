"""Four layouts of a CSV file, recognised by the header, and the measurements that each holds.

tidy table    arm, seed, step, value, and optionally metric, answers, sampled_tokens, seconds, status: a row each
scores        arm, seed, score, and optionally status and imputed: a row a run, as the bench writes scores.csv
TensorBoard   Wall time, Step, Value: one file for each run and tag
W&B           Step or a step metric of one's own, and "<run> - <metric>" for each run, with companions that end in
              __MIN and __MAX

A fifth, a column for each metric, is a run's log: `wide.py`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from core.errors import near
from experiments.results.tables.columns import NEEDED, is_curve, without_columns
from experiments.results.tables.measurements import SCORED, UNNAMED, Content, Measurement
from experiments.results.tables.names import Names
from experiments.results.tables.sheets import Sheet, TableError
from experiments.statistics.runs import Status

AXES: Final = ("sampled_tokens", "seconds")
"""Columns that count a budget beside the steps."""
STATUSES: Final = ("finished", "failed", "lost")
_COMPANIONS = ("__MIN", "__MAX")
_INTERNAL = ("_step", "_runtime", "_timestamp")
"""What W&B keeps with every run, beside what the run logged."""
_UNFINISHED: Final[Mapping[str, Status]] = {"not started": "pending", "running": "pending", "interrupted": "pending"}
"""The bench's own words for a run that has not ended."""
_IGNORED = ("imputed", "course", "steps", "sampled_tokens", "seconds")
"""Columns of scores that change no verdict."""
_RESULTS = ({"arm", "baseline", "verdict"}, {"arm", "planned", "imputed", "causes"})
"""Columns by which the bench's tables of results are recognised."""


@dataclass(frozen=True)
class Layout:
    """How one kind of table is told by its header, and read."""

    recognises: Callable[[Sheet], bool]
    read: Callable[[Sheet, Names], Content]


def content_of(sheet: Sheet, names: Names) -> Content:
    """The measurements of a sheet in any of the layouts; TableError for one that is in none."""
    return next(layout for layout in LAYOUTS if layout.recognises(sheet)).read(sheet, names)


def holds_results(sheet: Sheet) -> bool:
    """Whether a table is of verdicts or counts, as the bench writes them, and not of runs."""
    return any(columns <= set(sheet.header) for columns in _RESULTS)


def _is_scores(sheet: Sheet) -> bool:
    columns = _lower(sheet)
    return {"arm", "seed", "score"} <= columns and not {"step", "value"} & columns and not is_curve(sheet)


def _lower(sheet: Sheet) -> set[str]:
    return {column.lower() for column in sheet.header}


def _scores(sheet: Sheet, _: Names) -> Content:
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
        seed = sheet.whole(line, row["seed"])
        measurements.append(Measurement(arm, seed, metric, spent, value, status, sheet.source, line, answers))
    return Content(measurements, notes, named=False)


def _tidy(sheet: Sheet, _: Names) -> Content:
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
    seed = sheet.whole(line, cells[at["seed"]])
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


def _is_tensorboard(sheet: Sheet) -> bool:
    return sorted(column.lower() for column in sheet.header) == ["step", "value", "wall time"]


def _tensorboard(sheet: Sheet, names: Names) -> Content:
    return Content(list(_tensorboard_rows(sheet, names)), [], named=True)


def _tensorboard_rows(sheet: Sheet, names: Names) -> Iterator[Measurement]:
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


def _is_wandb(sheet: Sheet) -> bool:
    return any(" - " in column for column in sheet.header[1:]) and not {"arm", "seed"} & _lower(sheet)


def _wandb(sheet: Sheet, names: Names) -> Content:
    note = f"{sheet.source}: the horizontal axis is {sheet.header[0]!r}, taken for the steps."
    return Content(list(_wandb_rows(sheet, names)), [note] * (sheet.header[0].lower() != "step"), named=True)


def _wandb_rows(sheet: Sheet, names: Names) -> Iterator[Measurement]:
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


def _status(sheet: Sheet, line: int, cell: str) -> Status | None:
    if not cell:
        return None
    if cell.lower() not in STATUSES:
        sheet.refuse(line, f"status is {cell!r}; {near(cell.lower(), STATUSES)}")
    return cast("Status", cell.lower())


LAYOUTS: Final[Sequence[Layout]] = (
    Layout(_is_tensorboard, _tensorboard),
    Layout(_is_wandb, _wandb),
    Layout(_is_scores, _scores),
    Layout(lambda _: True, _tidy),
)
"""In the order in which they are tried; a table in none of them is asked for the columns of the last."""
