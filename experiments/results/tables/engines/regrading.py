"""Answers that a trainer kept, graded anew by a verifier of the bench: strictly, and in any form.

verl   `validation_data_dir/<step>.jsonl`: `input`, `output`, and the gold answer `gts`
TRL    `completions/completions_<step>.parquet`, with log_completions=True, where a reward function logged the gold
       answer beside (`log_extra("solution", ...)`). It has the last generation batch before the step only, and an
       evaluation at that step in its place: evidence, no curve
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from core.errors import GrpoLabError, near
from experiments.results.tables.engines.log import Line, Log, records
from experiments.results.tables.engines.verl import Answers
from experiments.results.tables.sheets import TableError

if TYPE_CHECKING:
    from core.parts.registry import Part

_COMPLETIONS: Final = re.compile(r"completions_(\d+)\.parquet")
_GOLD: Final = ("gts", "solution", "answer", "ground_truth", "gold")
"""Names of the gold answer, in verl and in data sets that TRL is used with."""
_PLAIN: Final = (str, int, float)


class Answer(NamedTuple):
    """One answer as it was kept."""

    prompt: str
    response: str
    gold: str
    recorded: float | None
    """The trainer's own verdict, where it is 0 or 1."""


def keeps_answers(file: Path) -> bool:
    """Whether a file has answers that can be graded anew."""
    return Answers().recognises(file) or _is_completions(file)


def _is_completions(file: Path) -> bool:
    return _COMPLETIONS.fullmatch(file.name) is not None


def regraded(files: Iterable[Path], verifier: str) -> list[Log]:
    """A log of each file: `regraded/VERIFIER`, and the same with `/lenient`, as means over its answers.

    Raises GrpoLabError for an unknown verifier, and TableError for answers without a gold one.
    """
    from core.loop.scoring import start
    from core.parts.registry import REWARDS

    if verifier not in REWARDS:
        raise GrpoLabError(f"--regrade {verifier}: no such reward; {near(verifier, REWARDS)}")
    part = REWARDS[verifier].resolved()
    start([part])
    counts: dict[Path, Counter[str]] = {}
    logs = [_graded(file, part, counts.setdefault(file.parent, Counter())) for file in files]
    notes = [
        f"{folder}: {verifier} and the trainer's own score differ on {of['differing']} of {of['compared']} answers."
        for folder, of in counts.items()
        if of["differing"]
    ]
    return [replace(logs[0], notes=(*logs[0].notes, *notes)), *logs[1:]] if logs else []


def _graded(file: Path, verifier: "Part", counts: Counter[str]) -> Log:
    """The log of one file; `counts` takes the answers that the trainer had judged too, and otherwise."""
    from core.loop.scoring import score
    from core.parts.problems import Problem

    notes: list[str] = []
    answers = _of_trl(file) if _is_completions(file) else _of_verl(file, notes)
    problems = [Problem(each.prompt, each.gold, n, place=f"{file}, answer {n}") for n, each in enumerate(answers)]
    scores = score([verifier], problems, [[each.response] for each in answers])
    if scores.failure is not None:
        raise TableError(f"{file}: {verifier.name} could not grade its answers: {scores.failure}")
    strict, lenient = (verdicts[:, 0].tolist() for verdicts in (scores.correct, scores.lenient))
    compared = [
        (each.recorded, right) for each, right in zip(answers, strict, strict=True) if each.recorded is not None
    ]
    counts.update(compared=len(compared), differing=sum(recorded != right for recorded, right in compared))
    step = float(file.stem.rpartition("_")[2])
    means = {
        f"regraded/{verifier.name}": sum(strict) / len(strict),
        f"regraded/{verifier.name}/lenient": sum(lenient) / len(lenient),
    }
    line = Line(int(step), step, means, float(len(answers)))
    return Log("regraded", str(file), file.parent, [line], below=True, unit="step", notes=tuple(notes))


def _of_verl(file: Path, notes: list[str]) -> list[Answer]:
    rows = [row for _, row in records(file, notes)]
    return [
        Answer(str(row.get("input", "")), str(row.get("output", "")), _gold(file, row), _verdict(row.get("score")))
        for row in rows
    ]


def _of_trl(file: Path) -> list[Answer]:
    from core.environments.tasks.rows import read_rows

    kept = [row for _, row in read_rows(str(file))]
    if not kept:
        raise TableError(f"{file}: no answers; take the file out")
    return [Answer(_text(row.get("prompt")), _text(row.get("completion")), _gold(file, row), None) for row in kept]


def _gold(file: Path, row: Mapping[str, Any]) -> str:
    value = next((row[name] for name in _GOLD if isinstance(row.get(name), _PLAIN)), None)
    if value is None:
        raise TableError(
            f"{file}: no gold answer beside the answers ({', '.join(_GOLD)}), so --regrade has nothing to grade by; in "
            'TRL a reward function keeps it with log_extra("solution", ...)'
        )
    return str(value)


def _verdict(score: Any) -> float | None:
    return float(score) if isinstance(score, int | float) and score in (0, 1) else None


def _text(value: Any) -> str:
    """A text, or the last message of a conversation."""
    if isinstance(value, Sequence) and not isinstance(value, str) and value and isinstance(value[-1], Mapping):
        return str(value[-1].get("content", ""))
    return str(value)
