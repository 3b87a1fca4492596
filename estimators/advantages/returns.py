"""From rewards to returns: what is still to come at each token. Shared by the estimators that give credit by token."""

import torch
from torch import Tensor

from core import Batch


def token_terms(batch: Batch) -> Tensor | None:
    """All that is rewarded token by token, float64 [P, G, T], 0 outside the response; None if there is nothing."""
    terms = [x for x in (batch.kl_rewards, batch.token_rewards, batch.turn_rewards) if x is not None]
    if not terms:
        return None
    return torch.where(batch.response_mask, torch.stack(terms).double().sum(0), 0.0)


def outcome(batch: Batch) -> Tensor:
    """The part of the reward that belongs to the response as a whole, float64 [P, G]: without the per-token terms."""
    rewards, terms = batch.rewards.double(), token_terms(batch)
    return rewards if terms is None else rewards - terms.sum(-1)


def reward_to_go(batch: Batch) -> Tensor:
    """Reward still to come at each token, float64 [P, G, T]: the outcome, and per-token terms from that token on.

        R_t = sum_{u >= t} x_u,   the outcome placed on the last token

    Constant over a response without per-token terms. Holes of the mask are summed over: where a reward lies does not
    matter to the response that earned it.
    """
    total = batch.rewards.double()[..., None].expand(batch.response_mask.shape)
    terms = token_terms(batch)
    return total if terms is None else total - (terms.cumsum(-1) - terms)


def earned_rewards(batch: Batch) -> Tensor:
    """x_t, [P, G, T], float64: what each counted token earns, 0 elsewhere.

    Its per-token terms, with those of a hole that follows it, and on the last counted token the outcome.
    """
    terms = token_terms(batch)
    waiting = outcome(batch)
    earned = []
    for t in reversed(range(batch.mask.shape[-1])):
        if terms is not None:
            waiting = waiting + terms[..., t]
        earned.append(torch.where(batch.mask[..., t], waiting, 0.0))
        waiting = torch.where(batch.mask[..., t], 0.0, waiting)
    return torch.stack(earned[::-1], -1)


def discounted_return(batch: Batch, gamma: float) -> Tensor:
    """Discounted reward to go, [P, G, T], float64: R_t = x_t + gamma * R_{t+1} from counted token to counted token."""
    x = earned_rewards(batch)
    running = torch.zeros_like(x[..., 0])
    returns = []
    for t in reversed(range(x.shape[-1])):
        running = torch.where(batch.mask[..., t], x[..., t] + gamma * running, running)
        returns.append(running)
    return torch.stack(returns[::-1], -1)
