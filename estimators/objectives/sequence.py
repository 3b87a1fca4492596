"""Objectives on one ratio per response."""

import math

import torch
from torch import Tensor

from core import TokenLoss, objective
from estimators.objectives.token import clipped_surrogate
from estimators.ratios import ratio_of

GSPO_CLIP = {"eps_low": "GSPO, section 5.1", "eps_high": "GSPO, section 5.1"}
GSPO_AXES = {"clip": "1 - {eps_low:g} to 1 + {eps_high:g}"}


def row_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum over counted tokens, [B, 1]."""
    return torch.where(mask, values, 0.0).sum(-1, keepdim=True)


def row_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over counted tokens, [B, 1]; 0 for a row without any."""
    return row_sum(values, mask) / mask.sum(-1, keepdim=True).clamp(min=1)


@objective(
    zero_at_zero_advantage=True,
    axes={"ratio": "response, geometric mean over its tokens", **GSPO_AXES},
    published=GSPO_CLIP,
)
def gspo_clip(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    eps_low: float = 3e-4,
    eps_high: float = 4e-4,
) -> TokenLoss:
    """PPO's clip on the response's length-normalised ratio.

        l_it = -min(s_i * A_it, clip(s_i, 1 - eps_low, 1 + eps_high) * A_it),   s_i = exp(mean_t d_it)

    [B, T], constant over a response whose advantage is. A response is clipped whole. The bounds are far narrower than a
    token ratio's, because s is a mean. Source: GSPO (Zheng et al. 2025, arXiv:2507.18071, equations 5 to 7).
    """
    ratio = ratio_of(row_mean(logps - old_logps, mask)).expand_as(logps)
    return clipped_surrogate(ratio, advantages, eps_low, eps_high)


@objective(
    zero_at_zero_advantage=True,
    axes={"ratio": "response, geometric mean over its tokens, gradient by token", **GSPO_AXES},
    published=GSPO_CLIP,
)
def gspo_token_clip(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    eps_low: float = 3e-4,
    eps_high: float = 4e-4,
) -> TokenLoss:
    """The same ratio, with each token's gradient its own: for advantages that differ within a response.

        l_it = -min(s_it * A_it, clip(s_it) * A_it),   s_it = sg[s_i] * pi(y_it) / sg[pi(y_it)]

    [B, T]. Equal to `gspo_clip` in value and gradient when A is constant over a response. Source: GSPO-token (Zheng et
    al. 2025, arXiv:2507.18071, equations 13 and 14).
    """
    # in this order: a sum with the mean first would round it away against bounds of 1e-4
    log_ratio = row_mean(logps - old_logps, mask).detach() + (logps - logps.detach())
    return clipped_surrogate(ratio_of(log_ratio), advantages, eps_low, eps_high)


@objective(
    zero_at_zero_advantage=True,
    axes={"ratio": "response, product over its tokens", "clip": "1 - {eps_low:g} to 1 + {eps_high:g}"},
    published={"eps_low": "TRL", "eps_high": "TRL"},
)
def sequence_clip(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
) -> TokenLoss:
    """PPO's clip on the ratio of whole-response probabilities, shared out evenly among its tokens.

        l_it = -min(s_i * A_it, clip(s_i) * A_it) / n_i,   s_i = exp(sum_t d_it)

    [B, T]; under `seq_mean_token_sum` the mean over rows of the response's surrogate. The product leaves the bounds
    after a few updates when responses are long. Source: TRL's RLOOTrainer.
    """
    ratio = ratio_of(row_sum(logps - old_logps, mask)).expand_as(logps)
    surrogate = clipped_surrogate(ratio, advantages, eps_low, eps_high)
    return TokenLoss(surrogate.loss / mask.sum(-1, keepdim=True).clamp(min=1), surrogate.info)


@objective(
    zero_at_zero_advantage=True,
    axes={
        "ratio": "response, geometric mean over its clipped tokens",
        "clip": "log-ratio of each token within -{eps_low:g} to {eps_high:g}",
    },
    published={"eps_low": "GMPO, section 4", "eps_high": "GMPO, section 4"},
)
def geo_mean_clip(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    eps_low: float = 0.4,
    eps_high: float = 0.4,
) -> TokenLoss:
    """The geometric mean of ratios that were clipped token by token, in log space.

        l_it = -A_i * exp(mean_t d'_it),   d'_it = sgn(A) * min(sgn(A) d_it, sgn(A) clip(d_it, -eps_low, eps_high))

    [B, T], constant over a response; A_i is the mean over its tokens. Source: GMPO (Zhao et al. 2025, arXiv:2507.20673,
    equation 4).
    """
    d = logps - old_logps
    sign = advantages.sign()
    clipped = sign * torch.minimum(sign * d, sign * d.clamp(-eps_low, eps_high))
    ratio = ratio_of(row_mean(clipped, mask)).expand_as(logps)
    loss = -row_mean(advantages, mask) * ratio
    return TokenLoss(loss, {"clip_fraction": (clipped != d) & (sign != 0), "ratio": ratio.detach()})


@objective(
    zero_at_zero_advantage=True,
    axes={
        "ratio": "response, product over its tokens, as a weight without gradient",
        "clip": "gamma-shaped weight, k and lambda {k_positive:g}, {lambda_positive:g} for A >= 0, "
        "{k_negative:g}, {lambda_negative:g} for A < 0",
    },
    published={"k_positive": "VESPO", "lambda_positive": "VESPO", "k_negative": "VESPO", "lambda_negative": "VESPO"},
)
def vespo_weight(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    k_positive: float = 2.0,
    lambda_positive: float = 3.0,
    k_negative: float = 3.0,
    lambda_negative: float = 2.0,
    max_token_log_ratio: float = 20.0,
    min_weight: float = 1e-8,
    max_log_weight: float = 20.0,
) -> TokenLoss:
    """REINFORCE with a weight that is 1 on-policy and falls off smoothly on both sides.

        l_it = -sg[phi(w_i)] * A_it * log pi(y_it),   phi(w) = e^lambda w^k e^(-lambda w),   w_i = exp(sum_t d_it)

    [B, T]. phi(1) = 1. Token log-ratios are bounded at +-max_token_log_ratio, w at min_weight and
    exp(max_log_weight), as in the authors' code. Source: VESPO (2026, arXiv:2602.10693), in TRL's form.
    """
    with torch.no_grad():
        total = row_sum((logps - old_logps).clamp(-max_token_log_ratio, max_token_log_ratio), mask)
        log_w = total.clamp(math.log(min_weight), max_log_weight)
        number, positive = advantages.new_tensor, advantages >= 0
        k = torch.where(positive, number(k_positive), number(k_negative))
        lam = torch.where(positive, number(lambda_positive), number(lambda_negative))
        phi = torch.exp(lam + k * log_w - lam * log_w.exp())
        ratio = log_w.exp().expand_as(logps)
    return TokenLoss(-phi * advantages * logps, {"weight": phi, "ratio": ratio})
