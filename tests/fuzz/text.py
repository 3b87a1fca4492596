"""Seeded damage to text: what hands, editors, encodings and half-finished writes do to files."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, TypeAlias

Mutation: TypeAlias = Callable[[str, Random], str]

VALUES: Final = (
    "1e999",
    "-1e999",
    "-1",
    "0",
    "2.5",
    "1e-320",
    "1" + "0" * 40,
    "-" + "9" * 30,
    "True",
    "None",
    "'x'",
    "''",
    "b'x'",
    "[]",
    "()",
    "{}",
    "[[]]",
    "{'a': 1, 'a': 2}",
    "(1, 'x')",
    "[None]",
    "@",
    "@nosuch",
    "@nosuch()",
    "@grpo",
    "@grpo()",
    "@train()",
    "@clip",
    "%nosuch",
    "%A",
    "'" + "a" * 5000 + "'",
    "'\\n'",
    "'../x'",
    "'/'",
    "'\u202e'",
    "nan",
    "1_0",
    "0x10",
    "1j",
    "...",
    "lambda: 0",
    "float('nan')",
    "'{question}'",
    "'test/accuracy'",
    "range(3)",
    "-0.0",
    "1e5",
)
"""What may stand where a value is expected."""
CHARACTERS: Final = "=@%#'\"\\()[]{},.:;/-+*~ \t\n\r\x00\x1b\ufeff\u200b\u202e\u00e9\uff11\U0001f600"
CELLS: Final = (
    "",
    " ",
    "x",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "-1",
    "1.5",
    "0x10",
    "1,5",
    "--",
    "None",
    "1e-320",
    "9" * 400,
)


def replace_character(text: str, draw: Random) -> str:
    """Another character in the place of one."""
    place = draw.randrange(len(text) + 1)
    return text[:place] + draw.choice(CHARACTERS) + text[place + 1 :]


def insert_characters(text: str, draw: Random) -> str:
    """A few that were not there."""
    place = draw.randrange(len(text) + 1)
    return text[:place] + "".join(draw.choices(CHARACTERS, k=draw.randint(1, 4))) + text[place:]


def remove_span(text: str, draw: Random) -> str:
    """A piece that is missing."""
    place = draw.randrange(len(text) + 1)
    return text[:place] + text[place + draw.randint(1, 30) :]


def cut_off(text: str, draw: Random) -> str:
    """A write that ended early."""
    return text[: draw.randrange(len(text) + 1)]


def repeat_line(text: str, draw: Random) -> str:
    """A line twice, somewhere."""
    lines = text.splitlines(keepends=True) or [""]
    lines.insert(draw.randrange(len(lines) + 1), draw.choice(lines))
    return "".join(lines)


def swap_lines(text: str, draw: Random) -> str:
    """Two lines in each other's place."""
    lines = text.splitlines(keepends=True) or [""]
    one, other = (draw.randrange(len(lines)) for _ in range(2))
    lines[one], lines[other] = lines[other], lines[one]
    return "".join(lines)


def remove_line(text: str, draw: Random) -> str:
    """A line that is missing."""
    lines = text.splitlines(keepends=True) or [""]
    del lines[draw.randrange(len(lines))]
    return "".join(lines)


def join_lines(text: str, draw: Random) -> str:
    """A line end that is missing."""
    ends = [place for place, character in enumerate(text) if character == "\n"] or [0]
    place = draw.choice(ends)
    return text[:place] + text[place + 1 :]


DAMAGE: Final[Sequence[Mutation]] = (
    replace_character,
    insert_characters,
    remove_span,
    cut_off,
    repeat_line,
    swap_lines,
    remove_line,
    join_lines,
)


def damage(text: str, draw: Random) -> str:
    """One to three kinds of damage."""
    for mutation in draw.choices(DAMAGE, k=draw.choice((1, 1, 1, 2, 3))):
        text = mutation(text, draw)
    return text
