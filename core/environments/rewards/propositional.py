"""Propositional formulas: a small parser, and truth tables as whole numbers.

    formula   p & ~q -> (r <-> s)
    binds     ~  before  &  before  xor  before  |  before  ->  (to the right)  before  <->

Signs, words and LaTeX are read alike. The table of a formula over n variables is one integer of 2^n bits, so that a
connective is one bitwise operation and 20 variables take milliseconds. `^` is refused: it means "and" to some and
"exclusive or" to others.
"""

import re
from collections.abc import Sequence
from functools import reduce
from typing import Final, TypeAlias

MAX_VARIABLES: Final = 20
MAX_TOKENS: Final = 2000
MAX_DEPTH: Final = 50

Formula: TypeAlias = "str | bool | tuple[str, tuple[Formula, ...]]"
"""A variable, a constant, or a connective with its operands."""

_SPELLINGS: Final = {
    "<->": (
        "<->",
        "<=>",
        "↔",
        "⇔",
        "⟷",
        "⟺",
        "≡",
        "==",
        r"\leftrightarrow",
        r"\Leftrightarrow",
        r"\iff",
        r"\equiv",
        "iff",
        "if and only if",
    ),
    "->": (
        "->",
        "=>",
        "→",
        "⇒",
        "⟶",
        "⟹",
        "⊃",
        r"\rightarrow",
        r"\Rightarrow",
        r"\to",
        r"\implies",
        r"\supset",
        "implies",
    ),
    "xor": ("⊕", "⊻", r"\oplus", "xor"),
    "&": ("&&", "&", "∧", "⋀", "/\\", r"\land", r"\wedge", "and"),
    "|": ("||", "|", "∨", "⋁", "\\/", r"\lor", r"\vee", "or"),
    "~": ("~", "!", "¬", "∼", r"\neg", r"\lnot", r"\sim", "not"),
    "(": ("(", "[", "{"),
    ")": (")", "]", "}"),
    "true": ("true", "⊤", r"\top"),
    "false": ("false", "⊥", r"\bot"),
    "if": ("if",),
    "then": ("then",),
}
_MEANING: Final = {spelling: sign for sign, spellings in _SPELLINGS.items() for spelling in spellings}


def _pattern(spelling: str) -> str:
    escaped = re.escape(spelling).replace(r"\ ", r"\s+")
    return escaped + (r"(?![A-Za-z0-9_])" if spelling[-1].isalpha() else "")


_TOKEN: Final = re.compile(
    r"\s*(?:(?P<sign>"
    + "|".join(_pattern(s) for s in sorted(_MEANING, key=len, reverse=True))
    + r")|(?P<name>[A-Za-z][A-Za-z0-9]*(?:_\{?[A-Za-z0-9]+\}?)*'*))",
)
_LAYOUT: Final = re.compile(r"\\(?:left|right|big|Big)(?=\s*[(\[)\]])|\\[,;:! ]|\\q?quad\b")
_WORDS: Final = re.compile(r"(?<!\\)\b(iff|implies|xor|and|or|not|true|false|if|then|only)\b", re.IGNORECASE)


class UnreadableError(Exception):
    """A text that is not a formula; the message is short enough to be counted."""


def parse(text: str) -> Formula:
    """Read a formula; raises `UnreadableError`. Names keep their case, words for connectives have none."""
    text = _WORDS.sub(lambda word: word[0].lower(), _LAYOUT.sub("", text))
    return _Parser(_tokens(text)).whole()


def _tokens(text: str) -> list[str]:
    tokens, place, text = [], 0, text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if not match:
            raise UnreadableError("unreadable formula")
        sign = match["sign"]
        # a variable is marked by a quote, which no sign has
        tokens.append(_MEANING[re.sub(r"\s+", " ", sign)] if sign else f"'{re.sub('[{}]', '', match['name'])}")
        place = match.end()
        if len(tokens) > MAX_TOKENS:
            raise UnreadableError("formula too long")
    return tokens


class _Parser:
    """Recursive descent; chains are loops, so the depth of recursion is that of the brackets."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tokens
        self.place = 0
        self.depth = 0

    def whole(self) -> Formula:
        formula = self.conditional()
        if self.place < len(self.tokens):
            raise UnreadableError("unreadable formula")
        return formula

    def take(self, token: str) -> bool:
        """Step over this token if it is next."""
        if self.place < len(self.tokens) and self.tokens[self.place] == token:
            self.place += 1
            return True
        return False

    def conditional(self) -> Formula:
        """`if A then B`, or a chain of <->."""
        if self.take("if"):
            premise = self.chain("<->")
            if not self.take("then"):
                raise UnreadableError("unreadable formula")
            return "->", (premise, self.nested())
        return self.chain("<->")

    def chain(self, sign: str) -> Formula:
        """Operands that bind more tightly, joined by this sign; -> leans to the right, the others are associative."""
        tighter = {"<->": "->", "->": "|", "|": "xor", "xor": "&"}
        operands = [self.chain(tighter[sign]) if sign in tighter else self.negation()]
        while self.take(sign):
            operands.append(self.chain(tighter[sign]) if sign in tighter else self.negation())
        return operands[0] if len(operands) == 1 else (sign, tuple(operands))

    def negation(self) -> Formula:
        """A bracket, name or constant with any number of signs before it."""
        negative = False
        while self.take("~"):
            negative = not negative
        if self.take("("):
            formula = self.nested()
            if not self.take(")"):
                raise UnreadableError("unreadable formula")
        elif self.place < len(self.tokens) and self.tokens[self.place] in ("true", "false"):
            formula = self.tokens[self.place] == "true"
            self.place += 1
        elif self.place < len(self.tokens) and self.tokens[self.place].startswith("'"):
            formula = self.tokens[self.place][1:]
            self.place += 1
        else:
            raise UnreadableError("unreadable formula")
        return ("~", (formula,)) if negative else formula

    def nested(self) -> Formula:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableError("formula too deep")
        formula = self.conditional()
        self.depth -= 1
        return formula


def variables(*formulas: Formula) -> tuple[str, ...]:
    """Every variable in alphabetical order."""
    names: set[str] = set()
    waiting = list(formulas)
    while waiting:
        formula = waiting.pop()
        if isinstance(formula, str):
            names.add(formula)
        elif not isinstance(formula, bool):
            waiting.extend(formula[1])
    return tuple(sorted(names))


def table(formula: Formula, names: Sequence[str]) -> int:
    """The truth table as a number: bit i is the value where variable k is bit k of i."""
    rows = 1 << len(names)
    everywhere = (1 << rows) - 1
    columns = {name: _column(k, rows) for k, name in enumerate(names)}

    def value(formula: Formula) -> int:
        if isinstance(formula, bool):
            return everywhere if formula else 0
        if isinstance(formula, str):
            return columns[formula]
        sign, operands = formula[0], [value(operand) for operand in formula[1]]
        if sign == "~":
            return everywhere ^ operands[0]
        if sign == "->":
            return reduce(lambda conclusion, premise: (everywhere ^ premise) | conclusion, reversed(operands))
        if sign == "<->":
            # an even number of false operands, which for two is "the same"
            return reduce(lambda one, two: everywhere ^ one ^ two, operands)
        return reduce(lambda one, two: one & two if sign == "&" else one | two if sign == "|" else one ^ two, operands)

    return value(formula)


def _column(k: int, rows: int) -> int:
    """The table of variable k: runs of 2^k rows, false and true in turn."""
    run = 1 << k
    column, width = ((1 << run) - 1) << run, 2 * run
    while width < rows:
        column |= column << width
        width *= 2
    return column
