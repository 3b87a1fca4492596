"""Estimators of KL(policy || reference) from samples of the policy, [B, T], in nats.

Source of the names: Schulman 2020, "Approximating KL divergence" (joschu.net/blog/kl-approx.html).
"""

import torch
from torch import Tensor

from core import kl


@kl
def k1(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """The log-ratio: k1 = log pi - log ref.

    [B, T]. Unbiased, may be negative. As a differentiable loss its expected gradient is 0: use it in the reward.
    """
    return logps - ref_logps


@kl
def k2(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """Half the squared log-ratio: k2 = k1^2 / 2.

    [B, T]. Biased as a value; as a loss its expected gradient is that of KL(pi || ref).
    """
    return (logps - ref_logps).square() / 2


@kl
def k3(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """The log-ratio with a control variate: k3 = exp(-k1) - 1 + k1.

    [B, T]. Unbiased as a value and never negative; as a loss its expected gradient is that of KL(ref || pi). Source
    in RL: GRPO (Shao et al. 2024, arXiv:2402.03300, equation 4).
    """
    log_ratio = ref_logps - logps
    return torch.expm1(log_ratio) - log_ratio
