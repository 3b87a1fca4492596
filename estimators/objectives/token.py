"""Objectives on the ratio of each token by itself."""

import torch
from torch import Tensor

from core import TokenLoss, objective
from estimators.ratios import ratio_of

PPO_CLIP = {"eps_low": "PPO, section 6.1", "eps_high": "PPO, section 6.1"}


@objective(zero_at_zero_advantage=True, axes={"ratio": "none", "clip": "none"})
def policy_gradient(logps: Tensor, advantages: Tensor) -> Tensor:
    """Log-probability weighted by the advantage.

        l_it = -A_it * log pi(y_it)

    [B, T]. Its value says nothing (it is not scale-free); its gradient is the score-function estimator, right only for
    samples of the present policy: one update per rollout. Source: REINFORCE (Williams 1992).
    """
    return -advantages * logps


def clipped_surrogate(ratio: Tensor, advantages: Tensor, eps_low: float, eps_high: float) -> TokenLoss:
    """PPO's surrogate -min(q A, clip(q) A) on any ratio, with what is logged of it."""
    clipped = ratio.clamp(1 - eps_low, 1 + eps_high)
    loss = -torch.minimum(ratio * advantages, clipped * advantages)
    with torch.no_grad():
        high = (advantages > 0) & (ratio > 1 + eps_high)
        low = (advantages < 0) & (ratio < 1 - eps_low)
        info = {"clip_fraction": high | low, "clip_low": low, "clip_high": high, "ratio": ratio.detach()}
    return TokenLoss(loss, info)


@objective(
    zero_at_zero_advantage=True,
    axes={"ratio": "token", "clip": "1 - {eps_low:g} to 1 + {eps_high:g}"},
    published=PPO_CLIP,
)
def clip(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, *, eps_low: float = 0.2, eps_high: float = 0.2
) -> TokenLoss:
    """PPO's clipped surrogate on the token ratio.

        l_it = -min(q_it * A_it, clip(q_it, 1 - eps_low, 1 + eps_high) * A_it)

    [B, T]. No gradient where A > 0 and q > 1 + eps_high, or A < 0 and q < 1 - eps_low; on-policy (q = 1) nothing is
    clipped. Logs `clip_fraction`, `clip_low`, `clip_high` (share of tokens without gradient) and `ratio`. Source: PPO
    (Schulman et al. 2017, arXiv:1707.06347, equation 7); separate bounds: DAPO (Yu et al. 2025, arXiv:2503.14476).
    """
    return clipped_surrogate(ratio_of(logps - old_logps), advantages, eps_low, eps_high)


@objective(
    zero_at_zero_advantage=True,
    axes={"ratio": "token", "clip": "1 - {eps_low:g} to 1 + {eps_high:g}, loss of A < 0 at most {ratio_cap:g} |A|"},
    published={**PPO_CLIP, "ratio_cap": "Ye et al. 2020, section 4.3; verl"},
)
def dual_clip(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    ratio_cap: float = 3.0,
) -> TokenLoss:
    """PPO's clip, bounded also where a bad token has become much likelier.

        l_it = min(clip loss, ratio_cap * |A_it|) where A_it < 0, else the clip loss

    [B, T]. `ratio_cap` > 1; differs from `clip` only where A < 0 and q > ratio_cap: there the gradient is 0. Source: Ye
    et al. 2020 (arXiv:1912.09729); always on in verl.
    """
    plain = clipped_surrogate(ratio_of(logps - old_logps), advantages, eps_low, eps_high)
    capped = (advantages < 0) & (plain.info["ratio"] > ratio_cap)
    loss = torch.where(capped, -ratio_cap * advantages, plain.loss)
    return TokenLoss(loss, {**plain.info, "clip_fraction": plain.info["clip_fraction"] | capped, "clip_cap": capped})


@objective(
    zero_at_zero_advantage=True,
    axes={"ratio": "token, at most {ratio_cap:g}", "clip": "1 - {eps_low:g} to 1 + {eps_high:g}"},
    published=PPO_CLIP,
)
def capped_clip(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    ratio_cap: float = 4.0,
) -> TokenLoss:
    """PPO's clip on a ratio that is itself capped: two-sided clipping.

        l_it = -min(min(q_it, ratio_cap) * A_it, clip(q_it, 1 - eps_low, 1 + eps_high) * A_it)

    [B, T]. Equal to `dual_clip` with the same cap when ratio_cap >= 1 + eps_high. Source: INTELLECT-2 (Prime Intellect
    2025, arXiv:2505.07291, section 3.4); TRL's `delta`.
    """
    ratio = ratio_of(logps - old_logps)
    loss = -torch.minimum(ratio.clamp(max=ratio_cap) * advantages, ratio.clamp(1 - eps_low, 1 + eps_high) * advantages)
    with torch.no_grad():
        info = clipped_surrogate(ratio, advantages, eps_low, eps_high).info
        capped = (advantages < 0) & (ratio > ratio_cap)
    return TokenLoss(loss, {**info, "clip_fraction": info["clip_fraction"] | capped, "clip_cap": capped})


