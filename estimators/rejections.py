"""Corrections that only take tokens or responses out of the loss, by how far sampler and trainer are apart.

Notation: `L = old - behaviour`, the log of the trainer's probability of a token over the sampler's. Factors are 1, so
these go with ratios against the sampler, and with a part that weighs. A token without a log-probability from the
sampler (NaN) is taken out. Whether those that stay are all that a mean counts is the variant's `denominator`.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from core import correction
from core.errors import GrpoLabError
from core.parts.settings import NOT_NEGATIVE, POSITIVE
from estimators.corrections import log_ratio_of

LARGEST = 20.0
"""Of |L|, for the estimates of the divergence."""


def _known(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    """[B, T], bool: tokens of the mask of which the sampler gave a log-probability."""
    return mask & ~(old_logps - behaviour_logps).isnan()


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)


@correction(
    weights=False,
    axes={"correction": "{over} {estimator} of the divergence over {high:g} taken out (lower bound {low})"},
    limits={"high": POSITIVE, "low": NOT_NEGATIVE},
)
def rejection(
    old_logps: Tensor,
    behaviour_logps: Tensor,
    mask: Tensor,
    *,
    estimator: Literal["k1", "k2", "k3"] = "k1",
    over: Literal["token", "sum", "mean", "max"] = "token",
    high: float = 2.0,
    low: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Tokens, or responses by their sum, mean or largest token, whose divergence is within bounds.

        k1 = -L,   k2 = L^2 / 2,   k3 = e^L - 1 - L;   kept: k2, k3 <= high;   log low <= k1 <= log high

    [B, T]. |L| is bounded at 20. The bounds of k1 are on the sampler's probability over the trainer's; `low` is 1/high
    unless given, and 0 is none. `over` "sum" with k1 is the ratio of whole responses, "mean" its geometric mean.
    Source: verl's `rollout_rs` (its `token_`, `seq_sum_`, `seq_mean_` and `seq_max_` rules).
    """
    if low is not None and estimator != "k1":
        raise GrpoLabError(f"rejection.low = {low} with estimator {estimator}, which is never below 0: leave low out")
    L = log_ratio_of(old_logps, behaviour_logps, mask).clamp(-LARGEST, LARGEST)
    k = {"k1": -L, "k2": L.square() / 2, "k3": torch.expm1(L) - L}[estimator]
    if over != "token":
        largest = k.masked_fill(~mask, -math.inf).amax(-1, keepdim=True)
        of_row = {"sum": k.sum(-1, keepdim=True), "mean": _mean(k, mask), "max": largest}
        k = of_row[over].expand_as(k)
    highest, lowest = high, -math.inf
    if estimator == "k1":
        highest, lowest = math.log(high), -math.log(high) if low is None else math.log(low) if low else -math.inf
    return torch.ones_like(L), _known(old_logps, behaviour_logps, mask) & (k <= highest) & (k >= lowest)


@correction(
    weights=False,
    axes={"correction": "responses with any token ratio outside {low:g} to {high:g} taken out"},
    published={"low": "SkyRL", "high": "SkyRL"},
)
def outlier_rejection(
    old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor, *, low: float = 1e-4, high: float = 100.0
) -> tuple[Tensor, Tensor]:
    """Responses all of whose tokens have ratios within bounds: low <= e^L_it <= high for every t.

    [B, T]. Source: SkyRL's outlier mask.
    """
    ratio = torch.exp(log_ratio_of(old_logps, behaviour_logps, mask))
    outside = (mask & ((ratio < low) | (ratio > high))).any(-1, keepdim=True)
    return torch.ones_like(ratio), _known(old_logps, behaviour_logps, mask) & ~outside


@correction(
    weights=False,
    axes={"correction": "responses older than {most} updates taken out"},
    limits={"most": NOT_NEGATIVE},
)
def age_rejection(mask: Tensor, token_age: Tensor, *, most: int = 8) -> tuple[Tensor, Tensor]:
    """Responses whose oldest token is at most `most` updates old: max_t age_it <= most.

    [B, T]. A bound that no response exceeds changes nothing. Its group's statistics count a response that is taken out.
    Source: prime-rl's `max_off_policy_steps`, which drops a late response before its group is rated.
    """
    oldest = token_age.masked_fill(~mask, 0).amax(-1, keepdim=True)
    return torch.ones(mask.shape, device=mask.device), mask & (oldest <= most)


@correction(
    weights=False,
    axes={"correction": "tokens whose divergence of kept or not kept is over {high:g}, either way, taken out"},
)
def binary_kl_rejection(
    old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor, *, high: float = 0.1
) -> tuple[Tensor, Tensor]:
    """Tokens whose Bernoulli divergence, sampled token against all others, is at most `high` in both directions.

        max(KL_B(p || b), KL_B(b || p)) <= high,   p = e^old, b = e^behaviour

    [B, T]. Near 0 and 1 it is unlike a bound on the ratio: .001 to .01 is near, .9 to .99 far. Probabilities are at
    least 1e-8 and at most 1 - 1e-8. Source: KPop, AReaL's `binary_kl`.
    """
    known = _known(old_logps, behaviour_logps, mask)
    p, b = (torch.where(known, x, -1.0).double().exp().clamp(1e-8, 1 - 1e-8) for x in (old_logps, behaviour_logps))
    forward = p * (p / b).log() + (1 - p) * ((1 - p) / (1 - b)).log()
    backward = b * (b / p).log() + (1 - b) * ((1 - b) / (1 - p)).log()
    return torch.ones_like(old_logps), known & (torch.maximum(forward, backward) <= high)


@correction(
    weights=False,
    scope="step",
    axes={"correction": "the fewest tokens taken out that leave a second moment of the log-ratio below {threshold:g}"},
    published={"threshold": "M2PO"},
)
def second_moment_rejection(
    old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor, *, threshold: float = 0.04
) -> tuple[Tensor, Tensor]:
    """All tokens of the optimizer step but the fewest of largest L^2 without which its mean is below `threshold`.

    [B, T]. One token always stays. Source: M2PO (2025, arXiv:2510.01161) as AReaL reads it, there in each micro-batch;
    for the other reading see the objective `m2po`.
    """
    known = _known(old_logps, behaviour_logps, mask)
    squares = log_ratio_of(old_logps, behaviour_logps, mask).square()
    ascending, order = squares[known].double().sort(stable=True)
    means = ascending.cumsum(0) / torch.arange(1, len(ascending) + 1, device=ascending.device)
    stays = (means < threshold).index_fill(0, torch.arange(min(1, len(means)), device=means.device), True)
    keep = known.clone()
    keep[known] = torch.zeros_like(stays).scatter(0, order, stays)
    return torch.ones_like(squares), keep
