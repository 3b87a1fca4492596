"""2,000 files of questions, broken or rewritten: each is its questions, or one message with file and line."""

import json
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from core.environments.tasks.layouts import read
from tests.fuzz.outcome import result_or_message
from tests.fuzz.text import damage

CASES: Final = 1000
CHUNK: Final = 100
ODD: Final[tuple[Any, ...]] = (
    None,
    True,
    0,
    -1,
    2.5,
    float("nan"),
    float("inf"),
    "",
    " ",
    "x" * 5000,
    [],
    {},
    [None],
    ["x"],
    {"a": 1},
    10**40,
    "\ud800",
    "\u202e",
    "{question}",
    "<|im_end|>",
    [[1, 2]],
    [1, "2"],
    "####",
)


def rows(draw: Random) -> list[dict[str, Any]]:
    """Questions in one of the layouts."""
    layout, n = draw.choice(("gsm8k", "math", "countdown", "mbpp", "plain")), draw.randint(3, 8)
    if layout == "countdown":
        return [{"nums": [i + 1, draw.randint(2, 9)], "target": draw.randint(10, 99) + 100 * i} for i in range(n)]
    if layout == "mbpp":
        return [{"text": f"Double it, {i}.", "code": "", "test_list": [f"assert f({i}) == {2 * i}"]} for i in range(n)]
    if layout == "math":
        return [{"problem": f"What is {i} squared?", "solution": f"It is \\boxed{{{i * i}}}."} for i in range(n)]
    if layout == "gsm8k":
        return [{"question": f"{i} and {i}?", "answer": f"Added up.\n#### {2 * i}"} for i in range(n)]
    return [{"question": f"{i} and {i}?", "answer": draw.choice([2 * i, str(2 * i)])} for i in range(n)]


def lines(table: list[dict[str, Any]], **style: Any) -> str:
    """As JSONL."""
    return "".join(json.dumps(row, **style) + "\n" for row in table)


@pytest.mark.fuzz
@pytest.mark.parametrize("first", range(0, CASES, CHUNK))
def test_a_file_that_says_the_same_asks_the_same(first: int, tmp_path: Path) -> None:
    plain, other = tmp_path / "plain.jsonl", tmp_path / "other.jsonl"
    for n in range(first, first + CHUNK):
        draw = Random(f"rewritten questions {n}")
        table = rows(draw)
        plain.write_text(lines(table))
        shuffled = [dict(draw.sample(list(row.items()), len(row))) | {"id": i} for i, row in enumerate(table)]
        text = lines(shuffled, ensure_ascii=draw.random() < 0.5, separators=draw.choice([(",", ":"), (" , ", " : ")]))
        text = "".join(line + draw.choice(["", "\n", "  \n"]) for line in text.splitlines(keepends=True))
        other.write_bytes(text.replace("\n", draw.choice(["\n", "\r\n"])).encode())
        asked = [[(q.text, q.answer, q.data) for q in read(str(file))] for file in (plain, other)]
        assert asked[0] == asked[1], f"questions {n}:\n{text}"
        assert len(asked[0]) == len(table)


@pytest.mark.fuzz
@pytest.mark.parametrize("first", range(0, CASES, CHUNK))
def test_broken_questions_are_named_by_file_and_line(first: int, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    for n in range(first, first + CHUNK):
        draw = Random(f"broken questions {n}")
        table = rows(draw)
        if draw.random() < 0.5:
            row = draw.choice(table)
            row[draw.choice(list(row))] = draw.choice(ODD)
            file.write_text(lines(table))
        else:
            file.write_bytes(damage(lines(table), draw).encode("utf-8", "surrogatepass"))
        try:
            found, message = result_or_message(lambda: read(str(file)))
            if found is None:
                assert "questions.jsonl" in str(message), f"no place: {message}"
                continue
            for question in found:
                question.text.encode()
                assert question.text.strip()
            written = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
            assert len(found) <= len(written)
            assert len(found) == len({json.dumps(sorted(row.items()), default=str) for row in written})
        except BaseException as error:
            raise AssertionError(f"questions {n}:\n{file.read_bytes()[:3000]!r}") from error
