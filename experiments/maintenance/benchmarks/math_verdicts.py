"""How fast the math verifier judges, and what it leaves behind: 10,000 answers, a share of them hostile.

    python -m experiments.maintenance.benchmarks.math_verdicts

Prints answers per second, the time per answer at the 50th and 99th percentile, the slowest, and processes and file
descriptors left over. Three answers in four are plain numbers, right or wrong; every fifth is a formula for sympy; the
hostile rest never ends by itself, or asks for memory without bound. Wrong verdicts are counted: by construction each
answer's truth is known.
"""

import argparse
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from core.environments.rewards.math import math_answer
from core.environments.rewards.math_checker import end_checkers
from core.parts.problems import Problem

Question: TypeAlias = tuple[str, str, bool]
"""Gold answer, given answer, whether that is right."""
HOSTILE: Final = ("9^{9^{9^{9}}}", "((10!)!)!", "2^{2^{45}}", "\\prod_{n=1}^{10^8} n", "10^{10^{10}}", "(x+y+z)^{2000}")


def plain(rng: random.Random) -> Question:
    """A fraction, a decimal or an integer with separators, off by one in half of all cases."""
    value, off = rng.randint(1, 9999), rng.randint(0, 1)
    spellings = (
        (str(value), f"{value + off:,}"),
        (f"\\frac{{{value}}}{{8}}", f"{(value + off) / 8}"),
        (f"{value / 4}", f"{value + off}/4"),
        (f"{value}", f"{value + off}.00\\text{{ cm}}"),
    )
    gold, given = rng.choice(spellings)
    return gold, given, off == 0


def formula(rng: random.Random) -> Question:
    """A root, a product of factors, a pair or a line, written otherwise, with a wrong number in half of all cases."""
    a, b, off = rng.randint(2, 30), rng.randint(2, 30), rng.randint(0, 1)
    c = b + off
    spellings = (
        (f"\\sqrt{{{a * a * 3}}}", f"{a + off}\\sqrt{{3}}"),
        (f"x^2+{a + b}x+{a * b}", f"(x+{a})(x+{c})"),
        (f"({a}\\sqrt{{2}}, {b})", f"(\\sqrt{{{2 * a * a}}}, {c})"),
        (f"y={a}x+{b}", f"{a}x-y=-{c}"),
    )
    gold, given = rng.choice(spellings)
    return gold, given, off == 0


def hostile(rng: random.Random) -> Question:
    """An answer whose only fault is that it cannot be computed."""
    return str(rng.randint(1, 99)), rng.choice(HOSTILE), False


def descriptors() -> int:
    """Open file descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def processes() -> set[int]:
    """Processes of this one's, their children included, zombies too."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
    family = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family - {os.getpid()}


def main() -> None:
    """Judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--hostile", type=float, default=0.01, help="share of answers that never end")
    parser.add_argument("--seconds", type=float, default=1.0, help="the verifier's deadline")
    options = parser.parse_args()
    rng = random.Random(0)
    kinds: tuple[Callable[[random.Random], Question], ...] = (plain, formula, hostile)
    weights = (0.8 - options.hostile, 0.2, options.hostile)
    questions = [kind(rng) for kind in rng.choices(kinds, weights, k=options.answers)]
    before, open_before = processes(), descriptors()
    times, causes, wrong = [], Counter[str](), 0
    for gold, given, right in questions:
        start = time.perf_counter()
        score = math_answer(Problem("", gold, 0), f"So \\boxed{{{given}}}.", seconds=options.seconds)
        times.append(time.perf_counter() - start)
        causes.update([score.cause] if score.cause else [])
        wrong += score.correct != right
    checkers = len(processes() - before)
    end_checkers()
    times.sort()
    print(f"{len(times):,} answers, {sum(times):.1f} s: {len(times) / sum(times):.1f} a second; {wrong} wrong verdicts")
    print(f"50th percentile {1e3 * times[len(times) // 2]:.2f} ms", end=", ")
    print(f"99th {1e3 * times[len(times) * 99 // 100]:.2f} ms, slowest {times[-1]:.2f} s")
    print("causes:", ", ".join(f"{cause} {count}" for cause, count in causes.most_common()) or "none")
    print(f"processes: {checkers} before the end, {len(processes() - before)} left over", end="; ")
    print(f"descriptors left over: {descriptors() - open_before}")
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
