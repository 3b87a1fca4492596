"""Weights & Biases: the folders that a run leaves behind locally, online or offline.

`run-ID.wandb` holds everything that was logged, in frames as LevelDB's log has them, each a message of W&B's own
schema; to parse these takes the package wandb. Older clients wrote `files/wandb-history.jsonl` (`flat_jsonl.py`).
Where neither is left, `files/wandb-summary.json` has the last value of everything.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from core.errors import brief
from experiments.results.tables.engines.configs import from_mapping, read_yaml
from experiments.results.tables.engines.log import Line, Log, Settings, document, numbers
from experiments.results.tables.engines.steps import BESIDE, step_of
from experiments.results.tables.sheets import TableError

_MAGIC: Final = b":W&B"
_BLOCK: Final = 32768
_FRAME: Final = struct.Struct("<IHB")  # checksum, length, kind
_LAST_PARTS: Final = (1, 4)
"""Kinds of a frame that end a message: whole, or its last part."""
_JOINT: Final = "."
"""Between the names of nested values, as W&B shows them."""


class RunFiles:
    """`run-ID.wandb`."""

    def recognises(self, file: Path) -> bool:
        """By the name."""
        return file.suffix == ".wandb"

    def read(self, file: Path) -> Sequence[Log]:
        """One run, or a part of one that was resumed."""
        try:
            from wandb.proto import wandb_internal_pb2 as schema
        except ImportError:
            raise TableError(
                f"{file}: to read W&B's own files, pip install 'grpo-lab[wandb]'; or export the run as CSV"
            ) from None
        notes: list[str] = []
        lines: list[Line] = []
        title, group, config = "", "", dict[str, Any]()
        for number, message in enumerate(_messages(file, notes), start=1):
            record = schema.Record()
            try:
                record.ParseFromString(message)
            except Exception as error:  # protobuf's, which has one for each of its implementations
                raise TableError(
                    f"{file}, record {number}: not W&B's ({brief(error)}); copy the file anew, or take it out"
                ) from None
            kind = record.WhichOneof("record_type")
            if kind == "run":
                title, group = record.run.display_name or title, record.run.run_group or group
                config |= _items(record.run.config.update)
            elif kind == "config":
                config |= _items(record.config.update)
            elif kind == "history" and (line := _line(number, _items(record.history.item))):
                lines.append(line)
        if not lines:
            raise TableError(f"{file}: nothing was logged; take the file out")
        settings = _settings(config, group, str(file))
        run = file.parent.parent / file.stem.removeprefix("run-")
        return [Log("W&B", str(file), run, lines, title or None, settings, unit="record", notes=tuple(notes))]


class Summaries:
    """`files/wandb-summary.json`, where it is all that is left of a run."""

    def recognises(self, file: Path) -> bool:
        """By the name, unless there is more."""
        if file.name != "wandb-summary.json":
            return False
        return not (file.parent / "wandb-history.jsonl").exists() and not [*file.parent.parent.glob("*.wandb")]

    def read(self, file: Path) -> Sequence[Log]:
        """One run, at its last step."""
        values = document(file)
        line = _line(1, values)
        if line is None:
            raise TableError(f"{file}: no number '_step', at which its values were logged; take the file out")
        own = file.parent / "config.yaml"
        config = {
            key: each["value"]
            for key, each in (read_yaml(own) if own.is_file() else {}).items()
            if isinstance(each, Mapping) and "value" in each
        }
        run = file.parent.parent if file.parent.name == "files" else file.parent
        note = f"{file}: all that is left of this run are the last values that it logged."
        return [Log("W&B", str(file), run, [line], None, _settings(config, "", str(own)), notes=(note,))]


def _settings(config: Mapping[str, Any], group: str, source: str) -> Settings:
    return from_mapping({"arm": group or None, **config}, source)


def _line(number: int, values: Mapping[str, Any]) -> Line | None:
    step = step_of(values)
    if step is None:
        return None
    return Line(number, step, numbers({k: v for k, v in values.items() if k not in BESIDE}, _JOINT))


def _items(items: Any) -> dict[str, Any]:
    """Values by name; what was logged as a whole table or picture is left as JSON."""
    values = {}
    for item in items:
        name = _JOINT.join(item.nested_key) if item.nested_key else item.key
        try:
            values[name] = json.loads(item.value_json)
        except ValueError:  # no JSON, so no number
            continue
    return values


def _messages(file: Path, notes: list[str]) -> Iterator[bytes]:
    """The messages in a file's frames; one that is torn is the last."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise TableError(f"cannot read {file}: {error.strerror or error}") from None
    if not data:
        raise TableError(f"{file}: empty; the run that should have written it has logged nothing, so take it out")
    if not data.startswith(_MAGIC):
        raise TableError(f"{file}: not a file of W&B's; copy it anew, or take it out")
    at, message = 7, b""  # after the magic, a number and a version
    while at < len(data):
        left = _BLOCK - at % _BLOCK
        if left < _FRAME.size:  # padding
            at += left
            continue
        if at + _FRAME.size > len(data):
            notes.append(f"{file}: the last record is torn, as of a run that was killed; not read.")
            return
        _, length, kind = _FRAME.unpack_from(data, at)
        at += _FRAME.size
        if at + length > len(data):
            notes.append(f"{file}: the last record is torn, as of a run that was killed; not read.")
            return
        message += data[at : at + length]
        at += length
        if kind in _LAST_PARTS:
            yield message
            message = b""
