"""Files that are written whole or not at all, and JSON that is read or refused by name."""

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.errors import GrpoLabError, MachineError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file: to a neighbour first, synced, then renamed; raises OSError.

    What is there and no regular file, such as a device, is refused: it would be replaced by one.
    """
    unfinished = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is not a regular file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; raises `MachineError`."""
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise MachineError(
            f"cannot write {path}: {error.strerror or error}; choose another folder with --out"
        ) from error


def parse_json(text: str | bytes, *, unique: bool = False) -> Any:
    """The value of a JSON text; raises ValueError for all that cannot be read, brackets in brackets without end too.

    With `unique` also for an object that has a name twice, of which Python would take the last in silence.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique if unique else None)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise ValueError(f"the name {twice!r} appears twice in an object; remove one")
    return unique


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises `GrpoLabError` naming the file when it is none."""
    try:
        value = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise GrpoLabError(
            f"{path} cannot be read: {error}; restore it, or remove its folder to start again"
        ) from error
    if not isinstance(value, dict):
        raise GrpoLabError(f"{path} holds no JSON object; restore it, or remove its folder to start again")
    return value


def write_json(path: Path, value: Any) -> str:
    """Write JSON whole or not at all; returns the text."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    write_text(path, text)
    return text
