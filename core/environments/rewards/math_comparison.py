r"""When two mathematical answers are the same: compared exactly where that is cheap, by sympy where it is not.

Two answers are the same when, in one spelling,

    they read the same                                          \dfrac12 and \frac12; Monday and monday
    they are the same rational number, exactly                  1,000.0 and 1000; 0.5 and 1/2; not 0.333 and 1/3
    they are lists, sets, tuples or intervals of the same       {1,2} and {2,1}; not (1,2) and (2,1), nor [1,2]
    math-verify, and a second look by our own, find them equal  \sqrt{8} and 2\sqrt2; 2x+y=1 and y=1-2x

What the answers alone do not settle is settled so:

    p% is p/100; where only one side has the sign and the other is over 1 in size, it may also be p itself
    a unit may be missing on one side; two different ones (cm and m) are never the same
    x = 5 and m+n = 5 are 5; x = 5 and y = 5 differ; in a chain x = 2+3 = 5 every side must be right
    where the answer is a number, 17*23 or \sqrt{4} is right leniently only: it is not worked out; nor is a formula
    that stands in the question, (x+2)(x+3) where it is to be expanded
    a bare list "3, 4" or "3 or 4" has no order, never is one number, and is the tuple (3,4) in that very order only;
    x=3, y=4 is "3, 4" in that order
    a word or label of letters and digits is compared as it stands: IX is not XI; and xy is yx
    an inequality is the interval of its solutions; \mathbb{R} is (-\infty,\infty)
"""

import re
from dataclasses import dataclass
from typing import Final

from core.environments.rewards import math_checker
from core.environments.rewards.quantities import Quantity, encloses, normalise, number, same_quantity, tight
from core.environments.rewards.readings import interval, is_inequality, is_label, same_label, whole_set

MAX_DEPTH: Final = 30
"""Brackets within brackets."""
MAX_CANDIDATES: Final = 24
"""Elements of a list, or answers of a response, that are compared one by one."""
CAUSES: Final = {
    "too slow": "too slow to check",
    "too large": "too large to check",
    "died": "killed the checker",
    "unparsable": "unparsable",
    "gold unparsable": "gold answer unparsable",
}
"""The checker's messages, as the cause of a 0."""


class UndecidedError(Exception):
    """No verdict, for a reason of the response's own; the message is the cause."""


# --- structure -------------------------------------------------------------------------------------------------------

_OPEN, _CLOSE = "([{", ")]}"
_RELATION = re.compile(r"=|<|>|\\(?:le|ge|ne|in|approx|equiv|sim|to|mapsto|subset|cup|cap|setminus)(?![A-Za-z])")
_NAME = r"(?:\\?[A-Za-z]+(?:_(?:\{[^{}]*\}|\w))?'*|\\text\{[^{}]*\})"
_LHS = re.compile(rf"{_NAME}(?: ?\((?:{_NAME}|-?\d+)(?:, ?(?:{_NAME}|-?\d+))*\))?|\({_NAME}(?:, ?{_NAME})*\)")
_TUPLE_NAMED = re.compile(rf"(\({_NAME}(?:, ?{_NAME})+\)) ?= ?(\(.*\))")
_SUM = re.compile(rf"{_NAME}(?: ?[-+] ?{_NAME})+")
_SPELLED = re.compile(r"\\text\{ ?[A-Za-z]{2,}(?: [A-Za-z]+)* ?\}")
_CONSTANTS: Final = {"e", "i", "\\pi", "\\infty"}
_TEXT = re.compile(r"^\\text\{([^{}]*)\}$")
_MEMBER = re.compile(rf"^{_NAME} ?\\in(?![a-z]) ?")
_KNOWN_WORDS: Final = {
    "sinh",
    "cosh",
    "tanh",
    "sqrt",
    "arcsin",
    "arccos",
    "arctan",
    "matrix",
    "pmatrix",
    "bmatrix",
    "vmatrix",
}
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4,}")
_SPOKEN = re.compile(r"(?<![\\A-Za-z])(?:[A-Za-z]{4,}|yes|no|odd)(?![A-Za-z])", re.IGNORECASE)
_KINDS: Final = [re.compile(kind) for kind in ("matrix", "vmatrix", r"\\Gamma", r"\\gamma", r"[<>]|\\[lg]e(?![a-z])")]
# what the parser drops or reads in a way of its own: 2516_7 as 2516, 2 3 as 5, x' as x
_VAGUE = re.compile(
    r"\d\}?_|(?<![_^\d])\d+ \d|\d\.\d*\.|'|\\prime|[fgh]\^\{-1\}|:|\.\.|≈|\?|%"
    r"|√|\\(?:[lc]?dots|approx|sim|text|circ|boxed|fbox|in|ne|pm|mp)(?![a-z])"
)


