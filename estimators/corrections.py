"""Corrections of the mismatch between the sampler's probabilities and the trainer's, as factors [B, T]."""

import torch
from torch import Tensor

from core import correction


@correction(axes={"correction": "token ratio, at most {cap:g}"})
def token_truncated(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor, *, cap: float = 2.0) -> Tensor:
    """Truncated importance sampling, token by token: min(exp(old - behaviour), cap).

    [B, T], 1 outside the mask and wherever sampler and trainer agree. Source: Yao et al. 2025, "Your efficient RL
    framework secretly brings you off-policy RL training".
    """
    log_ratio = torch.where(mask, old_logps - behaviour_logps, 0.0)
    return torch.exp(log_ratio).clamp(max=cap)
