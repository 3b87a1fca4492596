"""What holds a copy of the weights and samples from it: an engine in this process, or a server."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from core.model.policy import Policy
from core.model.truncation import WHOLE, Truncation


@dataclass(frozen=True)
class Sample:
    """One response to be sampled."""

    prompt: list[int]
    max_tokens: int
    temperature: float
    """0 for a greedy response."""
    seed: int | None
    truncation: Truncation = WHOLE


@dataclass(frozen=True)
class Answer:
    """One response; the token that ended it is its last."""

    tokens: list[int]
    logps: list[float]
    truncated: bool


class Backend(Protocol):
    """What holds the copy of the weights."""

    loaded: "tuple[weakref.ref[Policy], int] | None"
    """Whose weights, and as of which of its versions; the weak reference does not keep the policy in memory."""

    def push(self, policy: Policy) -> None:
        """Bring the copy up to date."""
        ...

    def rest(self) -> None:
        """Nothing is to be sampled for a while."""
        ...

    def check(self) -> None:
        """Raise where the copy may have become another's since it was brought up to date."""
        ...

    def answer(self, samples: Sequence[Sample], end_tokens: Sequence[int]) -> list[Answer]:
        """Sample all of them together."""
        ...
