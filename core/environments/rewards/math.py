"""Mathematical answers: looked for in the response, compared with the gold answer by value, then by the form asked for.

When two answers are the same: `core.environments.rewards.math_comparison`.
"""

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final, Literal

from core.environments.rewards import answers, instructions, math_checker
from core.environments.rewards.math_comparison import (
    MAX_CANDIDATES,
    Comparison,
    UndecidedError,
    assigned,
    group,
    sides,
)
from core.environments.rewards.quantities import normalise, number
from core.errors import GrpoLabError
from core.parts.contracts import reward
from core.parts.problems import Problem, Score
from core.parts.settings import Range

FORMS: Final = {"boxed": "box", "hash": "hash", "answer_tag": "tag", "any": None}
MAX_CHARACTERS: Final = 1000
"""Characters of an answer; none that is meant to be read is longer."""


def _ready(*, seconds: float, **_: str) -> str:
    """What checks the answers; refuses a missing package before anything runs."""
    math_checker.require_checker()
    return f"math-verify {version('math-verify')}, {seconds:g} s an answer"


@reward(parallel=True, start=_ready, limits={"seconds": Range(0, 600, "low")})
def math_answer(
    problem: Problem,
    response: str,
    *,
    form: Literal["boxed", "hash", "answer_tag", "any"] = "boxed",
    compare: Literal["math", "integer", "string"] = "math",
    seconds: float = 3.0,
) -> Score:
    """1 if the final answer equals `problem.answer` and stands in the demanded form, else 0; lenient: in any form.

    `form`: `boxed`, `hash` (GSM8K's ####), `answer_tag`, or `any`. Every answer written in one of the first three forms
    must be right, unless they make up the demanded list together: several different ones are no answer.
    `compare`: `math`, `integer` (AIME: digits alone), or `string`. `seconds`: the processor time that sympy may take,
    and ten times that by the clock; what takes longer scores 0. `problem.answer` may be a worked solution that ends in
    one of the forms.
    """
    gold = answers.gold(problem.answer)
    if len(gold) <= MAX_CHARACTERS and not normalise(gold):
        raise GrpoLabError(
            f"problem {problem.index} has the answer {problem.answer!r}, which no response can equal: give another"
        )
    if len(gold) > MAX_CHARACTERS:
        return Score(0.0, correct=False, cause="gold answer too long")
    candidates = answers.find(response)
    if not candidates:
        return Score(0.0, correct=False, cause="no answer")
    texts = tuple(dict.fromkeys(text for _, text in candidates))
    comparison = Comparison(seconds)
    try:
        right = _right(gold, texts, compare, comparison)
    except UndecidedError as undecided:
        return Score(0.0, correct=False, cause=str(undecided))
    if not right:
        return Score(0.0, correct=False, cause="several answers" if len(texts) > 1 else None)
    demanded = FORMS[form]
    if demanded is not None and all(kind != demanded for kind, _ in candidates):
        return Score(0.0, correct=False, lenient=True, cause="not in the demanded form")
    if not comparison.worked_out or not _worked_out(problem, gold, texts, comparison):
        return Score(0.0, correct=False, lenient=True, cause="not worked out")
    return Score(1.0, correct=True, lenient=True)


def _worked_out(problem: Problem, gold: str, texts: Sequence[str], comparison: Comparison) -> bool:
    """Whether right answers have done what the question asks: expanding (x+2)(x+3) is more than copying it."""
    question = problem.prompt if isinstance(problem.prompt, str) else problem.prompt[-1]["content"]
    if not question and not comparison.checked:
        return True
    is_equation = len(sides(normalise(gold))) > 1
    expected = _value(normalise(gold), is_equation)
    for text in dict.fromkeys(_value(normalise(text), is_equation) for text in texts):
        if comparison.checked and instructions.unevaluated(expected, text):
            return False
        if not question:
            continue
        if number(expected) is not None:
            if instructions.copies_number(question, expected, text):
                return False
        elif comparison.checked:
            copied, tasks = instructions.candidates(question, text), instructions.tasks(question)
            if (copied or tasks) and not math_checker.worked_out(expected, text, copied, tasks, comparison.budget):
                return False
    return True


def _value(text: str, of_equation: bool) -> str:
    """What an assignment or a chain of equal terms comes to; all of a list, and where an equation is asked for."""
    parts = sides(text)
    if group(text) is not None or (of_equation and len(parts) == 2 and not assigned(parts)[0]):
        return text
    return parts[-1]


def _right(gold: str, texts: Sequence[str], compare: str, comparison: Comparison) -> bool:
    """Whether all answers of a response are the gold one, or together its list; raises `UndecidedError`."""
    if max(map(len, texts)) > MAX_CHARACTERS:
        raise UndecidedError("answer too long")
    if len(texts) > MAX_CANDIDATES:
        raise UndecidedError("several answers")
    if compare == "string":
        return all(_words(text) == _words(gold) for text in texts)
    if compare == "integer":
        expected = _integer(gold)
        if expected is None:
            raise GrpoLabError(f"math_answer.compare = 'integer', but the problem's answer is {gold!r}")
        return all(_integer(text) == expected for text in texts)
    if all(comparison.same(gold, text) for text in texts):
        return True
    gold_list = group(normalise(gold))
    together = len(texts) > 1 and gold_list is not None and gold_list.brackets in ("", "{}")
    return together and comparison.same(gold, ", ".join(texts))


def _words(text: str) -> Sequence[str]:
    return text.replace("$", " ").split()


def _integer(text: str) -> int | None:
    """An integer in digits, with or without thousands separators."""
    text = normalise(text)
    return int(text.replace(",", "")) if re.fullmatch(r"-?(?:[0-9]{1,1000}|[0-9]{1,3}(?:,[0-9]{3})+)", text) else None
