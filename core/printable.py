"""Somebody else's text as a terminal may be given it."""

import unicodedata


def printable(text: str, *, lines: bool = True) -> str:
    """The text without control characters, which a terminal obeys, or marks that turn the direction of writing.

    Tabs and line ends stay, or become blanks where there are to be no `lines`.
    """
    if not lines:
        text = " ".join(text.split())
    return "".join(c for c in text if c in "\n\t" or (unicodedata.category(c) != "Cc" and c not in _TURNS))


_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
