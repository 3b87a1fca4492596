"""One process at a time for a run's folder."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from core.errors import MachineError
from core.store.integrity import (
    REMEDY,
)

LOCK_TIMEOUT_SECONDS: Final = 120.0
"""Seconds to wait for another process that is writing to a run's folder."""


@contextmanager
def lock(folder: Path, patience: float = LOCK_TIMEOUT_SECONDS) -> Iterator[None]:
    """Hold a run's folder for this process alone; raises when another has it for longer than `patience` seconds."""
    # a worker whose parent was killed goes on to the end of its step before it notices
    deadline = time.monotonic() + patience
    while True:
        try:
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
            file = _open_locked(folder / ".lock")
        except OSError as error:
            raise MachineError(
                f"cannot write to {folder}: {error.strerror}; choose another folder with --out"
            ) from error
        if file is not None:
            break
        if time.monotonic() > deadline:
            raise MachineError(f"another process is running {folder}; wait for it or end it")
        time.sleep(0.2)
    with file:
        yield


def _open_locked(path: Path) -> IO[str] | None:
    """The file at `path`, locked; None when another process has it, or the folder was set aside meanwhile."""
    with suppress(BlockingIOError, FileNotFoundError), ExitStack() as opened:
        file = opened.enter_context(path.open("w"))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            opened.pop_all()
            return file
    return None


def quarantine(folder: Path) -> Path:
    """Rename the folder of a damaged run, to which `lock` must be held; returns the first free name."""
    n = 1
    while (aside := folder.with_name(f"{folder.name}.corrupt-{n}")).exists():
        n += 1
    try:
        os.rename(folder, aside)
    except OSError as error:
        raise MachineError(f"cannot rename {folder}: {error.strerror}; {REMEDY}") from error
    return aside
