"""Answers with their scores, one on a line, as the means of a step."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from experiments.results.tables.engines.log import Line
from experiments.results.tables.sheets import TableError

_RIGHT_OR_WRONG: Final = (0, 1)


def mean_line(file: Path, step: float, rows: Sequence[Mapping[str, Any]]) -> Line:
    """The means over all rows of what every row has a number for; a truth value counts as 0 or 1.

    The number of answers is known where all of these are 0 or 1.
    """
    columns = {key: [row.get(key) for row in rows] for key in (rows[0] if rows else ())}
    measured = {
        key: found
        for key, column in columns.items()
        if len(found := [float(value) for value in column if isinstance(value, int | float)]) == len(column)
    }
    if not measured:
        raise TableError(f"{file}: no number that every answer has; take the file out, or copy it anew")
    shares = all(value in _RIGHT_OR_WRONG for column in measured.values() for value in column)
    means = {key: math.fsum(column) / len(column) for key, column in measured.items()}
    return Line(int(step), step, means, float(len(rows)) if shares else None)
