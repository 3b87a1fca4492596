"""Where the responses that are trained on come from, if not from the policy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from core.generation.base import Generation
from core.model.policy import Policy
from core.parts.problems import Problem, Task


@dataclass(frozen=True, eq=False)
class Sampled:
    """A round's problems, their prompts as tokens, and what the policy responded."""

    problems: tuple[Problem, ...]
    prompts: tuple[Tensor, ...]
    generation: Generation
    texts: tuple[tuple[str, ...], ...]
    token_version: Tensor | None = None
    """See `Batch`."""
    labels: Tensor | None = None
    """[P, G]: rewards that came with the responses, which then train in place of the verifiers'."""
    is_verifiable: bool = True
    """Whether the problems come with what their verifiers need; else labels are all that is known."""


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
