"""Identities that tie objectives, aggregators, KL and rewards together, for whole steps."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import AGGREGATORS, OBJECTIVES, Batch, Part, Variant
from core.loop.loss import compute_advantages, kl_in_reward, needs_old_logps, step_loss, weigh
from core.loop.rewards import shape_rewards
from estimators.advantages.greedy import greedy_baseline
from estimators.advantages.group import group_mean, group_mean_std, leave_one_out, length_weighted_mean
from estimators.aggregators import (
    segment_mean,
    seq_mean_token_mean,
    seq_mean_token_sum,
    seq_mean_token_sum_norm,
    token_mean,
    token_mean_local,
)
from estimators.corrections import sequence_truncated, token_truncated
from estimators.kl import k1, k3
from estimators.objectives.sequence import geo_mean_clip, sequence_clip
from estimators.objectives.token import clip, policy_gradient
from estimators.shaping import soft_overlong

seeds = st.integers(0, 1000)
LINEAR = [a for a in AGGREGATORS.values() if a not in (token_mean_local, segment_mean)]
"""Those that weigh all tokens of a row alike, whatever else is in a micro-batch."""


def random_batch(seed: int, P: int = 3, G: int = 4, T: int = 6, *, equal: int | None = None) -> tuple[Batch, Tensor]:
    """A rollout in float64 with holes in its mask, and the present policy's log-probs, near the old ones."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.full((P, G), equal) if equal else torch.randint(1, T + 1, (P, G), generator=draw)
    response = torch.arange(T) < lengths[..., None]
    holes = torch.rand(P, G, T, generator=draw) < 0.2
    holes[..., 0] = False
    mask = response if equal else response & ~holes

    def noise(scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(P, G, T, generator=draw, dtype=torch.float64)).where(response, 0.0)

    logps = noise() - 2
    batch = Batch.of(
        torch.randn(P, G, generator=draw, dtype=torch.float64),
        mask,
        torch.randn(P, generator=draw),
        response_mask=response,
        max_tokens=9,
        old_logps=logps + noise(0.4),
        ref_logps=logps + noise(0.4),
        behaviour_logps=logps + noise(0.4),
    )
    return batch, logps


def of(advantage: Part, objective: Part, aggregator: Part, **more: Any) -> Variant:
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator, **more)


