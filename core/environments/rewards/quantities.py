r"""An answer's text in one spelling, and read as an exact rational number with its unit, where it is one."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final

from core.environments.rewards.characters import plain
from core.environments.rewards.units import same_unit, split_unit, without

_SPELLINGS: Final = [
    (re.compile(pattern), by)
    for pattern, by in (
        (r"\s+", " "),
        (r"^ ?\*\*|\*\* ?$", ""),
        (r"\*\*", "^"),
        (r"\\\(|\\\)|\\\[|\\\]", " "),
        (r"\\(?:text)?color\s*\{[A-Za-z]*\}|\\(?:bf|rm|it|large|Large|LARGE|huge|Huge|hfill)(?![A-Za-z])", " "),
        (r"\\[hv]space\*?\s*\{[^{}]*\}", " "),
        (r"\\(?:mathbf|boldsymbol|bm|mathsf|mathit|mathnormal|underline)\s*\{\s*(\w|\d+)\s*\}", r"{\1}"),
        (r"\\(?:left|right|displaystyle|limits|middle|[Bb]ig{1,2}[lr]?)(?![A-Za-z])|\\!", ""),
        (r"\{\s*,\s*\}", ","),
        (r"(?<=\d)\\,(?=\d{3})", ","),
        (r"(?<!\\)\\[,;: ]|~|\\q?quad(?![A-Za-z])", " "),
        (r"\\(?:[dtc]|nice|s)frac(?![A-Za-z])", r"\\frac"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\(?:text)?euro(?![A-Za-z])", "€"),
        (r"\\(?:pounds|textsterling)(?![A-Za-z])", "£"),
        (r"\\leq(?:slant)?(?![A-Za-z])|<=", r"\\le "),
        (r"\\geq(?:slant)?(?![A-Za-z])|>=", r"\\ge "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\neq(?![A-Za-z])|!=", r"\\ne "),
        (
            r"\\(?:mathrm|textbf|textit|textrm|textnormal|textsf|mathbf|mathsf|mathit|mbox|operatorname)\s*(?=\{)",
            r"\\text",
        ),
        (r"\\text\s+(?=\{)", r"\\text"),
        (r"\\text\{\s*(,?)\s*(and|or)\s*\}", r" \2 "),
        (r"(?<=[A-Za-z])\\text\{ ?([ei]) ?\}", r" \1"),  # the numbers e and i, upright
        (r"\\text\{ ?([ei]) ?\}", r"\1"),
        (r"\\%|\\text\{\s*(?:%|per ?cent)\s*\}|(?<=\d)\s*per ?cent\b", "%"),
        (r"\^\s*\{\s*\\circ\s*\}", r"^\\circ "),
        (r"([_^])\{(\w)\}(?!\d)", r"\1\2"),
        (r"\^ ?(-\d+|\d{2,})", r"^{\1}"),
        (r"\\sqrt ?(\d{2,})(?![.\d])", r"\\sqrt{\1}"),
        (r"\\mathbb ?([A-Z])(?![A-Za-z])", r"\\mathbb{\1}"),
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset "),
        (r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi "),
        (r"(?<![\\A-Za-z])(sin|cos|tan|cot|csc|log|ln)(?![A-Za-z])", r"\\\1 "),
        (r"(?<![\\A-Za-z])(?:infinity|inf)(?![A-Za-z])", r"\\infty "),
    )
]
# a sign that is no delimiter, and what the amount is per
_MONEY = re.compile(
    r"(-?) ?(?:US|\\text\{ ?(?=[€£¥₹₩₽$] ?\}))?(\\?\$|[€£¥₹₩₽])(?: ?\})? ?(-?[\d.][^$€£¥₹₩₽]*?)"
    r"( ?(?:per|an?|each|every)\b[^$]*| ?/ ?[A-Za-z\\][^$]*)?"
)
_CURRENCIES: Final = dict(
    zip(
        ("$", "\\$", *"€£¥₹₩₽"),
        ["dollars", "dollars", "euros", "sterling", "yen", "rupees", "won", "rubles"],
        strict=True,
    )
)
_NUMERAL = re.compile(r"-?\d+(?:[.,]\d+)*", re.ASCII)
_IDLE_BLANK = re.compile(r"(?<![A-Za-z0-9.,]) | (?![A-Za-z0-9.])")


@lru_cache(1024)
def normalise(text: str) -> str:
    """One spelling of what reads the same: no delimiters, no sizes and spacings, no blanks but between two words."""
    if _NUMERAL.fullmatch(text):
        return text
    text = plain(text)
    for pattern, by in _SPELLINGS:
        text = pattern.sub(by, text)
    text = text.strip()
    if len(text) > 2 and text[0] == text[-1] == "$":
        text = text.strip("$").strip()
    if money := _MONEY.fullmatch(text):
        sign, currency, amount, rate = money.groups()
        text = f"{sign}{amount.strip()} {_CURRENCIES[currency]}{rate or ''}"
    text = re.sub(r"\\?\$", "", text).strip()
    text = re.sub(r"^= ?|(?<=[^.])\.$|\\+$", "", text).strip()
    return re.sub(" +", " ", text.removeprefix("+")).strip()


def tight(text: str) -> str:
    """Normalised text without blanks that do not part two words or numbers."""
    return _IDLE_BLANK.sub("", text)


# --- numbers ---------------------------------------------------------------------------------------------------------

_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d{1,3}(?: \d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)"
_DECIMAL = re.compile(rf"({_UNSIGNED})(?:[eE]([-+]?\d{{1,3}}))?", re.ASCII)
_SCIENTIFIC = re.compile(
    rf"({_UNSIGNED}) ?(?:\\times|\\cdot|\*|[xX]) ?10 ?\^ ?(?:\{{([-+]?\d{{1,3}})\}}|(\d))", re.ASCII
)
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline ?\{(\d+)\}", re.ASCII)
_FRACTION = re.compile(
    rf"(?:(\d+) )?({_UNSIGNED}) ?/ ?({_UNSIGNED})|(?:(\d+) ?)?\\frac ?(?:\{{ ?(-?{_UNSIGNED}) ?\}}|(\d)) ?"
    rf"(?:\{{ ?(-?{_UNSIGNED}) ?\}}|(\d))",
    re.ASCII,
)


def encloses(text: str) -> bool:
    """Whether the first bracket is closed by the last character."""
    level = 0
    for place, character in enumerate(text):
        level += (character in "([{") - (character in ")]}")
        if level == 0:
            return place == len(text) - 1
    return False


def bare(text: str) -> str:
    """Without brackets around the whole that group nothing."""
    while text[:1] + text[-1:] in ("()", "{}") and encloses(text):
        text = text[1:-1].strip()
    return text


def _plain(numeral: str) -> Fraction:
    return Fraction(numeral.replace(",", "").replace(" ", "").rstrip("."))


def number(text: str) -> Fraction | None:
    """The rational number that a normalised text is, exactly; None if it is not one, or has an exponent over 999."""
    text = text.strip()
    sign = 1
    if text[:1] in ("-", "+"):
        sign = -1 if text[0] == "-" else 1
        text = bare(text[1:].lstrip())
        if text[:1] in ("-", "+"):
            return None
    if match := _DECIMAL.fullmatch(text):
        return sign * _plain(match[1]) * Fraction(10) ** int(match[2] or 0)
    if match := _SCIENTIFIC.fullmatch(text):
        return sign * _plain(match[1]) * Fraction(10) ** int(match[2] or match[3])
    if match := _REPEATING.fullmatch(text):
        whole, fixed, period = match.groups()
        scale = 10 ** len(fixed)
        repeating = Fraction(int(period), (10 ** len(period) - 1) * scale)
        return sign * (Fraction(int((whole + fixed) or "0"), scale) + repeating)
    if match := _FRACTION.fullmatch(text):
        whole_a, above, below, whole_b, above_braced, above_digit, below_braced, below_digit = match.groups()
        top = _plain(above or above_braced or above_digit)
        bottom = _plain(below or below_braced or below_digit)
        whole = int(whole_a or whole_b or 0)
        if bottom == 0 or (whole and (top < 0 or bottom < 0)):
            return None
        return sign * (whole + top / bottom)
    return None


@dataclass(frozen=True)
class Quantity:
    """An answer without unit and percent sign, and with them apart."""

    text: str
    value: Fraction | None
    unit: str | None
    percent: bool

    @staticmethod
    def of(text: str, *, trusted: bool = False) -> "Quantity":
        """Read normalised text; `trusted`: of a gold answer, see `split_unit`."""
        text, unit = split_unit(bare(text), trusted=trusted)
        percent = text.endswith("%")
        text = bare(text.removesuffix("%").strip())
        return Quantity(text, number(text), unit, percent)


def same_quantity(gold: Quantity, answer: Quantity, same: Callable[[str, str], bool]) -> bool:
    """Whether two quantities are the same; `same` decides about texts that are no rational numbers."""
    if gold.unit and answer.unit:
        if not same_unit(gold.unit, answer.unit):
            return False
    else:  # a word that is not known, or a lone letter, is a unit if the other side says so
        gold, answer = _with_unit(gold, answer.unit), _with_unit(answer, gold.unit)
    if gold.value is None or answer.value is None:
        # a percentage of something that is no number is compared with another one only
        return gold.percent == answer.percent and same(gold.text, answer.text)
    if gold.percent == answer.percent:
        return gold.value == answer.value
    rate, whole = (gold.value, answer.value) if gold.percent else (answer.value, gold.value)
    return rate / 100 == whole or (rate == whole and abs(whole) > 1)


def _with_unit(quantity: Quantity, unit: str | None) -> Quantity:
    """The quantity without the unit at its end that only the other one names."""
    rest = without(quantity.text, unit) if unit else None
    return quantity if rest is None else Quantity(rest, number(rest), unit, quantity.percent)
