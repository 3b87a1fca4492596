"""The contract of a generator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from core.errors import GrpoLabError
from core.generation.episodes import Episodes
from core.model.policy import Policy
from core.model.truncation import WHOLE, Truncation
from core.parts.batch import pad_tokens
from core.randomness import row_keys, turn_keys

PER_TOKEN: Final = ("tokens", "logps", "entropy", "support_logmass", "support")
"""What is known of every token that is drawn, in the order in which generators draw it."""


@dataclass(frozen=True, eq=False)
class Generation:
    """Responses to P prompts, S each; T is the longest response's length."""

    tokens: Tensor
    """[P, S, T], int64: the end-of-sequence token included, 0 after it."""
    mask: Tensor
    """[P, S, T], bool: tokens of the response."""
    logps: Tensor
    """[P, S, T], float32: log-probability of each token under the distribution it was drawn from, after temperature and
    truncation.
    """
    entropy: Tensor
    """[P, S, T], float32: entropy of that distribution, in nats."""
    truncated: Tensor
    """[P, S], bool: cut at the limit (finish reason `length`, else `stop`)."""
    support_logmass: Tensor | None = None
    """[P, S, T], float32: log S, S the probability that the tokens which a truncation kept had before; None where
    nothing is cut, or where the generator does not know.
    """
    support: Tensor | None = None
    """[P, S, T, V], bool: the tokens that a truncation kept, where the request asks for them."""
    sampled_mask: Tensor | None = None
    """[P, S, T] as in `Batch`, here and below; None of responses in one turn, which no environment answers."""
    turns: Tensor | None = None
    turn_rewards: Tensor | None = None
    anchors: Tensor | None = None
    tool_calls: Tensor | None = None

    @property
    def written(self) -> Tensor:
        """[P, S, T], bool: tokens that the policy wrote."""
        return self.mask if self.sampled_mask is None else self.sampled_mask

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

    @classmethod
    def of_episodes(cls, episodes: Episodes, drawn: Sequence[Tensor]) -> "Generation":
        """What came of episodes: `drawn` are the columns of all rows, [P, S, N] each, in the order of `PER_TOKEN`."""
        P, S, _ = drawn[0].shape
        T, device = int(episodes.length.max()), drawn[0].device
        mask = (torch.arange(T) < episodes.length[:, None]).view(P, S, T).to(device)
        filled = {
            name: x[:, :, :T].masked_fill(~mask.view(*mask.shape, *(1,) * (x.ndim - 3)), 0)
            for name, x in zip(PER_TOKEN, drawn, strict=False)
        }
        held = {name: x.reshape(P, S, T).to(device) for name, x in episodes.columns(T).items()}
        return cls(**filled, mask=mask, truncated=episodes.truncated.view(P, S).to(device), **held)

    @staticmethod
    def concat(parts: "Sequence[Generation]", dim: int = 0) -> "Generation":
        """Responses to the prompts of several, in order, padded to the widest T; with `dim` 1, to the same prompts."""
        T = max(part.tokens.shape[-1] for part in parts)

        def joined(name: str) -> Any:
            # responses to no prompts are without what a truncation leaves behind
            tensors = [x for part in parts if (x := getattr(part, name)) is not None]
            return torch.cat([pad_tokens(x, T) for x in tensors], dim) if tensors else None

        return Generation(**{field.name: joined(field.name) for field in fields(Generation)})

    def select(self, prompts: Sequence[int]) -> "Generation":
        """Responses to these prompts, in this order."""
        return self._mapped(lambda x: x[list(prompts)])

    def to(self, device: torch.device | str) -> "Generation":
        """The same on another device."""
        return self._mapped(lambda x: x.to(device))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> "Generation":
        """With all that is known changed."""
        return replace(self, **{name: change(x) for name, x in vars(self).items() if x is not None})


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
    truncation: Truncation = WHOLE
    """Of what is sampled; the greedy response to a prompt is the same with any."""
    for_training: bool = False
    """Whether the responses are to be trained on; else they are an evaluation's, or a baseline."""
    with_support: bool = False
    """Whether the tokens that the truncation kept are asked for."""
    sample_numbers: Sequence[int] | None = None
    """With one sample of each prompt, which of its slot's samples it is; None: from 0 up."""
    turn: int = 1
    """Of their episodes which turn these are, by which noise is keyed."""
    episodes: Episodes | None = None
    """What answers at the ends of turns, where the responses are to be of several."""

    @property
    def slot_numbers(self) -> tuple[int, ...]:
        """The slot of every prompt."""
        return tuple(range(len(self.prompts)) if self.slots is None else self.slots)

    def noise_keys(self, device: torch.device | str = "cpu") -> Tensor:
        """[P, S]: one for every response, by noise key, slot, sample and turn."""
        slots = torch.tensor(self.slot_numbers, dtype=torch.long).to(device, non_blocking=True)[:, None]
        samples = torch.arange(self.samples, device=device)
        if self.sample_numbers is not None:
            samples = torch.tensor(self.sample_numbers, dtype=torch.long).to(device, non_blocking=True)[:, None]
        return turn_keys(row_keys(self.noise_key or 0, slots, samples), self.turn)

    @property
    def cut(self) -> Truncation | None:
        """The truncation, where it can cut anything off."""
        return self.truncation if self.truncation.cuts and self.noise_key is not None else None


class Generator(Protocol):
    """Turns prompts into responses."""

    def generate(self, policy: Policy, requests: Sequence[Request]) -> list[Generation]:
        """Responses to each request, in order; a backend that batches may answer all of them together.

        The noise of a token is a function of (noise key, prompt slot, sample, turn, position in the turn) and nothing
        else. A request with `episodes` is only for generators that declare `plays_episodes`.
        """
        ...


def reports_distributions(generator: Generator) -> bool:
    """Whether a generator knows the distributions that it draws from: their entropies and what a truncation keeps.

    One that only hands out log-probabilities of sampled tokens, as an engine does, does not.
    """
    return bool(getattr(generator, "reports_distributions", getattr(generator, "exact", False)))


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
