"""Parts of a user's own, for the bridge to find by their module's name."""

from torch import Tensor

from core import Batch, Variant, advantage, aggregator, variant
from estimators.advantages.group import group_mean
from estimators.aggregators import token_mean
from estimators.corrections import token_truncated
from estimators.objectives.token import clip


@advantage(scope="batch")
def over_the_rollout(batch: Batch) -> Tensor:
    """Reward minus the mean of all responses, over the largest distance from it."""
    centred = batch.rewards - batch.rewards.mean()
    return centred / centred.abs().max().clamp(min=1e-6)


@aggregator
def later_tokens(mask: Tensor, *, power: float = 0.5) -> Tensor:
    """A token weighs by its position, over the square root of its response's length and the step's sum of these."""
    weights = mask.double().cumsum(1) * mask / mask.sum(1, keepdim=True).clamp(min=1) ** power
    return weights / weights.sum().clamp(min=1)


@variant
def with_entropy() -> Variant:
    """An entropy bonus, a correction of the sampler, and truncated responses out of the loss."""
    return Variant(
        advantage=group_mean,
        objective=clip,
        aggregator=token_mean,
        correction=token_truncated,
        entropy_coef=0.03,
        truncated="mask",
        reward_clip=0.9,
    )
