"""Hostile answers: each is judged within its deadline, and nothing is left behind, not a process nor a descriptor."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import pytest

from core.environments.rewards import math_checker
from core.environments.rewards.math import math_answer
from core.environments.rewards.math_checker import START_TIMEOUT_SECONDS, Budget, check, end_checkers
from core.parts.problems import Problem
from tests.forked import Forked

SECONDS: Final = 0.3
SLACK: Final = 60.0
"""Seconds by the clock that everything but sympy may take on a machine that has other work."""

FORMULAS: Final = [
    "9**9**9**9",
    "9^{9^{9^{9}}}",
    "10^{10^{10}}",
    "(10^9)!",
    "((10!)!)!",
    "2^{2^{50}}",
    "\\prod_{n=1}^{10^8} n",
    "\\sum_{n=1}^{10^{9}} \\frac{1}{n^3}",
    "\\int_0^1 \\sin(x^{x^x})e^{\\tan x} dx",
    "(x+y+z)^{2000}",
    "\\sqrt{\\sqrt{\\sqrt{10^{999999}}}}",
    "\\binom{10^{9}}{10^{8}}",
    "10^{999999999999}",
    "\\tan(10^{10^{6}})",
    "+".join(f"\\sqrt{{{n}}}" for n in range(2, 60)),
    "(" * 29 + "x" + ")" * 29,
    "(" * 500 + "x" + ")" * 500,
    "x^" * 200 + "x",
    "{" * 400,
    "\\frac{1}{" * 25 + "x" + "}" * 25,
    "-" * 900 + "x",
    "\x00",
    "x\x00y",
    "\ud800",
    "\udfff" * 100,
    "\u202e5",
    "__import__('os').abort()",
    "lambda: 0",
    "9" * 999,
    "1e999999999",
    "\\begin{pmatrix}" + "1&" * 200 + "1\\end{pmatrix}",
    "x'" * 300,
    "\\input{/dev/zero}",
    "|" * 300,
]
RESPONSES: Final = [
    *(f"\\boxed{{{formula}}}" for formula in FORMULAS),
    "\\boxed{" * 200_000,
    "\\boxed{}" * 100_000,
    "{" * 1_000_000,
    "}" * 1_000_000,
    "<answer>" * 150_000,
    "</answer>" * 150_000,
    "<answer>1</answer>" * 50_000,
    "#### " * 200_000,
    "#### 1\n" * 100_000,
    "the answer is " * 70_000,
    "answer " * 150_000,
    "answer" + " " * 1_000_000,
    "9" * 1_000_000,
    "1," * 500_000,
    "\\boxed{" + "9" * 1_000_000 + "}",
    " " * 1_000_000,
    "$" * 1_000_000,
    "\\boxed{" + "$" * 999 + "}",
    "\\boxed{x" + " " * 990 + "}",
    "\\boxed{x" + " y" * 490 + "}",
    "\x00" * 1_000_000,
    "\ud800" * 1_000_000,
    "\\boxed{" + "\\text{" * 160 + "}",
    "\\boxed{" + "1 " * 499 + "}",
    "\\boxed{" + "(1" * 400 + "}",
    "not " * 250_000,
    "".join(f"\\boxed{{x+{n}}}" for n in range(20)),
    "</think>" * 100_000,
    "\\boxed{1\\text{" + " a" * 480 + "}",
]


def ask(gold: str, answer: str, seconds: float = 5.0) -> str:
    """The checker's word."""
    return check(gold, answer, Budget.of(seconds))


class Stopwatch:
    """Processor seconds of this process, its checkers not counted: what a busy machine does not change."""

    def __init__(self) -> None:
        self.start, self.clock = time.process_time(), time.monotonic()

    def check(self, seconds: float, what: str = "") -> None:
        """Our own share is small, and the whole ends by the clock."""
        assert time.process_time() - self.start < 1.5, what
        assert time.monotonic() - self.clock < seconds * START_TIMEOUT_SECONDS + SLACK, what


def descendants() -> set[int]:
    """Processes below this one, zombies too."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        parents[int(entry.name)] = int(fields[1])
    family = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family - {os.getpid()}


def descriptors() -> int:
    """Open ones."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.slow
def test_hostile_responses_are_judged_in_time_and_leave_nothing_behind() -> None:
    end_checkers()
    before, open_before = descendants(), descriptors()
    assert ask("\\sqrt{8}", "2\\sqrt{2}") == "equal"
    for response in RESPONSES:
        watch = Stopwatch()
        score = math_answer(Problem("", "x^2+1", 0), response, seconds=SECONDS)
        watch.check(SECONDS, response[:80])
        assert not score.lenient, response[:80]
    assert len(descendants() - before) == 1
    assert ask("\\sqrt{8}", "2\\sqrt{2}") == "equal"
    end_checkers()
    assert descendants() == before
    assert descriptors() == open_before


def test_an_endless_computation_ends() -> None:
    budget = Budget.of(1.0)
    assert check("5", "9^{9^{9^{9}}}", budget) == "too slow"
    assert budget.seconds > -0.5
    assert budget.clock > -5


ENDINGS = """
import os, runpy, sys, time

worker = runpy.run_path(sys.argv[1])

def judge(gold, given):
    if given == "memory":
        return len(bytearray(1 << 31))
    if given == "abort":
        os.abort()
    if given == "sleep":
        time.sleep(1000)
    while given == "loop":
        pass
    return 1

worker["main"].__globals__["judge"] = judge
worker["main"]()
"""


