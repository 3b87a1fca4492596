"""Processes of tests that begin as forks of one that has imported everything: the local launcher's own fork server.

A fresh process takes seconds for its imports, and there are hundreds. What makes a process remains: its own folder,
environment, arguments, signals, session and output, and a fork server of its own for its workers.
"""

import gc
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, TextIO

from experiments.launchers import fork_server, local

PRELOADED: Final = ["experiments.launchers.preloaded", "experiments.cli.compare"]
"""What a worker of the local launcher imports, and what a command does."""


class Forked:
    """A process that does `work(*arguments)`; like `subprocess.Popen`, of text.

    It is the first of a session. Where it is not to write to files, both its outputs are one pipe, which is read as
    `stdout` here. What `work` returns is the exit code.
    """

    def __init__(
        self,
        work: Callable[..., int | None],
        *arguments: Any,
        folder: Path,
        output: tuple[Path, Path] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        context = local._context()
        if context.get_start_method() == "forkserver":
            context.set_forkserver_preload(PRELOADED)
        ours, theirs = context.Pipe(duplex=False)
        told = (str(folder), dict(os.environ if environment is None else environment), theirs, output)
        self._process = context.Process(target=_begin, args=(*told, work, arguments))
        with fork_server.environment():
            self._process.start()
        theirs.close()
        self.pid: int = self._process.pid
        self.stdout: TextIO = os.fdopen(os.dup(ours.fileno()), "r")
        ours.close()

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None as long as it lives."""
        code: int | None = self._process.exitcode
        return code

    def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        self._process.join()
        code: int = self._process.exitcode
        return code

    def send_signal(self, number: int) -> None:
        """To it alone."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def end(self) -> str:
        """Kill what is left of it and of its process group; returns what it wrote that was not yet read."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()
        with self.stdout:
            return self.stdout.read()


def _begin(
    folder: str,
    environment: Mapping[str, str],
    pipe: Connection,
    output: tuple[Path, Path] | None,
    work: Callable[..., int | None],
    arguments: Sequence[Any],
) -> None:
    """Become a process of its own, and do the work."""
    gc.freeze()  # a rehearsal collects garbage, and need not look at all that was imported
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    writes = (
        [os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) for path in output] if output else [pipe.fileno()] * 2
    )
    for descriptor, write in enumerate(writes, start=1):
        os.dup2(write, descriptor)
    for write in {*writes}:
        os.close(write)
    sys.stdout = os.fdopen(1, "w", buffering=1 if "PYTHONUNBUFFERED" in environment else -1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    if local._context().get_start_method() == "forkserver":
        _fork_server()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    raise SystemExit(work(*arguments))


def _fork_server() -> None:
    """Have a fork server for what is started from here: a fork of this process, which has computed nothing yet."""
    server: Any = forkserver
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0grpolab-{os.getpid()}")
        listener.listen()
        alive, ours = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(ours)
            try:
                server.main(listener.detach(), alive, [])
            finally:
                os._exit(0)
        os.close(alive)
        known = server._forkserver
        known._forkserver_address, known._forkserver_alive_fd = listener.getsockname(), ours
        known._forkserver_pid = process


def run_command(*arguments: str) -> int:
    """`grpolab` with these arguments."""
    from experiments.cli.main import main

    sys.argv[:] = ["grpolab", *arguments]
    return main(arguments)


def grpolab(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder`, which is not the project's, to its end."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "stdout"), Path(scratch, "stderr")
        process = Forked(run_command, *arguments, folder=folder, output=output)
        try:
            code = process.wait()
        finally:
            process.end()
        return subprocess.CompletedProcess(["grpolab", *arguments], code, *(path.read_text() for path in output))
