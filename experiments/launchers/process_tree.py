"""A process with all that it started."""

from contextlib import suppress

import psutil


def kill(pid: int) -> None:
    """Kill a process and its descendants: torchrun starts each of its processes in a session of its own."""
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        for process in [first, *first.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
