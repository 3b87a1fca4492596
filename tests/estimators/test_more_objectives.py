"""Objectives by token beyond PPO's clip: dual clips, masks, soft gates, covariance, distances of probabilities."""

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from core import OBJECTIVES, Part
from core.loop.loss import prepare
from core.loop.rows import RowTensors
from core.parts.options import ObjectiveOptions
from core.parts.variant import Variant
from estimators.advantages.group import group_mean
from estimators.aggregators import token_mean
from estimators.objectives.covariance import cov_clip, cov_kl, covariance
from estimators.objectives.divergence import dppo_kl_mask, dppo_tv_mask
from estimators.objectives.token import (
    capped_clip,
    cispo_clip,
    clip,
    dro_quadratic,
    dual_clip,
    off_policy_masked_clip,
    policy_gradient,
    sapo_gate,
)
from estimators.ratios import ratio_of
from tests.estimators.rows import Rows, close, eps, info_of, loss_of, seeds, tensor, value_and_gradient

# dual clip and two-sided clip


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (4.0, -2.0, 6.0, 0.0),  # capped at 3 |A|
        (2.5, -2.0, 5.0, 5.0),  # below the cap: pushed down
        (0.5, -2.0, 1.6, 0.0),  # clipped from below
        (4.0, 2.0, -2.4, 0.0),  # a good token: PPO's clip, no cap
        (0.5, 2.0, -1.0, -1.0),
    ],
)
def test_dual_clip_by_hand(ratio: float, advantage: float, loss: float, slope: float) -> None:
    logps = tensor(math.log(ratio)).requires_grad_()
    losses = loss_of(dual_clip, logps, tensor(0.0), tensor(advantage))
    assert losses.item() == pytest.approx(loss)
    assert torch.autograd.grad(losses.sum(), logps)[0].item() == pytest.approx(slope)


def test_dual_clip_counts_what_the_cap_stops() -> None:
    info = info_of(dual_clip, tensor(math.log(4), math.log(4), 0.0), tensor(0, 0, 0), tensor(-1, 1, -1))
    assert info["clip_cap"].tolist() == [[True, False, False]]
    assert info["clip_fraction"].tolist() == [[True, True, False]]


@given(seeds, eps, eps)
def test_dual_clip_without_a_cap_is_clip_and_differs_only_beyond_it(seed: int, low: float, high: float) -> None:
    rows = Rows(seed, by_token=True, spread=1.5)
    bounds = {"eps_low": low, "eps_high": high}
    plain = loss_of(clip, rows.logps, rows.old, rows.advantages, **bounds)
    assert torch.equal(loss_of(dual_clip, rows.logps, rows.old, rows.advantages, **bounds, ratio_cap=math.inf), plain)
    capped = loss_of(dual_clip, rows.logps, rows.old, rows.advantages, **bounds, ratio_cap=1.5)
    beyond = (rows.advantages < 0) & (torch.exp(rows.logps - rows.old) > 1.5)
    assert torch.equal(capped != plain, beyond)
    assert (capped <= plain).all()


@given(seeds, eps, eps, st.floats(0, 3))
def test_two_sided_clip_is_dual_clip_with_the_same_cap(seed: int, low: float, high: float, more: float) -> None:
    rows = Rows(seed, by_token=True, spread=1.5)
    weights = token_mean(rows.mask)
    hyper = {"eps_low": low, "eps_high": high, "ratio_cap": 1 + high + more + 1e-6}
    close(
        value_and_gradient(capped_clip, rows, weights, **hyper), value_and_gradient(dual_clip, rows, weights, **hyper)
    )
    assert torch.equal(
        info_of(capped_clip, rows.logps, rows.old, rows.advantages, **hyper)["clip_fraction"],
        info_of(dual_clip, rows.logps, rows.old, rows.advantages, **hyper)["clip_fraction"],
    )


