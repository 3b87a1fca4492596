"""Splits by hash of the question: no question can be in two of them, whatever stream it was drawn from."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Final

from core.errors import GrpoLabError

SPLITS: Final[Mapping[str, Collection[int]]] = {"train": range(7), "tune": range(7, 8), "test": range(8, 10)}
"""Which tenths of all questions a split has."""


def tenth(question: str) -> int:
    """Which of ten parts of all questions this one is in."""
    return hashlib.blake2b(question.encode(), digest_size=1).digest()[0] % 10


def tenths(task: str, split: str, splits: Mapping[str, Collection[int]]) -> Collection[int]:
    """The tenths of a split; raises on one that the task does not have."""
    if split not in splits:
        raise GrpoLabError(f"{task} has no split '{split}'; it has: {', '.join(splits)}")
    return splits[split]
