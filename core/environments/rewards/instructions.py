r"""What a question asks to be done with a formula, and whether an answer has done it rather than copied the question.

    unevaluated   \frac{d}{dx}\sin^2 x, \int x dx, \lim, \sum, \max where the gold answer has no such operator
    copied        a formula of the question, in another order, with + 0, times 1 or brackets: (x+3)(x+2)+0
    unfinished    still a product where the question says "expand"; fewer factors than the gold answer where it says
                  "factor"; \sqrt{8} or 4/8 where it says "simplify"

An answer is held to a form that the gold answer has itself. The checker decides the last two, from trees that are
not evaluated.
"""

import re
from math import gcd
from typing import Final

from core.environments.rewards.quantities import normalise, tight

TASKS: Final = {
    "expand": re.compile(r"\b(?:expand|multiply (?:it )?out|expansion)", re.IGNORECASE),
    "factor": re.compile(r"\bfactor(?:i[sz]e|ed|ing|ization)?\b", re.IGNORECASE),
    "simplify": re.compile(
        r"\bsimpl(?:if|est)|\b(?:combin|collect)(?:e|ing)? (?:the )?(?:like )?terms|\blowest terms"
        r"|\breduced? (?:the fraction|form)",
        re.IGNORECASE,
    ),
}
_REWRITE: Final = re.compile(r"\b(?:simpl(?:if|est)|convert|rewrite|express|write|lowest terms|reduce)", re.IGNORECASE)
_OPERATOR: Final = re.compile(
    r"\\(?:[io]*int|lim|sum|prod|max|min|gcd|lcm|det|partial|nabla|sup|inf)(?![A-Za-z])"
    r"|\\frac ?\{? ?(?:d|\\text\{ ?d ?\})(?:\^\d)? ?\}? ?\{? ?(?:d|\\text\{ ?d ?\}) ?[A-Za-z]"
    r"|\bd ?/ ?d[a-z]\b|\\text\{ ?d ?\}|D_x"
)
_DELIMITED: Final = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_PROSE: Final = re.compile(r"[A-Za-z]{2,}")
_FUNCTIONS: Final = re.compile(r"\\[A-Za-z]+|sqrt|sin|cos|tan|log|ln|exp")
_NAMES: Final = re.compile(r"\\[A-Za-z]+|[A-Za-z]")
_RATIO: Final = re.compile(r"\\frac ?\{? ?(\d{1,18}) ?\}? ?\{? ?(\d{1,18}) ?\}?|(\d{1,18}) ?/ ?(\d{1,18})", re.ASCII)
_LAYOUT: Final = {"\\frac", "\\cdot", "\\times"}
MAX_UNITS: Final = 8
"""Formulas of a question that an answer is compared with."""
MAX_CHARACTERS: Final = 500
"""Characters of such a formula, and of a question a hundred times as many."""


def tasks(question: str) -> list[str]:
    """What the question asks for, of `TASKS`."""
    return [name for name, pattern in TASKS.items() if pattern.search(question)]


def unevaluated(gold: str, answer: str) -> bool:
    """Whether an operator is left to be carried out, which the gold answer has not."""
    return _OPERATOR.search(answer) is not None and not _OPERATOR.search(gold)


def formulas(question: str) -> list[str]:
    """Everything in a question that may be a formula, normalised: between dollars, or words that are no words."""
    texts, rest = list[str](), question[-100 * MAX_CHARACTERS :]
    for mark in _DELIMITED.finditer(rest):
        texts.append(next(filter(None, mark.groups()), ""))
    run = list[str]()
    for word in [*_DELIMITED.sub(" | ", rest).split(), "|"]:
        bare = word.strip(".,;:?!\"'")
        is_prose = not _NAMES.sub("", bare) and _PROSE.search(_FUNCTIONS.sub("", bare))
        if word == "|" or not bare or is_prose:
            texts.append(" ".join(run))
            run = []
        else:
            run.append(bare)
            if bare != word:
                texts.append(" ".join(run))
                run = []
    parts = [side for text in texts if text for side in (text, *text.split("="))]
    return list(dict.fromkeys(normal for part in parts if len(part) <= MAX_CHARACTERS and (normal := normalise(part))))


def candidates(question: str, answer: str) -> list[str]:
    """The formulas of a question with the same names in them as the answer has; only these can be its copies."""
    names = set(_NAMES.findall(answer)) - _LAYOUT
    return [text for text in formulas(question) if set(_NAMES.findall(text)) - _LAYOUT == names][-MAX_UNITS:]


def copies_number(question: str, gold: str, answer: str) -> bool:
    """Whether a number is the question's own, where that asks to write it in another way, or can still be reduced."""
    if tight(gold) == tight(answer) or not _REWRITE.search(question):
        return False
    if _notation(gold) != _notation(answer) and tight(answer) in map(tight, formulas(question)):
        return True
    return "simplify" in tasks(question) and reducible(answer) and not reducible(gold)


def _notation(number: str) -> str:
    """Percentage, fraction, power of ten, decimal or whole number, by the sign that shows it."""
    return next((sign for sign in ("%", "\\frac", "/", "^", ".") if sign in number), "").replace("\\frac", "/")


def reducible(text: str) -> bool:
    """Whether it has a fraction of whole numbers that is not in lowest terms."""
    for mark in _RATIO.finditer(text):
        above, below = (int(number) for number in mark.groups() if number)
        if below == 1 or gcd(above, below) > 1:
            return True
    return False
