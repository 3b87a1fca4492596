"""The mixture for the islanders: mostly a blurted guess, else the claims followed from a supposition."""

import random
from typing import Final

from core.environments.tasks.islanders import END, Puzzle, kind, work_out
from core.parts.problems import Problem

AT_ONCE: Final = 0.65
AT_ONCE_RIGHT: Final = 0.1
STEP_WRONG: Final = 0.03


def worked_solution(puzzle: Puzzle, rng: random.Random, *, step_wrong: float = STEP_WRONG) -> str:
    """The claims followed; each islander's kind and each half of the last claim is misjudged with this probability."""
    return work_out(puzzle, lambda truth: truth != (rng.random() < step_wrong)) + END


def blurt_or_follow(problem: Problem, rng: random.Random) -> str:
    """An answer at once, right only a little more often than by chance, or a worked solution."""
    puzzle: Puzzle = problem.data["puzzle"]
    if rng.random() < AT_ONCE:
        guess = "".join(name + kind(rng.random() < 0.5) for name in puzzle.names)
        return f">{problem.answer if rng.random() < AT_ONCE_RIGHT else guess}{END}"
    return worked_solution(puzzle, rng)
