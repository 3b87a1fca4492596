"""Where runs on other machines tell the driver of their steps, and hear whether they are to stop; a Ray actor."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias

Key: TypeAlias = tuple[str, int]
"""Arm and seed."""


class Mailbox:
    """The driver takes what runs have told."""

    def __init__(self) -> None:
        self._told: list[tuple[str, Key, Any]] = []
        self._attempts: Counter[Key] = Counter()
        self._stopping = False

    def begin(self, key: Key, node: str) -> int:
        """A run begins on a node; the number of this attempt, or 0 when nothing is to begin any more."""
        if self._stopping:
            return 0
        self._attempts[key] += 1
        self._told.append(("begin", key, (self._attempts[key], node)))
        return self._attempts[key]

    def step(self, key: Key, record: Mapping[str, Any]) -> bool:
        """A run has made a step; whether it is to stop."""
        self._told.append(("step", key, record))
        return self._stopping

    def say(self, key: Key, line: str) -> None:
        """A run has a word to the user."""
        self._told.append(("said", key, line))

    def take(self) -> list[tuple[str, Key, Any]]:
        """What has been told since the last time."""
        told, self._told = self._told, []
        return told

    def stop(self) -> set[Key]:
        """Ask all runs to stop; returns those that have begun."""
        self._stopping = True
        return set(self._attempts)
