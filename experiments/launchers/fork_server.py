"""The process that workers of this machine are forked from: it has imported what they need and computes nothing itself.

Imported with the command line, before torch, so that it can begin its imports beside the command's own.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from types import ModuleType
from typing import Any

from core.parts.import_path import SAFE_PATH


def start() -> None:
    """Start it now, where it does not run yet: seconds of imports are over when the first worker is wanted."""
    if sys.platform == "linux":
        context()
        with environment():
            forkserver.ensure_running()


def context() -> Any:
    """What starts processes as its forks."""
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(["experiments.launchers.preloaded"])
    return forked


def process() -> int | None:
    """Its process, while it is known to run."""
    running: int | None = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return running


@contextmanager
def environment() -> Iterator[None]:
    """Signals and environment for a starting process, and for the fork server, which starts with the first."""
    environment = dict(os.environ)
    # it inherits that Ctrl-C is ignored, also while it imports: only the parent answers it, in its main thread
    is_main = threading.current_thread() is threading.main_thread()
    answer = signal.signal(signal.SIGINT, signal.SIG_IGN) if is_main else None
    # it finds what we find
    os.environ.update(SAFE_PATH, PYTHONPATH=os.pathsep.join(entry or os.getcwd() for entry in sys.path))
    main = sys.modules["__main__"]
    # it would run a script of the user's again, whose call began all this
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        os.environ.clear()
        os.environ.update(environment)
        if is_main:
            signal.signal(signal.SIGINT, answer)
