r"""Characters that write what plain ones do, as plain text or LaTeX: ７２, √2, 10²³, 𝟕, "72。", a blank of no width.

Not every character that looks like a plain one is read as one: 5² is no 52, ① no 1, a Cyrillic х no x, ℝ no R, and text
that an override turns round stays as it is.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Final

_FOLDED: Final = {"<wide>", "<narrow>", "<font>", "<noBreak>", "<small>"}
"""Kinds of compatibility characters that differ from the plain one in looks only."""
_INVISIBLE: Final = "\u200b\u200c\u200d\u200e\u200f\u2060\u2061\ufeff\ufe0e\ufe0f"
_GREEK: Final = "alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau phi chi psi omega"
_CAPITALS: Final = "Gamma Delta Theta Lambda Phi Psi Omega"
_SAME: Final = {
    sign: f"\\{name} "
    for signs, names in (
        ("αβγδεζηθκλμνξπρστφχψωΓΔΘΛΦΨΩ", f"{_GREEK} {_CAPITALS}"),
        ("⋅∙·×∞≤⩽≥⩾≠", "cdot cdot cdot times infty le le ge ge ne"),
        ("∪∩∖∅±∈", "cup cap setminus emptyset pm in"),
    )
    for sign, name in zip(signs, names.split(), strict=True)
} | {
    **{sign: f"\\mathbb{{{letter}}}" for sign, letter in zip("ℝℕℤℚℂ", "RNZQC", strict=True)},
    **dict.fromkeys(_INVISIBLE, ""),
    **dict.fromkeys("−–—‐‒―", "-"),
    **dict.fromkeys("⁄∕÷", "/"),
    **dict.fromkeys("\t\n\r`", " "),
    **{"\u2062": "\\cdot ", "\u2063": ",", "\u2064": "+", "∗": "*", "°": "^\\circ ", "。": ".", "、": ","},
}
_BLANKS: Final = str.maketrans("\t\n\r`", "    ")
_RAISED: Final = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True))
_LOWERED: Final = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙₖ", "0123456789+-()nk", strict=True))
_INDICES: Final = re.compile(f"([{''.join(_RAISED)}]+)|([{''.join(_LOWERED)}]+)")
_ROOT: Final = re.compile(
    r"([√∛∜])\s*(?=[A-Za-z({]|\d+(?:\.\d+)?|\\pi(?![A-Za-z]))|(?<![\\A-Za-z])(sqrt)\s*(?=[({]|\d)"
)
_ARGUMENT: Final = re.compile(r"\d+(?:\.\d+)?|\\?[A-Za-z]+|.")
_ORDER: Final = {"√": "", "∛": "[3]", "∜": "[4]", "sqrt": ""}


@lru_cache(4096)
def _plain(character: str) -> str:
    """One character in plain writing; itself where it has none."""
    if character in _SAME:
        return _SAME[character]
    kind, _, _ = unicodedata.decomposition(character).partition(" ")
    if kind in _FOLDED or "Ⅰ" <= character <= "ⅿ":
        folded = unicodedata.normalize("NFKC", character)
        return _SAME.get(folded, folded)
    if kind == "<fraction>" and "⁄" in (parts := unicodedata.normalize("NFKC", character)):
        above, _, below = parts.partition("⁄")
        return f"\\frac{{{above}}}{{{below}}}" if below else character
    return " " if character.isspace() else character


def _index(match: re.Match[str]) -> str:
    sign, signs, plain = ("^", match[1], _RAISED) if match[1] else ("_", match[2], _LOWERED)
    return f"{sign}{{{''.join(plain[c] for c in signs)}}}"


def _closes(text: str, opening: int) -> int | None:
    """Where the bracket that opens here is closed."""
    pair, level = ("(", ")") if text[opening] == "(" else ("{", "}"), 0
    for place in range(opening, len(text)):
        level += (text[place] == pair[0]) - (text[place] == pair[1])
        if level == 0:
            return place
    return None


def _with_roots(text: str) -> str:
    r"""With √2, √(x+1) and sqrt(2) as \sqrt{2}; a root of nothing stays."""
    # from the right, so that the roots within an argument are written already
    for mark in reversed(list(_ROOT.finditer(text))):
        start, root = mark.end(), f"\\sqrt{_ORDER[mark[1] or mark[2]]}"
        if text[start] in "({":
            end = _closes(text, start)
            if end is not None:
                text = f"{text[: mark.start()]}{root}{{{text[start + 1 : end]}}}{text[end + 1 :]}"
            continue
        argument = _ARGUMENT.match(text, start)
        assert argument
        whole = argument[0][:1] if argument[0][0].isalpha() else argument[0]
        text = f"{text[: mark.start()]}{root}{{{whole}}}{text[start + len(whole) :]}"
    return text


def plain(text: str) -> str:
    """The text with every character that has a plain way of writing in that way."""
    ascii_only = text.isascii()
    text = text.translate(_BLANKS) if ascii_only else "".join(map(_plain, _INDICES.sub(_index, text)))
    return _with_roots(text) if _ROOT.search(text) else text
