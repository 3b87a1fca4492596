"""What a task hands out and a reward hands back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, SupportsFloat, TypeAlias

from core.errors import GrpoLabError
from core.parts.registry import Part

Messages: TypeAlias = Sequence[Mapping[str, Any]]
"""Chat messages: each a role and text, and what else the chat template makes something of, such as `tool_calls`."""


@dataclass(frozen=True)
class Problem:
    """One question with what a verifier needs to judge a response.

    `prompt` is plain text, or chat messages that the tokenizer's template turns into text. `index` is the problem's
    place in the stream it was drawn from. `family` names the template or source that related questions share, where
    there are several. `place` is the file and line that it was read from, for messages.
    """

    prompt: str | Messages
    answer: str
    index: int
    data: Mapping[str, Any] = field(default_factory=dict)
    family: str = ""
    place: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True)
class Score:
    """A reward's value for one response, and the verifier's verdict.

    `correct` is the strict verdict, right and in the demanded form, which dynamic sampling and accuracy read; `lenient`
    also counts a right answer in the wrong form.
    `cause` is why a response scored 0 for a reason of its own (unparsable, too slow).
    """

    value: float
    correct: bool
    lenient: bool = False
    cause: str | None = None

    @staticmethod
    def of(result: object) -> "Score":
        """A verifier's plain return value as a `Score`: a number counts as correct from 1 up.

        Raises `GrpoLabError` for what is neither a `Score` nor a number nor a bool; text that spells a number is none.
        """
        if isinstance(result, Score):
            return Score(float(result.value), bool(result.correct), bool(result.lenient), result.cause)
        if not isinstance(result, SupportsFloat) or getattr(result, "ndim", None):
            raise GrpoLabError(f"a reward must return a number, a bool or a Score, not {result!r:.80}")
        value = float(result)
        return Score(value, correct=value >= 1, lenient=value >= 1)


class Task(Protocol):
    """A source of problems, each a pure function of (split, seed, index), with its verifier."""

    rewards: tuple[Part, ...]
    """What judges a response when the recipe names nothing else; the first gives the verdict."""
    suites: tuple[str, ...]
    """Test splits; `train`, `tune` and all of these are disjoint. The first is the primary one."""
    patterns: Mapping[str, str]
    """Ways of answering that tests count, as regular expressions by name: working step by step, checking oneself."""

    def problem(self, split: str, seed: int, index: int) -> Problem:
        """Problem `index` of the stream that `seed` picks in `split`."""
        ...
