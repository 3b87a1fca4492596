"""A critic's losses and targets: numbers by hand, limits, and what the gradient does."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import Batch
from core.loop.loss import value_targets
from core.parts.variant import Variant
from estimators.advantages.critic import gae, lambda_return, whitened_gae
from estimators.advantages.group import group_mean
from estimators.aggregators import token_mean
from estimators.objectives.token import clip
from estimators.values import clipped_squared_error, squared_error

NUMBER = st.floats(-3, 3, width=32)


def row(*numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


def test_half_the_squared_error_by_hand() -> None:
    assert squared_error(row(0.0, 2.0), row(1.0, 1.0)).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize(
    ("value", "old", "loss", "slope"),
    [
        (0.1, 0.0, 0.405, -0.9),  # inside the range of 0.2: (0.1 - 1)^2 / 2
        (0.3, 0.0, 0.32, 0.0),  # beyond it, towards the return: (0.2 - 1)^2 / 2, held
        (-0.3, 0.0, 0.845, -1.3),  # beyond it, away: the larger error, which pulls it back
        (1.5, 1.0, 0.125, 0.5),  # beyond on the far side of the return
    ],
)
def test_the_clipped_error_by_hand(value: float, old: float, loss: float, slope: float) -> None:
    leaf = row(value).requires_grad_()
    losses = clipped_squared_error(leaf, row(1.0), row(old), clip=0.2)
    assert losses.item() == pytest.approx(loss)
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    assert gradient.item() == pytest.approx(slope)


@given(value=NUMBER, target=NUMBER, old=NUMBER, clip=st.floats(0.01, 2))
def test_clipping_never_makes_the_loss_smaller_and_a_wide_range_does_nothing(
    value: float, target: float, old: float, clip: float
) -> None:
    plain = squared_error(row(value), row(target))
    assert (clipped_squared_error(row(value), row(target), row(old), clip=clip) >= plain).all()
    assert torch.equal(clipped_squared_error(row(value), row(target), row(old), clip=100.0), plain)


def with_values() -> Batch:
    mask = torch.tensor([[[True, False, True, True], [True, True, False, False]]])
    values = torch.tensor([[[0.5, 9.0, 0.25, 1.0], [0.0, 1.0, 9.0, 9.0]]])
    return Batch.of([[1.0, 0.0]], mask=mask, values=values)


def test_the_target_by_hand_steps_over_holes() -> None:
    """lambda = 0: R_t = x_t + gamma V_{t+1}. The value of the hole, 9, counts nowhere."""
    batch = with_values()
    assert lambda_return(batch, gamma=0.5, lam=0.0)[0, 0].tolist() == [0.125, 0.0, 0.5, 1.0]
    assert lambda_return(batch, gamma=0.5, lam=1.0)[0, 0].tolist() == [0.25, 0.0, 0.5, 1.0]
    assert lambda_return(batch, gamma=0.5, lam=0.0)[0, 1].tolist() == [0.5, 0.0, 0.0, 0.0]


@given(gamma=st.floats(0, 1), lam=st.floats(0, 1))
def test_the_advantage_is_the_target_minus_the_value(gamma: float, lam: float) -> None:
    batch = with_values()
    actual = lambda_return(batch, gamma=gamma, lam=lam) - batch.require("values")
    expected = gae(batch, gamma=gamma, lam=lam).double()
    torch.testing.assert_close(actual[batch.mask], expected[batch.mask], rtol=0, atol=1e-6)


def test_the_target_has_the_estimators_own_hyper_parameters() -> None:
    parts: dict[str, Any] = {"objective": clip, "aggregator": token_mean, "value_loss": squared_error}
    for part in (gae, whitened_gae):
        variant = Variant(advantage=part.using(gamma=0.5, lam=0.0), **parts)
        returns = value_targets(variant, with_values()).require("returns")
        torch.testing.assert_close(returns, lambda_return(with_values(), gamma=0.5, lam=0.0).float())
    assert value_targets(Variant(advantage=group_mean, **parts), with_values()).returns is None