def test_two_sided_clip_by_hand() -> None:
    """A cap of 1.1, below 1 + eps_high, bounds good tokens too: that is where it is no dual clip."""
    hyper = {"ratio_cap": 1.1}
    assert loss_of(capped_clip, tensor(math.log(1.5)), tensor(0), tensor(2), **hyper).item() == pytest.approx(-2.2)
    assert loss_of(capped_clip, tensor(math.log(6.0)), tensor(0), tensor(-2)).item() == pytest.approx(8)


@pytest.mark.parametrize("part", [dual_clip, capped_clip])
def test_a_cap_stops_bad_tokens_beyond_it_alone(part: Part) -> None:
    """At the cap itself, and where the advantage is 0 or good, nothing is stopped."""
    log_ratio = tensor(1.25)
    cap = torch.exp(log_ratio).item()
    for advantage, ratio_cap, stopped in ((-1, cap, False), (-1, cap - 0.01, True), (0, 2, False), (0.5, 2, False)):
        info = info_of(part, log_ratio, tensor(0), tensor(advantage), ratio_cap=ratio_cap)
        assert info["clip_cap"].item() is stopped, (advantage, ratio_cap)


@pytest.mark.parametrize("log_ratio", [0.25, -0.25])
def test_clip_counts_tokens_beyond_its_bounds_alone(log_ratio: float) -> None:
    """At the bound itself, and where the advantage is 0, the gradient is not clipped."""
    eps = abs(torch.exp(tensor(log_ratio)).item() - 1)  # exact: the ratio is between 1/2 and 2
    good = math.copysign(1.0, log_ratio)
    for advantage, bound, clipped in ((good, eps, False), (good, eps - 0.01, True), (0, 0.01, False)):
        info = info_of(clip, tensor(log_ratio), tensor(0), tensor(advantage), eps_low=bound, eps_high=bound)
        assert info["clip_fraction"].item() is clipped, (advantage, bound)


def test_ratios_are_bounded_at_e_to_the_eighty() -> None:
    log_ratios = tensor(79.5, 80.5, 500.0).requires_grad_()
    ratios = ratio_of(log_ratios)
    assert ratios[0].tolist() == pytest.approx([math.exp(79.5), math.exp(80), math.exp(80)])
    assert torch.autograd.grad(ratios.sum(), log_ratios)[0][0].tolist() == pytest.approx([math.exp(79.5), 0, 0])


# off-policy rows


def test_a_row_is_dropped_only_when_its_advantage_is_negative_whatever_its_length() -> None:
    mask = torch.tensor([[True, False, False]]).expand(4, 3)
    logps, behaviour = torch.zeros(4, 3, dtype=torch.float64) - 2.0, torch.zeros(4, 3, dtype=torch.float64) - 1.4
    advantages = torch.tensor([[-1.0], [-0.0], [0.5], [1.0]], dtype=torch.float64).expand(4, 3)
    info = info_of(off_policy_masked_clip, logps, logps, advantages, mask, behaviour)  # gap 0.6, one token
    assert info["dropped"][:, 0].tolist() == [True, False, False, False]


def test_a_bad_row_that_the_policy_has_left_is_dropped() -> None:
    mask = torch.tensor([[True, True, False]]).expand(3, 3)
    logps = torch.tensor([[-2.0, -2.0, 0]] * 3, dtype=torch.float64)
    behaviour = torch.tensor([[-1.0, -2.0, 50], [-1.0, -2.0, 50], [-1.2, -2.0, 50]], dtype=torch.float64)
    advantages = torch.tensor([[-1.0], [1.0], [-1.0]], dtype=torch.float64).expand(3, 3)
    # mean gaps: 0.5, 0.5 and 0.4
    losses = loss_of(off_policy_masked_clip, logps, logps, advantages, mask, behaviour, threshold=0.45)
    assert losses[:, 0].tolist() == [0, -1, 1]
    at_the_threshold = loss_of(off_policy_masked_clip, logps, logps, advantages, mask, behaviour)
    assert at_the_threshold[0, 0].item() == 1
    info = info_of(off_policy_masked_clip, logps, logps, advantages, mask, behaviour, threshold=0.45)
    assert info["dropped"][:, 0].tolist() == [True, False, False]


