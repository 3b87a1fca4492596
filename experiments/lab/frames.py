"""Rows as pandas tables; pandas is imported when a table is asked for."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.errors import GrpoLabError

if TYPE_CHECKING:
    from pandas import DataFrame


class NoPandasError(GrpoLabError):
    """A table was asked for where pandas is not installed."""


def html_or_text(html: Callable[[], str]) -> str | None:
    """What a notebook shows; None, for which it takes the text, where that needs pandas, which is not installed."""
    try:
        return html()
    except NoPandasError:
        return None


def data_frame(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> "DataFrame":
    """A table with a row for each mapping; `columns` come first, and are there where there is no row.

    Raises GrpoLabError where pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise NoPandasError("tables in Python need pandas: pip install 'grpo-lab[notebook]'") from error
    listed = list(rows)
    names = dict.fromkeys([*columns, *(name for row in listed for name in row)])
    return pandas.DataFrame([dict(row) for row in listed], columns=list(names))
