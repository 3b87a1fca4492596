"""TensorBoard's event files, of any trainer: `events.out.tfevents.*`.

All event files of one folder are one run: a trainer that is resumed begins another file. Where a step is logged
twice, the later file counts.
"""

import logging
import re
import struct
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.errors import brief
from experiments.results.tables.engines.log import Line, Log
from experiments.results.tables.sheets import TableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LENGTH: Final = struct.Struct("<Q")
_CHECKSUMS: Final = 8
"""Bytes of a record's two."""
_TRANSFORMERS: Final = re.compile(r"[A-Z][a-z]{2}\d{2}_\d{2}-\d{2}-\d{2}_.+")
"""The folder below `output_dir/runs` in which the Trainer logs: date, time and host."""


class EventFiles:
    """TensorBoard's event files."""

    def recognises(self, file: Path) -> bool:
        """By the name that TensorBoard itself looks for."""
        return "tfevents" in file.name

    def read(self, file: Path) -> Sequence[Log]:
        """One run, or a part of one."""
        try:
            from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        except ImportError:
            raise TableError(
                f"{file}: to read TensorBoard's event files, pip install 'grpo-lab[tensorboard]'"
            ) from None
        whole, torn = _framed(file)
        lines, count = [], 0
        with _quiet():
            try:
                for count, event in enumerate(EventFileLoader(str(file)).Load(), start=1):
                    numbers = ((value.tag, _scalar(value)) for value in event.summary.value)
                    values = {tag: number for tag, number in numbers if number is not None}
                    if values:
                        lines.append(Line(count, float(event.step), values))
            except Exception as error:  # whatever a damaged file makes of the library
                raise TableError(f"{file}: not an event file ({brief(error)}); copy it anew, or take it out") from None
        if count < whole or (torn and not count):
            raise TableError(f"{file}: not an event file after event {count}; copy it anew, or take it out")
        notes = (f"{file}: the last event is torn, as of a run that was killed; not read.",) if torn else ()
        return [Log("TensorBoard", str(file), _run(file), lines, unit="event", notes=notes)]


def _framed(file: Path) -> tuple[int, bool]:
    """How many whole records the file holds by their lengths, and whether another was begun.

    The library stops at a record that is damaged as at the end of the file.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise TableError(f"cannot read {file}: {error.strerror or error}") from None
    at, records = 0, 0
    while at < len(data):
        if at + _LENGTH.size > len(data):
            return records, True
        at += _LENGTH.size + _LENGTH.unpack_from(data, at)[0] + _CHECKSUMS
        if at > len(data):
            return records, True
        records += 1
    return records, False


def _run(file: Path) -> Path:
    folder = file.parent
    ours = _TRANSFORMERS.fullmatch(folder.name) and folder.parent.name == "runs"
    return folder.parent.parent if ours else folder


def _scalar(value: Any) -> float | None:
    """The number of a summary, which the loader has made a tensor; None for pictures, text and the like."""
    from tensorboard.util import tensor_util

    if value.metadata.plugin_data.plugin_name != "scalars" or value.WhichOneof("value") != "tensor":
        return None
    number = tensor_util.make_ndarray(value.tensor)
    return float(number) if number.size == 1 else None


@contextmanager
def _quiet() -> "Iterator[None]":
    """Without the loader's own remarks on a file that ends in the middle of a record, as that of a killed run does."""
    logger = logging.getLogger("tensorboard")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
