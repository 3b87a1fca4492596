"""What an answer is beside a formula: a label that is compared as it stands, or a part of the real line.

A label is no product of its letters: IX is not XI, nor HHT THH, cat act, 13A A13, 1F F. An inequality in one variable
is the interval of its solutions.
"""

import re
from typing import Final

_LABEL: Final = re.compile(r"[A-Z]|[A-Za-z]{2,3}|\d+[A-Za-z]{0,3}[A-Z][A-Za-z\d]*|[A-Za-z]+\d[A-Za-z\d]*")
_PRODUCT: Final = re.compile(
    r"(?!(?:[ckm]m|[km]g|ml|lb|ft|hr|pm|mph|nth)$)(?:[b-df-hj-np-tv-xz]{2,3}|[w-z]{2,3}|[a-d]{2}|abc|abd|acd|bcd)"
)
"""Two or three small letters that are a product of variables rather than a word or a unit: xy, mn, ab."""
_TIMES: Final = re.compile(r" |\\cdot(?![A-Za-z]) ?|\\times(?![A-Za-z]) ?|\*")
_RELATION: Final = re.compile(r"(<|>|\\le(?![a-z])|\\ge(?![a-z]))")
_VARIABLE: Final = re.compile(r"[a-df-hj-zA-Z](?:_(?:\w|\{\w+\}))?|\\(?:theta|alpha|beta|lambda|mu|phi|omega)")
_OR: Final = re.compile(r"(?<![A-Za-z\\])or(?![A-Za-z])|\\lor(?![A-Za-z])")
_TURNED: Final = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}
_EVERYTHING: Final = "(-\\infty,\\infty)"
_ALL_REALS: Final = re.compile(
    r"\\mathbb\{R\}|(?:the )?(?:set of )?all (?:the )?real(?: number)?s|\(-\\infty ?, ?\+?\\infty ?\)", re.IGNORECASE
)
_NOTHING: Final = re.compile(r"\\\{ ?\\\}|(?:the )?empty set|\\emptyset", re.IGNORECASE)


def is_label(text: str) -> bool:
    """Whether a normalised text is a word, a numeral or a code of letters and digits."""
    return _LABEL.fullmatch(text) is not None and not _PRODUCT.fullmatch(text)


def same_label(one: str, other: str) -> bool:
    r"""Whether two labels are written the same; between letters a sign of multiplication may stand: x\cdot a, x a."""
    short = _TIMES.sub("", one)
    return len(short) < 4 and short == _TIMES.sub("", other)


def whole_set(text: str) -> str:
    """The real line and the empty set in one spelling each, everything else as it is."""
    if _ALL_REALS.fullmatch(text):
        return _EVERYTHING
    return "\\emptyset" if _NOTHING.fullmatch(text) else text


def is_inequality(text: str) -> bool:
    """Whether something is said to be less or greater than something."""
    return _RELATION.search(text) is not None


def interval(text: str) -> str | None:
    """The solutions of an inequality in one variable, a union where it says "or"; None if it is something else."""
    parts = [_interval(part) for part in _OR.split(text)]
    if None in parts or len({variable for part in parts if part for variable in (part[0],)}) != 1:
        return None
    return "\\cup ".join(part[1] for part in parts if part)


def _interval(text: str) -> tuple[str, str] | None:
    """The variable and the interval of `a < x`, `x < a` or `a < x < b`."""
    terms = [term.strip() for term in _RELATION.split(text)]
    if len(terms) == 3:
        left, sign, right = terms
        if _VARIABLE.fullmatch(right):
            left, sign, right = right, _TURNED[sign], left
        if not _VARIABLE.fullmatch(left) or not right:
            return None
        closed = sign.startswith("\\")
        if sign in ("<", "\\le"):
            return left, f"(-\\infty,{right}{']' if closed else ')'}"
        return left, f"{'[' if closed else '('}{right},\\infty)"
    if len(terms) == 5:
        low, first, variable, second, high = terms
        if first in (">", "\\ge"):
            low, first, second, high = high, _TURNED[second], _TURNED[first], low
        if first not in ("<", "\\le") or second not in ("<", "\\le") or not low or not high:
            return None
        if _VARIABLE.fullmatch(variable):
            return variable, f"{'(' if first == '<' else '['}{low},{high}{')' if second == '<' else ']'}"
    return None
