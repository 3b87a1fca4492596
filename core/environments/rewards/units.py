r"""The unit at the end of an answer: 5 cm, 18 dollars a day, \$18, 12 red balls, 10\text{ m/s}, 90^\circ.

What stands behind a number is a unit if it is a measure, a currency or things that are counted, and perhaps "per" what.
Nothing else is: 5\text{6}, 5\text{.5}, 5\mathrm{i}, 5 doubled, 5\text{k}, 5 tens are no 5. A lone letter outside \text
is a variable.
"""

import re
from typing import Final


def _table(lines: str) -> dict[str, str]:
    """Each line's words to its first one."""
    return {word: line.split()[0] for line in lines.strip().splitlines() for word in line.split()}


def _words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PREFIXES: Final = {
    "": "",
    "milli": "m",
    "centi": "c",
    "kilo": "k",
    "mega": "M",
    "giga": "G",
    "micro": "μ",
    "nano": "n",
}
_PREFIXED: Final = {
    prefix + name: letter + symbol
    for prefix, letter in _PREFIXES.items()
    for name, symbol in _table(
        """
        m meter metre
        g gram gramme
        l liter litre
        s second
        W watt
        V volt
        A ampere
        N newton
        J joule
        Hz hertz
        Pa pascal
        cal calorie
        B byte
        bit
        ohm
        mol mole
        """
    ).items()
    if name != symbol or not prefix
}
_SYMBOLS: Final = "Hz|Pa|eV|cal|mol|Wh|[mgslLVWANJKCFThH]"
_MEASURES: Final = {word: unit for word, unit in _PREFIXED.items() if len(word) > 2} | _table(
    """
    s sec
    min minute
    h hour hr
    day
    week
    month
    year yr
    decade
    century centurie
    in inche inch
    ft foot feet
    yd yard
    mi mile
    acre
    ha hectare
    lb
    oz ounce
    ton tonne
    gal gallon
    qt quart
    pt pint
    point pts
    cup
    tbsp tablespoon
    tsp teaspoon
    ° degree circ deg
    rad radian
    mi/h mph
    km/h kph kmh kmph
    knot
    am
    pm
    person
    $ dollar USD buck
    cent
    € euro EUR
    £ sterling GBP quid
    pound
    penny pence pennie
    ¥ yen JPY
    yuan
    ₹ rupee INR
    franc
    peso
    ₩ won
    ₽ ruble
    """
)
"""Words in the singular and symbols, to one symbol each."""
_BARE: Final = _words_of(
    """
    cm mm km kg mg ml mL min sec hr in ft mi lb yd mph kph kmh USD EUR GBP am pm day oz pts cup men egg box yr yen won
    ton bit way gal deg
    """
)
"""Words of two or three letters that are no product of variables outside \\text either."""
_COUNTED: Final = _table(
    """
    person people
    man men
    woman women
    child children
    mouse mice
    goose geese
    tooth teeth
    sheep
    fish
    deer
    die dice
    money
    time
    egg
    box boxe
    way
    th st nd rd
    apple
    student
    """
) | {"unit": ""}
"""Things of which the plural does not end in s, and some in the singular."""
_KEPT: Final = {"light", "nautical", "fluid", "metric"}
"""Words before a measure that make it another one."""
_NO_UNITS: Final = _words_of(
    """
    hundred hundreds thousand thousands million millions billion billions trillion trillions dozen dozens score scores
    tens ones twos threes fours fives sixes sevens eights nines gross half halves third thirds quarter quarters fourth
    fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths hundredth hundredths
    thousandth thousandths percent percents percentage doubles triples factorial factorials squared cubed root
    roots power powers double doubled triple tripled quadruple quadrupled halved negated inverted inverse inverses
    reciprocal reciprocals negative negatives minus plus times over point mod modulo modulus base divided multiplied
    added subtracted increased decreased reduced raised rounded choose sqrt sinh cosh tanh cos sin tan log infinity
    imaginary conjugate fold twice thrice equals equal exceeds differs means less more most least than fewer greater
    and or nor not but no never neither none isn't without with except if when unless otherwise else where while for to
    until till through up off out by is are was were be been being has have had does do did maybe perhaps possibly
    probably always sometimes guess guesses wrong incorrect false true invalid errors error mistake mistakes instead
    versus vs also other others another remainder remainders digits decimals repeating recurring approximately about
    around roughly nearly almost
    """
)
"""Words that make another number of the one before them, deny it, or doubt it."""
_WHERE: Final = _words_of("of in on at from")
_HOW: Final = _words_of("left total altogether old long tall high wide deep away apart ago remaining")
"""Words with which a phrase goes on that says of what, or where; after the first ones something must stand."""
_PER: Final = frozenset({"per", "a", "an", "each", "every", "/"})
_TOKEN: Final = re.compile(
    r"\\text\{([^{}]*)\}|(?<![\\A-Za-z])[A-Za-z]+|[€£¥₹₩₽$]|/|\^(?:\{-?\d\}|\d)|\\(?:cdot|times)(?![A-Za-z])"
)
_IN_TEXT: Final = re.compile(r"(?:[A-Za-z.'’/ $€£¥₹₩₽-]|\\cdot |\^\{?-?\d\}?)*")
_WORD: Final = re.compile(r"\\cdot|[A-Za-z]+(?:['’-][A-Za-z]+)*|/|\^\{?-?\d\}?|[€£¥₹₩₽$]")
_SYMBOL: Final = re.compile(f"[mcknμGM]?(?:{_SYMBOLS})")
_DEGREES: Final = re.compile(r"\s*\^\s*\\circ\s*(?:\\text\{\s*([CF])\s*\}|([CF]))?$")
_AREA: Final = re.compile(r"(?<=\d) m\^[23]$")
"""Square and cubic meters outside \\text, which a gold answer may mean as a power of a variable."""
_LAST_WORD: Final = re.compile(r"(.*[\d}]) ?([A-Za-z]+)")
_LONGEST: Final = 8
"""Words of a unit."""


