"""Objectives with one ratio per response: numbers by hand, and the identities that tie them to PPO's clip."""

import math

import pytest
import torch
from hypothesis import given

from estimators.aggregators import seq_mean_token_mean, seq_mean_token_sum, token_mean
from estimators.objectives.sequence import geo_mean_clip, gspo_clip, gspo_token_clip, sequence_clip, vespo_weight
from estimators.objectives.token import (
    clip,
)
from tests.estimators.rows import Rows, close, eps, info_of, loss_of, seeds, tensor, value_and_gradient


def test_gspo_by_hand() -> None:
    # d = 0.2, 0.4 and a hole: s = exp(0.3)
    mask = torch.tensor([[True, False, True]])
    logps = tensor(0.2, 9.0, 0.4).requires_grad_()
    losses = loss_of(gspo_clip, logps, tensor(0, 0, 0), tensor(2, 2, 2), mask, eps_low=0.5, eps_high=0.5)
    assert losses[0, 0].item() == pytest.approx(-2 * math.exp(0.3))
    slopes = torch.autograd.grad(torch.where(mask, losses, 0.0).sum(), logps)[0]
    # two tokens, each with a half of each token's gradient
    assert slopes[0].tolist() == pytest.approx([-2 * math.exp(0.3), 0, -2 * math.exp(0.3)])
    clipped = loss_of(gspo_clip, logps, tensor(0, 0, 0), tensor(2, 2, 2), mask)
    assert clipped[0, 0].item() == pytest.approx(-2 * (1 + 4e-4))
    low = loss_of(gspo_clip, -logps, tensor(0, 0, 0), tensor(-2, -2, -2), mask)
    assert low[0, 0].item() == pytest.approx(2 * (1 - 3e-4))
    assert info_of(gspo_clip, -logps, tensor(0, 0, 0), tensor(-2, -2, -2), mask)["clip_low"].all()


@given(seeds, eps, eps)
def test_both_forms_of_gspo_agree_for_one_advantage_a_row(seed: int, low: float, high: float) -> None:
    rows = Rows(seed)
    for aggregator in (token_mean, seq_mean_token_mean, seq_mean_token_sum):
        weights, bounds = aggregator(rows.mask), {"eps_low": low, "eps_high": high}
        close(
            value_and_gradient(gspo_token_clip, rows, weights, **bounds),
            value_and_gradient(gspo_clip, rows, weights, **bounds),
        )


def test_the_token_form_of_gspo_keeps_each_tokens_own_advantage() -> None:
    rows = Rows(3, by_token=True, spread=0.0)
    weights = token_mean(rows.mask)
    token = value_and_gradient(gspo_token_clip, rows, weights)[1]
    torch.testing.assert_close(token, -weights * rows.advantages)
    whole = value_and_gradient(gspo_clip, rows, weights)[1]
    assert not torch.allclose(whole, token)


def test_default_bounds_of_the_token_form() -> None:
    mask = torch.ones(1, 1, dtype=torch.bool)
    for d, advantage, expected in ((0.1, 1.0, -(1 + 4e-4)), (-0.1, -1.0, 1 - 3e-4)):
        assert loss_of(gspo_token_clip, tensor(d), tensor(0), tensor(advantage), mask).item() == pytest.approx(expected)


@given(seeds, eps, eps)
def test_one_token_responses_make_gspo_clip(seed: int, low: float, high: float) -> None:
    rows = Rows(seed)
    rows.mask = torch.zeros_like(rows.mask)
    rows.mask[:, 1] = True
    weights, bounds = token_mean(rows.mask), {"eps_low": low, "eps_high": high}
    expected = value_and_gradient(clip, rows, weights, **bounds)
    for part in (gspo_clip, gspo_token_clip, sequence_clip):
        close(value_and_gradient(part, rows, weights, **bounds), expected)


def test_sequence_ratio_by_hand() -> None:
    mask = torch.tensor([[True, True]])
    logps = tensor(math.log(2), math.log(3)).requires_grad_()
    losses = loss_of(sequence_clip, logps, tensor(0, 0), tensor(-1, -1), mask)
    assert losses.sum().item() == pytest.approx(6)  # the product, once per response
    assert torch.autograd.grad(losses.sum(), logps)[0][0].tolist() == pytest.approx([6, 6])
    assert loss_of(sequence_clip, logps, tensor(0, 0), tensor(1, 1), mask).sum().item() == pytest.approx(-1.2)
    assert loss_of(sequence_clip, -logps, tensor(0, 0), tensor(-1, -1), mask).sum().item() == pytest.approx(0.8)


