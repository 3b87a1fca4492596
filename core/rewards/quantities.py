r"""An answer's text in one spelling, and read as an exact rational number with its unit, where it is one."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

_CHARACTERS: Final = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "×": "\\times ", "·": "\\cdot ", "÷": "/", "π": "\\pi ", "∞": "\\infty ",
        "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "∪": "\\cup ", "∩": "\\cap ", "∅": "\\emptyset ", "°": "^\\circ ",
        "²": "^2", "³": "^3", "½": " 1/2", "¼": " 1/4", "¾": " 3/4", "±": "\\pm ", "θ": "\\theta ", "∈": "\\in ",
        "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\t": " ", "\n": " ", "\r": " ", "`": " ",
    }
)  # fmt: skip
_SPELLINGS: Final = [
    (re.compile(pattern), by)
    for pattern, by in (
        (r"\s+", " "),
        (r"^ ?\*\*|\*\* ?$", ""),
        (r"\*\*", "^"),
        (r"\\\(|\\\)|\\\[|\\\]", " "),
        (r"\\(?:left|right|displaystyle|limits|[Bb]ig[glr]?)(?![A-Za-z])|\\!", ""),
        (r"\{\s*,\s*\}", ","),
        (r"(?<=\d)\\,(?=\d{3})", ","),
        (r"(?<!\\)\\[,;: ]|~|\\q?quad(?![A-Za-z])", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\leq(?:slant)?(?![A-Za-z])|<=", r"\\le "),
        (r"\\geq(?:slant)?(?![A-Za-z])|>=", r"\\ge "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\neq(?![A-Za-z])|!=", r"\\ne "),
        (r"\\(?:mathrm|textbf|textit|textrm|textnormal|mathbf|mathit|mbox|operatorname)\s*(?=\{)", r"\\text"),
        (r"\\text\s+(?=\{)", r"\\text"),
        (r"\\text\{\s*(,?)\s*(and|or)\s*\}", r" \2 "),
        (r"\\%|\\text\{\s*(?:%|percent)\s*\}|(?<=\d)\s*percent\b", "%"),
        (r"\^\s*\{\s*\\circ\s*\}", r"^\\circ "),
        (r"([_^])\{(\w)\}", r"\1\2"),
        (r"\^ ?(-\d+|\d{2,})", r"^{\1}"),
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset "),
        (r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi "),
        (r"(?<![\\A-Za-z])(?:infinity|inf)(?![A-Za-z])", r"\\infty "),
    )
]
_IDLE_BLANK = re.compile(r"(?<![A-Za-z0-9.,]) | (?![A-Za-z0-9.])")


def normalise(text: str) -> str:
    """One spelling of what reads the same: no delimiters, no sizes and spacings, no blanks but between two words."""
    text = text.translate(_CHARACTERS)
    for pattern, by in _SPELLINGS:
        text = pattern.sub(by, text)
    text = text.strip()
    if len(text) > 2 and text[0] == text[-1] == "$":
        text = text.strip("$").strip()
    text = re.sub(r"^(-?) ?\\?\$ ?(-?[\d.][^$]*)$", r"\1\2 dollars", text)  # one that is no delimiter
    text = re.sub(r"\\?\$", "", text).strip()
    text = re.sub(r"^= ?|(?<=[^.])\.$|\\+$", "", text).strip()
    return re.sub(" +", " ", text.removeprefix("+")).strip()


def tight(text: str) -> str:
    """Normalised text without blanks that do not part two words or numbers."""
    return _IDLE_BLANK.sub("", text)


# --- units -----------------------------------------------------------------------------------------------------------

_SAME_UNITS: Final = {
    "centimeter": "cm", "centimetre": "cm", "millimeter": "mm", "millimetre": "mm", "meter": "m", "metre": "m",
    "kilometer": "km", "kilometre": "km", "gram": "g", "kilogram": "kg", "second": "s", "sec": "s", "minute": "min",
    "hour": "h", "hr": "h", "inche": "in", "inch": "in", "foot": "ft", "feet": "ft", "mile": "mi", "liter": "l",
    "litre": "l", "L": "l", "degree": "°", "circ": "°", "dollar": "$", "USD": "$", "buck": "$", "pound": "lb",
    "mph": "mi/h", "yard": "yd", "squared": "^2", "sq": "square",
}  # fmt: skip
_SHORT: Final = {
    "cm", "mm", "km", "kg", "mg", "ml", "mL", "min", "sec", "hr", "hrs", "in", "ft", "mi", "lb", "lbs", "yd", "mph",
    "kmh", "km/h", "m/s", "USD", "am", "pm", "day", "days", "men", "cup", "cups", "egg", "eggs", "cm^2", "m^2", "cm^3",
    "m^3", "ft^2", "in^2", "box", "kph", "oz", "pts", "sq",
}  # fmt: skip
_NOT_UNITS: Final = {
    "hundred", "thousand", "million", "billion", "trillion", "dozen", "dozens", "score", "squared", "cubed",
    "factorial", "half", "halves", "third", "thirds", "quarter", "quarters", "fifth", "fifths", "tenth", "tenths",
    "minus", "plus", "times", "over", "root", "negative", "point", "mod", "modulo", "base", "and", "or", "not", "but",
    "maybe", "perhaps", "probably", "instead", "wrong", "incorrect", "except", "divided", "multiplied", "power",
    "choose", "sqrt", "sinh", "cosh", "tanh", "less", "more", "than", "isn't", "never", "nor", "versus", "with",
    "without", "hundredths", "thousandths", "percentage", "infinity", "imaginary", "unless", "otherwise",
}  # fmt: skip
_TEXT_UNIT = re.compile(r"(?:\s|\\cdot|\\times)*\\text\{([^{}]*)\}(\^(?:\{\d\}|\d))?\s*(?:/\s*\\text\{([^{}]*)\})?$")
_WORD_UNIT = re.compile(
    r"(?<=[\d}.]) ?((?:[A-Za-z]{2,}|[A-Za-z]{1,2}/[a-z]+)(?:\^\{?\d\}?)?(?: [A-Za-z]+(?:\^\d)?){0,3})$"
)
_LONE_UNIT = re.compile(r"(.*[\d}]) ?([mgshlLVWJNKAC])")
_DEGREES = re.compile(r"\s*\^\s*\\circ\s*$")


def split_unit(text: str) -> tuple[str, str | None]:
    """Normalised text without the unit at its end, and the unit in one spelling; a lone letter counts as a variable."""
    if match := _DEGREES.search(text):
        return text[: match.start()], "°"
    if match := _TEXT_UNIT.search(text):
        words = " ".join(filter(None, (match[1].strip(), (match[2] or "").strip("{}"), match[3] and f"/ {match[3]}")))
        before = text[: match.start()].strip()
        if before and not any(word.lower() in _NOT_UNITS - {"squared"} for word in words.split()):
            return before, _one_spelling(words.replace(" ^", "^"))
        return text, None
    if match := _WORD_UNIT.search(text):
        words = match[1]
        first = words.split()[0]
        if (first in _SHORT or len(first) >= 4) and not any(word.lower() in _NOT_UNITS for word in words.split()):
            return text[: match.start()].strip(), _one_spelling(words)
    return text, None


def _one_spelling(words: str) -> str | None:
    """Singular, abbreviated, in lower case; None for a unit that says nothing."""
    out = []
    for word in words.replace("{", "").replace("}", "").replace(".", "").split():
        base, power, exponent = word.partition("^")
        singular = base if base in _SAME_UNITS or len(base) < 3 else base.removesuffix("s")
        singular = singular if singular == "USD" else singular if len(singular) < 2 else singular.lower()
        out.append(_SAME_UNITS.get(singular, singular) + power + exponent)
    if len(out) == 2 and out[0] == "square":
        out = [out[1] + "^2"]
    if len(out) == 2 and out[0] == "cubic":
        out = [out[1] + "^3"]
    spelled = " ".join(out)
    return None if spelled in ("", "unit") else spelled


# --- numbers ---------------------------------------------------------------------------------------------------------

_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d{1,3}(?: \d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)"
_DECIMAL = re.compile(rf"({_UNSIGNED})(?:[eE]([-+]?\d{{1,3}}))?", re.ASCII)
_SCIENTIFIC = re.compile(rf"({_UNSIGNED}) ?(?:\\times|\\cdot|\*) ?10 ?\^ ?(?:\{{([-+]?\d{{1,3}})\}}|(\d))", re.ASCII)
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline ?\{(\d+)\}", re.ASCII)
_FRACTION = re.compile(
    rf"(?:(\d+) )?({_UNSIGNED}) ?/ ?({_UNSIGNED})|(?:(\d+) ?)?\\frac ?(?:\{{ ?(-?{_UNSIGNED}) ?\}}|(\d)) ?"
    rf"(?:\{{ ?(-?{_UNSIGNED}) ?\}}|(\d))",
    re.ASCII,
)


def _plain(numeral: str) -> Fraction:
    return Fraction(numeral.replace(",", "").replace(" ", "").rstrip("."))


def number(text: str) -> Fraction | None:
    """The rational number that a normalised text is, exactly; None if it is none, or has an exponent over 999."""
    text = text.strip()
    sign = 1
    while text[:1] in ("-", "+"):
        if text[0] == "-":
            sign = -sign
        text = text[1:].lstrip()
        if sign == -1 and text[:1] in ("-", "+"):
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
    def of(text: str) -> "Quantity":
        """Read normalised text."""
        text, unit = split_unit(text)
        percent = text.endswith("%")
        text = text.removesuffix("%").strip()
        return Quantity(text, number(text), unit, percent)


def same_quantity(gold: Quantity, given: Quantity, same: Callable[[str, str], bool]) -> bool:
    """Whether two quantities are the same; `same` decides about texts that are no rational numbers."""
    if gold.unit and given.unit:
        if gold.unit != given.unit:
            return False
    elif gold.unit or given.unit:  # a lone letter is a unit if the other side says so
        gold, given = _with_unit(gold, given.unit), _with_unit(given, gold.unit)
    if gold.value is None or given.value is None:
        # a percentage of something that is no number is compared with another one only
        return gold.percent == given.percent and same(gold.text, given.text)
    if gold.percent == given.percent:
        return gold.value == given.value
    rate, bare = (gold.value, given.value) if gold.percent else (given.value, gold.value)
    return rate / 100 == bare or (rate == bare and abs(bare) > 1)


def _with_unit(quantity: Quantity, unit: str | None) -> Quantity:
    """The quantity without a lone letter at its end that is this unit."""
    match = _LONE_UNIT.fullmatch(quantity.text)
    if unit is None or match is None or match[2].lower() != unit.lower():
        return quantity
    return Quantity(match[1], number(match[1]), unit, quantity.percent)
