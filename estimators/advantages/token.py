"""A baseline of its own for every token position."""

import torch
from torch import Tensor

from core import Batch, advantage
from estimators.advantages.returns import reward_to_go


@advantage(
    needs=("old_logps", "sum_squared_probs"),
    axes={
        "baseline": "group mean at each position, weighted by the gradient's energy so far",
        "std": "none",
        "credit": "reward to go",
    },
    published={"eps": "verl"},
)
def optimal_token_baseline(batch: Batch, *, eps: float = 1e-8) -> Tensor:
    """Reward to go minus the baseline that minimises the variance at each position of the group.

        b_t = sum_i R_it W_it / (sum_i W_it + eps),   W_t = sum_{u <= t} (1 - 2 pi_u + sum_v pi_v^2)

    Returns [P, G, T]. W is the squared norm of the gradient in the logits up to t; sums run over the responses with a
    counted token at t, and where there is only one the baseline is 0. A group without spread gets 0 but for `eps`, and
    its reward where the baseline is 0. Source: verl's `optimal_token_baseline`.
    """
    mask = batch.mask
    energy = 1 - 2 * batch.require("old_logps").double().exp() + batch.require("sum_squared_probs")
    W = torch.where(mask, energy, 0.0).cumsum(-1)
    W = torch.where(mask, W, 0.0)
    returns = reward_to_go(batch)
    baseline = (returns * W).sum(1, keepdim=True) / (W.sum(1, keepdim=True) + eps)
    alone = mask.sum(1, keepdim=True) < 2
    return (returns - baseline.masked_fill(alone, 0.0)).to(batch.rewards)
