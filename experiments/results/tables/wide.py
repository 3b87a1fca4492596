"""A log as a table: a column for the step and one for each metric, of one run or with columns for arm and seed.

This is what a data frame of a run's history is saved as, and what CSV loggers write. A cell that is empty was not
measured at that step.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from experiments.results.tables.engines.log import Line, Log, Settings
from experiments.results.tables.engines.steps import BESIDE, STEPS
from experiments.results.tables.sheets import Sheet

_OTHERS: Final = frozenset(("value", "score", "metric", "status", "answers", "wall time"))
"""Columns of the other layouts."""
_RUN: Final = frozenset(("arm", "seed"))


def is_wide(sheet: Sheet) -> bool:
    """Whether there is a step, a metric, and arm and seed both or neither."""
    columns = {column.lower() for column in sheet.header}
    if _step_column(sheet) is None or columns & _OTHERS or len(columns & _RUN) == 1:
        return False
    if get_close_matches("value", columns, n=1, cutoff=0.8):  # a tidy table, misspelt
        return False
    return bool(_metrics(sheet)) and not any(" - " in column for column in sheet.header)


def wide_logs(sheet: Sheet) -> list[Log]:
    """The runs in the table."""
    step, metrics = _step_column(sheet), _metrics(sheet)
    assert step is not None
    arm, seed = sheet.column("arm"), sheet.column("seed")
    used = {step, arm, seed, *metrics.values()}
    unused = [column for place, column in enumerate(sheet.header) if place not in used and column.lower() not in BESIDE]
    notes = (f"{sheet.source}: not used: {', '.join(map(repr, unused))}.",) if unused else ()
    lines: dict[tuple[str, int] | None, list[Line]] = {}
    for line, cells in sheet.rows:
        at = sheet.number(line, cells[step], repr(sheet.header[step]), "give the number of training steps so far")
        if not abs(at) < float("inf"):
            sheet.refuse(line, f"step is {at}; a budget is a finite number")
        values = {
            name: sheet.number(line, cells[place], repr(name), "write nan where the run diverged")
            for name, place in metrics.items()
            if cells[place]
        }
        run = None
        if arm is not None and seed is not None:
            name = cells[arm] or sheet.refuse(line, "arm is empty; name the method that ran")
            run = (name, sheet.whole(line, cells[seed]))
        lines.setdefault(run, []).append(Line(line, at, values))
    first = next(iter(lines))
    return [_log(sheet, run, of, notes if run == first else ()) for run, of in lines.items()]


def _log(sheet: Sheet, run: tuple[str, int] | None, lines: Sequence[Line], notes: tuple[str, ...]) -> Log:
    path = Path(sheet.source)
    if run is None:
        return Log("CSV", sheet.source, path.with_suffix(""), lines, notes=notes)
    arm, seed = run
    said = Settings(sheet.source, arm, seed)
    return Log(
        "CSV", sheet.source, path.with_suffix("") / arm / str(seed), lines, settings=said, told=True, notes=notes
    )


def _step_column(sheet: Sheet) -> int | None:
    return next((place for name in STEPS if (place := sheet.column(name)) is not None), None)


def _metrics(sheet: Sheet) -> dict[str, int]:
    """Columns whose first cell that is not empty is a number, by name."""
    found = {}
    for place, column in enumerate(sheet.header):
        first = next((cells[place] for _, cells in sheet.rows if cells[place]), None)
        if column and column.lower() not in (*BESIDE, *_RUN) and first is not None and _is_number(first):
            found[column] = place
    return found


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
