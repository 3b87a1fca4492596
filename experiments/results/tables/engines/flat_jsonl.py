"""Logs with one flat JSON object on each line: prime-rl's `metrics.jsonl`, W&B's `wandb-history.jsonl`, anybody's.

prime-rl writes `{"step": n, "time": ..., metric: value, ...}`, several processes of a run into one file: the lines of
one step belong together, those with the step null are keyed by time and are not read. It leaves out numbers that are
not finite, so that there a gap may be a nan.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from experiments.results.tables.engines.log import Line, Log, first_record, number_in, numbers, records
from experiments.results.tables.engines.steps import BESIDE, step_of
from experiments.results.tables.sheets import TableError

_OURS: Final = "manifest.json"
"""Beside it lies the log of a run of the bench, which is read with its study."""
_PRIMES: Final = "metrics.jsonl"


class FlatLines:
    """One flat JSON object on each line."""

    def recognises(self, file: Path) -> bool:
        """The first line has a step and a number."""
        if file.suffix != ".jsonl" or (file.parent / _OURS).exists():
            return False
        record = first_record(file)
        if record is None or isinstance(record.get("data"), dict):
            return False
        if file.name == _PRIMES and "time" in record and "step" in record:
            return True
        return step_of(record) is not None and any(
            number_in(record, key) is not None for key in record if key not in BESIDE
        )

    def read(self, file: Path) -> Sequence[Log]:
        """One run, named by its folder where the file has a library's own name."""
        notes: list[str] = []
        lines = [line for number, record in records(file, notes) if (line := _line(file, number, record))]
        own = file.name in (_PRIMES, "wandb-history.jsonl")
        return [Log("JSON lines", str(file), file.parent if own else file.with_suffix(""), lines, notes=tuple(notes))]


def _line(file: Path, number: int, record: dict[str, Any]) -> Line | None:
    step = step_of(record)
    if step is None:
        if "step" in record and record["step"] is None:
            return None
        raise TableError(f"{file}, line {number}: no number 'step'; give every line the step that it is of")
    return Line(number, step, numbers({key: value for key, value in record.items() if key not in BESIDE}))
