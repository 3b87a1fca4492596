"""The mixture for stack programs: mostly one blurted expression, else a name for every operation's result."""

import random
from typing import Final

from core.environments.tasks.stack_programs import END, HEAD, LEAVES, OPERATORS, Tree, infix, name_results
from core.parts.problems import Problem

AT_ONCE: Final = 0.65
SLIP: Final = 0.1
"""Chance that a leaf or operator is another one in an expression written at once."""
FORGET: Final = 0.8
"""Chance that an expression written at once has no brackets."""
STEP_SLIP: Final = 0.02
"""Chance of the same slip where every result has a name."""


def slipped(tree: Tree, rng: random.Random, chance: float) -> Tree:
    """The expression with each leaf and operator drawn anew with this chance."""
    slips = rng.random() < chance
    if isinstance(tree, str):
        return rng.choice(LEAVES) if slips else tree
    sign = rng.choice(list(OPERATORS)) if slips else tree[0]
    return sign, slipped(tree[1], rng, chance), slipped(tree[2], rng, chance)


def worked_solution(tree: Tree, rng: random.Random, *, step_slip: float = STEP_SLIP) -> str:
    """Every operation's result named, of an expression that may have slipped."""
    return name_results(slipped(tree, rng, step_slip)) + END


def blurt_or_name(problem: Problem, rng: random.Random) -> str:
    """One expression at once, mostly wrong, or a worked solution."""
    tree: Tree = problem.data["tree"]
    if rng.random() < AT_ONCE:
        text = infix(slipped(tree, rng, SLIP))
        if rng.random() < FORGET:
            text = text.replace("(", "").replace(")", "")
        return f"{HEAD}return {text}{END}"
    return worked_solution(tree, rng)