def test_however_a_child_ends_the_worker_says_how_and_goes_on() -> None:
    """The real worker with another judge: too much memory, a crash, no progress, no end."""
    expected = {"memory": "too large", "abort": "died", "sleep": "too slow", "loop": "too slow", "else": "different"}
    lines = "".join(json.dumps(["", case, 0.2, 5.0 if case != "sleep" else 0.2]) + "\n" for case in expected)
    command = [sys.executable, "-P", "-c", ENDINGS, str(math_checker.WORKER)]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
    ready, *answers = done.stdout.splitlines()
    assert ready == "ready"
    assert [answer.split("\t")[0] for answer in answers] == list(expected.values())


WITHOUT_A_LIMIT = """
import resource, runpy, sys

set_limit = resource.setrlimit

def refuse(kind, limits):
    if kind == resource.RLIMIT_AS:
        raise ValueError("current limit exceeds maximum limit")
    set_limit(kind, limits)

resource.setrlimit = refuse
runpy.run_path(sys.argv[1])["main"]()
"""


def test_a_kernel_that_limits_no_memory_changes_no_verdict() -> None:
    """As on macOS, or under a lower limit of the shell's."""
    lines = "".join(json.dumps([gold, "0.5", 5.0, 50.0]) + "\n" for gold in ("\\frac{1}{2}", "\\frac{1}{3}"))
    command = [sys.executable, "-P", "-c", WITHOUT_A_LIMIT, str(math_checker.WORKER)]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
    assert [answer.split("\t")[0] for answer in done.stdout.splitlines()] == ["ready", "equal", "different"]


def test_the_clock_ends_what_the_processor_does_not_get_to() -> None:
    """A tenth of a second by the clock, an hour of processor time."""
    budget = Budget(3600.0, 0.1)
    assert check("5", "9^{9^{9^{9}}}", budget) == "too slow"
    assert budget.seconds > 3590


def test_the_response_has_the_deadline_not_each_comparison() -> None:
    """A list of ten hard elements takes as long as one."""
    hard = ",".join(f"9^{{9^{{9^{{{n}}}}}}}" for n in range(10, 20))
    watch = Stopwatch()
    score = math_answer(Problem("", "1,2,3,4,5,6,7,8,9,10", 0), f"\\boxed{{{hard}}}", seconds=SECONDS)
    assert score.cause == "too slow to check"
    watch.check(SECONDS)


def test_a_checker_that_was_killed_is_replaced() -> None:
    assert ask("x+1", "1+x") == "equal"
    for checker in math_checker._POOL.all:
        os.kill(checker.process.pid, signal.SIGKILL)
    assert ask("x+1", "1+x") == "equal"


def test_a_checker_that_hangs_itself_is_replaced() -> None:
    assert ask("x+1", "1+x") == "equal"
    for checker in math_checker._POOL.all:
        os.kill(checker.process.pid, signal.SIGSTOP)
    assert ask("x+1", "1+x", 0.1) == "too slow"
    assert ask("x+1", "1+x") == "equal"


def test_threads_get_their_own_verdicts() -> None:
    wrong: list[tuple[int, int, str]] = []

    def two(n: int) -> None:
        for k in (n, n + 1):
            word = ask(f"x+{n}", f"{k}+x")
            if (word == "equal") != (k == n):
                wrong.append((n, k, word))

    threads = [threading.Thread(target=two, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(math_checker._POOL.all) <= math_checker.MAX_PROCESSES
    end_checkers()


def _ask_in_child(pipe: Connection) -> None:
    pipe.send((ask("x+1", "1+x"), [checker.process.pid for checker in math_checker._POOL.all]))
    pipe.close()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_process_has_a_checker_of_its_own(method: str) -> None:
    assert ask("x+1", "1+x") == "equal"
    ours = [checker.process.pid for checker in math_checker._POOL.all]
    context = multiprocessing.get_context(method)
    here, there = context.Pipe()
    process = context.Process(target=_ask_in_child, args=(there,), daemon=True)  # type: ignore[attr-defined]
    process.start()
    there.close()
    word, theirs = here.recv()
    process.join()
    process.close()
    here.close()
    assert word == "equal"
    assert set(theirs).isdisjoint(ours)
    assert ask("x+1", "1+x") == "equal"
    assert [checker.process.pid for checker in math_checker._POOL.all] == ours
    wait_for_end(theirs)


@pytest.mark.slow
def test_a_process_that_ends_takes_its_checker_along() -> None:
    program = (
        "from core.environments.rewards import math_checker as checker; "
        "print(checker.check('x+1', '1+x', checker.Budget.of(5.0)), "
        "*[c.process.pid for c in checker._POOL.all], flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    word, pid = done.stdout.split()
    assert word == "equal"
    wait_for_end([int(pid)])


def _ask_and_end(end: Callable[[], None]) -> None:
    print(ask("x+1", "1+x"), *[checker.process.pid for checker in math_checker._POOL.all], flush=True)
    end()


@pytest.mark.slow
@pytest.mark.parametrize("end", [partial(os._exit, 1), partial(signal.raise_signal, signal.SIGKILL)])
def test_a_process_that_ends_at_once_takes_its_checker_along(end: Callable[[], None], tmp_path: Path) -> None:
    process = Forked(_ask_and_end, end, folder=tmp_path)
    try:
        assert process.wait() in (1, -signal.SIGKILL)
        word, pid = process.stdout.read().split()
        assert word == "equal"
        wait_for_end([int(pid)])
    finally:
        process.end()


def wait_for_end(pids: list[int]) -> None:
    """Give processes that see the end of their input a moment to go."""
    end = time.monotonic() + 60
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < end, pids
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
