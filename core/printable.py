"""Somebody else's text as a terminal may be given it."""

from typing import Final

_DROPPED: Final = dict.fromkeys(
    [
        *(code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"),
        *(0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
    ]
)
"""Control characters, which a terminal obeys, and marks that turn the direction of writing."""


def printable(text: str, *, lines: bool = True) -> str:
    """The text without control characters but tabs and line ends, which become blanks where `lines` are not wanted."""
    return (text if lines else " ".join(text.split())).translate(_DROPPED)
