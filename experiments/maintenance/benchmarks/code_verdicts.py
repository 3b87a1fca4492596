"""Verdicts on programs by the second, with the longest waits and what is left behind.

    python -m experiments.maintenance.benchmarks.code_verdicts --verdicts 10000 --threads 2

Threads take programs from one queue: right and wrong functions with three tests, whole programs with ten inputs,
programs that raise, that do not compile, that leave a process behind. Each verdict is checked against the known one.
Prints JSON.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from core.environments.rewards.code import code_tests
from core.environments.sandbox import sandbox
from core.parts.problems import Problem, Score

SQUARES: Final = Problem("", "", 0, {"tests": [f"assert square({n}) == {n * n}" for n in (3, -4, 10**9)]})
LINES: Final = Problem(
    "", "", 0, {"tests": [{"stdin": f"{n} {n + 1}\n", "stdout": f"{2 * n + 1}\n"} for n in range(10)]}
)
PROGRAMS: Final[Sequence[tuple[str, Problem, str, bool]]] = (
    ("right", SQUARES, "def square(x):\n    return x * x", True),
    ("right", SQUARES, "import math\ndef square(x):\n    return math.prod([x, x])", True),
    ("wrong", SQUARES, "def square(x):\n    return abs(x) ** 2 if x > 0 else -x * x", False),
    ("wrong", SQUARES, "def square(x):\n    return x + x", False),
    ("ten inputs, right", LINES, "a, b = map(int, input().split())\nprint(a + b)", True),
    ("ten inputs, wrong", LINES, "a, b = map(int, input().split())\nprint(a * b)", False),
    ("raises", SQUARES, "def square(x):\n    return undefined", False),
    ("does not compile", SQUARES, "def square(x) return x * x", False),
    (
        "leaves a process",
        SQUARES,
        "import os, time\nif os.fork() == 0:\n    time.sleep(100)\ndef square(x):\n    return x * x",
        True,
    ),
)


def one(number: int) -> tuple[str, float, bool]:
    """Grade one program: its kind, seconds, and whether the verdict is the known one."""
    kind, problem, source, right = random.Random(number).choice(PROGRAMS)
    started = time.perf_counter()
    score = code_tests(problem, f"```python\n{source}\n```")
    assert isinstance(score, Score)
    return kind, time.perf_counter() - started, score.correct == right


def leftovers() -> tuple[int, int]:
    """Children of this process, and its open files."""
    tasks = os.listdir("/proc/self/task")
    children = sum(len(open(f"/proc/self/task/{task}/children").read().split()) for task in tasks)  # noqa: SIM115
    return children, len(os.listdir("/proc/self/fd"))


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Grade, and print the speed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verdicts", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    level = str(sandbox())
    children, files = leftovers()
    started = time.perf_counter()
    with ThreadPoolExecutor(options.threads) as pool:
        graded = list(pool.map(one, range(options.verdicts)))
    seconds = time.perf_counter() - started
    waits = np.array([wait for _, wait, _ in graded])
    by_kind = {kind: [w for k, w, _ in graded if k == kind] for kind in sorted({kind for kind, _, _ in graded})}
    children_after, files_after = leftovers()
    return {
        "sandbox": level,
        "verdicts": options.verdicts,
        "threads": options.threads,
        "verdicts_per_second": round(options.verdicts / seconds, 2),
        "median_seconds": round(float(np.quantile(waits, 0.5)), 4),
        "percentile_99_seconds": round(float(np.quantile(waits, 0.99)), 4),
        "median_seconds_by_kind": {kind: round(float(np.median(w)), 4) for kind, w in by_kind.items()},
        "wrong_verdicts": sum(not known for _, _, known in graded),
        "leaked_processes": children_after - children,
        "leaked_files": files_after - files,
        "load": os.getloadavg()[0],
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:]), indent=2))
