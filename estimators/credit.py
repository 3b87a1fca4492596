"""Steps of the credit chain, `(batch, advantages) -> advantages` [P, G, T], after the advantage estimator."""

import math

import torch
from torch import Tensor

from core import Batch, credit


@credit(axes={"credit": "advantages within {low} to {high}"})
def advantage_clip(
    batch: Batch,  # noqa: ARG001 - the contract
    advantages: Tensor,
    *,
    low: float | None = -5.0,
    high: float | None = 5.0,
) -> Tensor:
    """Advantages within bounds, after any normalisation: clip(A_it, low, high); None is no bound.

    [P, G, T]. Source: NeMo-RL's `advantage_clip_low` and `advantage_clip_high`; ROLL's `advantage_clip`.
    """
    return advantages if low is None and high is None else advantages.clamp(low, high)


@credit(
    needs=("behaviour_entropy",),
    axes={"credit": "the {share:g} of tokens with the highest entropy"},
    published={"share": "Wang et al., section 5"},
)
def top_entropy(batch: Batch, advantages: Tensor, *, share: float = 0.2) -> Tensor:
    """Advantages of the tokens at which the policy hesitated, 0 at the others.

        A_it [H_it >= h],   h the quantile 1 - share of H over the counted tokens of the rollout

    [P, G, T]. The quantile is linear between two values. H is the sampler's entropy, in nats. A KL penalty and every
    denominator stay as they are; `share` 1 changes nothing. Source: Wang et al. 2025 (arXiv:2506.01939, "Beyond the
    80/20 rule"), in TRL's form, which takes the present policy's entropy by micro-batch.
    """
    entropy = batch.require("behaviour_entropy")
    counted = entropy[batch.mask].sort().values
    if not len(counted):
        return advantages
    # the quantile lies between two values where this is no whole number, and the upper one stays
    rank = math.ceil(round((1 - share) * (len(counted) - 1), 9))
    return torch.where(entropy >= counted[rank], advantages, 0.0)