def depth(text: str) -> int:
    """How deep brackets are nested at most; openings that are never closed count."""
    level = deepest = 0
    for character in text:
        if character in _OPEN:
            level += 1
            deepest = max(deepest, level)
        elif character in _CLOSE:
            level -= 1
    return deepest


def split(text: str, separators: str = r"[,;]|(?<![A-Za-z])(?:and|or)(?![A-Za-z])") -> list[str]:
    """The parts of a text between separators outside all brackets; an empty one between "," and "and" is left out."""
    parts, level, start = list[str](), 0, 0
    for mark in re.finditer(rf"[(\[{{]|[)\]}}]|{separators}", text):
        if mark[0] in _OPEN:
            level += 1
        elif mark[0] in _CLOSE:
            level -= 1
        elif level == 0:
            parts.append(text[start : mark.start()])
            start = mark.end()
    parts.append(text[start:])
    between = [part.strip() for part in parts]
    return [p for i, p in enumerate(between) if p or i in (0, len(between) - 1) or "," not in text]


@dataclass(frozen=True)
class Group:
    """Elements with what encloses them: `()`, `[)`, `{}`, or nothing for a bare list."""

    brackets: str
    elements: tuple[str, ...]

    def names(self) -> set[str]:
        """What the elements are said to be, in x=1, y=2."""
        return {tight(name) for name, value in map(assigned, map(sides, self.elements)) if name and value}


def group(text: str) -> Group | None:
    r"""Read a set, tuple, interval or bare list; None for a single answer, brackets around which are no group."""
    if (named := _TUPLE_NAMED.fullmatch(text)) and (values := group(named[2])):
        names = split(named[1][1:-1], ",")
        if values.brackets == "()" and len(names) == len(values.elements):
            return Group("", tuple(map("=".join, zip(names, values.elements, strict=True))))
    is_set = text.startswith("\\{") and text.endswith("\\}")
    whole = text[1:-2] + "}" if is_set else text
    if whole[:1] in _OPEN and whole[-1:] in _CLOSE and encloses(whole) and (is_set or whole[0] != "{"):
        elements = split(whole[1:-1], "[,;]")
        return Group(whole[0] + whole[-1], tuple(elements)) if len(elements) > 1 or whole[0] != "(" else None
    elements = [text] if Quantity.of(text).value is not None else split(text)
    if len(elements) > 1:
        return Group("", tuple(elements))
    if text.count("\\pm") == 1:
        return Group("", (text.replace("\\pm", "+").lstrip("+ "), text.replace("\\pm", "-")))
    return None


def sides(text: str) -> list[str]:
    """The sides of a chain of equations, outside brackets; one if there is another relation in it."""
    parts = split(text, "=")
    return parts if len(parts) > 1 and all(parts) and not _RELATION.search(text.replace("=", "")) else [text]


# --- comparison ------------------------------------------------------------------------------------------------------


