"""The log of one run as a trainer wrote it: numbers by line and step, and what the run's configuration says."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from experiments.results.tables.sheets import TableError

_NOT_FINITE: Final[Mapping[str, float]] = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""How JSON that has no word for them spells them: trackio's database."""


class Line(NamedTuple):
    """The numbers that were logged together; one that was logged as null is nan."""

    number: int
    step: float
    values: Mapping[str, float]
    answers: float | None = None
    """How many answers, each right or wrong, the values are means of."""


@dataclass(frozen=True)
class Settings:
    """What a run's configuration says of its seed; a None is not said."""

    source: str = ""
    arm: str | None = None
    seed: int | None = None
    unseeded_data: bool = False
    """`data.seed` is null: prompts come in the same order whatever the seed."""
    keyed_noise: bool = False
    """Sampling noise is a function of the seed, as in runs of the bench: a bridge of ours started the run."""


@dataclass(frozen=True)
class Log:
    """One run, or a part of one: parts have the kind and the `run` in common."""

    kind: str
    """The library, or the format."""
    source: str
    run: Path
    """The folder or file (without suffix) that is the run's own: its path names the run."""
    lines: Sequence[Line] = field(repr=False)
    title: str | None = None
    """The run's own name, where the log has one: it is read before the path."""
    settings: Settings = Settings()
    """Of the log itself; else they are looked for beside `run`."""
    progress: tuple[float, float] | None = None
    """The step that was reached, and the one that was planned."""
    snapshot: bool = False
    """Whether the log holds all that came before: of several, the one that reached the last step counts alone."""
    told: bool = False
    """Whether arm and seed are those of the settings, whatever the run is called."""
    below: bool = False
    """Whether the folder between the run's and its files tells metrics of one name apart."""
    unit: str = "line"
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, Path, str]:
        """What the parts of one run share."""
        return self.kind, self.run, self.title or ""


class Reader(Protocol):
    """Reads the files of one library."""

    def recognises(self, file: Path) -> bool:
        """Whether the file is one of these, by its name and its beginning; never raises for a file that can be read."""
        ...

    def read(self, file: Path) -> Sequence[Log]:
        """The runs in the file; TableError with file, line and remedy."""
        ...


def numbers(record: Mapping[str, Any], joint: str = "/", prefix: str = "") -> dict[str, float]:
    """The numbers of a record by name, nested names joined; null is nan; text, truth values and lists are left out."""
    flat: dict[str, float] = {}
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= numbers(value, joint, f"{name}{joint}")
        elif value is None:
            flat[name] = math.nan
        elif isinstance(value, str):
            if value in _NOT_FINITE:
                flat[name] = _NOT_FINITE[value]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[name] = as_float(value)
    return flat


def as_float(value: float) -> float:
    """A number of JSON, whose whole numbers have no end."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def number_in(record: Mapping[str, Any], name: str) -> float | None:
    """A finite number by its name; None where there is none."""
    value = record.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    number = as_float(value)
    return number if math.isfinite(number) else None


def first_record(file: Path) -> dict[str, Any] | None:
    """The first line that is not empty, if it is a JSON object; None also for what is no text."""
    try:
        with file.open(encoding="utf-8") as lines:
            text = next((line for line in lines if line.strip()), "")
            record = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def records(file: Path, notes: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file with one on each line; a last line that is torn is left out, and a note says so."""
    text = text_of(file)
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if not any(rest.strip() for rest in lines[number:]):
                notes.append(f"{file}, line {number}: the last line is torn, as of a run that was killed; not read.")
                return
            raise TableError(
                f"{file}, line {number}: not JSON ({_reason(error)}); take the line out, or copy the file anew"
            ) from None
        if not isinstance(record, dict):
            raise TableError(f"{file}, line {number}: not a JSON object; every line is one, {{...}}")
        yield number, record


def document(file: Path) -> dict[str, Any]:
    """A file that is one JSON object."""
    try:
        record = json.loads(text_of(file))
    except (ValueError, RecursionError) as error:
        raise TableError(f"{file}: not JSON ({_reason(error)}); copy the file anew, or take it out") from None
    if not isinstance(record, dict):
        raise TableError(f"{file}: not a JSON object, {{...}}; copy the file anew, or take it out")
    return record


def text_of(file: Path) -> str:
    """A file's text, in UTF-8."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise TableError(f"cannot read {file}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise TableError(f"{file}: not UTF-8 text ({error.reason}); copy the file anew") from None
    if not text.strip():
        raise TableError(f"{file}: empty; the run that should have written it has logged nothing, so take it out")
    return text


def _reason(error: Exception) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
