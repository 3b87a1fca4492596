"""Policy objectives: the loss of each token, [B, T], minimised.

Notation: `q = exp(logps - old_logps)` is the probability ratio, `A` the advantage.
"""

import torch
from torch import Tensor

from core import TokenLoss, objective


@objective(zero_at_zero_advantage=True, axes={"ratio": "none", "clip": "none"})
def policy_gradient(logps: Tensor, advantages: Tensor) -> Tensor:
    """Log-probability weighted by the advantage.

        l_it = -A_it * log pi(y_it)

    [B, T]. Its value says nothing (it is not scale-free); its gradient is the score-function estimator, right only for
    samples of the present policy: one update per rollout. Source: REINFORCE (Williams 1992).
    """
    return -advantages * logps


@objective(zero_at_zero_advantage=True, axes={"ratio": "token", "clip": "1 - {eps_low:g} to 1 + {eps_high:g}"})
def clip(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, *, eps_low: float = 0.2, eps_high: float = 0.2
) -> TokenLoss:
    """PPO's clipped surrogate on the token ratio.

        l_it = -min(q_it * A_it, clip(q_it, 1 - eps_low, 1 + eps_high) * A_it)

    [B, T]. No gradient where A > 0 and q > 1 + eps_high, or A < 0 and q < 1 - eps_low; on-policy (q = 1) nothing is
    clipped. Logs `clip_fraction`, `clip_low`, `clip_high` (share of tokens without gradient) and `ratio`. Source: PPO
    (Schulman et al. 2017, arXiv:1707.06347, equation 7); separate bounds: DAPO (Yu et al. 2025, arXiv:2503.14476).
    """
    ratio = torch.exp(logps - old_logps)
    clipped = ratio.clamp(1 - eps_low, 1 + eps_high)
    loss = -torch.minimum(ratio * advantages, clipped * advantages)
    with torch.no_grad():
        high = (advantages > 0) & (ratio > 1 + eps_high)
        low = (advantages < 0) & (ratio < 1 - eps_low)
        info = {"clip_fraction": high | low, "clip_low": low, "clip_high": high, "ratio": ratio}
    return TokenLoss(loss, info)
