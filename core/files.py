"""Files that are written whole or not at all."""

import errno
import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file: to a neighbour first, synced, then renamed; raises OSError.

    What is there and no regular file, a device say, is refused: it would be replaced by one.
    """
    unfinished = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is no regular file")
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
