r"""Finding the final answer in a response.

Forms, in the order in which they are looked for:

    box      \boxed{x} or \fbox{x}, braces balanced
    hash     #### x, to the end of the line (GSM8K)
    tag      <answer>x</answer>; a box within counts as its content
    phrase   "the answer is x" or "answer: x", the last one, to the end of the sentence
    number   the last number, if it stands by itself

What comes before the last </think>, or after a <think> that is still open, is thought, not answer. Of the first three
forms, which a model writes on purpose, every occurrence is an answer: whoever gives two different ones has not
answered. An empty form before a filled one, as prompts contain them, is none. A Markdown heading after #### is no
answer, unless it comes last and there is no box or tag.
"""

import re
from typing import Final, Literal, TypeAlias

from core.environments.rewards.thoughts import after_thoughts

Form: TypeAlias = Literal["box", "hash", "tag", "phrase", "number"]

_BRACE = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)|\\[{}]|[{}]")
_BOX_OPENS = re.compile(r"\s*\$*\s*\\(?:boxed|fbox)\s*\{")
_BOX_CLOSES = re.compile(r"\}\s*\$*\s*")
_NOTHING = re.compile(r"(?:\s|\$|\.|…|_|\\[ ,;:!]|\\(?:[lc]?dots|text)(?![A-Za-z])|[{}])*")
_LINE_END: Final = ".,;。，；．"
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
_BOUND_RIGHT = re.compile(
    r"\$?(?:\s*[\^_/+=<>({\[!:×÷·≤≥]|\*(?!\*)|\s+[*-]\s|-|(?!an? [a-z]{2})[A-Za-z]\b|\\[a-z]|\.\d)"
)
_HEDGE = re.compile(
    r"(?:\b(?:not|never|no|neither|nor|or|than|least|most|about|around|roughly|between)\b|n't\b)[^.\n]{0,12}$"
    r"|\b(?:step|case|part|line|question|problem|equation|figure) *\(?$"
    r"|\d\s*(?:,|,?\s*\b(?:and|or))\s*\w+\s*=\s*$",
    re.IGNORECASE,
)
_WIDE: Final = {0xFEE0 + code: code for code in range(0x21, 0x7F)} | {ord("。"): "."}
"""Characters as wide as a Chinese one, to the ASCII ones."""
_TAIL: Final = 400
"""Characters at a response's end among which the last number is looked for."""


def _boxes(text: str) -> list[tuple[int, str]]:
    """Where each balanced box begins, and its content; a box within another counts only if it is all of it."""
    spans: list[tuple[int, int, str]] = []
    opened: list[int | None] = []  # for each open brace: where the content begins, if it is a box's
    box_follows = False
    for mark in _BRACE.finditer(text):
        if mark[0] == "{":
            opened.append(mark.end() if box_follows else None)
        elif mark[0] == "}" and opened:
            start = opened.pop()
            if start is not None:
                inner = None
                while spans and spans[-1][0] > start:
                    inner = spans.pop()
                end = mark.start()
                alone = (
                    inner and _BOX_OPENS.fullmatch(text, start, inner[0]) and _BOX_CLOSES.fullmatch(text, inner[1], end)
                )
                spans.append((start, end, inner[2] if inner and alone else text[start:end].strip()))
        box_follows = mark[0].startswith(("\\b", "\\f"))
    return [(start, content) for start, _, content in spans]


def boxes(text: str) -> list[str]:
    """The contents of all balanced boxes, but not of boxes within balanced ones, unless they are all of these."""
    return [content for _, content in _boxes(text)]


def _tagged(text: str) -> list[tuple[int, str]]:
    """Where the content of each <answer> tag begins, and the content; closing tags go with the opening one before."""
    contents: list[tuple[int, str]] = []
    start: int | None = None
    for mark in _TAG.finditer(text):
        if mark[0] == "<answer>":
            start = mark.end()
        elif start is not None:
            content = text[start : mark.start()]
            place = start
            contents.extend((place, inner) for inner in boxes(content) or [content.strip()])
            start = None
    return contents


def is_empty(content: str) -> bool:
    r"""Whether nothing stands in a form: "", "...", \text{}, $$."""
    return _NOTHING.fullmatch(content) is not None


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
    tail = _NO_NUMBER.sub(" ", text[-_TAIL:].translate(_WIDE))
    runs = list(_LIST.finditer(tail))
    if not runs:
        return []
    before, after = tail[: runs[-1].start()], tail[runs[-1].end() :]
    cut_in_two = not before and len(text) > _TAIL
    if cut_in_two or _BOUND_LEFT.search(before) or _BOUND_RIGHT.match(after) or _HEDGE.search(before):
        return []
    return [runs[-1][0].strip()]


def _hashed(text: str, *, keep_last: bool) -> list[tuple[int, str]]:
    """Where each #### line begins, and its content but for headings; the last may be kept as an answer in words."""
    lines = [(m.start(), line) for m in _HASH.finditer(text) if (line := m[1].strip().rstrip(_LINE_END).rstrip())]
    kept = [it for i, it in enumerate(lines) if not _HEADING.match(it[1]) or (keep_last and i == len(lines) - 1)]
    return [(place, inner) for place, line in kept for inner in (boxes(line) or [line])]


def find(response: str) -> list[tuple[Form, str]]:
    """All answers written in the first three forms, else the one in the fourth or fifth; none is an empty list."""
    text = after_thoughts(response)
    boxed, in_tags = _boxes(text), _tagged(text)
    hashed = _hashed(text, keep_last=not boxed and not in_tags)
    explicit: list[tuple[Form, int, str]] = [
        *(("box", *answer) for answer in boxed),
        *(("hash", *answer) for answer in hashed),
        *(("tag", *answer) for answer in in_tags),
    ]
    last = max((place for _, place, answer in explicit if not is_empty(answer)), default=-1)
    if kept := [(form, answer) for form, place, answer in explicit if place >= last or not is_empty(answer)]:
        return kept
    if answers := phrase(text):
        return [("phrase", answers[0])]
    return [("number", answer) for answer in last_number(text)]


def gold(answer: str) -> str:
    """A problem's answer: a bare one, or the final one of a worked solution in GSM8K's or MATH's form."""
    if "####" in answer:
        return answer.rpartition("####")[2].strip()
    boxed = boxes(answer)
    return boxed[-1] if boxed else answer.strip()
