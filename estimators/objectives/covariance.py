"""Objectives that single out the few tokens which cost the most entropy: those where advantage and log-prob covary."""

import torch
from torch import Tensor

from core import TokenLoss, objective
from estimators.objectives.token import PPO_CLIP, clipped_surrogate
from estimators.ratios import ratio_of

ENTROPY = "Cui et al. 2025, section 4"


def covariance(logps: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """(A - mean A) * (log pi - mean log pi) over all counted tokens of the step, [B, T]."""

    def deviations(x: Tensor) -> Tensor:
        return x - torch.where(mask, x, 0.0).sum() / mask.sum()

    return deviations(advantages) * deviations(logps)


def _draw_tokens_to_stop(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    generator: torch.Generator,
    *,
    eps_low: float,
    eps_high: float,
    share: float,
    cov_low: float,
    cov_high: float,
) -> Tensor:
    """A random `share` of all tokens, among those not clipped whose covariance lies between the bounds; [B, T] bool."""
    clipped = clipped_surrogate(ratio_of(logps - old_logps), advantages, eps_low, eps_high).info["clip_fraction"]
    cov = covariance(logps, advantages, mask)
    eligible = (mask & ~clipped & (cov > cov_low) & (cov < cov_high)).flatten().nonzero()[:, 0]
    number = max(1, int(share * int(mask.sum())))
    drawn = torch.randperm(len(eligible), generator=generator)[:number].to(eligible.device)
    stopped = torch.zeros_like(mask).flatten()
    stopped[eligible[drawn]] = True
    return stopped.view(mask.shape)


@objective(
    prepare=_draw_tokens_to_stop,
    zero_at_zero_advantage=True,
    axes={
        "ratio": "token",
        "clip": "1 - {eps_low:g} to 1 + {eps_high:g}; {share:g} of tokens with covariance in {cov_low:g} to "
        "{cov_high:g} get no gradient",
    },
    published={**PPO_CLIP, "share": ENTROPY, "cov_low": ENTROPY, "cov_high": ENTROPY},
)
def cov_clip(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    prepared: Tensor,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    share: float = 2e-4,  # noqa: ARG001 - read by the draw
    cov_low: float = 1.0,  # noqa: ARG001
    cov_high: float = 5.0,  # noqa: ARG001
) -> TokenLoss:
    """PPO's clip, with a few high-covariance tokens taken out of the loss at random.

        l_it = 0 for the drawn tokens, else the clip loss;   cov_it = (A_it - mean A)(log pi_it - mean log pi)

    [B, T]. max(1, share * N) tokens of the step are drawn, once per optimizer step, among unclipped ones with cov_low <
    cov < cov_high. Source: Clip-Cov (Cui et al. 2025, arXiv:2505.22617, equations 9 and 10).
    """
    plain = clipped_surrogate(ratio_of(logps - old_logps), advantages, eps_low, eps_high)
    return TokenLoss(plain.loss.masked_fill(prepared, 0.0), {**plain.info, "stopped": prepared})


def _largest_covariances(logps: Tensor, advantages: Tensor, mask: Tensor, *, share: float) -> Tensor:
    """The `share` of tokens with the largest covariance, at least one; [B, T] bool."""
    number = int(mask.sum())
    chosen = torch.zeros_like(mask).flatten()
    if number:
        cov = covariance(logps, advantages, mask).masked_fill(~mask, -torch.inf).flatten()
        chosen[cov.topk(max(1, int(number * share))).indices] = True
    return chosen.view(mask.shape)


@objective(
    prepare=_largest_covariances,
    axes={"ratio": "token", "clip": "none; {kl_coef:g} x |log-ratio| on the {share:g} of tokens with most covariance"},
    published={"share": ENTROPY, "kl_coef": ENTROPY},
)
def cov_kl(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    prepared: Tensor,
    *,
    share: float = 2e-4,  # noqa: ARG001 - read by the choice
    kl_coef: float = 1.0,
) -> TokenLoss:
    """The unclipped surrogate, with a penalty on the step of the few tokens of largest covariance.

        l_it = -q_it * A_it + kl_coef * |d_it| [it among the top share by covariance]

    [B, T]. Not clipped; a chosen row without advantage still has a gradient off-policy. Source: KL-Cov (Cui et al.
    2025, arXiv:2505.22617, equation 11).
    """
    d = logps - old_logps
    ratio = ratio_of(d)
    penalty = kl_coef * d.abs()
    loss = -ratio * advantages + torch.where(prepared, penalty, 0.0)
    return TokenLoss(loss, {"ratio": ratio.detach(), "penalised": prepared})
