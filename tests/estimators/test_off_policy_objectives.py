"""Objectives for stale responses: numbers by hand, and what they are where nothing is stale."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import Batch, TokenLoss, Variant
from core.loop.loss import step_loss
from estimators.advantages.group import group_mean
from estimators.aggregators import token_sum
from estimators.objectives import policy_gradient
from estimators.objectives.off_policy import m2po, topr


def loss_and_slope(result: TokenLoss, logps: Tensor) -> tuple[list[float], list[float]]:
    (slope,) = torch.autograd.grad(result.loss.sum(), logps)
    return result.loss.detach().flatten().tolist(), slope.flatten().tolist()


def test_good_responses_teach_in_full_and_bad_ones_by_their_ratio() -> None:
    """Two responses of two tokens, ratios 2 and 1/4 of the responses, (4, 1/2) and (1/2, 1/2) of the tokens."""
    difference = torch.tensor([[math.log(4), -math.log(2)], [-math.log(2), -math.log(2)]])
    old = torch.full((2, 2), -1.0)
    logps = (old + difference).requires_grad_()
    mask, advantages = torch.ones(2, 2, dtype=torch.bool), torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    _, slope = loss_and_slope(topr(logps, old, advantages, torch.tensor([1.0, 0.0]), mask), logps)
    assert slope == pytest.approx([-1, -1, 0.25, 0.25])
    _, slope = loss_and_slope(topr(logps, old, advantages, torch.tensor([1.0, 0.0]), mask, level="token"), logps)
    assert slope == pytest.approx([-1, -1, 0.5, 0.5])
    info = topr(logps, old, advantages, torch.tensor([1.0, 0.0]), mask).info
    torch.testing.assert_close(info["weight"], torch.tensor([[1, 1], [0.25, 0.25]]))
    torch.testing.assert_close(info["ratio"], torch.tensor([[2, 2], [0.25, 0.25]]))
    # a ratio above 1 is cut there
    _, slope = loss_and_slope(topr(logps, old, -advantages, torch.tensor([0.0, 1.0]), mask), logps)
    assert slope == pytest.approx([1, 1, -1, -1])


def batch_of(difference: list[float], advantage: float) -> tuple[Batch, Tensor, Tensor]:
    """One group of one response whose present log-probabilities are so far from the sampler's."""
    T = len(difference)
    behaviour = torch.full((1, 1, T), -1.0, dtype=torch.float64)
    batch = Batch.of(torch.tensor([[advantage]], dtype=torch.float64), lengths=[[T]], behaviour_logps=behaviour)
    logps = behaviour + torch.tensor(difference, dtype=torch.float64)
    return batch, logps.requires_grad_(), torch.full((1, 1, T), advantage, dtype=torch.float64)


@pytest.mark.parametrize(
    ("difference", "advantage", "threshold", "kept"),
    [
        ([0.05, -0.6, 0.2, 0.1], 1.0, 0.04, [1, 1, 1, 1]),
        ([0.05, -0.6, 0.2, 0.1], -1.0, 0.04, [1, 0, 1, 1]),
        ([0.0, 0.0, 0.25, -0.1], 1.0, 0.04, [1, 1, 0, 1]),
        ([0.5, -0.1], 1.0, 0.25, [1, 1]),
        ([0.3] * 20 + [0.1] * 10, 1.0, 0.041, [1] * 6 + [0] * 14 + [1] * 10),
    ],
)
def test_second_moment_of_outward_tokens_by_hand(
    difference: list[float], advantage: float, threshold: float, kept: list[int]
) -> None:
    """Outward with A > 0 are .05 .2 .1, squares of mean .0175; with A < 0 -.6 alone, of square .36.

    Tokens that have not moved are not among them: .25 is alone, of square .0625. A mean of the threshold itself is
    within it, and of equal tokens the earlier stay: (10 x .01 + 6 x .09) / 16 = .04, with a seventh .0429.
    """
    batch, logps, advantages = batch_of(difference, advantage)
    variant = Variant(
        advantage=group_mean, objective=m2po.using(threshold=threshold), aggregator=token_sum, anchor="sampler"
    )
    loss = step_loss(variant, batch, logps, advantages)
    expected = [-advantage * math.exp(d) * k for d, k in zip(difference, kept, strict=True)]
    assert float(loss.detach()) == pytest.approx(sum(expected))
    (slope,) = torch.autograd.grad(loss, logps)
    assert slope.flatten().tolist() == pytest.approx(expected)


def test_tokens_that_are_left_out_are_those_said_to_be_clipped() -> None:
    old, kept = torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 1.0]])
    info = m2po((old + math.log(2)).requires_grad_(), old, torch.ones(1, 3), kept).info
    assert info["clip_fraction"].tolist() == [[False, True, False]]
    assert not info["ratio"].requires_grad
    assert info["ratio"].tolist() == [pytest.approx([2, 2, 2])]


@given(st.integers(0, 100))
def test_on_policy_both_are_the_policy_gradient(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    logps = -torch.rand(3, 4, generator=draw, dtype=torch.float64).requires_grad_() - 0.1
    logps = logps.detach().requires_grad_()
    advantages, rewards = torch.randn(3, 1, generator=draw).expand(3, 4).double(), torch.randn(3, generator=draw)
    mask, old = torch.ones(3, 4, dtype=torch.bool), logps.detach()
    _, expected = loss_and_slope(TokenLoss(policy_gradient(logps, advantages)), logps)
    _, of_topr = loss_and_slope(topr(logps, old, advantages, rewards, mask), logps)
    _, of_m2po = loss_and_slope(m2po(logps, old, advantages, torch.ones_like(old)), logps)
    assert of_topr == pytest.approx(expected)
    assert of_m2po == pytest.approx(expected)
