"""Advantages by turns, for tests: each turn's reward less its mean over those that have the turn, or over all."""

import torch
from torch import Tensor

from core import Batch, advantage


def _turns(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards of turns and which turns there are, [P, G, K]; the outcome [P, G]."""
    numbers, K = batch.turn_numbers, int(batch.turn_numbers.max())
    rewards = batch.require("turn_rewards").double()
    paid = torch.stack([torch.where(numbers == k, rewards, 0.0).sum(-1) for k in range(1, K + 1)], -1)
    there = torch.stack([(numbers == k).any(-1) for k in range(1, K + 1)], -1)
    return paid, there, batch.rewards.double() - paid.sum(-1)


def _relative(batch: Batch, padded: bool, std: bool) -> Tensor:
    """Outcome and turns, each less its mean, added up over the episode: [P, G]."""
    paid, there, outcome = _turns(batch)
    there = torch.ones_like(there) if padded else there
    n = there.sum(1, keepdim=True)
    apart = torch.where(there, paid - torch.where(there, paid, 0.0).sum(1, keepdim=True) / n, 0.0)
    outcome = outcome - outcome.mean(1, keepdim=True)
    if std:
        spread = (apart.square().sum(1, keepdim=True) / n).sqrt()
        apart = torch.where(spread > 1e-9, apart / spread, 0.0)
        outcome = outcome / outcome.std(1, correction=0, keepdim=True).clamp(min=1e-9)
        outcome = torch.where(outcome.abs() > 1e-6, outcome, 0.0)
    return (outcome + apart.sum(-1)).to(batch.rewards)


@advantage
def turns_that_are_there(batch: Batch) -> Tensor:
    """Means over the episodes that have the turn."""
    return _relative(batch, padded=False, std=False)


@advantage
def turns_padded(batch: Batch) -> Tensor:
    """Means over the group, in which an episode without the turn has 0."""
    return _relative(batch, padded=True, std=False)


@advantage
def turns_padded_std(batch: Batch) -> Tensor:
    """The same, each over its std."""
    return _relative(batch, padded=True, std=True)
