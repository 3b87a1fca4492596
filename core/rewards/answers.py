r"""Finding the final answer in a response.

Forms, in the order in which they are looked for:

    box      \boxed{x} or \fbox{x}, braces balanced
    hash     #### x, to the end of the line (GSM8K)
    tag      <answer>x</answer>; a box within counts as its content
    phrase   "the answer is x" or "answer: x", the last one, to the end of the sentence
    number   the last number, if it stands by itself

What comes before the last </think> is thought, not answer. Of the first three forms, which a model writes on purpose,
every occurrence is an answer: whoever gives two different ones has not answered. A Markdown heading after #### is no
answer, unless it comes last and there is no box or tag.
"""

import re
from typing import Final, Literal, TypeAlias

Form: TypeAlias = Literal["box", "hash", "tag", "phrase", "number"]

_BRACE = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)|\\[{}]|[{}]")
_HASH = re.compile(r"####[ \t]*([^\n]*)")
_HEADING = re.compile(r"(?:\*\*)?(?:(?:\d+|[ivxIVX]+)[.):]\s*)?(?:\*\*)?[A-Z][a-z]+")
_TAG = re.compile(r"<answer>|</answer>")
_PHRASE = re.compile(
    r"\banswer(?:\s+(?:is|was|to\s+(?:the|this)\s+(?:question|problem)\s+is))?\s*(?:[:=]|(?<=is|as))(?:\s*\*\*)?"
    r"(?:\s*(?:therefore|thus|then|simply|just|exactly|equal\s+to))?\s*[:=]?\s*",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"\n|(?<!\d)\.(?=\s|$)|\.(?=\s*\*|\s*$|\s+[A-Z])|;|!(?=\s|$)|,?\s+(?:because|since)\b")
_NUMERAL = r"[-+−]?\\?\$?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?(?:\s?/\s?\d+)?\s?\\?%?"
_LIST = re.compile(rf"{_NUMERAL}(?:\s*(?:,|\bor\b|\band\b|\bto\b|–)+\s*{_NUMERAL})*", re.ASCII)
_NO_NUMBER = re.compile(r"\\[()\[\]]|(?<=\d )(?:[kcm]?m|ft|in|yd)\^\{?[23]\}?")
# a number is part of something larger: an operand, a factor, an index, a coordinate
_BOUND_LEFT = re.compile(r"(?:[\w\\({\[.,_/+-]|(?<!\*)\*|[\^<>≤≥×÷·]\s*|[/+-]\s+|(?<!\*)\*\s+)\$?$")
_BOUND_RIGHT = re.compile(r"\$?(?:\s*[\^_/+=<>({\[!:×÷·≤≥]|\*(?!\*)|\s+[*-]\s|-|[A-Za-z]\b|\\[a-z]|\.\d)")
_HEDGE = re.compile(
    r"(?:\b(?:not|never|no|neither|nor|or|than|least|most|about|around|roughly|between)\b|n't\b)[^.\n]{0,12}$"
    r"|\b(?:step|case|part|line|question|problem|equation|figure) *\(?$"
    r"|\d\s*(?:,|,?\s*\b(?:and|or))\s*\w+\s*=\s*$",
    re.IGNORECASE,
)
_TAIL: Final = 400
"""Characters at a response's end among which the last number is looked for."""


def boxes(text: str) -> list[str]:
    """The contents of all balanced boxes, but not of boxes within balanced boxes."""
    found: list[tuple[int, int]] = []
    opened: list[int | None] = []  # for each open brace: where the content begins, if it is a box's
    box_follows = False
    for mark in _BRACE.finditer(text):
        if mark[0] == "{":
            opened.append(mark.end() if box_follows else None)
        elif mark[0] == "}" and opened:
            start = opened.pop()
            if start is not None:
                while found and found[-1][0] > start:
                    found.pop()
                found.append((start, mark.start()))
        box_follows = mark[0].startswith(("\\b", "\\f"))
    return [text[start:end].strip() for start, end in found]


def tagged(text: str) -> list[str]:
    """The contents of <answer> tags, each closing tag taken with the opening one just before it."""
    found: list[str] = []
    start: int | None = None
    for mark in _TAG.finditer(text):
        if mark[0] == "<answer>":
            start = mark.end()
        elif start is not None:
            content = text[start : mark.start()]
            found.extend(boxes(content) or [content.strip()])
            start = None
    return found


def phrase(text: str) -> list[str]:
    """What follows the last "the answer is", to the end of the sentence."""
    ends = [match.end() for match in _PHRASE.finditer(text)]
    if not ends:
        return []
    rest = text[ends[-1] : ends[-1] + 2 * _TAIL]
    end = _SENTENCE_END.search(rest)
    answer = (rest[: end.start()] if end else rest).strip().strip("*").strip()
    return [answer] if answer.strip(" $") else []


def last_number(text: str) -> list[str]:
    """The last number, or all of "3 or 4"; none if it belongs to something larger, as in x^2, 3*5, 5x or "not 5"."""
    tail = _NO_NUMBER.sub(" ", text[-_TAIL:])
    runs = list(_LIST.finditer(tail))
    if not runs:
        return []
    before, after = tail[: runs[-1].start()], tail[runs[-1].end() :]
    cut_in_two = not before and len(text) > _TAIL
    if cut_in_two or _BOUND_LEFT.search(before) or _BOUND_RIGHT.match(after) or _HEDGE.search(before):
        return []
    return [runs[-1][0].strip()]


def _hashed(text: str, *, keep_last: bool) -> list[str]:
    """The contents of #### lines but for headings, among which the last may be kept as an answer in words."""
    lines = [line for match in _HASH.finditer(text) if (line := match[1].strip().rstrip("."))]
    kept = [line for i, line in enumerate(lines) if not _HEADING.match(line) or (keep_last and i == len(lines) - 1)]
    return [inner for line in kept for inner in (boxes(line) or [line])]


def find(response: str) -> list[tuple[Form, str]]:
    """All answers written in the first three forms, else the one in the fourth or fifth; none is an empty list."""
    text = response.rpartition("</think>")[2]
    boxed, in_tags = boxes(text), tagged(text)
    hashed = _hashed(text, keep_last=not boxed and not in_tags)
    explicit: list[tuple[Form, str]] = [
        *(("box", answer) for answer in boxed),
        *(("hash", answer) for answer in hashed),
        *(("tag", answer) for answer in in_tags),
    ]
    if explicit:
        return explicit
    if answers := phrase(text):
        return [("phrase", answers[0])]
    return [("number", answer) for answer in last_number(text)]


def gold(answer: str) -> str:
    """A problem's answer: a bare one, or the final one of a worked solution in GSM8K's or MATH's form."""
    if "####" in answer:
        return answer.rpartition("####")[2].strip()
    boxed = boxes(answer)
    return boxed[-1] if boxed else answer.strip()
