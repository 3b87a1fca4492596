"""Baselines from the whole batch: every counted token of the rollout, whitened together."""

import torch
from torch import Tensor

from core import Batch, advantage
from estimators.advantages.group import centred
from estimators.advantages.returns import discounted_return

WHITENED = "all tokens of the batch, ddof {correction}, sqrt(max(var, {floor:g}) + {eps:g})"
VERL = {"correction": "verl", "eps": "verl"}


def whiten(values: Tensor, mask: Tensor, *, correction: int, eps: float, floor: float = 0.0) -> Tensor:
    """Values [P, G, T], float64, brought to mean 0 and variance 1 over all counted tokens.

        (x - mean) / sqrt(max(var, floor) + eps)

    Statistics are per token: a long response counts as often as it has tokens. No counted token, or a single one, gives
    0, and so do values that are all equal.
    """
    counted = values[mask]
    if not len(counted) or counted.amax() == counted.amin():
        return torch.zeros_like(values)
    deviations = torch.where(mask, values - counted.mean(), 0.0)
    return deviations / (counted.var(correction=correction).clamp(min=floor) + eps).sqrt()


@advantage(
    scope="batch",
    min_group=1,
    axes={
        "baseline": "mean over all tokens of the batch",
        "std": WHITENED,
        "credit": "reward to go, discount {gamma:g}",
    },
    published={**VERL, "gamma": "REINFORCE++"},
)
def whitened_return(
    batch: Batch, *, gamma: float = 1.0, correction: int = 1, eps: float = 1e-8, floor: float = 0.0
) -> Tensor:
    """Discounted reward to go, whitened over all counted tokens of the batch.

        A_it = (R_it - mean(R)) / sqrt(max(var(R), floor) + eps),   R_t = x_t + gamma R_{t+1}

    Returns [P, G, T]. A group without spread gets -mean/std, not 0. OpenRLHF: `correction` 0, `eps` 0, `floor` 1e-8.
    Source: REINFORCE++ (Hu 2025, arXiv:2501.03262).
    """
    returns = discounted_return(batch, gamma)
    return whiten(returns, batch.mask, correction=correction, eps=eps, floor=floor).to(batch.rewards)


@advantage(
    scope="batch",
    axes={"baseline": "group mean, then the mean over all tokens of the batch", "std": WHITENED},
    published=VERL,
)
def whitened_group_mean(batch: Batch, *, correction: int = 1, eps: float = 1e-8, floor: float = 0.0) -> Tensor:
    """Centred reward on every token, whitened over all counted tokens of the batch.

        A_it = (c_i - mean(c)) / sqrt(max(var(c), floor) + eps),   c_i = r_i - mean(r_group)

    Returns [P, G, T]. The mean over tokens is not 0 when lengths differ, so a group without spread gets -mean/std and
    not 0: a property of the method. Source: REINFORCE++-baseline (Hu 2025, arXiv:2501.03262).
    """
    spread = centred(batch)[..., None].expand(batch.response_mask.shape)
    return whiten(spread, batch.mask, correction=correction, eps=eps, floor=floor).to(batch.rewards)
