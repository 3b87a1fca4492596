"""Where the responses that are trained on come from, if not from the policy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from core.generation.base import Generation
from core.generation.steps import Failure
from core.model.policy import Policy
from core.parts.environments import Turn
from core.parts.problems import Problem, Task


@dataclass(frozen=True, eq=False)
class Sampled:
    """A round's problems, their prompts as tokens, and what the policy responded."""

    problems: tuple[Problem, ...]
    prompts: tuple[Tensor, ...]
    generation: Generation
    texts: tuple[tuple[str, ...], ...]
    """What is graded: of an episode what the policy wrote last."""
    token_version: Tensor | None = None
    """See `Batch`."""
    labels: Tensor | None = None
    """[P, G]: rewards that came with the responses, which then train in place of the verifiers'."""
    is_verifiable: bool = True
    """Whether the problems come with what their verifiers need; else labels are all that is known."""
    transcripts: tuple[tuple[tuple[Turn, ...], ...], ...] | None = None
    """Of episodes, turn by turn."""
    failures: Mapping[int, Failure] = field(default_factory=dict)
    """By prompt, why an environment could not go on."""

    def select(self, groups: Sequence[int]) -> "Sampled":
        """These groups, in this order."""
        return Sampled(
            tuple(self.problems[p] for p in groups),
            tuple(self.prompts[p] for p in groups),
            self.generation.select(groups),
            tuple(self.texts[p] for p in groups),
            None if self.token_version is None else self.token_version[list(groups)],
            transcripts=self.transcripts and tuple(self.transcripts[p] for p in groups),
            failures={i: self.failures[p] for i, p in enumerate(groups) if p in self.failures},
        )

    @staticmethod
    def concat(parts: "Sequence[Sampled]") -> "Sampled":
        """What the policy responded in several calls, as if to the problems of all."""
        generation = Generation.concat([part.generation for part in parts])
        T = generation.mask.shape[-1]
        versions = [part.token_version for part in parts if part.token_version is not None]
        return Sampled(
            tuple(problem for part in parts for problem in part.problems),
            tuple(prompt for part in parts for prompt in part.prompts),
            generation,
            tuple(texts for part in parts for texts in part.texts),
            torch.cat([F.pad(x, (0, T - x.shape[-1])) for x in versions]) if len(versions) == len(parts) else None,
            transcripts=tuple(group for part in parts for group in part.transcripts or ()) or None,
            failures={
                sum(len(part.problems) for part in parts[:i]) + p: failure
                for i, part in enumerate(parts)
                for p, failure in part.failures.items()
            },
        )


@dataclass(frozen=True, eq=False)
class RolloutContext:
    """What a source may know of the run: enough to choose and tokenize a round's rows."""

    policy: Policy
    seed: int
    task: Task
    prompts: int
    """Prompts to a round."""
    max_tokens: int
    """Of a response."""
    step: int
    round: int
    draw_problems: Callable[[], tuple[Problem, ...]]
    """The problems that the policy itself would be given in this round."""


class Source(Protocol):
    """Where the responses that are trained on come from, if not from the policy: stored pairs, worked solutions."""

    group_size: int
    """Responses to a prompt."""

    def sample(self, context: RolloutContext) -> Sampled:
        """The responses of a round; a pure function of the run's seed, step and round."""
        ...
