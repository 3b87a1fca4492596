"""Older and perturbed samplers: as far from the policy as asked for, in the direction that is said."""

import math
from dataclasses import replace

import pytest
import torch

from experiments.lens.policy import Responses, TabularPolicy, make_policy
from experiments.lens.samplers import UPDATE_KL, at_ages, at_mismatches, divergence

SMALL = make_policy((0.2, 0.7), max_tokens=3)


def chain(a: float, b: float) -> TabularPolicy:
    """Goes on after nothing with probability a, after one letter with b, and is cut after two."""
    logits = torch.tensor([[[1 - a, a], [1 - b, b]]], dtype=torch.float64).log()
    rewards = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    return TabularPolicy(Responses.all(2, 2), logits, torch.zeros_like(logits), rewards)


def test_the_divergence_by_hand_counts_tokens_as_the_sampler_draws_them() -> None:
    """1 + 1/4 tokens a response: the first from 1/4 against 1/2, the second, in a quarter of them, from 1/3 to 1/2."""
    first = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    second = 1 / 3 * math.log(2 / 3) + 2 / 3 * math.log(4 / 3)
    assert divergence(chain(0.25, 1 / 3), chain(0.5, 0.5)) == pytest.approx((first + second / 4) / 1.25)
    assert divergence(chain(0.5, 0.5), chain(0.5, 0.5)) == 0


def test_every_update_goes_so_far_along_the_true_gradient() -> None:
    fresh, one, two = at_ages(SMALL, [0, 1, 2])
    assert [p.age for p in (fresh, one, two)] == [0, 1, 2]
    assert torch.equal(fresh.logits, SMALL.logits)
    for older, newer in ((SMALL, one), (one, two)):
        assert divergence(older, newer) == pytest.approx(UPDATE_KL, rel=1e-6)
        step = (newer.logits - older.logits).flatten()
        gradient = older.true_gradient.flatten()
        assert float(step @ gradient / step.norm() / gradient.norm()) == pytest.approx(1)
    assert (two.success > one.success).all()
    # two steps in nearly the same direction are four times as far as one
    assert divergence(two.behaviour, two) == pytest.approx(4 * UPDATE_KL, rel=0.1)
    assert torch.equal(two.behaviour.logits, SMALL.logits)


def test_a_perturbed_sampler_is_as_far_as_asked_for_and_its_policy_stays() -> None:
    near, far = at_mismatches(SMALL, [1e-4, 1e-2], seed=0)
    for policy, nats in ((near, 1e-4), (far, 1e-2)):
        assert torch.equal(policy.logits, SMALL.logits)
        assert divergence(policy.behaviour, policy) == pytest.approx(nats, rel=1e-6)
    one, other = (policy.behaviour.logits - SMALL.logits for policy in (near, far))
    torch.testing.assert_close(one / one.norm(), other / other.norm())
    (again,) = at_mismatches(SMALL, [1e-2], seed=0)
    assert torch.equal(again.behaviour.logits, far.behaviour.logits)
    (elsewhere,) = at_mismatches(SMALL, [1e-2], seed=1)
    assert not torch.allclose(elsewhere.behaviour.logits, far.behaviour.logits)


def test_no_mismatch_is_the_policy_itself() -> None:
    (same,) = at_mismatches(replace(SMALL), [0.0], seed=0)
    assert torch.equal(same.behaviour.logits, SMALL.logits)
