"""Ways of answering in English, as regular expressions that tests count by name."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

IN_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "step_by_step": r"(?im)^\s*(?:step \d|\d+[.)]\s)|\b(?:first|then|next|therefore)\b.*=",
        "self_check": r"(?i)\b(?:let(?: me|'s| us) (?:check|verify|double)|to (?:check|verify)|"
        r"double[- ]check|checking)\b",
        "backtracking": r"(?i)\b(?:wait|hold on|actually|that(?:'s| is) (?:not right|wrong)|try again|let me re\w+)\b",
    }
)
"""What a written solution shows: numbered or chained steps, checks of its own result, and second thoughts."""
