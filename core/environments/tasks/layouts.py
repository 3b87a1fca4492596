"""Kinds of tables: which columns they have, how a row of each becomes a question, and what judges the answers."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from core.environments.rewards.answers import boxes
from core.environments.rewards.code import code_tests
from core.environments.rewards.countdown import countdown
from core.environments.rewards.math import math_answer
from core.environments.sandbox.cases import parse_cases
from core.environments.tasks.rows import (
    Row,
    are_messages,
    is_number,
    messages_fault,
    messages_of,
    read_rows,
    tools_fault,
)
from core.errors import GrpoLabError, near
from core.parts.registry import Part


@dataclass(frozen=True)
class Question:
    """One row, understood."""

    text: str
    answer: str
    data: Mapping[str, Any]
    place: str
    """File and line or row, for messages."""
    solution: str = ""
    """How the answer is arrived at, where the table has it."""
    messages: tuple[Mapping[str, Any], ...] = ()
    """The conversation that the question is, where it is one."""
    differs: str = ""
    """What the solution ends with, where that is not the answer."""


class _RowError(Exception):
    """What is wrong with a row; the caller adds the place."""


@dataclass(frozen=True)
class _ParsedRow:
    """A row, parsed."""

    prompt: "str | list[dict[str, Any]]"
    answer: str
    data: Mapping[str, Any] = field(default_factory=dict)
    solution: str = ""
    differs: str = ""


def _text(row: Row, column: str) -> str:
    value = row[column]
    if not isinstance(value, str) or not value.strip():
        raise _RowError(f"column '{column}' is {value!r:.60}, not text")
    return value.strip()


def _prompt(row: Row, column: str) -> str | list[dict[str, Any]]:
    """A question: text, or a conversation up to where the answer is due."""
    value = row[column]
    if not isinstance(value, list):
        return _text(row, column)
    if fault := messages_fault(value):
        raise _RowError(
            f'column \'{column}\' is {value!r:.60}, not a list of messages {{"role": text, "content": text}}: {fault}'
        )
    if fault := tools_fault(row):
        raise _RowError(fault)
    messages = messages_of(value)
    if messages[-1]["role"] == "assistant" or not any(message["role"] == "user" for message in messages):
        raise _RowError(
            f"column '{column}' must end with a message of the user: its roles are "
            + ", ".join(message["role"] for message in messages)
        )
    return messages


def _optional(row: Row, c: Mapping[str, str], part: str) -> str:
    """The text of a column that need not be there, nor be filled."""
    value = row.get(c.get(part, part))
    return value.strip() if isinstance(value, str) else ""


def _answer(row: Row, c: Mapping[str, str]) -> str:
    """The value of the column of answers, if there is one and it is filled."""
    value = row.get(c.get("answer", "answer"))
    return "" if value is None or value == "" else _required_answer(row, c.get("answer", "answer"))


def _required_answer(row: Row, column: str) -> str:
    """An answer as it stands: text or a finite number."""
    answer = row[column]
    if not ((isinstance(answer, str) and answer.strip()) or is_number(answer)):
        raise _RowError(f"column '{column}' is {answer!r:.60}, neither text nor a finite number")
    return str(answer).strip()


def _gsm8k(row: Row, c: Mapping[str, str]) -> _ParsedRow:
    steps, mark, final = _text(row, c["answer"]).rpartition("####")
    if not mark or not final.strip():
        raise _RowError(f"column '{c['answer']}' has no final answer after ####")
    # the final answer in the form that is demanded of responses
    solution = f"{steps.strip()}\n\\boxed{{{final.strip()}}}"
    return _ParsedRow(_prompt(row, c["question"]), final.strip().replace(",", ""), {}, solution)


def _answer_and_box(row: Row, c: Mapping[str, str], solution: str) -> tuple[str, str]:
    """The answer, by its column or else the solution's last box, and that box where it differs."""
    answer, last = _answer(row, c), (boxes(solution) or [""])[-1]
    same = "".join(answer.split()).strip("$") == "".join(last.split()).strip("$")
    return answer or last, last if answer and not same else ""


