"""Objectives that stop a token by how far its probability has moved, not by its ratio."""

import torch
from torch import Tensor

from core import TokenLoss, objective
from estimators.ratios import ratio_of

DPPO = {"ratio_cap": "DPPO, section 5.4"}


def _truncated_weight(logps: Tensor, old_logps: Tensor, advantages: Tensor, keep: Tensor, cap: float) -> TokenLoss:
    """-A * sg[min(q, cap)] * log pi on the tokens kept."""
    ratio = ratio_of(logps - old_logps).detach()
    loss = -advantages * ratio.clamp(max=cap) * logps
    return TokenLoss(loss.masked_fill(~keep, 0.0), {"clip_fraction": ~keep, "ratio": ratio})


@objective(
    zero_at_zero_advantage=True,
    axes={
        "ratio": "token, as a weight without gradient, at most {ratio_cap:g}",
        "clip": "probability moved by {threshold_low:g} down (A <= 0) or {threshold_high:g} up (A > 0)",
    },
    published=DPPO,
)
def dppo_tv_mask(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    *,
    threshold_low: float = 0.2,
    threshold_high: float = 0.2,
    ratio_cap: float = 20.0,
) -> TokenLoss:
    """Truncated importance sampling on the tokens whose probability has not yet moved far in the advantage's direction.

        l_it = -A_it * sg[min(q_it, ratio_cap)] * log pi(y_it) * [keep],
        keep: pi - old <= threshold_high where A > 0, else pi - old >= -threshold_low

    [B, T]. Thresholds are differences of probabilities: rare tokens are let go much further than by a ratio. Source:
    DPPO-Binary-TV (2026, arXiv:2602.04879).
    """
    with torch.no_grad():
        moved = logps.exp() - old_logps.exp()
        keep = torch.where(advantages > 0, moved <= threshold_high, moved >= -threshold_low)
    return _truncated_weight(logps, old_logps, advantages, keep, ratio_cap)


@objective(
    zero_at_zero_advantage=True,
    axes={
        "ratio": "token, as a weight without gradient, at most {ratio_cap:g}",
        "clip": "binary KL from the old policy over {threshold_low:g} (A <= 0) or {threshold_high:g} (A > 0)",
    },
    published=DPPO,
)
def dppo_kl_mask(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    *,
    threshold_low: float = 0.2,
    threshold_high: float = 0.2,
    ratio_cap: float = 20.0,
    eps: float = 1e-8,
) -> TokenLoss:
    """The same, with distance measured as the KL of the token against all others.

        keep: KL(old || pi) <= threshold, or pi moved against the advantage's direction,
        KL = old (log old - log pi) + (1 - old) log((1 - old + eps) / (1 - pi + eps))

    [B, T], in nats. Source: DPPO-Binary-KL (2026, arXiv:2602.04879).
    """
    with torch.no_grad():
        new, old = logps.exp(), old_logps.exp()
        kl = old * (old_logps - logps) + (1 - old) * torch.log((1 - old + eps) / (1 - new + eps))
        keep = torch.where(advantages > 0, (kl <= threshold_high) | (new <= old), (kl <= threshold_low) | (new >= old))
    return _truncated_weight(logps, old_logps, advantages, keep, ratio_cap)