class Comparison:
    """One response's comparisons with the gold answer, all within one deadline."""

    def __init__(self, seconds: float) -> None:
        self.budget = math_checker.Budget.of(seconds)
        self.worked_out = True
        """Whether every number has been given as one."""
        self.checked = False
        """Whether the checker has found something equal, which plain reading did not."""
        self.spelled = False
        """Whether the gold answer is marked as a word."""

    def same(self, gold: str, answer: str) -> bool:
        """Whether two answers as written are the same; raises `UndecidedError`."""
        for text, cause in ((gold, "gold unparsable"), (answer, "unparsable")):
            if depth(text) > MAX_DEPTH:
                raise UndecidedError(CAUSES[cause])
        gold, answer = normalise(gold), normalise(answer)
        self.spelled |= _SPELLED.fullmatch(gold) is not None
        return self._same(*(whole_set(_MEMBER.sub("", _TEXT.sub(r"\1", text))) for text in (gold, answer)))

    def _same(self, gold: str, answer: str) -> bool:
        """For normalised texts."""
        if not gold or not answer:
            return False
        if _letters(gold) == _letters(answer):
            return True
        gold_group, answer_group = group(gold), group(answer)
        if is_inequality(gold) != is_inequality(answer):
            return self._same_solutions(gold, answer)
        if gold_group and answer_group:
            return self._same_group(gold_group, answer_group)
        gold_sides, answer_sides = sides(gold), sides(answer)
        if len(gold_sides) > 1 or len(answer_sides) > 1:
            return self._same_equation(gold, answer, gold_sides, answer_sides)
        if gold_group or answer_group:
            return False
        return same_quantity(Quantity.of(gold, trusted=True), Quantity.of(answer), self._same_expression)

    def _same_solutions(self, gold: str, answer: str) -> bool:
        """An interval or a union of them, and an inequality in one variable."""
        pair = [interval(text) if is_inequality(text) else text for text in (gold, answer)]
        return pair[0] is not None and pair[1] is not None and self._same(pair[0], pair[1])

    def _same_equation(self, gold: str, answer: str, gold_sides: list[str], answer_sides: list[str]) -> bool:
        """Where one of the texts has an equals sign: an assignment is its value, an equation only another equation."""
        gold_sides, answer_sides = _name_first(gold_sides), _name_first(answer_sides)
        name, value = assigned(gold_sides)
        other, values = (answer_sides[0], answer_sides[1:]) if _LHS.fullmatch(answer_sides[0]) else ("", answer_sides)
        if not name and _SUM.fullmatch(answer_sides[0]):  # m+n = 809, where 809 is asked for
            values = answer_sides[1:]
        if value and values and (not name or not other or tight(name) == tight(other)):
            worked_out = self.worked_out
            steps = all(self._same(value, side) for side in values[:-1])
            self.worked_out = worked_out  # x = 2+3 = 5 is
            if steps and self._same(value, values[-1]):
                return True
        return len(gold_sides) == len(answer_sides) == 2 and self._ask(gold, answer)

    def _same_group(self, gold: Group, answer: Group) -> bool:
        """Sets and bare lists without order, everything else with it and with the same brackets."""
        if len(gold.elements) != len(answer.elements):
            return False
        if len(answer.elements) > MAX_CANDIDATES:
            raise UndecidedError("answer too long")
        if len(gold.names()) > 1:  # each value has its name
            if not answer.names():
                return answer.brackets in ("", "()") and self._same_in_order(gold, answer)
            gold, answer = (Group("{}", side.elements) for side in (gold, answer))
        free = {"", "{}"}
        if gold.brackets in free and answer.brackets in free:
            unmatched = list(answer.elements)
            for element in gold.elements:
                match = next((other for other in unmatched if self._same(element, other)), None)
                if match is None:
                    return False
                unmatched.remove(match)
            return True
        if gold.brackets != answer.brackets and {gold.brackets, answer.brackets} != {"", "()"}:
            return False
        return self._same_in_order(gold, answer)

    def _same_in_order(self, gold: Group, answer: Group) -> bool:
        return all(self._same(a, b) for a, b in zip(gold.elements, answer.elements, strict=True))

    def _same_expression(self, gold: str, answer: str) -> bool:
        """For texts of which one at most is a number in plain writing."""
        if _letters(gold) == _letters(answer):
            return True
        if self.spelled or is_label(tight(gold)) or is_label(tight(answer)):
            return same_label(gold, answer)
        self.worked_out &= number(gold) is None
        return self._ask(gold, answer)

    def _ask(self, gold: str, answer: str) -> bool:
        """By the checker, if both are formulas through and through: words would be read as products of letters."""
        for text in (gold, answer):
            if _VAGUE.search(text) or any(word not in _KNOWN_WORDS for word in _WORD.findall(text)):
                return False
        if any(bool(kind.search(gold)) != bool(kind.search(answer)) for kind in _KINDS):
            return False
        word = math_checker.check(gold, answer, self.budget)
        if word in ("equal", "different"):
            self.checked |= word == "equal"
            return word == "equal"
        raise UndecidedError(CAUSES[word])


def _letters(text: str) -> str:
    """What is read, for comparison letter by letter: words in any case, names of one to three letters as they are."""
    text = _TEXT.sub(r"\1", text).strip()
    text = re.sub(r"^\(([A-Z])\)$", r"\1", text)
    return _SPOKEN.sub(lambda word: word[0].lower(), tight(text))


def _name_first(parts: list[str]) -> list[str]:
    """5 = x as x = 5."""
    turn = len(parts) == 2 and _LHS.fullmatch(parts[1]) and not _LHS.fullmatch(parts[0])
    return parts[::-1] if turn and parts[1] not in _CONSTANTS else parts


def assigned(parts: list[str]) -> tuple[str, str | None]:
    """A name, if there is one, and what it is said to be; no value if this is an equation proper."""
    if len(parts) == 1:
        return "", parts[0]
    if _LHS.fullmatch(parts[0]) and parts[0] not in _CONSTANTS:
        return parts[0], parts[-1]
    return "", None
