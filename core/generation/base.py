"""The contract of a generator."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from core.errors import GrpoLabError
from core.model.policy import Policy


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

    @classmethod
    def empty(cls, samples: int, device: torch.device) -> "Generation":
        """Responses to no prompts."""
        shape = (0, samples, 0)
        return cls(
            tokens=torch.zeros(shape, dtype=torch.long, device=device),
            mask=torch.zeros(shape, dtype=torch.bool, device=device),
            logps=torch.zeros(shape, device=device),
            entropy=torch.zeros(shape, device=device),
            truncated=torch.zeros(shape[:2], dtype=torch.bool, device=device),
        )

    @staticmethod
    def concat(parts: "Sequence[Generation]", dim: int = 0) -> "Generation":
        """Responses to the prompts of several, in order, padded to the widest T; with `dim` 1, to the same prompts."""
        T = max(part.tokens.shape[-1] for part in parts)

        def joined(name: str) -> Tensor:
            tensors = [getattr(part, name) for part in parts]
            return torch.cat([F.pad(x, (0, T - x.shape[-1])) if x.ndim == 3 else x for x in tensors], dim)

        return Generation(**{field.name: joined(field.name) for field in fields(Generation)})

    def select(self, prompts: Sequence[int]) -> "Generation":
        """Responses to these prompts, in this order."""
        return Generation(**{field.name: getattr(self, field.name)[list(prompts)] for field in fields(Generation)})

    def to(self, device: torch.device | str) -> "Generation":
        """The same on another device."""
        return Generation(**{field.name: getattr(self, field.name).to(device) for field in fields(Generation)})


@dataclass(frozen=True, eq=False)
class Request:
    """Prompts, and how often each is to be answered."""

    prompts: Sequence[Tensor]
    """Token ids, ragged."""
    samples: int
    max_tokens: int
    temperature: float = 1.0
    noise_key: int | None = None
    """Greedy responses where there is none."""
    slots: Sequence[int] | None = None
    """Which prompts of their rollout these are, by which noise is keyed; None: all, in order."""

    @property
    def slot_numbers(self) -> tuple[int, ...]:
        """The slot of every prompt."""
        return tuple(range(len(self.prompts)) if self.slots is None else self.slots)


class Generator(Protocol):
    """Turns prompts into responses."""

    def generate(self, policy: Policy, requests: Sequence[Request]) -> list[Generation]:
        """Responses to each request, in order; a backend that batches may answer all of them together.

        The noise of a token is a function of (noise key, prompt slot, sample, position) and nothing else.
        """
        ...


def check_context(policy: Policy, request: Request) -> None:
    """Raise `GrpoLabError` for the first prompt that leaves no room for a whole response."""
    most = policy.context - request.max_tokens
    for slot, prompt in zip(request.slot_numbers, request.prompts, strict=True):
        if not 1 <= len(prompt) <= most:
            raise GrpoLabError(
                f"prompt {slot} has {len(prompt)} tokens: with train.max_tokens = {request.max_tokens} it must have "
                f"between 1 and {most} to fit the model's context of {policy.context}; "
                "shorten the prompts or "
                "lower train.max_tokens"
            )
