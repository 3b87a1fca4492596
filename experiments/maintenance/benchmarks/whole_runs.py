"""What whole runs cost, from the start of the process to its end: processor seconds of it and all its descendants.

Ours are runs of a study of two arms, started as a user starts it; start-up (imports, preflight, the tiny step of every
arm, the report) is paid once, and is what a study of no runs would take by the line through a small and a larger one.
A run of TRL is a process of its own.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from core import TASKS
from core.model.loading import EMBEDDED
from experiments.maintenance.benchmarks.step_time import TRL, trl_command

ARMS: Final = "compare.variants = [@grpo, @dr_grpo]"
SEEDS: Final = (1, 4)
"""Of the small and of the larger study."""


@dataclass(frozen=True)
class Cost:
    """Seconds of start-up and of a run beyond it: those of a processor, and those on the clock."""

    start: float
    run: float
    wall_start: float
    wall_run: float
    shared: bool
    """Whether all runs of a decision share one start-up."""

    def seconds(self, runs: float) -> float:
        """Processor seconds of so many runs."""
        return self.start * (1 if self.shared else runs) + runs * self.run


def compare_command(out: str, seeds: int | str, *bindings: str) -> list[str]:
    """The command that runs `demo` with these bindings, one run at a time."""
    bound = [word for binding in bindings for word in ("-b", binding)]
    words = ["-m", "experiments.cli.main", "compare", "-c", "demo", *bound]
    return [sys.executable, *words, "--seeds", str(seeds), "--workers", "1", "--out", out]


def spent(command: Sequence[str], text: str = "") -> tuple[NDArray[np.float64], list[str]]:
    """Processor and clock seconds [2] of a command and all its descendants, one thread each, and the lines it printed.

    `text` is its input. Ends the program where the command fails.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    counted = [sys.executable, str(Path(__file__).with_name("counted.py")), *command]
    result = subprocess.run(counted, input=text, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        sys.exit(f"{' '.join(command)}\n{result.stderr}")
    *printed, last = result.stdout.splitlines()
    return np.array(json.loads(last)), printed


def ours(rounds: int, *bindings: str) -> Cost:
    """Of a study of two arms with these bindings, by the median of so many rounds."""
    small, large = 2 * np.array(SEEDS)
    lines = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as out:
            few, many = (spent(compare_command(f"{out}/{n}", n, ARMS, *bindings))[0] for n in SEEDS)
        run = (many - few) / (large - small)
        lines.append([few - small * run, run])
    start, run = np.median(lines, axis=0)
    return Cost(float(start[0]), float(run[0]), float(start[1]), float(run[1]), shared=True)


def theirs(python: str, rounds: int, steps: int, questions: int) -> Cost:
    """Of a run of TRL on the demo's task, model and sizes, with one evaluation of 2 samples a question at its end."""
    task = TASKS["chain_sums"]()
    asked = {
        split: [(str(problem.prompt), problem.answer) for problem in (task.problem(split, 0, i) for i in range(n))]
        for split, n in (("train", 16 * steps), ("test", questions))
    }
    settings: dict[str, Any] = {
        "model": str(EMBEDDED),
        "dtype": "float32",
        "plain": True,
        "pattern": r">(\d)\.?$",
        "questions": asked["train"],
        "test": asked["test"],
        "prompts": 16,
        "group": 8,
        "new_tokens": 56,
        "steps": steps,
        "learning_rate": 3e-4,
        "threads": 1,
    }
    lines = []
    for _ in range(rounds):
        whole, printed = spent(trl_command(python), json.dumps(TRL | settings))
        figures = json.loads(printed[-1])
        share = (figures["train_cpu"] + figures["evaluate_cpu"]) / whole[0]
        lines.append(np.array([(1 - share) * whole, share * whole]))
    start, run = np.median(lines, axis=0)
    return Cost(float(start[0]), float(run[0]), float(start[1]), float(run[1]), shared=False)