def _math(row: Row, c: Mapping[str, str]) -> _ParsedRow:
    solution = _optional(row, c, "solution")
    answer, differs = _answer_and_box(row, c, solution)
    if not answer:
        raise _RowError(
            f"column '{c['solution']}' has no complete \\boxed{{...}}: add one, or a column 'answer', or remove the row"
        )
    return _ParsedRow(_prompt(row, c["problem"]), answer, {}, solution, differs)


def _conversation(row: Row, c: Mapping[str, str]) -> _ParsedRow:
    """Messages of which the last, where it is the assistant's, is the worked solution."""
    value, column, solution = row[c["messages"]], c["messages"], ""
    if are_messages(value) and value[-1]["role"] == "assistant":
        solution = (value[-1].get("content") or "").strip()
        row = {**row, column: value[:-1]}
    prompt = _prompt(row, column)
    answer, differs = _answer_and_box(row, c, solution)
    if not answer:
        raise _RowError(
            f"there is no column 'answer', and no \\boxed{{...}} in the assistant's last message in '{column}'"
        )
    return _ParsedRow(prompt, answer, {}, solution, differs)


def _countdown(row: Row, c: Mapping[str, str]) -> _ParsedRow:
    numbers, target = row[c["numbers"]], row[c["target"]]
    if not isinstance(numbers, list | tuple) or not numbers or not all(type(n) is int for n in numbers):
        raise _RowError(f"column '{c['numbers']}' is {numbers!r:.60}, not a list of whole numbers")
    if type(target) is not int:
        raise _RowError(f"column '{c['target']}' is {target!r:.60}, not a whole number")
    listed = ", ".join(map(str, numbers))
    text = (
        f"Write an arithmetic expression that equals {target}. Use + - * / and brackets, and each of the numbers "
        f"{listed} exactly once. Give the expression in <answer> </answer>."
    )
    return _ParsedRow(text, "", {"numbers": list(numbers), "target": target}, _optional(row, c, "solution"))


def _mbpp(row: Row, c: Mapping[str, str]) -> _ParsedRow:
    tests = row[c["tests"]]
    if not isinstance(tests, list | tuple) or not tests or not all(isinstance(test, str) for test in tests):
        raise _RowError(f"column '{c['tests']}' is {tests!r:.60}, not a list of assert statements")
    try:
        parse_cases(list(tests))
    except (GrpoLabError, RecursionError, MemoryError) as error:
        raise _RowError(
            f"column '{c['tests']}': {error or type(error).__name__}; mend the test or remove the row"
        ) from error
    setup = str(row.get("test_setup_code") or "").strip()
    text = f"{_text(row, c['text'])}\n\nThe program must pass these tests:\n\n" + "\n".join(tests)
    if setup:
        text += f"\n\nBegin it with:\n\n{setup}"
    return _ParsedRow(text, str(row.get("code") or ""), {"tests": list(tests)}, _optional(row, c, "solution"))


def _plain(row: Row, c: Mapping[str, str]) -> _ParsedRow:
    return _ParsedRow(
        _prompt(row, c["question"]), _required_answer(row, c["answer"]), {}, _optional(row, c, "solution")
    )


@dataclass(frozen=True)
class Layout:
    """A kind of table: its parts with the names of their columns, the usual one first, and how a row is read."""

    parts: Mapping[str, tuple[str, ...]]
    read: Callable[[Row, Mapping[str, str]], _ParsedRow]
    reward: Part
    optional: tuple[str, ...] = ("solution",)
    """Parts that need not be there: columns of the same name, unless mapped otherwise."""

    def match_columns(self, columns: Sequence[str], mapping: Mapping[str, str]) -> dict[str, str] | None:
        """Which column plays which part; None if one is missing."""
        if not mapping.keys() <= {*self.parts, *self.optional}:
            return None
        names = {
            part: mapping.get(part) or next((n for n in usual if n in columns), "")
            for part, usual in self.parts.items()
        }
        return dict(mapping) | names if all(names.values()) else None


LAYOUTS: Final = {
    "countdown": Layout({"numbers": ("nums", "numbers"), "target": ("target",)}, _countdown, countdown),
    "mbpp": Layout({"text": ("text", "prompt"), "tests": ("test_list",)}, _mbpp, code_tests),
    "math": Layout({"problem": ("problem",), "solution": ("solution",)}, _math, math_answer, ("answer",)),
    "gsm8k": Layout({"question": ("question",), "answer": ("answer",)}, _gsm8k, math_answer, ()),
    "plain": Layout({"question": ("question", "problem", "prompt"), "answer": ("answer",)}, _plain, math_answer),
    "messages": Layout({"messages": ("messages",)}, _conversation, math_answer, ("answer",)),
}
"""In the order in which they are tried; gsm8k and plain differ by the mark #### in the first row."""


