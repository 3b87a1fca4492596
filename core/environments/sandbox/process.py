"""A process in its sandbox: started, asked one thing at a time under a deadline, and ended with all it started."""

import contextlib
import json
import os
import secrets
import select
import signal
import struct
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Final, Self

from core.environments.sandbox.levels import Limits, SandboxError, command

# generous: a machine that is short of processors, not a program, makes them long
START_SECONDS: Final = 120.0
END_SECONDS: Final = 120.0
SILENT_SECONDS: Final = 2.0
_OUTCOMES: Final = {
    "uncompiled": "does not compile",
    "undefined": "function not defined",
    "raised": "raised an exception",
    "not plain": "returned no plain value",
}


class ProgramError(Exception):
    """The program has no answer to give, for one of a few causes; after a `final` one it can be asked nothing more."""

    def __init__(self, cause: str, *, final: bool = True) -> None:
        super().__init__(cause)
        self.final = final


class Enclosed(ABC):
    """A process at a level of the sandbox, and the pipes to it: frames of a length in 4 bytes and that many bytes."""

    def __init__(self, level: str, limits: Limits) -> None:
        self.level, self.limits = level, limits
        self._process: subprocess.Popen[bytes] | None = None
        self._init: int | None = None
        self._scratch: Scratch | None = None
        self._deadline = 0.0

    @abstractmethod
    def _command(self) -> list[str]:
        """What is started."""

    def _start(self) -> None:
        if self.level == "rlimits":
            self._scratch = Scratch()
        process = self._process = subprocess.Popen(
            self._command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PYTHONHASHSEED": "0"},
            cwd="/",
            start_new_session=True,
        )
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self._requests, self._replies = process.stdin.fileno(), process.stdout.fileno()
        os.set_blocking(self._requests, False)
        os.set_blocking(self._replies, False)
        self._deadline = time.monotonic() + START_SECONDS
        try:
            self._read(1000)
        except ProgramError as error:
            os.kill(process.pid, signal.SIGKILL)  # not Popen's: that may collect the process before its group is dead
            process.stdin.close()
            words = process.stderr.read(2000).decode(errors="replace").strip()
            raise SandboxError(f"no sandbox at level {self.level}: {error}: {words or 'no message'}") from None
        if self.level != "rlimits":
            # the first process of its process space: killing it ends everything in there
            first = f"/proc/{process.pid}/task/{process.pid}/children"
            with open(first) as children:
                self._init = os.pidfd_open(int(children.read().split()[0]))
        self._deadline = time.monotonic() + self.limits.wall_seconds

    def _end(self) -> None:
        """Kill everything that the program has started and wait until it is gone."""
        process = self._process
        if process is not None:
            if self._init is not None:
                with contextlib.suppress(ProcessLookupError):  # it has gone by itself
                    signal.pidfd_send_signal(self._init, signal.SIGKILL)
                poll = select.poll()
                poll.register(self._init, select.POLLIN)
                poll.poll(END_SECONDS * 1000)
                os.close(self._init)
            if self.level == "rlimits":
                _kill_group(process.pid)
            os.kill(process.pid, signal.SIGKILL)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe:
                    pipe.close()
            process.wait()
        if self._scratch is not None:
            self._scratch.remove()

    def _write(self, text: bytes) -> None:
        rest = memoryview(struct.pack(">I", len(text)) + text)
        while rest:
            self._wait(self._requests, select.POLLOUT)
            try:
                rest = rest[os.write(self._requests, rest) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise self._silent() from None

    def _read(self, most: int) -> bytes:
        (length,) = struct.unpack(">I", self._exactly(4))
        if length > most:
            raise ProgramError("too much output")
        return self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        parts = []
        while count:
            self._wait(self._replies, select.POLLIN)
            try:
                part = os.read(self._replies, min(count, 1 << 16))
            except BlockingIOError:
                continue
            if not part:
                raise self._silent()
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _wait(self, file: int, event: int) -> None:
        poll = select.poll()
        poll.register(file, event)
        remaining = self._deadline - time.monotonic()
        if remaining <= 0 or not poll.poll(remaining * 1000):
            raise ProgramError("timed out")

    def _silent(self) -> ProgramError:
        """Its side of the pipe is closed: killed for its time, or gone for another reason."""
        assert self._process is not None
        until = time.monotonic() + SILENT_SECONDS
        while time.monotonic() < until:
            ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if ended is not None:
                # bwrap exits with 128 + the signal, the others die of it
                killed = ended.si_status in (signal.SIGKILL, 128 + signal.SIGKILL)
                return ProgramError("timed out" if killed else "ended without an answer")
            time.sleep(0.005)
        return ProgramError("ended without an answer")


class Program(Enclosed):
    """A program under test, as a context: `with Program(source, level) as program: program.call("f", (1,), {})`.

    `whole` programs are run from standard input to standard output, others are loaded once and have functions called.
    Raises `ProgramError` for what is the program's doing, `SandboxError` for what is not.
    """

    def __init__(self, source: str, level: str, limits: Limits, *, whole: bool = False) -> None:
        super().__init__(level, limits)
        self.source, self.whole = source, whole

    def __enter__(self) -> Self:
        try:
            self._start()
            self._ask("load", self.source, self.whole)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], most: int | None = None) -> Any:
        """What the function returns for plain arguments, as tagged JSON (see `values`) of `most` bytes."""
        return self._ask("call", name, args, kwargs, most=most)

    def run(self, stdin: str) -> str:
        """What the program prints for this input; `ProgramError` unless it ends with status 0."""
        # a character of output may take six of JSON
        reply = self._ask("run", stdin, most=6 * self.limits.output + 1000)
        try:
            _, (_, digits), output = reply
            status, length = int(digits, 16), len(output.encode("utf-8", "surrogateescape"))
        except (ValueError, TypeError, AttributeError):
            raise ProgramError("unreadable reply") from None
        if status == -signal.SIGKILL:
            raise ProgramError("timed out", final=False)
        if status:
            raise ProgramError("raised an exception", final=False)
        if length > self.limits.output:
            raise ProgramError("too much output", final=False)
        return str(output)

    def _command(self) -> list[str]:
        return command(self.level, self.limits, self._scratch.path if self._scratch else None)

    def _ask(self, kind: str, *rest: Any, most: int | None = None) -> Any:
        """Send one request and wait for its reply, known by a number that was not there before."""
        nonce = secrets.token_hex(8)
        self._write(ascii((nonce, kind, *rest)).encode())
        outcome, value = self._reply(nonce, most or self.limits.output)
        if outcome == "value":
            return value
        if outcome in _OUTCOMES:
            raise ProgramError(_OUTCOMES[outcome], final=False)
        raise ProgramError("unreadable reply")

    def _reply(self, nonce: str, most: int) -> tuple[str, Any]:
        """One reply's outcome and value."""
        text = self._read(most)
        try:
            echoed, outcome, value = json.loads(text)
        except (ValueError, TypeError, RecursionError):
            raise ProgramError("unreadable reply") from None
        if echoed != nonce or not isinstance(outcome, str):
            raise ProgramError("unreadable reply")
        return outcome, value


