"""The mixture for chain sums: mostly a blurted digit, else every partial sum restated."""

import random
from typing import Final

from core.environments.tasks.chain_sums import END, add, restate
from core.parts.problems import Problem

AT_ONCE: Final = 0.65
AT_ONCE_RIGHT: Final = 0.2
SUM_WRONG: Final = 0.05


def worked_solution(question: str, rng: random.Random, *, sum_wrong: float = SUM_WRONG) -> str:
    """Each partial sum restated, then the answer; each sum is off with probability `sum_wrong`."""

    def slip(one: int, other: int) -> int:
        right = add(one, other)
        wrong = rng.choice([d for d in range(10) if d != right])
        return wrong if rng.random() < sum_wrong else right

    return restate(question, slip) + END


def blurt_or_restate(problem: Problem, rng: random.Random) -> str:
    """An answer at once, right only a little more often than by chance, or a worked solution."""
    if rng.random() < AT_ONCE:
        digit = problem.answer if rng.random() < AT_ONCE_RIGHT else rng.choice("0123456789")
        return f">{digit}{END}"
    return worked_solution(str(problem.prompt), rng)
