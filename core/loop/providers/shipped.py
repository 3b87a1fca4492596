"""Providers: what fills a batch field that some part asked for. Each is looked up by its field, never by name."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import GrpoLabError
from core.loop.rewards import shape_rewards
from core.loop.rollout import Draw, grade, sample
from core.loop.run_state import Fill, RunState
from core.loop.update import compute_logps, compute_sum_squared_probs
from core.model.adapters import adapters_off
from core.model.policy import Policy
from core.model.sharding import MakeSharding
from core.parts.batch import Batch
from core.parts.contracts import provider
from core.parts.settings import COUNT, Range


@provider(fills="greedy_rewards", cost="one greedy response per prompt and step")
def greedy(run: RunState) -> Fill:
    """The shaped reward of the greedy response to each prompt, by the weights that sampled."""

    def fill_greedy(batch: Batch) -> Tensor:
        variant, recipe = run.recipe.variant, run.recipe
        # a call of its own: the number of rows in a batch changes the last bits of each
        sampled = sample(run, batch.problems, Draw())
        scores = grade(recipe.rewards, sampled)
        run.grader_log.note(scores)
        run.grader_log.add_to_step(len(scores.failed))
        rewards = (scores.parts @ torch.tensor(recipe.reward_weights))[:, 0].to(batch.rewards)
        if sampled.generation.turn_rewards is not None:
            rewards = rewards + sampled.generation.turn_rewards.sum(-1)[:, 0]
        lengths = sampled.generation.mask.sum(-1)[:, 0]
        return shape_rewards(variant, rewards, lengths, sampled.generation.truncated[:, 0], batch.max_tokens)

    return fill_greedy


class Reference:
    """A frozen copy of the policy that is brought nearer to it every so many steps, or never."""

    def __init__(self, run: RunState, every: int | None, share: float) -> None:
        self._run, self._every, self._share = run, every, share
        self._synced = 0
        self._frozen = run.policy.frozen_copy()

    def __call__(self, batch: Batch) -> Tensor:
        """Log-probabilities [P, G, T] under the reference."""
        # before the step that follows every `every` steps: its rollout is the policy's own
        due = (batch.step - 1) // self._every if self._every else 0
        if due > self._synced:
            self._synced = due
            for ours, theirs in zip(self._frozen.model.parameters(), self._run.policy.model.parameters(), strict=True):
                ours.data.lerp_(theirs.data, self._share)
        return _logps(self._frozen, batch, self._run)

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Nothing: it is frozen."""
        return iter(())

    def shard(self, sharding: MakeSharding, dtype: torch.dtype) -> None:
        """Spread the weights over the ranks, like the policy's."""
        if self._every:
            raise GrpoLabError(f"reference.every = {self._every} does not work with sharded weights: use ddp")
        self._frozen.shard(sharding, dtype)

    @property
    def forward_tokens(self) -> int:
        """Tokens that went through the reference so far."""
        return self._frozen.forward_tokens

    def state_dict(self) -> dict[str, Any]:
        """The weights, where they can change, and how often they have."""
        return {"synced": self._synced, "weights": self._frozen.model.state_dict()} if self._every else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        if self._every:
            self._synced = state["synced"]
            self._frozen.model.load_state_dict(state["weights"])


def _logps(policy: Policy, batch: Batch, run: RunState) -> Tensor:
    return compute_logps(policy, batch, temperature=run.recipe.temperature, micro_tokens=run.recipe.micro_tokens)


@provider(
    fills="ref_logps",
    cost="a second copy of the weights and one forward pass per response",
    limits={"every": COUNT, "share": Range(0, 1, "low")},
)
def reference(run: RunState, *, every: int | None = None, share: float = 1.0) -> Fill:
    """Log-probabilities under the policy as it was before the first step, frozen.

    Where adapters are trained, that is the policy without them, and no second copy is held.

        ref <- share * pi + (1 - share) * ref   after every `every` steps

    R1 replaces it by the policy every 400 steps (`every = 400`); TRL's `sync_ref_model` mixes 0.6 in every 512 steps.
    """
    if not run.policy.has_adapters:
        return Reference(run, every, share)
    if every:
        raise GrpoLabError(
            f"reference.every = {every}: with policy.lora_rank the reference is the model without "
            "adapters, which does not move; remove one of the two"
        )

    def fill_without_adapters(batch: Batch) -> Tensor:
        with adapters_off(run.policy.model):
            return _logps(run.policy, batch, run)

    return fill_without_adapters


@provider(fills="sum_squared_probs", cost="one more forward pass per response")
def squared_probs(run: RunState) -> Fill:
    """The sum over the vocabulary of the squared probabilities of the present policy, at every token."""

    def fill_squared_probs(batch: Batch) -> Tensor:
        recipe = run.recipe
        return compute_sum_squared_probs(
            run.policy, batch, temperature=recipe.temperature, micro_tokens=recipe.micro_tokens
        )

    return fill_squared_probs
