"""Corrections that weigh tokens for the mismatch between the sampler's probabilities and the trainer's.

Notation: `w = exp(old - behaviour)`, the trainer's probability of a token over the sampler's. Every factor is 1 outside
the mask and wherever sampler and trainer agree, and has no gradient. Products over long responses leave any bound as a
matter of course: log what is kept (`correction` in the metrics).
"""

from typing import Literal

import torch
from torch import Tensor

from core import correction
from estimators.segments import segments_of


def log_ratio_of(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
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
    return torch.exp(log_ratio_of(old_logps, behaviour_logps, mask)).clamp(floor, cap)


@correction(axes={"correction": "response ratio, within {floor:g} to {cap:g}"}, published={"cap": "verl"})
def sequence_truncated(
    old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor, *, cap: float = 2.0, floor: float = 0.0
) -> Tensor:
    """Truncated importance sampling of whole responses: clip(prod_t w_it, floor, cap) on every token.

    [B, T]. Source: verl's `sequence` level; Liu et al. 2025, "When speed kills stability".
    """
    total = log_ratio_of(old_logps, behaviour_logps, mask).sum(-1, keepdim=True)
    return torch.where(mask, torch.exp(total).clamp(floor, cap), 1.0)


@correction(axes={"correction": "token ratio, 0 outside {low:g} to {high:g}"}, published={"high": "TRL"})
def token_masked(
    old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor, *, low: float = 0.0, high: float = 3.0
) -> Tensor:
    """Masked importance sampling, token by token: w_it where low <= w_it <= high, else 0.

    [B, T]. Source: IcePop (Ring-1T, Ling Team 2025, arXiv:2510.18855).
    """
    weights = torch.exp(log_ratio_of(old_logps, behaviour_logps, mask))
    return torch.where(_within(weights, low, high) | ~mask, weights, 0.0)


@correction(axes={"correction": "response ratio, 0 outside {low:g} to {high:g}"}, published={"high": "TRL"})
def sequence_masked(
    old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor, *, low: float = 0.0, high: float = 3.0
) -> Tensor:
    """Masked importance sampling of whole responses: prod_t w_it where that is within the bounds, else 0.

    [B, T]. A response outside is dropped whole. Source: TRL's default, `sequence_mask`.
    """
    weights = torch.exp(log_ratio_of(old_logps, behaviour_logps, mask).sum(-1, keepdim=True))
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
    log_ratio = log_ratio_of(old_logps, behaviour_logps, mask)
    mean = torch.exp(log_ratio.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True))
    return torch.where(_within(mean, low, high) | ~mask, torch.exp(log_ratio), 0.0)


@correction(
    scope="step",
    axes={"correction": "{level} ratio, at most {cap:g}, over its mean in the optimizer step"},
    published={"cap": "verl"},
)
def normalized(
    old_logps: Tensor,
    behaviour_logps: Tensor,
    mask: Tensor,
    *,
    level: Literal["token", "sequence"] = "token",
    cap: float = 2.0,
) -> Tensor:
    """Truncated importance weights over their mean, so that these weigh 1 on average: min(w, cap) / mean min(w, cap).

    [B, T]. `level`: w of the token, or the product over its response; the mean is over counted tokens, or over
    responses with any. A weight may exceed the cap. Source: verl's `rollout_is_batch_normalize`.
    """
    log_ratio = log_ratio_of(old_logps, behaviour_logps, mask)
    if level == "sequence":
        log_ratio = log_ratio.sum(-1, keepdim=True).expand_as(log_ratio)
    weights = torch.exp(log_ratio).clamp(max=cap)
    counted = weights[mask] if level == "token" else weights[:, 0][mask.any(-1)] if mask.shape[1] else weights[mask]
    mean = counted.mean() if counted.numel() else weights.new_ones(())
    return torch.where(mask, weights / mean, 1.0)


@correction(
    axes={"correction": "geometric mean ratio of each segment, within {floor:g} to {cap:g}"},
    published={"cap": "ROLL"},
)
def segment_truncated(
    old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor, *, cap: float = 1.2, floor: float = 0.0
) -> Tensor:
    """One weight for each unbroken run of counted tokens: clip(exp(mean over the run of log w), floor, cap).

    [B, T]. A run is a turn of the policy's own between what an environment said, or the piece before a hole. Source:
    ROLL's segment ratio.
    """
    log_ratio = log_ratio_of(old_logps, behaviour_logps, mask)
    index, counts = segments_of(mask)
    means = torch.zeros_like(log_ratio).scatter_add(1, index, log_ratio) / counts.clamp(min=1)
    return torch.where(mask, torch.exp(means.gather(1, index)).clamp(floor, cap), 1.0)


@correction(
    axes={
        "correction": "token ratio, at most {cap:g}; in responses whose mean |ratio - 1| is over {bound:g} tokens "
        "taken out that the update would push further from the sampler"
    },
    published={"cap": "open-instruct"},
)
def vaco(
    old_logps: Tensor,
    behaviour_logps: Tensor,
    mask: Tensor,
    advantages: Tensor,
    *,
    bound: float = 0.3,
    cap: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """Token ratios, without the tokens of far responses whose ratio the advantage pushes on.

        min(w_it, cap),   dropped where mean_t |w_it - 1| > bound and sign(log w_it) A_it > 0

    [B, T]. Log-ratios are bounded at +-10. Source: VACO (2026, arXiv:2603.01365), in open-instruct's form, where the
    mean is over a packed row.
    """
    log_ratio = log_ratio_of(old_logps, behaviour_logps, mask).clamp(-10, 10)
    weights = torch.exp(log_ratio)
    distance = (weights - 1).abs().sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)
    away = (distance > bound) & (log_ratio.sign() * advantages > 0)
    return weights.clamp(max=cap), mask & ~away
