"""From rewards as graded to those trained on, and the groups worth training on, on tensors alone, with no model."""

import torch
from torch import Tensor

from core.parts.batch import Batch
from core.parts.contracts import check_shape
from core.parts.variant import Variant


def shape_rewards(variant: Variant, rewards: Tensor, lengths: Tensor, truncated: Tensor, max_tokens: int) -> Tensor:
    """Clip, then every shaping in turn; the same for samples [P, G] and greedy responses [P]."""
    if variant.reward_clip is not None:
        rewards = rewards.clamp(-variant.reward_clip, variant.reward_clip)
    for part in variant.shaping:
        rewards = part(rewards, lengths, truncated, max_tokens=max_tokens)
    return rewards


def shape(variant: Variant, batch: Batch) -> Batch:
    """Shaped rewards, and truncated responses taken out of the loss where the variant does so."""
    truncated = batch.require("truncated")
    mask = batch.mask & ~truncated[..., None] if variant.truncated == "mask" else batch.mask
    return batch.having(
        rewards=shape_rewards(variant, batch.rewards, batch.lengths, truncated, batch.max_tokens), mask=mask
    )


def filter_groups(variant: Variant, batch: Batch) -> Batch:
    """The groups worth training on."""
    return batch if variant.filter is None else batch.select(kept_groups(variant, batch))


def kept_groups(variant: Variant, batch: Batch) -> Tensor:
    """The indices of the groups worth training on."""
    if variant.filter is None or batch.groups == 0:
        return torch.arange(batch.groups, device=batch.rewards.device)
    keep: Tensor = variant.filter(batch)
    check_shape(variant.filter, keep, (batch.groups,))
    return keep.bool().nonzero()[:, 0]
