"""`grpolab analyze RUN RUN`: two trained models compared question by question; says nothing about their methods."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.errors import GrpoLabError
from core.printable import printable
from core.store.files import read_json
from experiments.results.stored_run import StoredRun, StudyError, read_run
from experiments.statistics import compare_checkpoints
from experiments.statistics.records import to_plain


def are_runs(paths: Sequence[Path]) -> bool:
    """Whether all paths are run folders."""
    return all((path / "manifest.json").is_file() for path in paths)


def compare_runs(paths: Sequence[Path], *, as_json: bool) -> int:
    """Print how the last evaluations of two runs differ on their common questions, with the caveat."""
    if len(paths) != 2:
        raise GrpoLabError(f"{len(paths)} run folders given: two runs are compared, or a whole study's folder judged")
    runs = [_read(path) for path in paths]
    suite = next((row["split"] for row in runs[0].evals), "")
    ours, theirs = (run.questions(suite) for run in runs)
    if [q["prompt"] for q in ours] != [q["prompt"] for q in theirs]:
        raise StudyError(f"{paths[0]} and {paths[1]} were not evaluated on the same questions of {suite!r}: no pair")
    tables = [
        np.array([[s["correct"] for s in q["samples"]] for q in each], dtype=np.float64) for each in (ours, theirs)
    ]
    try:
        comparison = compare_checkpoints(*tables, names=(str(paths[0]), str(paths[1])))
    except ValueError as error:
        raise StudyError(str(error)) from None
    print(json.dumps(to_plain(comparison), indent=1) if as_json else printable(comparison.sentence))
    return 0


def _read(path: Path) -> StoredRun:
    manifest = read_json(path / "manifest.json")
    run = read_run(path, str(manifest.get("arm")), int(manifest.get("seed", 0)))
    if run is None or not run.finished:
        raise StudyError(f"{path}: the run is not finished; give the command that started it again")
    return run
