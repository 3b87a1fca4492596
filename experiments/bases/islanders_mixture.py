"""The mixture for the islanders: mostly a blurted guess, else the claims followed from a supposition."""

import random
from typing import Final

from core.problems import Problem
from core.tasks.islanders import END, Puzzle, kind, spell

AT_ONCE: Final = 0.65
AT_ONCE_RIGHT: Final = 0.1
STEP_WRONG: Final = 0.03


def worked_solution(puzzle: Puzzle, rng: random.Random, *, step_wrong: float = STEP_WRONG) -> str:
    """Suppose that the first is a knight; if the last claim does not fit, the first is a knave.

    Each islander's kind and each half of the last claim is misjudged with probability `step_wrong`; what follows goes
    on from the mistake.
    """

    def judge(truth: bool) -> bool:
        return truth != (rng.random() < step_wrong)

    def follow(first: bool) -> list[bool]:
        knights = [first]
        for claim in puzzle.says:
            knights.append(judge(claim == knights[-1]))
        return knights

    knights = follow(True)
    halves = [judge(half) for half in puzzle.halves(knights)]
    fits = (all(halves) if puzzle.joined_by == "&" else any(halves)) == knights[-1]
    text = f"{spell(puzzle.names, knights)}:{''.join('01'[half] for half in halves)}"
    if fits:
        text += "+"
    else:
        knights = follow(False)
        text += f"-;{spell(puzzle.names, knights)}"
    return f"{text}>{spell(puzzle.names, knights)}{END}"


def blurt_or_follow(problem: Problem, rng: random.Random) -> str:
    """An answer at once, right only a little more often than by chance, or a worked solution."""
    puzzle: Puzzle = problem.data["puzzle"]
    if rng.random() < AT_ONCE:
        guess = "".join(name + kind(rng.random() < 0.5) for name in puzzle.names)
        return f">{problem.answer if rng.random() < AT_ONCE_RIGHT else guess}{END}"
    return worked_solution(puzzle, rng)
