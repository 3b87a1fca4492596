"""The embedded code task: turn a stack program (postfix) into a Python function, which is run against unit tests.

    prompt    xy+3*=
    answer    def f(x,y):return (x+y)*3
    response  def f(x,y):return (x+y)*3.          at once, as one expression, or
              def f(x,y):a=x+y;return a*3.        working it out, one name for every operation's result

An operation takes the two values on top of the stack, and as one expression every program needs brackets. Writing it
at once is short and mostly wrong (brackets are forgotten, an operand slips); naming every result is long and mostly
right. A response ends with '.', the end-of-sequence token. Right is what computes right, however it is written.
"""

import operator
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from core.environments.rewards.code import code_tests
from core.environments.tasks.splits import SPLITS, tenth, tenths
from core.errors import GrpoLabError
from core.parts.contracts import task
from core.parts.problems import Problem
from core.parts.registry import Part
from core.parts.settings import Range

ALPHABET: Final = "abcdefnrtuxy0123456789+-*=(),:; "
END: Final = "."
HEAD: Final = "def f(x,y):"
OPERATORS: Final[dict[str, Callable[[int, int], int]]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
LEAVES: Final = "xxxxyyyy123456789"
"""Drawn from with equal chances: a variable about half of the time."""
CALLS: Final = 8
RESULTS: Final = "abcdeghijklmnopqrstuvw"
"""Names of results, in order."""

Tree: TypeAlias = "str | tuple[str, Tree, Tree]"
"""A leaf, or an operator with its two operands."""


def postfix(tree: Tree) -> str:
    """The stack program of an expression."""
    return tree if isinstance(tree, str) else postfix(tree[1]) + postfix(tree[2]) + tree[0]


def infix(tree: Tree) -> str:
    """The expression as Python writes it, with no brackets that precedence makes superfluous."""
    if isinstance(tree, str):
        return tree
    sign, left, right = tree
    loose_left = sign == "*" and _is_sum(left)
    loose_right = _is_sum(right) and sign in "*-"
    return (
        (f"({infix(left)})" if loose_left else infix(left))
        + sign
        + (f"({infix(right)})" if loose_right else infix(right))
    )


def _is_sum(tree: Tree) -> bool:
    return not isinstance(tree, str) and tree[0] in "+-"


def evaluate(tree: Tree, x: int, y: int) -> int:
    """The value of the expression."""
    if isinstance(tree, str):
        return {"x": x, "y": y}[tree] if tree in "xy" else int(tree)
    return OPERATORS[tree[0]](evaluate(tree[1], x, y), evaluate(tree[2], x, y))


def draw_tree(rng: random.Random, operations: int) -> Tree:
    """A random expression with this many operations."""
    if operations == 0:
        return rng.choice(LEAVES)
    on_the_left = rng.randrange(operations)
    return rng.choice("+-*"), draw_tree(rng, on_the_left), draw_tree(rng, operations - 1 - on_the_left)


def name_results(tree: Tree) -> str:
    """A response, without its end: every operation in the order of the stack program, its result named a, b, c and so
    on; the last is returned.
    """
    steps: list[str] = []

    def name(tree: Tree) -> str:
        if isinstance(tree, str):
            return tree
        left, right = name(tree[1]), name(tree[2])
        steps.append(f"{left}{tree[0]}{right}")
        return RESULTS[len(steps) - 1]

    name(tree)
    *named, last = steps
    return HEAD + "".join(f"{result}={step};" for result, step in zip(RESULTS, named, strict=False)) + f"return {last}"


@dataclass(frozen=True)
class StackPrograms:
    """Programs of `min_operations` to `max_operations`."""

    min_operations: int
    max_operations: int
    rewards: tuple[Part, ...] = (code_tests.using(fenced=False),)
    suites: tuple[str, ...] = ("test",)
    patterns: Mapping[str, str] = field(default_factory=lambda: {"step_by_step": r":[a-f]="})

    def problem(self, split: str, seed: int, index: int) -> Problem:
        """Problem `index` of the stream that `seed` picks; raises on an unknown split."""
        buckets = tenths("stack_programs", split, SPLITS)
        rng = random.Random(f"stack_programs/{split}/{seed}/{index}")
        while True:
            tree = draw_tree(rng, rng.randint(self.min_operations, self.max_operations))
            question = postfix(tree) + "="
            calls = _calls(tree, question)
            depends = "x" in question and "y" in question and len({result for _, result in calls}) > 1
            # without a need for brackets, writing from left to right is all there is to it
            if depends and "(" in infix(tree) and tenth(question) in buckets:
                tests = [{"call": "f", "args": list(pair), "expected": result} for pair, result in calls]
                data: dict[str, Any] = {"tests": tests, "tree": tree}
                if sum(map(question.count, OPERATORS)) <= len(RESULTS):
                    data["solution"] = name_results(tree)
                return Problem(question, f"{HEAD}return {infix(tree)}", index, data)


def _calls(tree: Tree, question: str) -> list[tuple[tuple[int, int], int]]:
    """Arguments with the value expected: the same for the same question, wherever it is drawn."""
    rng = random.Random(question)
    arguments = [(rng.randint(-9, 9), rng.randint(-9, 9)) for _ in range(CALLS)]
    return [(pair, evaluate(tree, *pair)) for pair in arguments]


@task(limits={"min_operations": Range(2, 100), "max_operations": Range(2, 100)})
def stack_programs(*, min_operations: int = 2, max_operations: int = 4) -> StackPrograms:
    """Stack programs to be written as Python functions: the task the base model `stack_programs` was made for."""
    if min_operations > max_operations:
        raise GrpoLabError(
            f"stack_programs.min_operations = {min_operations} is more than stack_programs.max_operations = "
            f"{max_operations}"
        )
    return StackPrograms(min_operations, max_operations)
