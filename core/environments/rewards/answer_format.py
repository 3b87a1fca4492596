"""Where a response's answer stands, and the verdict that follows from it.

    answer_tag   <answer>...</answer>
    boxed        \\boxed{...}
    mark         after the last '>', to the end of the response (the embedded tasks)

`correct` is a right answer in the demanded form. `lenient` is a right answer in any form: another of these, "the answer
is" with what follows, or what the response ends with. What comes before the last </think>, or after a <think> that is
still open, is thought, not answer. Whoever gives a right and a wrong answer in the demanded form has not answered; an
empty form before a filled one is no answer.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from core.environments.rewards.answers import boxes, is_empty
from core.environments.rewards.thoughts import after_thoughts
from core.errors import GrpoLabError
from core.parts.problems import Score

Judge: TypeAlias = Callable[[str], bool]
"""Whether an answer is right; raises `UnreadableError`."""

FORMS: Final = ("answer_tag", "boxed", "mark")
TAIL: Final = 1500
"""Characters at the end of a response in which an answer without a form is looked for."""

MAX_CANDIDATES: Final = 16
"""Boxes of which the contents are read, the last ones; a response that repeats itself may have thousands."""
MAX_CHARACTERS: Final = 2000
"""Characters of an answer; none that is meant to be read is longer."""

_TAG: Final = re.compile(r"<answer>", re.IGNORECASE)
_TAG_END: Final = re.compile(r"</answer>", re.IGNORECASE)
_OPEN_TAG: Final = re.compile(r"<answer>(.*)$", re.DOTALL | re.IGNORECASE)
_PHRASE: Final = re.compile(
    r"(?:^|[\n.*#]|\b(?:the|my|final)\s)\s*(?:final\s+)?(?:answer|solution|conclusion)\s*\**\s*(?:\bis\b|:|=)\s*\**\s*:?"
    r"(.+)$",
    re.DOTALL | re.IGNORECASE,
)


class UnreadableError(Exception):
    """No clear answer; the message is a cause that can be counted. `decided`: it speaks against the whole response."""

    def __init__(self, cause: str, *, decided: bool = False) -> None:
        super().__init__(cause)
        self.decided = decided


def in_form(response: str, form: str) -> list[str]:
    """Every answer in this form, but for empty ones before the last that is filled."""
    answers = _in_form(response, form)
    filled = [i for i, answer in enumerate(answers) if not is_empty(answer)]
    return [answer for i, answer in enumerate(answers) if not filled or i >= filled[-1] or not is_empty(answer)]


def _in_form(response: str, form: str) -> list[str]:
    if form == "answer_tag":
        # each closing tag goes with the opening one just before it
        pieces = [_TAG.split(piece) for piece in _TAG_END.split(response)[:-1]]
        return [piece[-1].strip() for piece in pieces if len(piece) > 1]
    if form == "boxed":
        return boxes(response)[-MAX_CANDIDATES:]
    _, mark, after = response.rpartition(">")
    return [after.strip().rstrip(".")] if mark and after.strip() else []


def answer_candidates(response: str) -> Iterator[tuple[str, bool]]:
    """Texts that may be the answer, the most deliberate first, and whether the text is final."""
    for form in ("answer_tag", "boxed"):
        if inside := in_form(response, form):
            yield inside[-1], True
            return
    if match := _OPEN_TAG.search(response) or _PHRASE.search(response[-TAIL:]):
        yield match[1].strip(), False
    tail = response.strip()[-TAIL:]
    yield tail, False
    yield re.split(r"\n\s*\n", tail)[-1], False
    yield tail.splitlines()[-1] if tail else "", False
    yield re.split(r"(?<=[.!?])\s+", tail)[-1], False


def verdict(response: str, form: str, judge: Judge) -> Score:
    """Strictly the answer in the demanded form, leniently the first readable one."""
    if form not in FORMS:
        raise GrpoLabError(f"form = {form!r}: must be one of {', '.join(FORMS)}")
    response = after_thoughts(response)
    answers = in_form(response, form)
    if answers:
        try:
            verdicts = {judge(answer) for answer in answers} if len(set(answers)) > 1 else {judge(answers[0])}
        except UnreadableError as error:
            return Score(0.0, correct=False, cause=str(error))
        if len(verdicts) > 1:
            return Score(0.0, correct=False, cause="several answers")
        correct = verdicts == {True}
        return Score(float(correct), correct, lenient=correct)
    return Score(0.0, correct=False, lenient=_lenient(response, judge), cause="no answer in the demanded form")


def _lenient(response: str, judge: Judge) -> bool:
    for text, final in answer_candidates(response):
        try:
            return judge(text)
        except UnreadableError as error:
            if final or (error.decided and str(error) == "contradictory"):
                return False
    return False
