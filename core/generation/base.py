"""The contract of a generator."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from core.errors import GrpoLabError
from core.policy import Policy


@dataclass(frozen=True, eq=False)
class Generation:
    """Responses to P prompts, S each; T is the longest response's length."""

    tokens: Tensor
    """[P, S, T], int64: the end-of-sequence token included, 0 after it."""
    mask: Tensor
    """[P, S, T], bool: tokens of the response."""
    logps: Tensor
    """[P, S, T], float32: log-probability of each token under the distribution it was drawn from."""
    entropy: Tensor
    """[P, S, T], float32: entropy of that distribution, in nats."""
    truncated: Tensor
    """[P, S], bool: cut at the limit (finish reason `length`, else `stop`)."""


class Generator(Protocol):
    """Turns prompts into responses."""

    def generate(
        self,
        policy: Policy,
        prompts: Sequence[Tensor],
        *,
        samples: int,
        max_tokens: int,
        temperature: float,
        noise_key: int | None,
    ) -> Generation:
        """`samples` responses of at most `max_tokens` tokens to each prompt; greedy ones when `noise_key` is None.

        The noise of a token is a function of (noise_key, prompt slot, sample, position) and nothing else.
        """
        ...


def check_context(policy: Policy, prompts: Sequence[Tensor], max_tokens: int) -> None:
    """Raise `GrpoLabError` for the first prompt that leaves no room for a whole response."""
    for slot, prompt in enumerate(prompts):
        if not 1 <= len(prompt) <= policy.context - max_tokens:
            raise GrpoLabError(
                f"prompt {slot} has {len(prompt)} tokens: with train.max_tokens = {max_tokens} it must have "
                f"between 1 and {policy.context - max_tokens} to fit the model's context of {policy.context}; "
                "shorten the prompts or "
                "lower train.max_tokens"
            )