class Scratch:
    """A folder for a program without a file system of its own; it is found again wherever the program has moved it."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix=f"grpolab-{os.getpid()}-")
        self._file = os.open(self.path, os.O_PATH | os.O_DIRECTORY)

    def remove(self) -> None:
        """Remove it, and whatever the program has put in its place."""
        now = os.readlink(f"/proc/self/fd/{self._file}")
        with contextlib.suppress(OSError):  # it is gone
            if os.path.samestat(os.lstat(now), os.fstat(self._file)):
                _remove(now)
        os.close(self._file)
        _remove(self.path)


def _kill_group(leader: int) -> None:
    """Kill a process group, whose leader is not yet waited for, until the others are gone.

    Nothing can have left it: the filter refuses that.
    """
    os.killpg(leader, signal.SIGKILL)
    os.waitid(os.P_PID, leader, os.WEXITED | os.WNOWAIT)


def _remove(folder: str) -> None:
    """Remove a folder, or what the program has put in its place.

    By tools that go down any depth; nothing that the program has left there may raise here or be followed elsewhere.
    """
    if not os.path.islink(folder):
        subprocess.run(["chmod", "-R", "u+rwX", "--", folder], stderr=subprocess.DEVNULL, check=False)
    subprocess.run(["rm", "-rf", "--", folder], stderr=subprocess.DEVNULL, check=False)