def test_geometric_mean_by_hand() -> None:
    # A > 0: log-ratios 1, -1 become 0.4 and -1: exp(-0.3); A < 0: 1 and -0.4: exp(0.3)
    mask = torch.tensor([[True, True, False]])
    logps = tensor(1.0, -1.0, 7.0).requires_grad_()
    good = loss_of(geo_mean_clip, logps, tensor(0, 0, 0), tensor(2, 2, 2), mask)
    assert good[0, 0].item() == pytest.approx(-2 * math.exp(-0.3))
    bad = loss_of(geo_mean_clip, logps, tensor(0, 0, 0), tensor(-2, -2, -2), mask)
    assert bad[0, 0].item() == pytest.approx(2 * math.exp(0.3))
    slopes = torch.autograd.grad(good[0, 0], logps)[0]
    assert slopes[0].tolist() == pytest.approx([0, -math.exp(-0.3), 0])  # the clipped token has none
    info = info_of(geo_mean_clip, logps, tensor(0, 0, 0), tensor(2, 2, 2), mask)
    assert info["clip_fraction"].tolist() == [[True, False, True]]
    info = info_of(geo_mean_clip, logps, tensor(0, 0, 0), tensor(-2, -2, -2), mask)
    assert info["clip_fraction"].tolist() == [[False, True, False]]
    assert not info_of(geo_mean_clip, logps, tensor(0, 0, 0), tensor(0, 0, 0), mask)["clip_fraction"].any()
    narrow = loss_of(geo_mean_clip, logps, tensor(0, 0, 0), tensor(2, 2, 2), mask, eps_high=0.2)
    assert narrow[0, 0].item() == pytest.approx(-2 * math.exp(-0.4))
    low = loss_of(geo_mean_clip, logps, tensor(0, 0, 0), tensor(-2, -2, -2), mask, eps_low=0.2)
    assert low[0, 0].item() == pytest.approx(2 * math.exp(0.4))


@given(seeds)
def test_wide_gmpo_is_wide_gspo(seed: int) -> None:
    rows = Rows(seed)
    weights, wide = seq_mean_token_mean(rows.mask), {"eps_low": 1e6, "eps_high": 1e6}
    close(
        value_and_gradient(geo_mean_clip, rows, weights, **wide), value_and_gradient(gspo_clip, rows, weights, **wide)
    )


@given(seeds, eps, eps)
def test_luspo_is_gspos_row_loss_times_its_length(seed: int, low: float, high: float) -> None:
    rows = Rows(seed)
    row_loss = loss_of(gspo_clip, rows.logps, rows.old, rows.advantages, rows.mask, eps_low=low, eps_high=high)[:, :1]
    expected = (row_loss * rows.n).mean()
    actual = value_and_gradient(gspo_clip, rows, seq_mean_token_sum(rows.mask), eps_low=low, eps_high=high)[0]
    torch.testing.assert_close(actual, expected)


def test_vespo_by_hand() -> None:
    # w = 2 * 1.5 = 3 on counted tokens
    mask = torch.tensor([[True, True, False]])
    logps = tensor(math.log(2) - 3, math.log(1.5) - 3, 5.0).requires_grad_()
    old = tensor(-3.0, -3.0, 0.0)
    phi = math.exp(3) * 3**2 * math.exp(-3 * 3)
    losses = loss_of(vespo_weight, logps, old, tensor(2, 2, 2), mask)
    assert losses[0, 0].item() == pytest.approx(-phi * 2 * (math.log(2) - 3))
    assert torch.autograd.grad(losses[0, 1], logps)[0][0].tolist() == pytest.approx([0, -2 * phi, 0])
    bad = info_of(vespo_weight, logps, old, tensor(-2, -2, -2), mask)["weight"]
    assert bad[0, 0].item() == pytest.approx(math.exp(2) * 3**3 * math.exp(-2 * 3))
    zero = info_of(vespo_weight, logps, old, tensor(0, 0, 0), mask)["weight"]
    assert zero[0, 0].item() == pytest.approx(phi)  # 0 counts as positive
    assert info_of(vespo_weight, old, old, tensor(1, -1, 1), mask)["weight"][0].tolist() == pytest.approx([1, 1, 1])
    other = info_of(
        vespo_weight,
        logps,
        old,
        tensor(1, -1, 1),
        mask,
        k_positive=1.0,
        lambda_positive=0.5,
        k_negative=0.5,
        lambda_negative=0.25,
    )["weight"]
    assert other[0, 0].item() == pytest.approx(math.exp(0.5) * 3 * math.exp(-1.5))
    assert other[0, 1].item() == pytest.approx(math.exp(0.25) * math.sqrt(3) * math.exp(-0.75))


def test_vespos_bounds() -> None:
    mask = torch.ones(1, 2, dtype=torch.bool)

    def ratio(first: float, second: float, **bounds: float) -> float:
        return info_of(vespo_weight, tensor(first, second), tensor(0, 0), tensor(1, 1), mask, **bounds)["ratio"][
            0, 0
        ].item()

    assert ratio(50.0, -19.0) == pytest.approx(math.exp(20 - 19))  # each token's log-ratio is bounded first
    assert ratio(-50.0, -50.0) == pytest.approx(1e-8)
    assert ratio(15.0, 15.0) == pytest.approx(math.exp(20))
    assert ratio(3.0, 3.0, max_log_weight=2.0) == pytest.approx(math.exp(2))
    assert ratio(-3.0, -3.0, min_weight=0.5) == pytest.approx(0.5)
    assert ratio(3.0, 0.0, max_token_log_ratio=1.0) == pytest.approx(math.exp(1))
    overflow = info_of(vespo_weight, tensor(100.0, 100.0), tensor(0, 0), tensor(1, 1), mask)["weight"]
    assert overflow.eq(0).all()
