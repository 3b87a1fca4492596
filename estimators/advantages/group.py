"""Baselines from the group itself: the other samples of the same prompt stand in for a critic."""

import torch
from torch import Tensor

from core import Batch, advantage


def _centred(batch: Batch) -> Tensor:
    """Rewards minus their group mean, float64, [P, G]; exactly 0 in a group without spread.

    In float32 the mean of equal rewards (seven times 0.7) is off by an ulp, and dividing that by a std that is off by
    an ulp gives advantages near 1 out of nothing.
    """
    rewards = batch.rewards.double()
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred.masked_fill(batch.no_spread[:, None], 0.0)


@advantage(axes={"baseline": "group mean", "std": "none"})
def group_mean(batch: Batch) -> Tensor:
    """Reward minus the mean of its group.

        A_i = r_i - mean(r)

    Returns [P, G]; sums to 0 over each group; 0 in a group without spread. Used by Dr. GRPO (Liu et al. 2025,
    arXiv:2503.20783), where dividing by the std is seen as a bias towards questions that are too easy or too hard.
    """
    return _centred(batch).to(batch.rewards)


@advantage(axes={"baseline": "group mean", "std": "group, ddof {correction}, + {eps:g}"})
def group_mean_std(batch: Batch, *, eps: float = 1e-6, correction: int = 1) -> Tensor:
    """Reward standardised within its group.

        A_i = (r_i - mean(r)) / (std(r) + eps)

    Returns [P, G]; sums to 0 over each group; 0 in a group without spread. `correction` is the ddof of the std: the
    paper says only "std", and every public implementation takes 1. Source: GRPO (Shao et al. 2024, arXiv:2402.03300,
    section 4.1.2, outcome supervision).
    """
    std = batch.rewards.double().std(1, correction=correction, keepdim=True)
    # masked again: with eps = 0 a group without spread is 0 / 0
    return (_centred(batch) / (std + eps)).masked_fill(batch.no_spread[:, None], 0.0).to(batch.rewards)


@advantage(axes={"baseline": "mean of the other samples", "std": "none"})
def leave_one_out(batch: Batch) -> Tensor:
    """Reward minus the mean of the other samples of its group.

        A_i = r_i - sum_{j != i} r_j / (G - 1) = G / (G - 1) * (r_i - mean(r))

    Returns [P, G]; unbiased, since the baseline does not depend on sample i; sums to 0 over each group; 0 in a group
    without spread. Source: RLOO (Ahmadian et al. 2024, arXiv:2402.14740; Kool et al. 2019).
    """
    G = batch.group_size
    return (_centred(batch) * (G / (G - 1))).to(batch.rewards)


@advantage(min_group=1, axes={"baseline": "none", "std": "none"})
def no_baseline(batch: Batch) -> Tensor:
    """The reward itself.

        A_i = r_i

    Returns [P, G]. The control: what every baseline is to be measured against. Source: REINFORCE (Williams 1992).
    """
    return batch.rewards


def reward_to_go(batch: Batch) -> Tensor:
    """Reward still to come at each token, [P, G, T]: the outcome, plus per-token terms at and after that token.

    R_t = sum_{u >= t} x_u, with the outcome placed on the last token. Constant over a response without per-token terms.
    """
    total = batch.rewards[..., None].expand(*batch.rewards.shape, batch.response_mask.shape[-1])
    for terms in (batch.kl_rewards, batch.token_rewards):
        if terms is not None:
            terms = torch.where(batch.response_mask, terms, 0.0)
            total = total - (terms.cumsum(-1) - terms)
    return total
