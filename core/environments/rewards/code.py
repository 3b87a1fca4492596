"""Code verifier: a program in the response is run in a sandbox against the problem's unit tests."""

import math
import re
from typing import Any, Final, Literal

from core.environments.rewards.thoughts import after_thoughts
from core.environments.sandbox import Limits, Program, ProgramError, require, sandbox
from core.environments.sandbox.cases import StdinCase, parse_cases
from core.parts.contracts import reward
from core.parts.problems import Problem, Score

_FENCE: Final = re.compile(
    r"^(?P<before>[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*)(?P<fence>`{3,}|~{3,})(?P<words>[^\n`]*)$", re.MULTILINE
)
_PYTHON: Final = ("python", "py", "python3")


def extract_program(response: str) -> tuple[str, bool] | None:
    """The last fenced block marked as Python, and True; else the last fenced block or the bare text, and False.

    None where there is no text at all. Thoughts, also unfinished ones, are not taken for a program.
    """
    response = after_thoughts(response)
    blocks = _fenced(response)
    marked = [text for words, text in blocks if words and words[0].lower() in _PYTHON]
    if marked:
        return marked[-1], True
    source = blocks[-1][1] if blocks else response
    return (source, False) if source.strip() else None


def _fenced(response: str) -> list[tuple[list[str], str]]:
    """The first word after each opening fence, if any, and the text up to the next bare one; in one pass."""
    blocks: list[tuple[list[str], str]] = []
    opening: re.Match[str] | None = None
    for fence in _FENCE.finditer(response):
        if opening is None:
            opening = fence
        elif not fence["words"].strip() and not fence["before"].strip() and fence["fence"].startswith(opening["fence"]):
            text = response[opening.end() + 1 : fence.start()]
            blocks.append((opening["words"].split()[:1], _without_indent(text, len(opening["before"]))))
            opening = None
    return blocks


def _without_indent(text: str, width: int) -> str:
    """A block in a list without the blanks that stand before its fence, as far as its first line has them too."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    width = min(width, len(first) - len(first.lstrip(" \t")))
    return re.sub(rf"^[ \t]{{1,{width}}}", "", text, flags=re.MULTILINE) if width else text


_LIMITS: Final = {
    "seconds": (1, 3600),
    "wall_seconds": (0.1, 3600),
    "memory_mb": (64, 1 << 20),
    "tolerance": (0.0, 1.0),
}


def _level_in_force(*, level: str, **_: Any) -> str:
    """The sandbox that is in force; refuses a machine that gives none at `level`."""
    require(level)
    return str(sandbox())


@reward(parallel=True, start=_level_in_force, limits=_LIMITS)
def code_tests(
    problem: Problem,
    response: str,
    *,
    level: Literal["rlimits", "namespaces", "bubblewrap"] = "namespaces",
    fenced: bool = True,
    partial: bool = False,
    seconds: int = 4,
    wall_seconds: float = 20.0,
    memory_mb: int = 512,
    tolerance: float = 1e-9,
) -> Score:
    """1 if the response's Python program passes all of the problem's tests, else 0; `partial`: the share it passes.

    The tests are `problem.data["tests"]`, in the forms of `core.environments.sandbox.cases`. The program must stand in
    a fence marked as Python (lenient: it passes without); for models that write nothing but programs, `fenced` is
    False. It runs in the strongest sandbox that the machine gives, and not at all where that is below `level`
    (`core.environments.sandbox.levels`). `seconds` of processor time for each of its processes and `wall_seconds` by
    the clock, which should be generous, are for all tests together. `tolerance` is for expected floats. Any number of
    threads may ask for verdicts at a time.
    """
    cases = parse_cases(problem.data.get("tests"))
    limits = Limits(cpu_seconds=math.ceil(seconds), wall_seconds=wall_seconds, memory=int(memory_mb) << 20)
    in_force = require(level)
    extracted = extract_program(response)
    if extracted is None:
        return Score(0.0, correct=False, cause="no program")
    source, is_fenced = extracted
    passed, cause = 0, None
    try:
        with Program(source, in_force, limits, whole=isinstance(cases[0], StdinCase)) as program:
            for case in cases:
                try:
                    if case.passes(program, tolerance):
                        passed += 1
                        continue
                    cause = cause or "wrong answer"
                except ProgramError as error:
                    cause = cause or str(error)
                    if error.final:
                        break
                if not partial:
                    break
    except ProgramError as error:
        cause = str(error)
    right = passed == len(cases)
    value = passed / len(cases) if partial else float(right)
    if fenced and not is_fenced:
        return Score(0.0, correct=False, lenient=right, cause="no fenced program" if right else cause)
    return Score(value, correct=right, lenient=right, cause=None if value else cause)