@given(seeds, eps, eps)
def test_without_a_threshold_it_is_clip(seed: int, low: float, high: float) -> None:
    rows = Rows(seed)
    bounds = {"eps_low": low, "eps_high": high}
    losses = loss_of(
        off_policy_masked_clip, rows.logps, rows.old, rows.advantages, rows.mask, rows.old, threshold=math.inf, **bounds
    )
    assert torch.equal(losses, loss_of(clip, rows.logps, rows.old, rows.advantages, **bounds))


# cispo, sapo, dro


def test_cispo_by_hand() -> None:
    logps = tensor(-1.0, -2.0, -3.0).requires_grad_()
    old = tensor(-1.0 - math.log(8), -2.0, -3.0 + math.log(4))  # ratios 8, 1, 1/4
    losses = loss_of(cispo_clip, logps, old, tensor(1.0, 1.0, -2.0), eps_low=0.5, eps_high=1.0)
    assert losses[0].tolist() == pytest.approx([2, 2, 0.5 * 2 * -3])
    # every token keeps a gradient: minus weight times advantage
    assert torch.autograd.grad(losses.sum(), logps)[0][0].tolist() == pytest.approx([-2, -1, 1])
    info = info_of(cispo_clip, logps.detach(), old, tensor(1.0, 1.0, -2.0))
    assert info["clip_fraction"].tolist() == [[True, False, False]]  # at most 5, no lower bound


@given(seeds)
def test_cispo_without_bounds_is_importance_sampling(seed: int) -> None:
    rows = Rows(seed, by_token=True)
    weights = token_mean(rows.mask)
    slopes = value_and_gradient(cispo_clip, rows, weights, eps_low=1.0, eps_high=math.inf)[1]
    q = torch.exp(rows.logps - rows.old)
    torch.testing.assert_close(slopes, weights * -q * rows.advantages)
    bounded = value_and_gradient(cispo_clip, rows, weights, eps_low=0.5, eps_high=0.1)[1]
    assert bounded[rows.mask].ne(0).all()


def test_sapo_by_hand() -> None:
    logps = tensor(0.0, 0.0, math.log(2)).requires_grad_()
    losses = loss_of(sapo_gate, logps, tensor(0, 0, 0), tensor(1.0, -1.0, 1.0))
    gate = 4 / (1 + math.exp(-1))
    assert losses[0].tolist() == pytest.approx([-2, 2 / 1.05, -gate])
    # slope 1 at q = 1 whatever the temperature; at q = 2: q * 4 * s * (1 - s)
    s = 1 / (1 + math.exp(-1))
    assert torch.autograd.grad(losses.sum(), logps)[0][0].tolist() == pytest.approx([-1, 1, -2 * 4 * s * (1 - s)])
    other = loss_of(
        sapo_gate, logps.detach(), tensor(0, 0, 0), tensor(1.0, -1.0, 1.0), tau_positive=2.0, tau_negative=4.0
    )
    assert other[0].tolist() == pytest.approx([-1, 0.5, -2 / (1 + math.exp(-2))])
    weak = loss_of(sapo_gate, tensor(0), tensor(0), tensor(-0.5), tau_positive=2.0, tau_negative=4.0)
    assert weak.item() == pytest.approx(0.25)  # the sign chooses the temperature, however small the advantage


@given(seeds, st.floats(0.2, 5))
def test_sapos_gate_is_bounded(seed: int, tau: float) -> None:
    rows = Rows(seed, by_token=True, spread=3)
    assume(rows.advantages.ne(0).all())
    losses = loss_of(sapo_gate, rows.logps, rows.old, rows.advantages, tau_positive=tau, tau_negative=tau)
    gates = -losses / rows.advantages
    assert (gates >= 0).all()
    assert (gates <= 4 / tau + 1e-12).all()