def recognise(source: str, row: Row, layout: str | None, columns: Mapping[str, str]) -> tuple[Layout, dict[str, str]]:
    """The layout of a table by its first row; raises with what is there and what is missing."""
    if layout is not None and layout not in LAYOUTS:
        raise GrpoLabError(f"files.layout = {layout!r}: {near(layout, LAYOUTS)}")
    for part, column in columns.items():
        if column not in row:
            raise GrpoLabError(f"{source} has no column '{column}' (files.columns, {part}): {near(column, row)}")
    candidates = {layout: LAYOUTS[layout]} if layout else LAYOUTS
    known = sorted({part for candidate in candidates.values() for part in (*candidate.parts, *candidate.optional)})
    if wrong := columns.keys() - set(known):
        raise GrpoLabError(f"files.columns names the part '{min(wrong)}': {near(min(wrong), known)}")
    for name, candidate in candidates.items():
        names = candidate.match_columns(list(row), columns)
        if names and (name != "gsm8k" or layout or "####" in str(row[names["answer"]])):
            return candidate, names
    layouts = "; ".join(
        f"{name}: {', '.join('/'.join(usual) for usual in candidate.parts.values())}"
        for name, candidate in candidates.items()
    )
    raise GrpoLabError(
        f"{source} has the columns {', '.join(row)}, which fit no layout. Known are {layouts}. Name the columns "
        'with files.columns, e.g. {"question": "input", "answer": "target"}'
    )


def read(source: str, layout: str | None = None, columns: Mapping[str, str] | None = None) -> list[Question]:
    """All questions of a source, each once; raises on the first row that is not as it should be."""
    questions: dict[str, Question] = {}
    recognised = None
    for place, row in read_rows(source):
        recognised = recognised or recognise(source, row, layout, columns or {})
        kind, names = recognised
        if missing := [column for column in names.values() if column not in row]:
            raise GrpoLabError(f"{place}: no column '{missing[0]}': {near(missing[0], row)}")
        try:
            parsed = kind.read(row, names)
        except _RowError as error:
            raise GrpoLabError(f"{place}: {error}") from error
        messages = () if isinstance(parsed.prompt, str) else tuple(parsed.prompt)
        text = parsed.prompt if isinstance(parsed.prompt, str) else _transcript(parsed.prompt)
        question = Question(text, parsed.answer, parsed.data, place, parsed.solution, messages, parsed.differs)
        first = questions.setdefault(digest(question.text), question)
        if (first.answer, first.data) != (question.answer, question.data):
            raise GrpoLabError(
                f"{place} asks what {first.place} asks, but has another answer ({question.answer!r:.40} and "
                f"{first.answer!r:.40}): remove one"
            )
    if not questions:
        raise GrpoLabError(f"files: {source} has no questions")
    differing = [question for question in questions.values() if question.differs]
    if differing:
        one = differing[0]
        warnings.warn(
            f"{source}: in {len(differing)} of {len(questions)} rows the answer column differs from the solution's "
            f"last \\boxed{{...}}; the answer column is used (first in {one.place}: {one.answer!r:.40}, not "
            f"{one.differs!r:.40})",
            stacklevel=2,
        )
    return list(questions.values())


def _transcript(messages: Sequence[Mapping[str, Any]]) -> str:
    """A conversation as text: its only message, or each with its role, and with the tools that it calls."""
    if len(messages) == 1:
        return str(messages[0]["content"]).strip()
    return "\n".join(" ".join(filter(None, (f"{m['role']}: {m['content'].strip()}", _calls(m)))) for m in messages)


def _calls(message: Mapping[str, Any]) -> str:
    calls = message.get("tool_calls")
    return json.dumps(calls, sort_keys=True, default=str) if calls else ""


def digest(question: str) -> str:
    """The key of a question: its words, without the blanks between them."""
    return " ".join(question.split())
