"""The Ray actor through which runs on other machines report their steps and learn whether to stop."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias

Key: TypeAlias = tuple[str, int]
"""Arm and seed."""


class Mailbox:
    """Collects the messages of runs until the driver drains them."""

    def __init__(self) -> None:
        self._messages: list[tuple[str, Key, Any]] = []
        self._attempts: Counter[Key] = Counter()
        self._stopping = False

    def begin(self, key: Key, node: str) -> int:
        """A run begins on a node; returns the number of this attempt, or 0 when all runs are stopping."""
        if self._stopping:
            return 0
        self._attempts[key] += 1
        self._messages.append(("begin", key, (self._attempts[key], node)))
        return self._attempts[key]

    def step(self, key: Key, record: Mapping[str, Any]) -> bool:
        """A run has made a step; returns whether it must stop."""
        self._messages.append(("step", key, record))
        return self._stopping

    def notify(self, key: Key, line: str) -> None:
        """A run sends a line for the user."""
        self._messages.append(("message", key, line))

    def drain(self) -> list[tuple[str, Key, Any]]:
        """The messages since the last call."""
        messages, self._messages = self._messages, []
        return messages

    def stop(self) -> set[Key]:
        """Make all runs stop; returns those that have begun."""
        self._stopping = True
        return set(self._attempts)