def step(variant: Variant, batch: Batch, logps: Tensor, advantages: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Loss and its gradient in the log-probs."""
    if advantages is None:
        advantages, _ = compute_advantages(variant, batch, None)
    leaf = logps.clone().requires_grad_()
    loss = step_loss(variant, batch, leaf, advantages)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-10, *, where: str = "here") -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=1e-12, msg=lambda text: f"{where}: {text}")


# on-policy


def on_policy(seed: int) -> tuple[Batch, Tensor]:
    batch, logps = random_batch(seed)
    return batch.having(old_logps=logps), logps


SAME_FOR_ANY = [
    "clip",
    "dual_clip",
    "capped_clip",
    "off_policy_masked_clip",
    "cispo_clip",
    "sapo_gate",
    "gspo_clip",
    "gspo_token_clip",
    "vespo_weight",
    "dro_quadratic",
    "dppo_tv_mask",
    "dppo_kl_mask",
    "topr",
    "m2po",
]


def test_every_objective_has_its_place_here() -> None:
    others = {"policy_gradient", "log_likelihood", "geo_mean_clip", "sequence_clip", "cov_clip", "cov_kl"}
    others |= {"dpo_sigmoid", "ipo_square", "kto_value"}
    assert {*SAME_FOR_ANY, *others} == {n for n, p in OBJECTIVES.items() if "estimators/objectives" in p.place}


@pytest.mark.parametrize("aggregator", LINEAR, ids=lambda part: part.name)
@given(seed=seeds)
def test_the_first_update_is_reinforces(aggregator: Part, seed: int) -> None:
    """Ratio 1: no clip is active, and the gradient is that of the aggregated -A log pi."""
    batch, logps = on_policy(seed)
    batch = batch.having(behaviour_logps=logps)
    expected = step(of(group_mean_std, policy_gradient, aggregator), batch, logps)[1]
    for name in SAME_FOR_ANY:
        actual = step(of(group_mean_std, OBJECTIVES[name], aggregator), batch, logps)[1]
        close(actual, expected, where=name)


@pytest.mark.parametrize("name", ["clip", "dual_clip", "capped_clip", "gspo_clip", "gspo_token_clip"])
@given(seed=seeds)
def test_its_value_is_minus_the_aggregated_advantage(name: str, seed: int) -> None:
    batch, logps = on_policy(seed)
    for aggregator in LINEAR:
        variant = of(group_mean_std, OBJECTIVES[name], aggregator)
        advantages, _ = compute_advantages(variant, batch, None)
        weights = weigh(aggregator, batch.rows("mask"), max_tokens=9, group_size=batch.group_size)
        close(step(variant, batch, logps)[0], -(weights * advantages.flatten(0, 1)).sum())


@given(seeds)
def test_gmpo_and_the_sequence_ratio_are_reinforce_by_row(seed: int) -> None:
    batch, logps = on_policy(seed)
    for objective, aggregator in ((geo_mean_clip, seq_mean_token_mean), (sequence_clip, seq_mean_token_sum)):
        expected = step(of(group_mean, policy_gradient, aggregator), batch, logps)[1]
        close(step(of(group_mean, objective, aggregator), batch, logps)[1], expected)


@given(seeds)
def test_centred_advantages_give_a_loss_of_zero(seed: int) -> None:
    """Over row means; with OPO's baseline over tokens; with GRPO's over tokens in general not."""
    batch, logps = on_policy(seed)
    zero = torch.zeros((), dtype=torch.float64)
    for advantage in (group_mean, group_mean_std, leave_one_out):
        close(step(of(advantage, clip, seq_mean_token_mean), batch, logps)[0], zero)
    close(step(of(length_weighted_mean, clip, token_mean), batch, logps)[0], zero)
    assert step(of(group_mean_std, clip, token_mean), batch, logps)[0].abs() > 1e-6


# aggregators


@given(seeds, st.integers(1, 6))
def test_equal_lengths_leave_one_gradient_up_to_a_constant(seed: int, length: int) -> None:
    batch, logps = random_batch(seed, equal=length)
    base = step(of(group_mean, clip, token_mean), batch, logps)
    factors = {seq_mean_token_mean: 1.0, seq_mean_token_sum: length, seq_mean_token_sum_norm: length / 9}
    for aggregator, factor in factors.items():
        for one, other in zip(step(of(group_mean, clip, aggregator), batch, logps), base, strict=True):
            close(one, other * factor)


@given(seeds, st.integers(1, 11))
def test_local_means_depend_on_the_split_and_step_wide_ones_do_not(seed: int, cut: int) -> None:
    batch, logps = random_batch(seed)
    rows, loss = batch.rows("mask"), -logps.flatten(0, 1)
    parts = [rows[:cut], rows[cut:]]

    def split(weights: Callable[[Tensor], Tensor], slices: bool) -> float:
        if slices:
            whole = weights(rows)
            return float((whole[:cut] * loss[:cut]).sum() + (whole[cut:] * loss[cut:]).sum())
        return float(sum((weights(m) * x).sum() for m, x in zip(parts, (loss[:cut], loss[cut:]), strict=True)) / 2)

    whole = float((token_mean(rows) * loss).sum())
    assert split(token_mean, True) == pytest.approx(whole, rel=1e-12)
    assert float((token_mean_local(rows) * loss).sum()) == pytest.approx(whole, rel=1e-12)  # one micro-batch: no harm
    tokens = [int(m.sum()) for m in parts]
    if tokens[0] != tokens[1]:
        assert split(token_mean_local, False) != pytest.approx(whole, rel=1e-9)


@given(seeds)
def test_a_micro_batch_of_one_row_makes_the_local_mean_grpos(seed: int) -> None:
    batch, _ = random_batch(seed)
    rows = batch.rows("mask")
    local = torch.cat([token_mean_local(row[None]) for row in rows]) / len(rows)
    close(local, seq_mean_token_mean(rows))


@given(seeds)
def test_with_a_constant_denominator_responses_do_not_see_each_others_lengths(seed: int) -> None:
    """The batch's gradient is the sum of what each response has alone, scaled by the number of rows."""
    batch, logps = random_batch(seed)
    whole = step(of(group_mean, clip, seq_mean_token_sum_norm), batch, logps)[1]
    advantages, _ = compute_advantages(of(group_mean, clip, token_mean), batch, None)
    for p, g in ((0, 0), (2, 3)):
        alone = Batch.of(
            batch.rewards[p : p + 1, g : g + 1],
            batch.mask[p : p + 1, g : g + 1],
            max_tokens=9,
            old_logps=batch.require("old_logps")[p : p + 1, g : g + 1],
        )
        variant = of(group_mean, clip, seq_mean_token_sum_norm)
        own = step(variant, alone, logps[p : p + 1, g : g + 1], advantages[p : p + 1, g : g + 1])[1]
        close(whole[p, g], own[0, 0] / 12)


@given(seeds)
def test_leaving_out_groups_without_advantage(seed: int) -> None:
    """A token mean grows by all tokens over those kept; under a constant denominator nothing changes but the rows."""
    batch, logps = random_batch(seed)
    rewards = batch.rewards.clone()
    rewards[1] = 0.7
    batch = batch.having(rewards=rewards)
    kept = torch.tensor([0, 2])
    part = batch.select(kept)
    for aggregator in (token_mean, seq_mean_token_sum_norm):
        variant = of(group_mean_std, clip, aggregator)
        whole, fewer = step(variant, batch, logps)[1], step(variant, part, logps[kept])[1]
        factor = int(batch.mask.sum()) / int(part.mask.sum()) if aggregator is token_mean else 3 / 2
        close(fewer, whole[kept] * factor)
        assert whole[1].eq(0).all()


def test_a_step_without_a_counted_token_has_a_loss_of_zero_with_a_graph() -> None:
    batch, logps = random_batch(0)
    nothing = batch.having(mask=torch.zeros_like(batch.mask))
    for objective in OBJECTIVES.values():
        for aggregator in AGGREGATORS.values():
            value, gradient = step(of(group_mean, objective, aggregator), nothing, logps)
            assert value == 0
            assert gradient.eq(0).all()


# KL


@given(seeds)
def test_a_coefficient_of_0_is_no_reference_bit_for_bit(seed: int) -> None:
    batch, logps = random_batch(seed)
    without = of(group_mean_std, clip, token_mean)
    for place in ("loss", "reward"):
        variant = of(group_mean_std, clip, token_mean, kl=k3, kl_coef=0.0, kl_place=place)
        assert "ref_logps" not in variant.needs
        bare = batch.having(ref_logps=None)
        assert kl_in_reward(variant, bare) is bare
        for actual, expected in zip(step(variant, bare, logps), step(without, batch, logps), strict=True):
            assert torch.equal(actual, expected)


@given(seeds)
def test_kl_in_the_reward_of_equal_policies_is_none(seed: int) -> None:
    batch, _ = random_batch(seed)
    equal = batch.having(ref_logps=batch.old_logps)
    variant = of(leave_one_out, policy_gradient, seq_mean_token_sum, kl=k1, kl_coef=0.3, kl_place="reward")
    assert torch.equal(kl_in_reward(variant, equal).rewards, batch.rewards)
    assert needs_old_logps(variant, 1)


@given(seeds, st.floats(0.01, 2))
def test_kl_in_the_reward_is_linear_where_the_baseline_is(seed: int, beta: float) -> None:
    """A(r - beta K) = A(r) - beta A(K) for leave-one-out and the group mean, not with a std."""
    batch, _ = random_batch(seed)
    K = torch.where(batch.mask, batch.require("old_logps") - batch.require("ref_logps"), 0.0).sum(-1)
    for advantage, linear in ((leave_one_out, True), (group_mean, True), (group_mean_std, False)):
        variant = of(advantage, policy_gradient, seq_mean_token_sum, kl=k1, kl_coef=beta, kl_place="reward")
        paid = advantage(kl_in_reward(variant, batch))
        apart = advantage(batch) - beta * advantage(batch.having(rewards=K))
        assert torch.allclose(paid, apart, rtol=1e-9, atol=1e-9) is linear


# rollout corrections


@given(seeds)
def test_a_sampler_that_agrees_is_not_corrected(seed: int) -> None:
    batch, logps = random_batch(seed)
    agreeing = batch.having(behaviour_logps=batch.old_logps)
    plain = step(of(group_mean_std, clip, token_mean), batch, logps)
    for correction in (token_truncated, sequence_truncated):
        corrected = step(of(group_mean_std, clip, token_mean, correction=correction), agreeing, logps)
        for one, other in zip(corrected, plain, strict=True):
            close(one, other)


@given(seeds)
def test_an_unbounded_token_correction_samples_by_importance(seed: int) -> None:
    """pi/old times old/behaviour is pi/behaviour, where the clip is wide."""
    batch, logps = random_batch(seed)
    wide = clip.using(eps_low=1.0, eps_high=math.inf)
    corrected = of(group_mean, wide, token_mean, correction=token_truncated.using(cap=math.inf))
    actual = step(corrected, batch, logps)
    direct = step(of(group_mean, wide, token_mean), batch.having(old_logps=batch.behaviour_logps), logps)
    for one, other in zip(actual, direct, strict=True):
        close(one, other)


@given(seeds)
def test_the_correction_weighs_the_objective_and_not_the_kl(seed: int) -> None:
    batch, logps = random_batch(seed)
    silent = torch.zeros(batch.mask.shape, dtype=torch.float64)
    with_kl = of(group_mean, clip, token_mean, kl=k3, kl_coef=0.5)
    corrected = of(group_mean, clip, token_mean, kl=k3, kl_coef=0.5, correction=token_truncated)
    for one, other in zip(step(corrected, batch, logps, silent), step(with_kl, batch, logps, silent), strict=True):
        close(one, other)


# rewards


@given(st.integers(10, 60), st.floats(0.1, 0.9), st.floats(0.1, 2))
def test_the_overlong_punishment_begins_at_the_buffer_and_ends_at_the_limit(limit: int, share: float, f: float) -> None:
    lengths = torch.arange(limit + 1)[None]
    zeros = torch.zeros(1, limit + 1, dtype=torch.float64)
    punished = soft_overlong(zeros, lengths, zeros.bool(), max_tokens=limit, buffer=share, penalty=f)[0]
    assert punished[: int(limit - share * limit) + 1].abs().max() < 1e-9
    assert punished[-1].item() == pytest.approx(-f)
    assert (punished.diff() <= 1e-12).all()
    assert punished.diff().abs().max().item() <= f / (share * limit) + 1e-9  # no jump


def test_clipping_comes_before_shaping() -> None:
    variant = of(group_mean, clip, token_mean, reward_clip=0.5, shaping=[soft_overlong])
    rewards, lengths = torch.tensor([[3.0, -3.0]]), torch.tensor([[10, 10]])
    shaped = shape_rewards(variant, rewards, lengths, torch.zeros(1, 2, dtype=torch.bool), 10)
    assert shaped.tolist() == [[0.0, -1.0]]


# unbiasedness, by enumerating every batch of a bandit


@pytest.mark.parametrize("G", [2, 3])
@pytest.mark.parametrize("advantage", [leave_one_out, group_mean, greedy_baseline], ids=lambda part: part.name)
def test_expected_gradients_on_a_bandit(advantage: Part, G: int) -> None:
    """Four arms, every batch of G draws weighed by its probability; a baseline of the prompt's own changes nothing."""
    theta = torch.tensor([0.3, -0.5, 1.0, 0.0], dtype=torch.float64).requires_grad_()
    rewards = torch.tensor([1.0, 0.0, 0.2, -1.0], dtype=torch.float64)
    log_pi = theta.log_softmax(0)
    true = torch.autograd.grad((log_pi.exp() * rewards).sum(), theta, retain_graph=True)[0]
    expected = torch.zeros(4, dtype=torch.float64)
    for draws in torch.cartesian_prod(*[torch.arange(4)] * G):
        probability = log_pi.detach()[draws].sum().exp()
        batch = Batch.of(rewards[draws][None], greedy_rewards=[0.2], max_tokens=1)
        variant = of(advantage, policy_gradient, seq_mean_token_sum)
        advantages, _ = compute_advantages(variant, batch, None)
        loss = step_loss(variant, batch, log_pi[draws].view(1, G, 1), advantages)
        expected -= probability * torch.autograd.grad(loss, theta, retain_graph=True)[0]
    close(expected, true * ((G - 1) / G if advantage is group_mean else 1))
