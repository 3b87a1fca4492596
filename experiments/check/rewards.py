"""What can be said of reward functions without knowing their task."""

import math

from core import GrpoLabError, Part
from core.problems import Problem, Score
from experiments.check.checks import Broken, Checks, Inapplicable

CHECKS = Checks("reward")
PROBLEM = Problem("2+2=", "4", 0)


def _score(part: Part, response: str) -> float:
    try:
        score = Score.of(
            part([PROBLEM], [[response]])[0][0] if part.options.get("together") else part(PROBLEM, response)
        )
    except GrpoLabError as error:  # it needs a model that is not bound
        raise Inapplicable(str(error)) from error
    if not math.isfinite(score.value):
        raise Broken(f"{score.value} for {response!r}")
    return score.value


@CHECKS.reports("scores an empty response")
def empty(part: Part) -> str:
    """A policy may say nothing at all."""
    return f"{_score(part, ''):g}"


@CHECKS.reports("scores junk")
def junk(part: Part) -> None:
    """A policy may say anything."""
    for response in ("\x00\ufffd", "((((", "9" * 500, "<answer>", " \n\t", "nan", "-inf"):
        _score(part, response)


@CHECKS.reports("same response, same score")
def same_score(part: Part) -> None:
    """A verdict is a function of problem and response."""
    for response in ("4", "the answer is 4", "5"):
        first, second = _score(part, response), _score(part, response)
        if first != second:
            raise Broken(f"{first:g}, then {second:g} for {response!r}")