def split_unit(text: str, *, trusted: bool = False) -> tuple[str, str | None]:
    """Normalised text without the unit at its end, and the unit in one spelling; None if it has none or says nothing.

    `trusted`: of a gold answer, where an unknown word behind a number is a unit too.
    """
    if match := _DEGREES.search(text):
        return text[: match.start()], f"°{match[1] or match[2] or ''}"
    if not trusted and (match := _AREA.search(text)):
        return text[: match.start()], match[0].strip()
    end, marks = len(text.rstrip()), list[re.Match[str]]()
    for mark in reversed(list(_TOKEN.finditer(text))):
        if text[mark.end() : end].strip() or len(marks) == 2 * _LONGEST:
            break
        marks.insert(0, mark)
        end = mark.start()
    for first, mark in enumerate(marks):
        before = text[: mark.start()].rstrip()
        if (
            not before
            or mark[0][0] == "^"
            or not (before[-1] in "})." or before[-1].isdecimal() or mark[1] is not None)
        ):
            continue
        if mark[1] in ("K", "T") and len(before) == mark.start():  # 10K is ten thousand
            continue
        words = _words(marks[first:])
        unit = None if words is None else _read(words, trusted)
        if unit is not None:
            return before, unit or None
    return text, None


def _words(marks: list[re.Match[str]]) -> list[tuple[str, bool]] | None:
    r"""The words of a phrase, with powers, and whether each is in \text; None if something else stands there too."""
    words: list[tuple[str, bool]] = []
    for mark in marks:
        inside = mark[1]
        if inside is not None and not _IN_TEXT.fullmatch(inside):
            return None
        for piece in _WORD.findall(inside) if inside is not None else [mark[0]]:
            if piece[0] == "^":
                if not words or "^" in words[-1][0]:
                    return None
                words[-1] = (words[-1][0] + "^" + piece.strip("^{}"), words[-1][1])
            elif piece[0] != "\\":
                words.append((piece, inside is not None))
    if len(words) == 3 and words[1][0] == "/" and len(words[0][0]) < 3:  # 5 m/s is no product of variables
        return [(word, True) for word, _ in words]
    return words


def _read(words: list[tuple[str, bool]], trusted: bool) -> str | None:
    """A phrase as counted thing and what it is per; "" if it says nothing, None if it is no unit."""
    if not words or len(words) > _LONGEST:
        return None
    parts, per = [list[tuple[str, bool]]()], list[str]()
    for word, in_text in words:
        if word.lower() in _PER:
            parts.append([])
            per.append(word.lower())
        else:
            parts[-1].append((word, in_text))
    counted = _noun(parts[0], trusted) if parts[0] else ""
    if counted is None or not (parts[0] or per):
        return None
    below = []
    for mark, part in zip(per, parts[1:], strict=True):
        if not part and mark != "each":
            return None
        plain = [(word, in_text or mark != "/") for word, in_text in part]
        what = _noun(plain, trusted=True) if part else ""
        if what is None:
            return None
        below += [what] if what else []
    above, _, already = counted.partition("/")
    below = ([already] if already else []) + below
    return "/".join([above, *below])


