"""Corrections of the mismatch between the sampler's probabilities and the trainer's, as factors [B, T].

Notation: `w = exp(old - behaviour)`, the trainer's probability of a token over the sampler's. Every factor is 1 outside
the mask and wherever sampler and trainer agree, and has no gradient. Products over long responses leave any bound as a
matter of course: log what is kept (`correction` in the metrics).
"""

import torch
from torch import Tensor

from core import correction


def _log_ratio(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    """log w, 0 outside the mask and where the sampler gave no log-probability (NaN): no correction there."""
    difference = old_logps - behaviour_logps
    return torch.where(mask & ~difference.isnan(), difference, 0.0)


def _within(weights: Tensor, low: float, high: float) -> Tensor:
    return (weights >= low) & (weights <= high)


@correction(axes={"correction": "token ratio, within {floor:g} to {cap:g}"}, published={"cap": "verl"})
def token_truncated(
    old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor, *, cap: float = 2.0, floor: float = 0.0
) -> Tensor:
    """Truncated importance sampling, token by token: clip(w_it, floor, cap).

    [B, T]. OpenRLHF: 0.5 to 5. Source: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
    training".
    """
    return torch.exp(_log_ratio(old_logps, behaviour_logps, mask)).clamp(floor, cap)


@correction(axes={"correction": "response ratio, within {floor:g} to {cap:g}"}, published={"cap": "verl"})
def sequence_truncated(
    old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor, *, cap: float = 2.0, floor: float = 0.0
) -> Tensor:
    """Truncated importance sampling of whole responses: clip(prod_t w_it, floor, cap) on every token.

    [B, T]. Source: verl's `sequence` level; Liu et al. 2025, "When speed kills stability".
    """
    total = _log_ratio(old_logps, behaviour_logps, mask).sum(-1, keepdim=True)
    return torch.where(mask, torch.exp(total).clamp(floor, cap), 1.0)


@correction(axes={"correction": "token ratio, 0 outside {low:g} to {high:g}"}, published={"high": "TRL"})
def token_masked(
    old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor, *, low: float = 0.0, high: float = 3.0
) -> Tensor:
    """Masked importance sampling, token by token: w_it where low <= w_it <= high, else 0.

    [B, T]. Source: IcePop (Ring-1T, Ling Team 2025, arXiv:2510.18855).
    """
    weights = torch.exp(_log_ratio(old_logps, behaviour_logps, mask))
    return torch.where(_within(weights, low, high) | ~mask, weights, 0.0)


@correction(axes={"correction": "response ratio, 0 outside {low:g} to {high:g}"}, published={"high": "TRL"})
def sequence_masked(
    old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor, *, low: float = 0.0, high: float = 3.0
) -> Tensor:
    """Masked importance sampling of whole responses: prod_t w_it where that is within the bounds, else 0.

    [B, T]. A response outside is dropped whole. Source: TRL's default, `sequence_mask`.
    """
    weights = torch.exp(_log_ratio(old_logps, behaviour_logps, mask).sum(-1, keepdim=True))
    return torch.where(mask, torch.where(_within(weights, low, high), weights, 0.0), 1.0)


@correction(
    axes={"correction": "token ratio, responses dropped whose geometric mean is outside {low:g} to {high:g}"},
    published={"low": "OpenRLHF", "high": "OpenRLHF"},
)
def geometric_mean_masked(
    old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor, *, low: float = 0.5, high: float = 5.0
) -> Tensor:
    """Token ratios of the responses whose geometric mean ratio is within bounds, 0 for the others.

        w_it * [low <= exp(mean_t log w_it) <= high]

    [B, T]. The mean does not drift with length, as the product does. Source: OpenRLHF's masked correction at sequence
    level.
    """
    log_ratio = _log_ratio(old_logps, behaviour_logps, mask)
    mean = torch.exp(log_ratio.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True))
    return torch.where(_within(mean, low, high) | ~mask, torch.exp(log_ratio), 0.0)
