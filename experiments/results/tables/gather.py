"""What of the paths is read: tables, and the logs of trainers."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.results.tables.engines.configs import HYDRA
from experiments.results.tables.engines.log import Log
from experiments.results.tables.engines.readers import READERS, files_below, reader_of
from experiments.results.tables.engines.regrading import keeps_answers, regraded
from experiments.results.tables.formats import holds_results
from experiments.results.tables.sheets import Sheet, TableError, is_csv, read_sheet
from experiments.results.tables.wide import is_wide, wide_logs


@dataclass(frozen=True)
class Found:
    """Sheets, logs in the order of the readers, and what else there is."""

    sheets: list[Sheet]
    logs: list[Log]
    root: Path
    """What all paths share: names are read below it."""
    hydra: list[Path]
    """Configurations that hydra wrote."""
    empty: list[Path]
    """Files that may be logs, and have nothing in them."""


def is_readable(file: Path) -> bool:
    """Whether a file in a folder is a table or a log."""
    return is_csv(file) or reader_of(file) is not None or keeps_answers(file)


def gather(paths: Sequence[Path], regrade: str | None = None) -> Found:
    """Read what can be read; TableError with file, line and remedy.

    A file that is named must be readable, and is a table where no log is recognised. Of a folder the rest is passed
    over. `regrade` names a verifier that grades the answers anew that are there.
    """
    below = {path: [*files_below(path)] for path in paths if path.is_dir()}
    named = [path for path in paths if path not in below]
    files = [*dict.fromkeys([*named, *(file for each in below.values() for file in each)])]
    readers = {file: reader for file in files if not is_csv(file) and (reader := reader_of(file)) is not None}
    answers = [file for file in files if keeps_answers(file)] if regrade is not None else []
    if regrade is not None and not answers:
        raise TableError(
            f"{', '.join(map(str, paths))}: --regrade {regrade} finds no answers here: verl keeps them with "
            "trainer.validation_data_dir, TRL with log_completions=True"
        )
    tables = [file for file in files if file not in (*readers, *answers) and (is_csv(file) or file in named)]
    if not tables and not readers and not answers:
        raise TableError(
            f"{', '.join(map(str, paths))}: no CSV file and no trainer's log here; name the files, or the folder they "
            "are in"
        )
    root = _root(paths)
    sheets = _sheets(tables, named, root, alone=not readers)
    ordered = sorted(readers, key=lambda file: READERS.index(readers[file]))
    logs = [log for file in ordered for log in readers[file].read(file)]
    logs += regraded(answers, regrade) if regrade is not None else []
    wide = [sheet for sheet in sheets if is_wide(sheet)]
    return Found(
        [sheet for sheet in sheets if sheet not in wide],
        [*logs, *(log for sheet in wide for log in wide_logs(sheet))],
        root,
        [file for file in files if file.parts[-2:] == HYDRA.parts],
        [file for file in files if file.suffix == ".jsonl" and file.is_file() and not file.stat().st_size],
    )


def _root(paths: Sequence[Path]) -> Path:
    """The folder that was given, or what the folders of all paths have in common."""
    folders = [path if path.is_dir() else path.parent for path in paths]
    return folders[0] if len(folders) == 1 else Path(os.path.commonpath([folder.absolute() for folder in folders]))


def _sheets(tables: Sequence[Path], named: Sequence[Path], root: Path, *, alone: bool) -> list[Sheet]:
    """The tables of runs; those of results, as the bench writes them beside, are passed over."""
    names = {file: Path(os.path.relpath(file, root)).with_suffix("").as_posix() for file in tables}
    sheets = {file: read_sheet(file, name) for file, name in names.items()}
    results = [file for file, sheet in sheets.items() if holds_results(sheet)]
    if results and ((alone and len(results) == len(sheets)) or any(file in named for file in results)):
        raise TableError(
            f"{results[0]}: these are results, not runs; give the scores.csv that was written beside it, or the "
            "study's folder"
        )
    return [sheet for file, sheet in sheets.items() if file not in results]