def _noun(words: list[tuple[str, bool]], trusted: bool) -> str | None:
    """A measure or a counted thing, with what stands before and behind it left out; None if it is neither."""
    for place, (word, _) in enumerate(words):
        if word.lower() in _HOW or (word.lower() in _WHERE and place < len(words) - 1):
            if any(other.lower() in _NO_UNITS for other, _ in words[place:]):
                return None
            words = words[:place]
            break
    if not words:
        return ""
    if len(words) > 1 and words[-1][0] in ("squared", "cubed"):
        words = [*words[:-2], (words[-2][0] + ("^2" if words[-1][0] == "squared" else "^3"), words[-2][1])]
    if any(word.partition("^")[0].lower() in _NO_UNITS for word, _ in words):
        return None
    symbols = [_symbol(*word) for word in words]
    if len(words) > 1 and all(symbols):  # m s^-1, N m
        over = sorted(symbol for symbol in symbols if symbol and "^-" not in symbol)
        under = sorted(symbol.replace("^-1", "").replace("^-", "^") for symbol in symbols if symbol and "^-" in symbol)
        return "/".join(filter(None, ("·".join(over), "·".join(under))))
    *before, (head, in_text) = words
    if any(len(word) < 3 and not inside and word != "sq" for word, inside in before):  # 6x cm
        return None
    base, _, power = head.partition("^")
    unit = _symbol(base, in_text) or _thing(base, in_text, trusted)
    if unit is None:
        return None
    for word, _ in before:
        if word.lower() in ("square", "sq"):
            power = "2"
        elif word.lower() == "cubic":
            power = "3"
        elif word.lower() in _KEPT:
            unit = f"{word.lower()} {unit}"
    return f"{unit}^{power}" if power and unit else unit


def _symbol(word: str, in_text: bool) -> str | None:
    """A measure by its name or symbol, with its power; letters outside \\text only where they can be nothing else."""
    base, mark, power = word.partition("^")
    lower = base.lower()
    singular = lower.removesuffix("s") if len(base) > 2 else lower
    if not in_text and base.isalpha() and len(base) < 4 and base not in _BARE and singular not in _BARE:
        return None
    if in_text and _SYMBOL.fullmatch(base):
        return ("l" if base == "L" else base.replace("L", "l")) + mark + power
    symbol = _MEASURES.get(base) or _MEASURES.get(lower) or _MEASURES.get(singular)
    if symbol is None and _SYMBOL.fullmatch(base) and base in _BARE:
        symbol = base.replace("L", "l")
    return symbol + mark + power if symbol else None


def _thing(word: str, in_text: bool, trusted: bool) -> str | None:
    """Something that is counted, in the singular."""
    lower = word.lower()
    if lower in _COUNTED or lower.removesuffix("s") in _COUNTED:
        return _COUNTED.get(lower, _COUNTED.get(lower.removesuffix("s")))
    plural = len(lower) >= 4 and lower.endswith("s") and not lower.endswith("ss")
    if plural or (trusted and len(lower) >= (3 if in_text else 4)):
        return lower.removesuffix("s")
    return None


def same_unit(one: str, other: str) -> bool:
    """Whether two units are one; a pound is money or weight, and what is counted per day may be left out."""
    if one == other or {one, other} in ({"pound", "lb"}, {"pound", "£"}):
        return True
    (above, *below), (above_too, *below_too) = one.split("/"), other.split("/")
    return bool(below) and below == below_too and not (above and above_too)


def without(text: str, unit: str) -> str | None:
    """The text without a last word or lone letter that is this unit, which only the other answer names; else None."""
    match = _LAST_WORD.fullmatch(text)
    if match is None or match[2].lower() in _NO_UNITS:
        return None
    lone = len(match[2]) == 1 and match[2] in "mgshlLVWNJKACd" and match[2].lower() == unit.lower()
    long = len(match[2]) > 1 and match[2].lower().removesuffix("s") == unit
    return match[1] if lone or long else None