def test_dro_by_hand() -> None:
    logps = tensor(-1.0, -1.0).requires_grad_()
    losses = loss_of(dro_quadratic, logps, tensor(-3.0, -1.0), tensor(2.0, 0.0), beta=0.5)
    assert losses[0].tolist() == [2 + 0.25 * 4, 0]
    assert torch.autograd.grad(losses.sum(), logps)[0][0].tolist() == [-2 + 0.5 * 2, 0]
    assert loss_of(dro_quadratic, logps, tensor(-3.0, -1.0), tensor(0.0, 0.0))[0, 0].item() == 2  # beta is 1


# covariance


def prepared_by(part: Part, rows: Rows, seed: int = 0, **hyper: Any) -> Tensor:
    """What the core hands to the objective: chosen once per step."""
    variant = Variant(advantage=group_mean, objective=part.using(**hyper), aggregator=token_mean)
    tensors = RowTensors(old_logps=rows.old, advantages=rows.advantages, mask=rows.mask)
    return prepare(variant, tensors, rows.logps, torch.Generator().manual_seed(seed))


def covariances(rows: Rows) -> Tensor:
    """By hand: products of deviations over counted tokens."""
    A, lp = rows.advantages[rows.mask], rows.logps[rows.mask]
    return (rows.advantages - A.mean()) * (rows.logps - lp.mean())


@given(seeds)
def test_clip_cov_stops_unclipped_tokens_of_moderate_covariance(seed: int) -> None:
    rows = Rows(seed, by_token=True)
    bounds: dict[str, Any] = {"cov_low": 0.2, "cov_high": 1.5, "eps_low": 0.3, "eps_high": 0.4}
    stopped = prepared_by(cov_clip, rows, share=1.0, **bounds)
    q, cov = torch.exp(rows.logps - rows.old), covariances(rows)
    clipped = ((rows.advantages > 0) & (q > 1.4)) | ((rows.advantages < 0) & (q < 0.7))
    expected = rows.mask & ~clipped & (cov > 0.2) & (cov < 1.5)
    assert torch.equal(stopped, expected)  # a share of all of them
    one = prepared_by(cov_clip, rows, share=1e-6, **bounds)
    assert int(one.sum()) == min(1, int(expected.sum()))  # never less than one
    few = prepared_by(cov_clip, rows, share=0.1, **bounds)
    assert int(few.sum()) == min(max(int(0.1 * int(rows.mask.sum())), 1), int(expected.sum()))
    assert (expected | ~few).all()


def test_clip_covs_bounds_are_strict() -> None:
    rows = Rows(0, B=1, T=2)
    rows.mask = torch.ones(1, 2, dtype=torch.bool)
    rows.logps = rows.old = tensor(-1.0, -3.0)
    rows.advantages = tensor(2.0, 1.0)  # both covariances are 0.5
    assert prepared_by(cov_clip, rows, share=1.0, cov_low=0.4, cov_high=0.6).all()
    assert not prepared_by(cov_clip, rows, share=1.0, cov_low=0.5, cov_high=0.6).any()
    assert not prepared_by(cov_clip, rows, share=1.0, cov_low=0.4, cov_high=0.5).any()


def test_which_objectives_have_no_loss_without_advantage() -> None:
    shipped = [p for p in OBJECTIVES.values() if "estimators/objectives" in p.place]
    pulled = {p.name for p in shipped if not ObjectiveOptions.of(p).zero_at_zero_advantage}
    assert pulled == {"dro_quadratic", "cov_kl", "log_likelihood"}


