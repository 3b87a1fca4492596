"""What holds of reward functions, whatever their task."""

import math

from core import GrpoLabError, Part
from core.parts.options import RewardOptions
from core.parts.problems import Problem, Score
from experiments.check.checks import Broken, Checks, Inapplicable

CHECKS = Checks("reward")
PROBLEM = Problem("2+2=", "4", 0)


RESPONSES = ("4", "the answer is 4", "5", "")


def _returned(part: Part, response: str) -> object:
    """The part's result for one response."""
    try:
        returned = part([PROBLEM], [[response]]) if RewardOptions.of(part).together else part(PROBLEM, response)
    except GrpoLabError as error:  # e.g. it needs a model that is not set
        raise Inapplicable(str(error)) from error
    if not RewardOptions.of(part).together:
        return returned
    try:
        ((only,),) = returned
    except (TypeError, ValueError) as error:
        raise Broken(f"{returned!r:.80} for one response to one problem, instead of [[score]]") from error
    return only


def _score(part: Part, response: str) -> float:
    score = Score.of(_returned(part, response))
    if not math.isfinite(score.value):
        raise Broken(f"{score.value} for {response!r}")
    return score.value


@CHECKS.must(
    "returns a number, a bool or a Score",
    remedy="return a number (it counts as correct from 1 up), a bool, or Score(value, correct)",
)
def returns_a_score(part: Part) -> None:
    """Nothing else can be weighed and averaged."""
    values = []
    for response in RESPONSES:
        try:
            returned = _returned(part, response)
        except (Broken, Inapplicable):
            raise
        except Exception as error:  # perhaps it is for problems of another task
            raise Inapplicable(f"raised {type(error).__name__}: {error}") from error
        try:
            values.append(Score.of(returned).value)
        except GrpoLabError as error:
            raise Broken(f"{error}, for the response {response!r}") from error
        if math.isinf(values[-1]):
            raise Broken(f"{values[-1]} for {response!r}")
    if all(map(math.isnan, values)):
        raise Broken("NaN, which is no verdict, for every response")


@CHECKS.reports("scores an empty response")
def empty(part: Part) -> str:
    """A policy may return an empty response."""
    return f"{_score(part, ''):g}"


@CHECKS.reports("scores junk")
def junk(part: Part) -> None:
    """A policy may return anything."""
    for response in ("\x00\ufffd", "((((", "9" * 500, "<answer>", " \n\t", "nan", "-inf"):
        _score(part, response)


@CHECKS.reports("same response, same score")
def same_score(part: Part) -> None:
    """A verdict is a function of problem and response."""
    for response in RESPONSES:
        first, second = _score(part, response), _score(part, response)
        if first != second:
            raise Broken(f"{first:g}, then {second:g} for {response!r}")
