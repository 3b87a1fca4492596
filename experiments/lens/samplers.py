"""Samplers that are not the policy itself: an older version of it, and one whose logits are perturbed.

How far a sampler b is from the policy pi is its divergence in nats a token, over the tokens that it draws:

    KL(b || pi) = E_b[sum_t KL(b(. | prefix_t) || pi(. | prefix_t))] / E_b[number of tokens]

What training logs as `sampler_kl` estimates the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import torch
from scipy import optimize

from core.randomness import stream, torch_generator
from experiments.lens.policy import TabularPolicy

UPDATE_KL: Final = 1e-3
"""Nats a token by which one update moves the policy: about what it is in training with `embedded.gin`."""
NOISE: Final = stream("lens_sampler")


def divergence(sampler: TabularPolicy, policy: TabularPolicy) -> float:
    """KL(sampler || policy) in nats a token, exactly."""
    by_prefix = (sampler.log_probs.exp() * (sampler.log_probs - policy.log_probs)).sum(-1)
    nats = (sampler.probabilities * sampler.at_tokens(by_prefix).sum(-1)).sum()
    return float(nats / (sampler.probabilities * sampler.responses.draws).sum())


def updated(policy: TabularPolicy) -> TabularPolicy:
    """The policy after one step along the true gradient, as long as moves it by `UPDATE_KL`."""

    def moved(size: float) -> TabularPolicy:
        return replace(policy, logits=policy.logits + size * policy.true_gradient)

    return moved(_size(lambda size: divergence(policy, moved(size)), UPDATE_KL))


def at_ages(start: TabularPolicy, ages: Sequence[int]) -> list[TabularPolicy]:
    """The policy so many updates after `start`, each sampled from `start`."""
    policies = [start]
    for _ in range(max(ages)):
        policies.append(updated(policies[-1]))
    return [replace(policies[age], sampler=start, age=age) for age in ages]


def at_mismatches(policy: TabularPolicy, mismatches: Sequence[float], seed: int) -> list[TabularPolicy]:
    """The policy itself, each time sampled from with noise on the logits that puts the sampler so far away.

    The noise is one draw of independent normal numbers, scaled: the same direction at every distance.
    """
    noise = torch.randn(policy.logits.shape, generator=torch_generator(seed, NOISE), dtype=torch.float64)

    def perturbed(size: float) -> TabularPolicy:
        return replace(policy, logits=policy.logits + size * noise)

    sizes = [_size(lambda size: divergence(perturbed(size), policy), kl) for kl in mismatches]
    return [replace(policy, sampler=perturbed(size)) for size in sizes]


def _size(divergence_at: Callable[[float], float], target: float) -> float:
    """The size of a move at which the divergence is `target`, 0 where that is 0."""
    if target == 0:
        return 0.0
    high = 1e-3
    while divergence_at(high) < target:
        high *= 2
    size: float = optimize.brentq(lambda size: divergence_at(size) - target, 0.0, high, xtol=1e-12, rtol=1e-12)
    return size
