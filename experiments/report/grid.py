"""A table as data: the same columns and rows become HTML, Markdown, LaTeX and CSV."""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

from experiments.report.markup import SIDEWAYS

Value: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True)
class Column:
    """A column; `keys` are its fields in a CSV file, which may be two for an interval."""

    keys: tuple[str, ...]
    title: str
    numeric: bool = False
    note: str = ""  # a second line of its heading, on the page


@dataclass(frozen=True)
class Cell:
    """A cell: its words, the values behind them (one per key of the column), and optional markup."""

    text: str
    values: tuple[Value, ...]
    html: str = ""


@dataclass(frozen=True)
class Grid:
    """Rows under columns; the first column names the row."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def column(key: str, title: str, *, numeric: bool = False, note: str = "") -> Column:
    """A column of one field."""
    return Column((key,), title, numeric, note)


def text_cell(text: str, html: str = "") -> Cell:
    """A cell of words."""
    return Cell(text, (text,), html)


def number_cell(value: float | None, text: str, html: str = "") -> Cell:
    """A cell of one number, or of none."""
    return Cell(text, (value if value is not None and math.isfinite(value) else None,), html)


def without_empty(grid: Grid) -> Grid:
    """The grid without columns that hold nothing in any row."""
    indices = [k for k in range(len(grid.columns)) if any(v is not None for row in grid.rows for v in row[k].values)]
    return Grid(tuple(grid.columns[k] for k in indices), tuple(tuple(row[k] for k in indices) for row in grid.rows))


def to_html(grid: Grid, label: str, kind: str = "") -> str:
    """A table that scrolls by itself where it is too wide; the page's script makes its heads sort it."""
    head = "".join(
        f'<th scope="col"{" class=n" if each.numeric else ""}>{escape(each.title)}'
        + (f"<small>{escape(each.note)}</small>" if each.note else "")
        + "</th>"
        for each in grid.columns
    )
    body = ""
    for row in grid.rows:
        cells = enumerate(zip(grid.columns, row, strict=True))
        body += f"<tr>{''.join(_html_cell(column, cell, place) for place, (column, cell) in cells)}</tr>"
    return scrolling(
        f'<table class="sortable {kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>', label
    )


def scrolling(markup: str, label: str) -> str:
    """A block that scrolls sideways, with the keyboard too, instead of widening the page."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">{SIDEWAYS}{markup}</div>'


def _html_cell(column: Column, cell: Cell, place: int) -> str:
    shown = cell.html or escape(cell.text)
    if place == 0:
        return f'<th scope="row">{shown}</th>'
    if not column.numeric:
        return f"<td>{shown}</td>"
    value = cell.values[0]
    return f'<td class="n" data-v="{"" if value is None else value}">{shown}</td>'


def to_markdown(grid: Grid) -> str:
    """A Markdown table."""

    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in cells)} |\n"

    rule = row(["---:" if each.numeric else "---" for each in grid.columns])
    lines = (row([cell.text for cell in cells]) for cells in grid.rows)
    return row([each.title for each in grid.columns]) + rule + "".join(lines)


def to_latex(grid: Grid, notes: Sequence[str] = ()) -> str:
    """A tabular for the booktabs package; notes are part of it (threeparttable), wherever the table is put."""

    def row(cells: Sequence[str]) -> str:
        return f"  {' & '.join(map(latex_text, cells))} \\\\\n"

    layout = "".join("r" if each.numeric else "l" for each in grid.columns)
    body = "".join(row([cell.text for cell in cells]) for cells in grid.rows)
    head = row([each.title for each in grid.columns])
    table = f"\\begin{{tabular}}{{{layout}}}\n  \\toprule\n{head}  \\midrule\n{body}  \\bottomrule\n\\end{{tabular}}\n"
    if not notes:
        return table
    lines = [latex_text(line if line.endswith(".") else f"{line}.") for line in notes]
    items = "".join(f"  \\item {line}\n" for line in (f"\\textit{{Note.}} {lines[0]}", *lines[1:]))
    below = f"\\begin{{tablenotes}}[flushleft]\\footnotesize\n{items}\\end{{tablenotes}}\n"
    return f"\\begin{{threeparttable}}\n{table}{below}\\end{{threeparttable}}\n"


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
        "|": r"\textbar{}",
        "−": "$-$",
        "±": r"$\pm$",
        "Δ": r"$\Delta$",
        "∞": r"$\infty$",
        "≈": r"$\approx$",
        "≤": r"$\le$",
        "≥": r"$\ge$",
        "×": r"$\times$",
        "√": r"$\surd$",
        "→": r"$\to$",
        "α": r"$\alpha$",
        "χ": r"$\chi$",
        "²": r"$^2$",
        "–": "--",
        "—": "---",
        "\u00a0": "~",
        "\u202f": r"\,",
        "\n": " ",
        "\0": "{}",
    }
)


def latex_text(words: str) -> str:
    """Words as LaTeX prints them, also where a row or a note begins with them."""
    words = re.sub("-(?=-)", "-\0", words)  # the two hyphens of an option are not a dash
    return ("\0" + words if words[:1] in ("[", "*") else words).translate(_LATEX)


def to_csv(grid: Grid, keys: Sequence[str] = ()) -> str:
    """Comma-separated values, of the named fields or of all; undefined ones are empty."""
    fields = [key for each in grid.columns for key in each.keys]
    rows = [dict(zip(fields, (v for cell in row for v in cell.values), strict=True)) for row in grid.rows]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(keys) or fields, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: str(v).lower() if isinstance(v, bool) else v for k, v in row.items()} for row in rows)
    return out.getvalue()
