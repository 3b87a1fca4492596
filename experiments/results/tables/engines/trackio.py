"""trackio: its local database, `PROJECT.db` in TRACKIO_DIR or the cache of Hugging Face, with all runs of a project."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from experiments.results.tables.engines.configs import from_mapping
from experiments.results.tables.engines.log import Line, Log, Settings, numbers
from experiments.results.tables.engines.steps import BESIDE, step_of
from experiments.results.tables.sheets import TableError

_HEADER: Final = b"SQLite format 3\x00"
_NEEDED: Final = frozenset(("run_name", "step", "metrics"))


class Databases:
    """A project's database."""

    def recognises(self, file: Path) -> bool:
        """SQLite's header, and a table of metrics by run and step."""
        try:
            with file.open("rb") as data:
                if file.suffix != ".db" or data.read(len(_HEADER)) != _HEADER:
                    return False
            with _opened(file) as database:
                return _columns(database, "metrics") >= _NEEDED
        except (OSError, TableError):
            return False

    def read(self, file: Path) -> Sequence[Log]:
        """Its runs, each in the order in which it was logged."""
        lines: dict[tuple[str, str], list[Line]] = {}
        with _opened(file) as database:
            own = "run_id" if "run_id" in _columns(database, "metrics") else "run_name"
            rows = database.execute(f"SELECT {own}, run_name, step, metrics FROM metrics ORDER BY id").fetchall()
            for number, (run, name, step, metrics) in enumerate(rows, start=1):
                record = {"_step": step} | _record(file, number, metrics)
                at = step_of(record)
                if at is None:
                    raise TableError(
                        f"{file}, row {number} of metrics: step is {step!r}, not a number; take the run out"
                    )
                values = numbers({key: value for key, value in record.items() if key not in BESIDE})
                lines.setdefault((str(run), str(name)), []).append(Line(number, at, values))
            settings = _configs(file, database, own)
        if not lines:
            raise TableError(f"{file}: no run has logged anything; take the file out")
        folder = file.with_suffix("")
        return [
            Log("trackio", str(file), folder / run, of, name, settings.get(run, Settings()), unit="row of metrics")
            for (run, name), of in lines.items()
        ]


def _configs(file: Path, database: sqlite3.Connection, own: str) -> dict[str, Settings]:
    """What the runs' configurations say, by run; none of a database without a table of them."""
    if not _columns(database, "configs") >= {own, "config"}:
        return {}
    rows = database.execute(f"SELECT {own}, config FROM configs").fetchall()
    read = {str(run): _record(file, number, config) for number, (run, config) in enumerate(rows, start=1)}
    return {
        run: from_mapping({"arm": config.get("_Group"), **config}, f"{file}, config of {run}")
        for run, config in read.items()
    }


def _record(file: Path, number: int, text: Any) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise TableError(f"{file}, row {number}: not a JSON object; export the runs from trackio anew")
    return record


def _columns(database: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in database.execute(f"PRAGMA table_info({table})")}


@contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    """The database, to be read only; a TableError for what SQLite cannot read."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file.absolute()))}?mode=ro", uri=True)) as database:
            yield database
    except sqlite3.Error as error:
        raise TableError(f"{file}: SQLite cannot read it ({error}); copy it anew, or take it out") from None
