"""CSV files as they come: any of three delimiters, with or without a byte order mark; every cell keeps its place."""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from core.errors import GrpoLabError, similar_files

DELIMITERS = (",", ";", "\t")


class TableError(GrpoLabError):
    """A table that cannot be read; the message names the file, the line and the remedy."""


@dataclass(frozen=True)
class Sheet:
    """A header, and rows with the line on which each is written.

    `name` is what a pattern for runs reads arm and seed from: the file's path without suffix, below the folder that
    all files share.
    """

    source: str
    name: str
    header: tuple[str, ...]
    rows: list[tuple[int, list[str]]]

    def column(self, name: str) -> int | None:
        """Where the column is, whatever its case; None where there is none."""
        columns = [each.lower() for each in self.header]
        return columns.index(name) if name in columns else None

    def refuse(self, line: int, message: str) -> NoReturn:
        """Raise the TableError that says where."""
        raise TableError(f"{self.source}, line {line}: {message}")

    def number(self, line: int, cell: str, column: str, remedy: str) -> float:
        """A cell as a number, which may be nan or inf."""
        try:
            return float(cell)
        except ValueError:
            if re.fullmatch(r"[+-]?\d+,\d+", cell):
                remedy = "write decimals with a point"
            self.refuse(line, f"{column} is {repr(cell) + ', not a number' if cell else 'empty'}; {remedy}")

    def whole(self, line: int, cell: str) -> int:
        """A cell as a seed; data frames write 3 as 3.0."""
        try:
            number = float(cell)
        except ValueError:
            number = 0.5
        if number != number // 1:
            self.refuse(line, f"seed is {cell!r}; give each run the whole number that its arms share")
        return int(number)


def read_sheet(file: Path, name: str) -> Sheet:
    """Read a CSV file; the delimiter is the one of `,` `;` tab that splits the header into most columns."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        hint = f": {similar_files(file).strip()}".removesuffix(": ")
        raise TableError(f"cannot read {file}: {error.strerror or error}{hint}") from None
    except UnicodeDecodeError as error:
        raise TableError(f"{file}: not UTF-8 text ({error.reason}); save it as CSV in UTF-8") from None
    header = next((line for line in text.splitlines() if line.strip()), None)
    if header is None:
        raise TableError(f"{file}: empty; a table has a header, and a line for each evaluation of each run")
    delimiter = max(DELIMITERS, key=lambda each: len(next(csv.reader([header], delimiter=each))))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise TableError(f"{file}, line {reader.line_num}: not CSV ({error}); export it anew") from None
    (first, columns), *rest = rows
    sheet = Sheet(str(file), name, tuple(columns), rest)
    repeated = [column for column in dict.fromkeys(columns) if column and columns.count(column) > 1]
    if repeated:
        sheet.refuse(first, f"column {repeated[0]!r} is there twice; rename one, or take it out")
    for line, cells in rest:
        if len(cells) != len(columns):
            sheet.refuse(line, f"{len(cells)} cells for {len(columns)} columns; write one cell for each column")
    if not rest:
        sheet.refuse(first, "a header and nothing below it; a table has a line for each evaluation of each run")
    return sheet


def sheet_of(rows: Iterable[Mapping[str, object]], source: str) -> Sheet:
    """A sheet of rows in memory, e.g. a data frame's records; counted as lines; None and nan are empty cells."""
    rows = list(rows)
    header = tuple(dict.fromkeys(column for row in rows for column in row))
    cells = [[_cell(row.get(column)) for column in header] for row in rows]
    return Sheet(source, "", header, list(enumerate(cells, start=1)))


def _cell(value: object) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def is_csv(file: Path) -> bool:
    """Whether a file is a table by its name."""
    return file.suffix.lower() == ".csv" and file.is_file()