@objective(
    zero_at_zero_advantage=True,
    axes={
        "ratio": "token",
        "clip": "1 - {eps_low:g} to 1 + {eps_high:g}; rows with A < 0 and mean log-ratio of "
        "sampler to policy over {threshold:g} dropped",
    },
    published=PPO_CLIP,
)
def off_policy_masked_clip(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    behaviour_logps: Tensor,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    threshold: float = 0.5,
) -> TokenLoss:
    """PPO's clip, without bad responses that the policy has long left behind.

        l_it = clip loss * [A_it >= 0 or mean_t(log behaviour - log pi) <= threshold]

    [B, T]. The paper gives no threshold. Source: DeepSeek-V3.2 (2025, arXiv:2512.02556, off-policy sequence masking).
    """
    plain = clipped_surrogate(ratio_of(logps - old_logps), advantages, eps_low, eps_high)
    gap = torch.where(mask, behaviour_logps - logps, 0.0).sum(-1, keepdim=True)
    stale = (advantages < 0) & (gap / mask.sum(-1, keepdim=True).clamp(min=1) > threshold)
    return TokenLoss(plain.loss.masked_fill(stale, 0.0), {**plain.info, "dropped": stale})


@objective(
    zero_at_zero_advantage=True,
    axes={"ratio": "token, as a weight without gradient", "clip": "weight within 1 - {eps_low:g} to 1 + {eps_high:g}"},
    published={"eps_low": "CISPO: no lower bound in effect", "eps_high": "ScaleRL and TRL: weight at most 5"},
)
def cispo_clip(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, *, eps_low: float = 1.0, eps_high: float = 4.0
) -> TokenLoss:
    """REINFORCE with a clipped importance weight: every token keeps its gradient.

        l_it = -sg[clip(q_it, 1 - eps_low, 1 + eps_high)] * A_it * log pi(y_it)

    [B, T]. eps_low >= 1 is no lower bound. Logs `clip_fraction` (share of tokens whose weight is bounded) and `ratio`.
    Source: CISPO (MiniMax-M1, 2025, arXiv:2506.13585, equations 4 and 5).
    """
    ratio = ratio_of(logps - old_logps).detach()
    weight = ratio.clamp(1 - eps_low, 1 + eps_high)
    return TokenLoss(-weight * advantages * logps, {"clip_fraction": weight != ratio, "ratio": ratio})


@objective(
    zero_at_zero_advantage=True,
    axes={"ratio": "token", "clip": "soft gate, temperature {tau_positive:g} for A > 0, else {tau_negative:g}"},
    published={"tau_positive": "SAPO", "tau_negative": "SAPO"},
)
def sapo_gate(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    *,
    tau_positive: float = 1.0,
    tau_negative: float = 1.05,
) -> TokenLoss:
    """A sigmoid in place of the clip: the further from the old policy, the smaller the gradient.

        l_it = -A_it * (4 / tau) * sigmoid(tau * (q_it - 1)),   tau = tau_positive where A_it > 0, else tau_negative

    [B, T]. At q = 1 the gate is 2 / tau with slope 1, so that the on-policy gradient is REINFORCE's; it is at most
    4 / tau. Source: SAPO (Gao et al. 2025, arXiv:2511.20347).
    """
    ratio = ratio_of(logps - old_logps)
    # in the advantages' precision: a bare number would be rounded to float32
    tau = torch.where(advantages > 0, advantages.new_tensor(tau_positive), advantages.new_tensor(tau_negative))
    gate = torch.sigmoid(tau * (ratio - 1)) * 4 / tau
    return TokenLoss(-gate * advantages, {"ratio": ratio.detach()})


@objective(axes={"ratio": "none, log-ratio penalised", "clip": "penalty {beta:g}/2 x squared log-ratio"})
def dro_quadratic(logps: Tensor, old_logps: Tensor, advantages: Tensor, *, beta: float = 1.0) -> Tensor:
    """REINFORCE with a quadratic penalty on the log-ratio in place of a clip.

        l_it = -(A_it * log pi(y_it) - beta / 2 * d_it^2)

    [B, T]. A row without advantage still has a gradient off-policy: it is pulled back. No value of `beta` is canonical.
    Source: DRO (Richemond et al. 2024, arXiv:2405.19107), token by token as in verl.
    """
    return -(advantages * logps - beta / 2 * (logps - old_logps).square())
