"""From the groups of a rollout to new weights: fill -> KL in reward -> advantages -> update."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from core.errors import GrpoLabError
from core.loop.clock import Clock
from core.loop.loss import kl_in_reward, learned_responses, needs_old_logps, next_kl_coef, value_targets
from core.loop.run_state import Fill, RunState
from core.loop.update import UpdateMetrics, compute_logps, update
from core.parts.batch import Batch


@dataclass(frozen=True, eq=False)
class Learned:
    """What came of the batch of one rollout."""

    batch: Batch | None
    """With every field filled; groups that a provider could not grade are gone. None where there was none."""
    advantages: Tensor | None
    """[P, G, T]; None where no group was left."""
    metrics: UpdateMetrics


def learn(state: RunState, batch: Batch | None, clock: Clock) -> Learned:
    """Log-probabilities, what the parts ask for, KL in the reward, advantages, and all optimizer steps of a rollout."""
    if batch is None:
        return Learned(None, None, UpdateMetrics({}))
    recipe, variant = state.recipe, state.recipe.variant
    with clock("fill"):
        if needs_old_logps(variant, recipe.updates):
            logps = compute_logps(state.policy, batch, temperature=recipe.temperature, micro_tokens=recipe.micro_tokens)
            batch = batch.having(old_logps=logps)
        batch = fill(batch, state.providers)
        batch = kl_in_reward(variant, batch)
        state.kl_coef = next_kl_coef(variant, batch)
    if not batch.groups:
        return Learned(batch, None, UpdateMetrics({}))
    batch, advantages, state.advantage_state = learned_responses(variant, batch, state.advantage_state)
    batch = value_targets(variant, batch)
    rate = recipe.optimizer.rate(batch.step, recipe.steps)
    with clock("update"):
        metrics = update(state, state.optimizer, batch, advantages, rate)
    return Learned(batch, advantages, metrics)


def fill(batch: Batch, providers: Mapping[str, Fill]) -> Batch:
    """Fill every field asked for.

    Groups whose one value [P] is NaN, because a grader failed, are dropped whole. NaN per token, or anything
    infinite, is an error.
    """
    for field, make in providers.items():
        values = make(batch).to(batch.rewards.device)
        batch = batch.having(**{field: values})
        if field == "token_rewards":
            batch = batch.having(rewards=batch.rewards + values.where(batch.response_mask, 0.0).sum(-1))
        if values.isinf().any() or (values.ndim > 1 and values.isnan().any()):
            raise GrpoLabError(f"the provider of '{field}' gave NaN or infinite values at step {batch.step}")
        broken = values.isnan()
        if not broken.any():
            continue
        batch = batch.select((~broken).nonzero()[:, 0])
    return batch
