"""Advantages from a critic's values: generalised advantage estimation."""

import torch
from torch import Tensor

from core import Batch, advantage
from estimators.advantages.batch import VERL, WHITENED, whiten
from estimators.advantages.returns import earned_rewards


def temporal_differences(
    x: Tensor, values: Tensor, steps: Tensor, gamma: float, lam: float, ends: Tensor | None = None
) -> Tensor:
    """A_t = delta_t + gamma lam A_{t+1} over the last axis, float64, where `steps`; others hand on what comes after.

    delta_t = x_t + gamma V_{t+1} - V_t, with nothing after the last step, nor after those that are `ends`.
    """
    next_value = torch.zeros_like(x[..., 0])
    running = torch.zeros_like(next_value)
    advantages = []
    for t in reversed(range(x.shape[-1])):
        counted = steps[..., t]
        if ends is not None:
            next_value, running = (tensor.masked_fill(ends[..., t], 0.0) for tensor in (next_value, running))
        delta = x[..., t] + gamma * next_value - values[..., t]
        running = torch.where(counted, delta + gamma * lam * running, running)
        next_value = torch.where(counted, values[..., t], next_value)
        advantages.append(running)
    return torch.stack(advantages[::-1], -1)


def _gae(batch: Batch, gamma: float, lam: float) -> Tensor:
    """Over counted tokens, float64 [P, G, T]."""
    return temporal_differences(earned_rewards(batch), batch.require("values"), batch.mask, gamma, lam)


def lambda_return(batch: Batch, *, gamma: float, lam: float) -> Tensor:
    """What a critic is to predict: R_t = A_t + V_t, with A_t = gae and 0 in holes; float64 [P, G, T].

    With lam = 1 it is the discounted reward to go, whatever the values are. Source: Schulman et al. 2016
    (arXiv:1506.02438, section 5); verl's and TRL's `returns`.
    """
    return torch.where(batch.mask, _gae(batch, gamma, lam) + batch.require("values"), 0.0)


@advantage(
    needs=("values",),
    target=lambda_return,
    min_group=1,
    axes={
        "baseline": "a critic's value",
        "std": "none",
        "credit": "temporal differences, discount {gamma:g}, lambda {lam:g}",
    },
    published={"gamma": "verl", "lam": "verl"},
)
def gae(batch: Batch, *, gamma: float = 1.0, lam: float = 1.0) -> Tensor:
    """Generalised advantage estimation.

        A_t = delta_t + gamma lam A_{t+1},   delta_t = x_t + gamma V_{t+1} - V_t,   V = 0 after the last counted token

    Returns [P, G, T]. With gamma = lam = 1 it is the reward to go minus the value. Source: Schulman et al. 2016
    (arXiv:1506.02438, equation 16).
    """
    return _gae(batch, gamma, lam).to(batch.rewards)


@advantage(
    needs=("values",),
    target=lambda_return,
    min_group=1,
    scope="batch",
    axes={
        "baseline": "a critic's value, then the mean over all tokens of the batch",
        "std": WHITENED,
        "credit": "temporal differences, discount {gamma:g}, lambda {lam:g}",
    },
    published={**VERL, "gamma": "verl", "lam": "verl"},
)
def whitened_gae(
    batch: Batch, *, gamma: float = 1.0, lam: float = 1.0, correction: int = 1, eps: float = 1e-8, floor: float = 0.0
) -> Tensor:
    """Generalised advantage estimates, whitened over all counted tokens of the batch, as PPO uses them.

        A_it = (a_it - mean(a)) / sqrt(max(var(a), floor) + eps),   a = gae

    Returns [P, G, T]. Source: verl's and OpenRLHF's `gae`.
    """
    return whiten(_gae(batch, gamma, lam), batch.mask, correction=correction, eps=eps, floor=floor).to(batch.rewards)
