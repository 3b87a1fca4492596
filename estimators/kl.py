"""Estimators of KL(policy || reference) from samples of the policy, [B, T], in nats.

As a value under samples of the policy, k1 and k3 are unbiased, k2 is not. As a loss on fixed samples it is their
gradient that matters: only k2, the forms with its gradient, and those times the ratio push towards the reference by the
gradient of KL(pi || ref). Source of the names: Schulman 2020, "Approximating KL divergence"
(joschu.net/blog/kl-approx.html).
"""

import torch
from torch import Tensor

from core import kl
from estimators.ratios import ratio_of


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


@kl(published={"max_log_ratio": "verl", "max_value": "verl"})
def k3_bounded(logps: Tensor, ref_logps: Tensor, *, max_log_ratio: float = 20.0, max_value: float = 10.0) -> Tensor:
    """k3 with a bounded log-ratio and a bounded value: no gradient beyond either.

        min(exp(-k) - 1 + k, max_value),   k = clip(k1, -max_log_ratio, max_log_ratio)

    [B, T]. No gradient where the reference finds a token more than 2.6 nats likelier, or 11 nats less likely. Source:
    verl's `low_var_kl`.
    """
    log_ratio = (ref_logps - logps).clamp(-max_log_ratio, max_log_ratio)
    return (torch.expm1(log_ratio) - log_ratio).clamp(max=max_value)


@kl
def k_abs(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """The size of the log-ratio: |k1|.

    [B, T]. Neither its value nor its gradient is that of a KL. Source: verl's `abs`.
    """
    return (logps - ref_logps).abs()


def _with_gradient_of_k2(value: Tensor, logps: Tensor, ref_logps: Tensor) -> Tensor:
    surrogate = (logps - ref_logps).square() / 2
    return value.detach() + surrogate - surrogate.detach()


@kl
def k1_plus(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """The value of k1 with the gradient of k2.

    [B, T]. Unbiased in both: what is logged is KL(pi || ref), what is followed its gradient. Source: verl's `k1+`.
    """
    return _with_gradient_of_k2(k1.function(logps, ref_logps), logps, ref_logps)


@kl
def k3_plus(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """The value of k3 with the gradient of k2.

    [B, T]. Unbiased in both, and the logged value is never negative. Source: verl's `k3+`.
    """
    return _with_gradient_of_k2(k3.function(logps, ref_logps), logps, ref_logps)


@kl
def k1_ratio(logps: Tensor, ref_logps: Tensor, old_logps: Tensor) -> Tensor:
    """The log-ratio, weighted by the probability ratio to the policy that sampled: q * k1.

    [B, T]. q = pi / old, with gradient: unbiased in value and gradient, off-policy as well.
    """
    return ratio_of(logps - old_logps) * (logps - ref_logps)


@kl
def k3_ratio(logps: Tensor, ref_logps: Tensor, old_logps: Tensor) -> Tensor:
    """k3, weighted by the probability ratio to the policy that sampled: q * k3.

    [B, T]. q = pi / old, with gradient: the value is that of k3, the expected gradient that of KL(pi || ref),
    off-policy as well. Source: DeepSeek-V3.2 (2025, arXiv:2512.02556); TRL's `use_bias_correction_kl`, on by default.
    """
    value: Tensor = k3.function(logps, ref_logps)
    return ratio_of(logps - old_logps) * value
