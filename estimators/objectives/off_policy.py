"""Objectives for responses that an older policy sampled; with `anchor="sampler"` ratios are against that policy."""

from typing import Literal

import torch
from torch import Tensor

from core import TokenLoss, objective
from estimators.objectives.sequence import row_sum
from estimators.ratios import ratio_of


@objective(
    zero_at_zero_advantage=True,
    axes={
        "ratio": "{level}, as a weight without gradient, for responses with a reward of 0 or less",
        "clip": "weight within {floor:g} to {cap:g}",
    },
    published={"floor": "TOPR", "cap": "TOPR"},
)
def topr(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    rewards: Tensor,
    mask: Tensor,
    *,
    level: Literal["sequence", "token"] = "sequence",
    floor: float = 0.0,
    cap: float = 1.0,
) -> TokenLoss:
    """REINFORCE, with a truncated importance weight for bad responses alone.

        l_it = -A_it log pi(y_it) where r_i > 0, else -sg[clip(q, floor, cap)] A_it log pi(y_it)

    [B, T]. Good responses teach at full weight however old they are; bad ones fade as the policy leaves them. q is the
    ratio of the response, or with `level` "token" of the token, which ROLL uses. Source: TOPR (Roux et al. 2025,
    arXiv:2503.14286, equation 8).
    """
    difference = logps - old_logps
    if level == "sequence":
        difference = row_sum(difference, mask).expand_as(logps)
    ratio = ratio_of(difference).detach()
    weight = torch.where(rewards[:, None] > 0, 1.0, ratio.clamp(floor, cap))
    return TokenLoss(-weight * advantages * logps, {"weight": weight, "ratio": ratio})


def _within_second_moment(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, *, threshold: float
) -> Tensor:
    """[B, T]: 1 for tokens that stay, over all rows of the optimizer step."""
    difference = logps - old_logps
    outward = mask & (advantages * difference > 0)
    ascending, order = difference[outward].double().square().sort(stable=True)
    means = ascending.cumsum(0) / torch.arange(1, len(ascending) + 1, device=ascending.device)
    stays = (means <= threshold).to(logps.dtype)
    keep = torch.ones_like(logps)
    keep[outward] = torch.zeros_like(stays).scatter(0, order, stays)
    return keep


@objective(
    zero_at_zero_advantage=True,
    prepare=_within_second_moment,
    axes={
        "ratio": "token",
        "clip": "none; of tokens pushed outward those left out beyond a second moment of {threshold:g}",
    },
    published={"threshold": "M2PO"},
)
def m2po(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    prepared: Tensor,
    *,
    threshold: float = 0.04,  # noqa: ARG001 - of what is prepared
) -> TokenLoss:
    """The unclipped surrogate, without the tokens of the largest log-ratios among those that the update pushes outward.

        l_it = -q_it A_it [keep];  of the tokens with A_it d_it > 0 those stay, by d^2 ascending, whose mean is within
        `threshold`; all others stay

    [B, T]. Over all rows of one optimizer step, and every token is in the denominator. Source: M2PO (2025,
    arXiv:2510.01161) as Trinity-RFT reads it, with ratios against the sampler (`anchor="sampler"`); for the other
    reading see the correction `second_moment_rejection`.
    """
    ratio = ratio_of(logps - old_logps)
    return TokenLoss(-ratio * advantages * prepared, {"clip_fraction": prepared == 0, "ratio": ratio.detach()})
