"""What the phases of one run share, and what a run that goes on must know of the one before."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from torch import Tensor

from core.loop.recipe import Recipe
from core.loop.scoring import GraderLog
from core.model.policy import Policy
from core.parts.batch import Batch

Backward: TypeAlias = Callable[[Tensor], None]
"""Adds the gradient of a micro-batch's loss to what the policy's optimizer step will follow."""
COUNTED: Final = (
    "failed_updates",
    "seconds",
    "sampled_tokens",
    "kl_coef",
    "skipped_prompts",
    "has_learned",
    "best_reward",
    "had_spread",
    "all_right",
)
"""What a run that goes on must know of the one before, beside its log of graders."""


@dataclass
class RunState:
    """What the phases of one run share: its recipe, seed and policy, and what it has counted so far."""

    recipe: Recipe
    seed: int
    policy: Policy
    grader_log: GraderLog = field(default_factory=GraderLog)
    failed_updates: int = 0
    """Updates in a row, up to now, whose gradient was not finite."""
    learners: list[Callable[[Batch, Backward], Mapping[str, float]]] = field(default_factory=list)
    """What else learns from the rows of every optimizer step of the policy's; each says what is to be logged."""
    seconds: float = 0.0
    """Spent on training so far, evaluation apart."""
    sampled_tokens: int = 0
    """Every token generated for training so far: discarded groups and greedy baselines included, evaluation not."""
    skipped_prompts: int = 0
    """Drawn for training so far and passed over, in every arm alike, because they do not fit the context."""
    has_learned: bool = False
    """Whether any step so far had a group to train on."""
    best_reward: float = -math.inf
    """The highest that a response had before the first group was trained on."""
    had_spread: bool = False
    """Whether rewards differed within a group before the first was trained on."""
    all_right: bool = True
    """Whether no response was wrong before the first group was trained on."""

    @property
    def kl_coef(self) -> float:
        """The variant's KL coefficient, which may be adapted as the run goes on."""
        return self.recipe.variant.kl_coef

    @kl_coef.setter
    def kl_coef(self, value: float) -> None:
        self.recipe = replace(self.recipe, variant=replace(self.recipe.variant, kl_coef=value))

    def budget_share(self, step: int) -> float:
        """How much of its budget, in steps, tokens or seconds, the run has spent by the end of this step, 1 at most."""
        recipe = self.recipe
        spent = [step / recipe.steps]
        if recipe.token_budget is not None:
            spent.append(self.sampled_tokens / recipe.token_budget)
        if recipe.seconds_budget is not None:
            spent.append(self.seconds / recipe.seconds_budget)
        return min(1.0, max(spent))

    def state_dict(self) -> dict[str, Any]:
        """What it has counted and adapted."""
        return {"grader_log": self.grader_log.state_dict(), **{name: getattr(self, name) for name in COUNTED}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.grader_log.load_state_dict(state["grader_log"])
        for name in COUNTED:
            if name in state:
                setattr(self, name, state[name])
