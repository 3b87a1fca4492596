"""Countdown: an arithmetic expression over given numbers that makes a target, checked exactly."""

import ast
import re
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Final, Literal

from core.environments.rewards.answer_format import UnreadableError, verdict
from core.errors import GrpoLabError
from core.parts.contracts import reward
from core.parts.problems import Problem, Score

MAX_CHARACTERS: Final = 300
"""Characters of an expression, and of the value that it is said to have."""
_SIGNS: Final = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "[": "(", "]": ")"})
_SIGN_INSIDE: Final = re.compile(r"[-+*/]\s*-|(?:^|\()\s*\+")
_LATEX: Final = {r"\times": "*", r"\cdot": "*", r"\div": "/", r"\left": "", r"\right": ""}
_OPERATIONS: Final[dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


def evaluate(text: str) -> tuple[Fraction, list[int]]:
    """An expression's exact value and the numbers it uses; raises `UnreadableError`.

    A sign may begin the expression or a bracket, for -3 + 8 is 8 - 3: what it makes of a sum can be had without it.
    """
    for name, sign in _LATEX.items():
        text = text.replace(name, sign)
    text = text.translate(_SIGNS).strip("$ \n`")
    if len(text) > MAX_CHARACTERS or not re.fullmatch(r"[0-9\s+*/()-]+", text) or _SIGN_INSIDE.search(text):
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
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        raise UnreadableError("unreadable expression")

    return value(tree), numbers


@reward
def countdown(
    problem: Problem,
    response: str,
    *,
    form: Literal["answer_tag", "boxed", "mark"] = "answer_tag",
    use_all: bool = True,
) -> Score:
    """1 if the expression makes `problem.data["target"]` of `problem.data["numbers"]` by + - * /, else 0.

    Each number serves exactly once, or with `use_all=False` at most once. "= target" may follow the expression.
    """
    numbers, target = problem.data.get("numbers"), problem.data.get("target")
    if isinstance(numbers, str) or not isinstance(numbers, Sequence) or not isinstance(target, int):
        raise GrpoLabError(
            f"problem.data has numbers {numbers!r} and target {target!r}: countdown needs a list of whole numbers "
            "and a whole number"
        )
    available = Counter(map(int, numbers))

    def judge(answer: str) -> bool:
        expression, equals, claimed = answer.partition("=")
        match = re.fullmatch(rf"\s*(-?[0-9]{{1,{MAX_CHARACTERS}}})\s*\$?\.?\s*", claimed)
        if equals and not match:
            raise UnreadableError("unreadable expression")
        value, used = evaluate(expression)
        if match and int(match[1]) != value:
            raise UnreadableError("wrong equation", decided=True)
        if (Counter(used) != available) if use_all else not Counter(used) <= available:
            raise UnreadableError("wrong numbers")
        return value == target

    return verdict(response, form, judge)