def test_clip_cov_draws_at_random_with_the_key_it_is_given() -> None:
    rows = Rows(0, by_token=True, B=20)
    drawn = [prepared_by(cov_clip, rows, seed=s, share=0.05, cov_low=0.0, cov_high=9.0) for s in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_clip_cov_takes_the_drawn_tokens_out_of_the_loss() -> None:
    rows = Rows(1, by_token=True)
    stopped = torch.zeros_like(rows.mask)
    stopped[0, 0] = True
    losses = loss_of(cov_clip, rows.logps, rows.old, rows.advantages, stopped, eps_low=0.1, eps_high=0.3)
    plain = loss_of(clip, rows.logps, rows.old, rows.advantages, eps_low=0.1, eps_high=0.3)
    assert losses[0, 0].item() == 0
    assert torch.equal(losses[~stopped], plain[~stopped])
    assert cov_clip.defaults == {"eps_low": 0.2, "eps_high": 0.2, "share": 2e-4, "cov_low": 1.0, "cov_high": 5.0}


@given(seeds, st.sampled_from([0.01, 0.2, 0.5]))
def test_kl_cov_chooses_the_largest_covariances(seed: int, share: float) -> None:
    rows = Rows(seed, by_token=True)
    chosen = prepared_by(cov_kl, rows, share=share)
    number = max(1, int(int(rows.mask.sum()) * share))
    assert int(chosen.sum()) == number
    cov = covariances(rows)
    assert not chosen[~rows.mask].any()
    assert cov[chosen].min() >= cov[rows.mask & ~chosen].max()


def test_kl_cov_by_hand() -> None:
    logps = tensor(math.log(2), math.log(0.5)).requires_grad_()
    shifted, old = logps - 1, tensor(-1, -1)  # only the difference counts
    losses = loss_of(cov_kl, shifted, old, tensor(3, 3), torch.tensor([[False, True]]), kl_coef=0.5)
    assert losses[0].tolist() == pytest.approx([-6, -1.5 + 0.5 * math.log(2)])
    assert torch.autograd.grad(losses.sum(), logps)[0][0].tolist() == pytest.approx([-6, -1.5 - 0.5])
    assert cov_kl.defaults == {"share": 2e-4, "kl_coef": 1.0}


def test_covariance_of_one_and_two_tokens() -> None:
    logps, advantages = tensor(-1.0, -3.0, 9.0), tensor(2.0, 1.0, 9.0)
    one, two = torch.tensor([[True, False, False]]), torch.tensor([[True, True, False]])
    assert covariance(logps, advantages, one)[0, 0].item() == 0
    assert covariance(logps, advantages, two)[0, :2].tolist() == [0.5, 0.5]


def test_a_step_without_tokens_chooses_none() -> None:
    rows = Rows(0)
    rows.mask = torch.zeros_like(rows.mask)
    assert not prepared_by(cov_kl, rows).any()
    assert not prepared_by(cov_clip, rows).any()


# distances of probabilities


@pytest.mark.parametrize(
    ("new", "old", "advantage", "kept"),
    [
        (0.5, 0.31, 1.0, True),  # moved up by 0.19
        (0.5, 0.29, 1.0, False),  # by 0.21
        (0.5, 0.29, -1.0, True),  # up, though it is bad: pulled back
        (0.3, 0.49, -1.0, True),
        (0.3, 0.51, -1.0, False),
        (0.3, 0.51, 1.0, True),
        (0.3, 0.51, -0.5, False),
        (0.5, 0.29, -0.5, True),
        (0.02, 0.001, 1.0, True),  # a ratio of 20, and hardly any probability
    ],
)
def test_total_variation_by_hand(new: float, old: float, advantage: float, kept: bool) -> None:
    logps = tensor(math.log(new)).requires_grad_()
    losses = loss_of(dppo_tv_mask, logps, tensor(math.log(old)), tensor(advantage))
    slope = torch.autograd.grad(losses.sum(), logps)[0].item()
    assert slope == pytest.approx(-advantage * min(new / old, 20) if kept else 0)
    assert losses.item() == pytest.approx(slope * math.log(new))


def test_thresholds_of_total_variation_have_a_side_each() -> None:
    logps, old = tensor(math.log(0.5), math.log(0.5)), tensor(math.log(0.4), math.log(0.6))
    kept = {(0.05, 0.3): [False, False], (0.3, 0.05): [True, True], (0.3, 0.3): [False, False]}
    for (low, high), stopped in kept.items():
        info = info_of(dppo_tv_mask, logps, old, tensor(1.0, -1.0), threshold_low=low, threshold_high=high)
        expected = [high < 0.1, low < 0.1]
        assert info["clip_fraction"][0].tolist() == expected, (low, high, stopped)
    capped = loss_of(dppo_tv_mask, tensor(math.log(0.5)), tensor(math.log(0.4)), tensor(1.0), ratio_cap=1.1)
    assert capped.item() == pytest.approx(-1.1 * math.log(0.5))


@pytest.mark.parametrize(
    ("advantage", "low", "high", "kept"),
    [(1.0, 0.0, 0.03, True), (1.0, 9.0, 0.01, False), (-1.0, 0.01, 0.0, True), (0.0, 0.0, 0.0, True)],
)
def test_binary_kl_by_hand(advantage: float, low: float, high: float, kept: bool) -> None:
    """From 0.4 to 0.5: KL = 0.4 log(0.8) + 0.6 log(1.2) = 0.0201; upwards, so only a good token can be stopped."""
    info = info_of(
        dppo_kl_mask,
        tensor(math.log(0.5)),
        tensor(math.log(0.4)),
        tensor(advantage),
        threshold_low=low,
        threshold_high=high,
    )
    assert info["clip_fraction"].item() is not kept
    down = info_of(
        dppo_kl_mask,
        tensor(math.log(0.4)),
        tensor(math.log(0.5)),
        tensor(-advantage),
        threshold_low=high,
        threshold_high=low,
    )
    # the other way: 0.5 log(1.25) + 0.5 log(0.5 / 0.6) = 0.0204
    assert down["clip_fraction"].item() is (not kept if advantage > 0 else high < 0.0204 if advantage == 0 else False)


def test_binary_kl_weighs_like_truncated_importance_sampling() -> None:
    losses = loss_of(dppo_kl_mask, tensor(math.log(0.5)), tensor(math.log(0.4)), tensor(2.0))
    assert losses.item() == pytest.approx(-2 * 1.25 * math.log(0.5))
    capped = loss_of(dppo_kl_mask, tensor(math.log(0.5)), tensor(math.log(0.4)), tensor(2.0), ratio_cap=1.1)
    assert capped.item() == pytest.approx(-2 * 1.1 * math.log(0.5))
    sure = info_of(dppo_kl_mask, tensor(0.0), tensor(math.log(0.4)), tensor(2.0), threshold_high=11.0)
    # at probability 1 the log's argument is kept from 0: 0.4 log 0.4 + 0.6 log(0.6 / 1e-8) = 10.4
    assert not sure["clip_fraction"].item()
    assert info_of(dppo_kl_mask, tensor(0.0), tensor(math.log(0.4)), tensor(2.0), threshold_high=10.0)[
        "clip_fraction"
    ].item()


def test_at_an_advantage_of_0_the_lower_side_counts() -> None:
    down = info_of(dppo_tv_mask, tensor(math.log(0.3)), tensor(math.log(0.51)), tensor(0.0))
    assert down["clip_fraction"].item()


def test_binary_kl_from_a_sure_token() -> None:
    """From probability 1 to a half: log 2, and nothing from the others, whose probability was 0."""
    for threshold, stopped in ((0.7, False), (0.69, True)):
        info = info_of(dppo_kl_mask, tensor(math.log(0.5)), tensor(0.0), tensor(-1.0), threshold_low=threshold)
        assert info["clip_fraction"].item() is stopped


@given(seeds)
def test_on_policy_nothing_is_stopped(seed: int) -> None:
    rows = Rows(seed, by_token=True, spread=0.0)
    weights = token_mean(rows.mask)
    expected = value_and_gradient(policy_gradient, rows, weights)
    for part in (dppo_tv_mask, dppo_kl_mask):
        close(value_and_gradient(part, rows, weights, threshold_low=0.0, threshold_high=0.0), expected)
