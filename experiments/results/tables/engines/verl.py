"""verl: the log of `trainer.logger=file`, and the answers of `trainer.validation_data_dir`.

The log is `<project>/<experiment>.jsonl`, a line `{"step": n, "data": {...}}` for every step; null stands for nan. A
run that is resumed under the same name erases what it had logged. Answers are in `<step>.jsonl`, a line each with
`input`, `output`, `gts`, `score`, `step` and what the reward function returned beside the score, such as `acc`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from experiments.results.tables.engines.answers import mean_line
from experiments.results.tables.engines.log import Line, Log, first_record, number_in, numbers, records
from experiments.results.tables.sheets import TableError

_ANSWER: Final = frozenset(("input", "output", "score", "step"))
_NOT_MEASURED: Final = frozenset(("input", "output", "gts", "step", "uid"))


class Metrics:
    """The log of `trainer.logger=file`."""

    def recognises(self, file: Path) -> bool:
        """A line has a step and its data."""
        record = first_record(file) if file.suffix == ".jsonl" else None
        return record is not None and number_in(record, "step") is not None and isinstance(record.get("data"), dict)

    def read(self, file: Path) -> Sequence[Log]:
        """One run."""
        notes: list[str] = []
        lines = []
        for number, record in records(file, notes):
            step, data = number_in(record, "step"), record.get("data")
            if step is None or not isinstance(data, dict):
                raise TableError(
                    f'{file}, line {number}: not a line of verl\'s log, {{"step": n, "data": {{...}}}}; take it out'
                )
            lines.append(Line(number, step, numbers(data)))
        return [Log("verl", str(file), file.with_suffix(""), lines, notes=tuple(notes))]


class Answers:
    """The answers of one validation, or rollout, a file each."""

    def recognises(self, file: Path) -> bool:
        """A line has an input, an output and a score."""
        record = first_record(file) if file.suffix == ".jsonl" and file.stem.isascii() and file.stem.isdigit() else None
        return record is not None and record.keys() >= _ANSWER

    def read(self, file: Path) -> Sequence[Log]:
        """One step of one run: means over all answers."""
        notes: list[str] = []
        rows = [
            {key: value for key, value in record.items() if key not in _NOT_MEASURED}
            for _, record in records(file, notes)
        ]
        line = mean_line(file, float(file.stem), rows)
        return [Log("answers of verl", str(file), file.parent, [line], below=True, unit="step", notes=tuple(notes))]
