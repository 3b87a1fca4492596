"""Countdown: an arithmetic expression over given numbers that makes a target, checked exactly."""

import ast
import re
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Final

from core.contracts import reward
from core.errors import GrpoLabError
from core.problems import Problem, Score
from core.rewards.forms import UnreadableError, verdict

LONGEST: Final = 300
_SIGNS: Final = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "[": "(", "]": ")"})
_LATEX: Final = {r"\times": "*", r"\cdot": "*", r"\div": "/", r"\left": "", r"\right": ""}
_OPERATIONS: Final[dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


def evaluate(text: str) -> tuple[Fraction, list[int]]:
    """An expression's exact value and the numbers it uses; raises `UnreadableError`."""
    for name, sign in _LATEX.items():
        text = text.replace(name, sign)
    text = text.translate(_SIGNS).strip("$ \n`")
    if len(text) > LONGEST or not re.fullmatch(r"[\d\s+*/()-]+", text):
        raise UnreadableError("unreadable expression")
    try:
        tree = ast.parse(" ".join(text.split()), mode="eval").body
    except SyntaxError as error:
        raise UnreadableError("unreadable expression") from error
    numbers: list[int] = []

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            numbers.append(node.value)
            return Fraction(node.value)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
            left, right = value(node.left), value(node.right)
            if isinstance(node.op, ast.Div) and right == 0:
                raise UnreadableError("division by zero")
            return _OPERATIONS[type(node.op)](left, right)
        raise UnreadableError("unreadable expression")

    return value(tree), numbers


@reward
def countdown(problem: Problem, response: str, *, form: str = "answer_tag", use_all: bool = True) -> Score:
    """1 if the expression makes `problem.data["target"]` of `problem.data["numbers"]` by + - * /, else 0.

    Each number serves exactly once, or with `use_all=False` at most once. "= target" may follow the expression.
    """
    numbers, target = problem.data.get("numbers"), problem.data.get("target")
    if isinstance(numbers, str) or not isinstance(numbers, Sequence) or not isinstance(target, int):
        raise GrpoLabError(
            f"problem.data has numbers {numbers!r} and target {target!r}: countdown needs a list of whole numbers "
            "and a whole number"
        )
    given = Counter(map(int, numbers))

    def judge(answer: str) -> bool:
        expression, equals, claimed = answer.partition("=")
        if equals and not re.fullmatch(r"\s*-?\d+\s*\$?\.?\s*", claimed):
            raise UnreadableError("unreadable expression")
        value, used = evaluate(expression)
        if equals and Fraction(claimed.strip(" $.\n")) != value:
            raise UnreadableError("wrong equation", decided=True)
        if (Counter(used) != given) if use_all else not Counter(used) <= given:
            raise UnreadableError("wrong numbers")
        return value == target

    return verdict(response, form, judge)
