"""From rewards to returns: what is still to come at each token. Shared by the estimators that give credit by token."""

import torch
from torch import Tensor

from core import Batch


def token_terms(batch: Batch) -> Tensor | None:
    """All that is rewarded token by token, float64 [P, G, T], 0 outside the response; None if there is nothing."""
    terms = [x for x in (batch.kl_rewards, batch.token_rewards) if x is not None]
    if not terms:
        return None
    return torch.where(batch.response_mask, torch.stack(terms).double().sum(0), 0.0)


def outcome(batch: Batch) -> Tensor:
    """The part of the reward that belongs to the response as a whole, float64 [P, G]: without the per-token terms."""
    terms = token_terms(batch)
    return batch.rewards.double() if terms is None else batch.rewards.double() - terms.sum(-1)


def reward_to_go(batch: Batch) -> Tensor:
    """Reward still to come at each token, float64 [P, G, T]: the outcome, and per-token terms from that token on.

        R_t = sum_{u >= t} x_u,   the outcome placed on the last token

    Constant over a response without per-token terms. Holes of the mask are summed over: where a reward lies does not
    matter to the response that earned it.
    """
    total = batch.rewards.double()[..., None].expand(batch.response_mask.shape)
    terms = token_terms(batch)
    return total if terms is None else total - (terms.cumsum(-1) - terms)


def token_rewards_with_outcome(batch: Batch) -> Tensor:
    """x_t, [P, G, T], float64: per-token terms, and the outcome on each response's last token."""
    terms = token_terms(batch)
    x = torch.zeros(batch.response_mask.shape, dtype=torch.float64, device=batch.rewards.device)
    if terms is not None:
        x = x + terms
    last = (batch.lengths - 1).clamp(min=0)[..., None]
    return x.scatter_add(-1, last, outcome(batch)[..., None])


def discounted_return(batch: Batch, gamma: float) -> Tensor:
    """Discounted reward to go, [P, G, T], float64: R_t = x_t + gamma * R_{t+1}; holes of the mask cost no discount."""
    x, steps = token_rewards_with_outcome(batch), batch.mask
    running = torch.zeros_like(x[..., 0])
    returns = []
    for t in reversed(range(x.shape[-1])):
        running = x[..., t] + torch.where(steps[..., t], gamma * running, running)
        returns.append(running)
    return torch.stack(returns[::-1], -1)
