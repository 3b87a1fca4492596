"""Policy objectives: numbers by hand, PPO's identities, and a contract that each must keep."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import AGGREGATORS, OBJECTIVES, Batch, Part, TokenLoss
from core.loop.loss import weigh
from estimators.advantages.group import group_mean, group_mean_std
from estimators.aggregators import seq_mean_token_mean, token_mean
from estimators.objectives.token import clip, policy_gradient

every_objective = pytest.mark.parametrize("part", OBJECTIVES.values(), ids=list(OBJECTIVES))
rows = st.integers(0, 1000)


def tensor(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def loss_of(part: Part, *args: Tensor, **hyper: Any) -> Tensor:
    result = part(*args, **hyper)
    loss: Tensor = result.loss if isinstance(result, TokenLoss) else result
    return loss


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(loss, of, retain_graph=True)[0]


# numbers by hand


def test_policy_gradient_by_hand() -> None:
    logps = tensor(-1.0, -2.0, -3.0).requires_grad_()
    loss = loss_of(policy_gradient, logps, tensor(2.0, -1.0, 0.0))
    assert loss.tolist() == [[2.0, -2.0, 0.0]]
    assert gradient(loss.sum(), logps).tolist() == [[-2.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [  # bounds 0.8 and 1.3; the slope is dl/dlogp = -q A where the ratio is active
        (1.0, 2.0, -2.0, -2.0),
        (1.25, 2.0, -2.5, -2.5),
        (1.5, 2.0, -2.6, 0.0),  # clipped from above
        (0.5, 2.0, -1.0, -1.0),  # too low, but the advantage is positive: pulled up
        (1.0, -2.0, 2.0, 2.0),
        (0.9, -2.0, 1.8, 1.8),
        (0.5, -2.0, 1.6, 0.0),  # clipped from below
        (3.0, -2.0, 6.0, 6.0),  # too high, but the advantage is negative: pushed down, without bound
        (1.5, 0.0, 0.0, 0.0),
    ],
)
def test_clip_by_hand(ratio: float, advantage: float, loss: float, slope: float) -> None:
    logps = tensor(math.log(ratio) - 1.5).requires_grad_()
    losses = loss_of(clip, logps, tensor(-1.5), tensor(advantage), eps_low=0.2, eps_high=0.3)
    assert losses.item() == pytest.approx(loss)
    assert gradient(losses.sum(), logps).item() == pytest.approx(slope)


def test_clip_defaults_to_a_fifth_on_both_sides() -> None:
    logps, old = tensor(math.log(2), math.log(0.5)), tensor(0.0, 0.0)
    assert loss_of(clip, logps, old, tensor(1.0, -1.0))[0].tolist() == pytest.approx([-1.2, 0.8])


def test_clip_counts_the_tokens_without_gradient() -> None:
    ratios, advantages = (1.5, 0.5, 1.5, 0.5, 1.0), (1.0, 1.0, -1.0, -1.0, 1.0)
    result = clip(tensor(*map(math.log, ratios)), tensor(*[0.0] * 5), tensor(*advantages))
    assert result.info["clip_high"].tolist() == [[True, False, False, False, False]]
    assert result.info["clip_low"].tolist() == [[False, False, False, True, False]]
    assert result.info["clip_fraction"].tolist() == [[True, False, False, True, False]]
    assert result.info["ratio"][0].tolist() == pytest.approx(ratios)
    assert not any(values.requires_grad for values in result.info.values())


# identities


def random_rows(seed: int, B: int = 6, T: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probs, old log-probs, advantages and a mask with holes, float64."""
    draw = torch.Generator().manual_seed(seed)
    logps, d, advantages = (torch.randn(B, T, generator=draw, dtype=torch.float64) for _ in range(3))
    mask = torch.rand(B, T, generator=draw) < 0.7
    mask[0, 0] = True
    return logps - 3, logps - 3 + d / 2, advantages, mask


@given(rows, st.floats(0.01, 0.9), st.floats(0.01, 3))
def test_clip_equals_a_plain_loop(seed: int, low: float, high: float) -> None:
    logps, old, advantages, _ = random_rows(seed)
    logps.requires_grad_()
    loss = loss_of(clip, logps, old, advantages, eps_low=low, eps_high=high)
    slopes = gradient(loss.sum(), logps)
    logps = logps.detach()
    for i in range(len(logps)):
        for t in range(logps.shape[1]):
            q, A = math.exp(logps[i, t] - old[i, t]), float(advantages[i, t])
            inactive = (A > 0 and q > 1 + high) or (A < 0 and q < 1 - low)
            expected = -min(q * A, min(max(q, 1 - low), 1 + high) * A)
            assert loss[i, t].item() == pytest.approx(expected, abs=1e-12)
            assert slopes[i, t].item() == pytest.approx(0.0 if inactive else -q * A, abs=1e-12)


@given(rows)
def test_clip_is_never_below_the_unclipped_surrogate(seed: int) -> None:
    logps, old, advantages, _ = random_rows(seed)
    unclipped = -torch.exp(logps - old) * advantages
    assert (loss_of(clip, logps, old, advantages) >= unclipped - 1e-12).all()


@given(rows)
def test_a_wide_clip_is_importance_sampling(seed: int) -> None:
    logps, old, advantages, _ = random_rows(seed)
    wide = loss_of(clip, logps, old, advantages, eps_low=1.0, eps_high=math.inf)
    torch.testing.assert_close(wide, -torch.exp(logps - old) * advantages)


@pytest.mark.parametrize("aggregator", AGGREGATORS.values(), ids=list(AGGREGATORS))
@given(seed=rows, low=st.floats(0, 0.9), high=st.floats(0, 3))
def test_on_policy_every_objective_has_the_gradient_of_reinforce(
    aggregator: Part, seed: int, low: float, high: float
) -> None:
    """At q = 1 nothing is clipped, whatever the bounds, for every aggregator."""
    logps, _, advantages, mask = random_rows(seed)
    logps.requires_grad_()
    weights = weigh(aggregator, mask, max_tokens=9, group_size=1)
    expected = gradient((weights * -advantages * logps).sum(), logps)
    surrogate = loss_of(clip, logps, logps.detach(), advantages, eps_low=low, eps_high=high)
    plain = loss_of(policy_gradient, logps, advantages)
    torch.testing.assert_close(gradient((weights * surrogate).sum(), logps), expected)
    torch.testing.assert_close(gradient((weights * plain).sum(), logps), expected)
    assert (weights * surrogate).sum().item() == pytest.approx(-(weights * advantages).sum().item(), abs=1e-9)


def test_on_policy_value_is_zero_for_centred_advantages_and_row_means() -> None:
    batch = Batch.of([[1.0, 0.0, 0.3], [0.0, 0.0, 1.0]], lengths=[[1, 4, 2], [3, 1, 5]])
    logps = torch.randn(6, 5)
    mask = batch.mask.flatten(0, 1)
    for part in (group_mean, group_mean_std):
        advantages = part(batch).flatten()[:, None].expand(6, 5)
        loss = loss_of(clip, logps, logps, advantages)
        assert (seq_mean_token_mean(mask) * loss).sum().abs() < 1e-6
        # a mean over tokens weighs long responses more, so there it is not zero
        assert (token_mean(mask) * loss).sum().abs() > 1e-3
