"""Asking the checker in `math_worker.py`, a process of its own, for a verdict within a deadline.

The deadline is processor time, so that it falls at the same place on a busy machine; the clock ends what still lasts.

A process of the bench keeps up to `MAX_PROCESSES` checkers (`core.environments.workers`).
"""

import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core.environments.workers import Pool
from core.errors import GrpoLabError

WORKER: Final = Path(__file__).with_name("math_worker.py")
MAX_PROCESSES: Final = 4
START: Final = 600.0
"""Seconds that importing sympy may take on a busy machine."""
START_TIMEOUT_SECONDS: Final = 10.0
"""Seconds by the clock that a check may take per second of processor time: a busy machine must not change verdicts."""
EXTRA_SECONDS: Final = 2.0
"""Seconds beyond that after which a checker itself, not its child, is taken to hang."""


class GoneError(Exception):
    """The checker died."""


class Checker:
    """One checker process and its pipes."""

    def __init__(self) -> None:
        # -P: beside the worker lies a module named like one of the standard library's
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        self.unread = b""
        try:
            self._line(START)
        except (GoneError, TimeoutError) as gone:
            self.kill()
            raise RuntimeError(f"the checker {WORKER} did not start; run it by hand to see why") from gone
        except BaseException:
            self.kill()
            raise

    def ask(self, gold: str, answer: str, seconds: float, clock: float, *more: Sequence[str]) -> tuple[str, float]:
        """One of the worker's words and the processor seconds taken; `GoneError`, or `TimeoutError` if itself hangs."""
        assert self.process.stdin
        question = json.dumps([gold, answer, seconds, clock, *more]).encode() + b"\n"
        try:
            self.process.stdin.write(question)
            self.process.stdin.flush()
        except OSError as error:
            raise GoneError from error
        word, taken = self._line(clock + EXTRA_SECONDS).split("\t")
        return word, float(taken)

    def _line(self, seconds: float) -> str:
        assert self.process.stdout
        descriptor, end = self.process.stdout.fileno(), time.monotonic() + seconds
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while b"\n" not in self.unread:
            if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                raise TimeoutError
            read = os.read(descriptor, 4096)
            if not read:
                raise GoneError
            self.unread += read
        line, _, self.unread = self.unread.partition(b"\n")
        return line.decode()

    def kill(self) -> None:
        """End the process with the child it may have, and reap it."""
        with suppress(ProcessLookupError, PermissionError):  # it is dead; the second is macOS's answer
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.close()

    def disown(self) -> None:
        """Close our ends of the pipes, in a forked child, and wait for nothing."""
        self.close()
        self.process.returncode = 0

    def close(self) -> None:
        """Close our ends of the pipes."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            with suppress(OSError):
                pipe.close()


def _start() -> Checker:
    require_checker()
    return Checker()


_POOL: Final = Pool(_start, MAX_PROCESSES)


def end_checkers() -> None:
    """End this process's checkers now rather than at its exit."""
    _POOL.end()


def require_checker() -> None:
    """Refuse where the checker's package is missing."""
    if importlib.util.find_spec("math_verify") is None:
        raise GrpoLabError(
            "math_answer needs the package math-verify for what a model may write, whatever the gold answers are: "
            "pip install 'grpo-lab[math]'"
        )


@dataclass
class Budget:
    """What is left of the time for one response, in seconds of the processor and by the clock."""

    seconds: float
    clock: float

    @staticmethod
    def of(seconds: float) -> "Budget":
        """Processor time, with the clock time that goes with it."""
        return Budget(seconds, seconds * START_TIMEOUT_SECONDS)


def worked_out(gold: str, answer: str, question: Sequence[str], tasks: Sequence[str], budget: Budget) -> bool:
    """Whether an answer that is right has the form that the tasks ask for, and copies no formula of the question."""
    return check(gold, answer, budget, question, tasks) == "worked out"


def check(gold: str, answer: str, budget: Budget, *more: Sequence[str]) -> str:
    """`equal`, `different`, `unparsable`, `gold unparsable`, `too large`, `died` or `too slow`; charges the budget.

    `more`: what `worked_out` asks; then `worked out` or `not worked out` takes the place of the first two.
    The wait for a free checker and its start do not count. A checker that died, which no answer can cause, is
    replaced and asked once more.
    """
    for _ in range(2):
        if min(budget.seconds, budget.clock) <= 0:
            return "too slow"
        with suppress(GoneError):
            try:
                with _POOL.one() as checker:
                    start = time.monotonic()
                    word, taken = checker.ask(gold, answer, budget.seconds, budget.clock, *more)
            except TimeoutError:
                return "too slow"
            budget.seconds -= taken
            budget.clock -= time.monotonic() - start
            return word
    raise RuntimeError(
        "the checker of mathematical answers was killed twice in a row, not by an answer (is memory short?)"
    )
