"""Whether a revision trains slower than another: the same steps with both, by turns, in processor seconds.

    python -m experiments.maintenance.benchmarks.compare_revisions OLD [NEW] [--model smollm2]

Both are checked out into temporary worktrees and run in this environment, one thread, a process for every turn. The
ratio is the mean over the rounds of log(new / old), with its 95 % t interval. Exit status 1 where all of the interval
lies above the threshold: slower beyond doubt. Start-up is what a process takes until its first step has ended.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scipy import stats

QUIET: Final = ("evaluation.every = 1000", "evaluation.questions = 2", "evaluation.split = 'test'", "train.threads = 1")
WORK: Final[Mapping[str, tuple[str, ...]]] = {
    "embedded": ("train.steps = 11",),
    "smollm2": ("train.steps = 3", "train.prompts = 4", "train.group_size = 4", "train.max_tokens = 32"),
}
"""Bindings by config: a turn takes about ten and sixty seconds."""
PROGRAM: Final = Path(__file__).with_name("timed_steps.py")
Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Ratio:
    """New over old, with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, old: Sequence[float], new: Sequence[float]) -> "Ratio":
        """By rounds: exp of the mean of log(new / old) and of the ends of its t interval."""
        logs = [math.log(b / a) for a, b in zip(old, new, strict=True)]
        error = statistics.stdev(logs) / math.sqrt(len(logs))
        middle, half = statistics.fmean(logs), float(stats.t.isf(0.025, len(logs) - 1)) * error
        return cls(*(math.exp(each) for each in (middle, middle - half, middle + half)))

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@contextmanager
def checked_out(revisions: Sequence[str]) -> Iterator[list[Path]]:
    """A temporary worktree of each revision of the repository in the current folder."""
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / name for name in ("old", "new")]
        try:
            for revision, place in zip(revisions, places, strict=True):
                _git("worktree", "add", "--quiet", "--detach", str(place), revision)
            yield places
        finally:
            for place in filter(Path.exists, places):
                _git("worktree", "remove", "--force", str(place))


def turn(place: Path, arguments: Sequence[str], program: Path = PROGRAM) -> Figures:
    """What the program prints when run with the code in `place`."""
    environment = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(program), *arguments]
    result = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{_git('-C', str(place), 'log', '-1', '--format=%h %s')} cannot do this work:\n{result.stderr}")
    figures: Figures = json.loads(result.stdout.splitlines()[-1])
    return figures


def by_turns(places: Sequence[Path], rounds: int, work: Callable[[Path], Figures]) -> list[list[Figures]]:
    """Figures by place and round; who begins changes with every round."""
    found: list[list[Figures]] = [[], []]
    for number in range(rounds):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            found[side].append(work(places[side]))
    return found


def report(found: Sequence[Sequence[Figures]], threshold: float) -> tuple[str, bool]:
    """What was found, in lines, and whether the new revision is slower beyond the threshold."""
    by_name = {name: [[row[name] for row in side] for side in found] for name in found[0][0]}
    ratio = Ratio.of(*by_name["seconds"])
    old, new = map(statistics.median, by_name["seconds"])
    weights = {each for side in by_name["weights"] for each in side}
    lines = [
        f"a step: {old:.4f} s before, {new:.4f} s after; ratio {ratio}",
        f"start-up: ratio {Ratio.of(*by_name['start'])}",
        "peak memory: {:.3f} GiB before, {:.3f} GiB after".format(*map(statistics.median, by_name["peak_gib"])),
        f"final weights: {'equal, bit for bit' if len(weights) == 1 else 'different'}",
    ]
    if ratio.low > threshold:
        lines.append(f"slower by more than {threshold:g}, with confidence")
    elif ratio.high > threshold:
        lines.append(f"the interval reaches beyond {threshold:g}: more rounds would tell")
    else:
        lines.append(f"not slower by more than {threshold:g}")
    return "\n".join(lines), ratio.low > threshold


def _git(*words: str) -> str:
    result = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"git {' '.join(words)}: {result.stderr.strip()}")
    return result.stdout.strip()


def main() -> int:
    """Measure and print; 1 where the new revision is slower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", help="a revision of git")
    parser.add_argument("new", nargs="?", default="HEAD", help="another (HEAD)")
    parser.add_argument("--model", choices=WORK, default="embedded")
    parser.add_argument("--rounds", type=int, default=6, help="of one turn each (%(default)s)")
    parser.add_argument("--threshold", type=float, default=1.05, help="a ratio that is too much (%(default)s)")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds: an interval takes two rounds or more")
    arguments = [options.model, *QUIET, *WORK[options.model]]
    with checked_out([options.old, options.new]) as places:
        found = by_turns(places, options.rounds, lambda place: turn(place, arguments))
    text, is_slower = report(found, options.threshold)
    print(text)
    return int(is_slower)


if __name__ == "__main__":
    sys.exit(main())
