"""Estimators that give credit by token: numbers by hand, plain loops, and holes in the mask."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import Batch
from estimators.advantages.batch import whiten, whitened_group_mean, whitened_return
from estimators.advantages.critic import gae, whitened_gae
from estimators.advantages.greedy import discounted_greedy_baseline
from estimators.advantages.group import group_mean, group_mean_std, leave_one_out
from estimators.advantages.returns import discounted_return, earned_rewards, outcome, reward_to_go
from estimators.advantages.steps import process_mean_std
from estimators.advantages.then_kl import (
    group_mean_std_then_kl,
    group_mean_then_kl,
    leave_one_out_then_kl,
    whitened_group_mean_then_kl,
)
from estimators.advantages.token import optimal_token_baseline

seeds = st.integers(0, 1000)
ONES = torch.ones(1, 1, 3, dtype=torch.bool)


def tokens(*values: float) -> Tensor:
    return torch.tensor([[values]], dtype=torch.float64)


def random_batch(seed: int, P: int = 2, G: int = 3, T: int = 5, *, holes: bool = False) -> Batch:
    """Everything that an estimator by token reads, float64."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, T + 1, (P, G), generator=draw)
    response = torch.arange(T) < lengths[..., None]
    mask = response & (torch.rand(P, G, T, generator=draw) < 0.6) if holes else response
    noise = [torch.randn(P, G, T, generator=draw, dtype=torch.float64).where(response, 0.0) for _ in range(4)]
    rewards = torch.randn(P, G, generator=draw, dtype=torch.float64) + noise[0].sum(-1)
    return Batch.of(
        rewards,
        mask,
        torch.randn(P, generator=draw),
        noise[1],
        response_mask=response,
        kl_rewards=noise[0],
        old_logps=-noise[2].abs(),
        sum_squared_probs=noise[3].sigmoid(),
    )


# returns


def test_discounted_returns_by_hand() -> None:
    batch = Batch.of([[1.0]], ONES)
    assert discounted_return(batch, 0.5)[0, 0].tolist() == [0.25, 0.5, 1]
    paying = Batch.of(torch.tensor([[1 - 3.0]]), ONES, kl_rewards=tokens(-1, -1, -1))
    assert discounted_return(paying, 0.5)[0, 0].tolist() == [-1.5, -1, 0]


def test_the_discount_keeps_its_digits() -> None:
    """0.9 in float32 is off by 2e-8: as a number between tensors it must not be rounded."""
    returns = discounted_return(Batch.of(torch.ones(1, 1, dtype=torch.float64), ONES), 0.9)
    assert returns[0, 0, 0].item() == pytest.approx(0.81, rel=1e-15)


def test_a_hole_costs_no_discount_and_its_reward_is_not_lost() -> None:
    mask = torch.tensor([[[True, False, True]]])
    batch = Batch.of(torch.tensor([[1 + 5.0]]), mask, response_mask=ONES, token_rewards=tokens(0, 5, 0))
    # the first token earns the 5 that follows it, and half of what comes later
    assert discounted_return(batch, 0.5)[0, 0, [0, 2]].tolist() == [5.5, 1]


def test_only_counted_tokens_earn() -> None:
    mask = torch.tensor([[[True, False, True]], [[True, False, False]]])
    batch = Batch.of(
        [[1.0 + 7], [2.0]],
        mask,
        response_mask=torch.ones_like(mask),
        token_rewards=torch.cat([tokens(0, 3, 4), tokens(0, 0, 0)]),
    )
    assert earned_rewards(batch)[:, 0].tolist() == [[3, 0, 5], [2, 0, 0]]


def test_a_hole_at_the_end_takes_nothing_from_the_outcome() -> None:
    mask = torch.tensor([[[True, True, False]]])
    batch = Batch.of([[1.0]], mask, response_mask=ONES, values=tokens(0.0, 0.0, 9.0))
    assert discounted_return(batch, 0.9)[0, 0, :2].tolist() == pytest.approx([0.9, 1])
    assert gae(batch, lam=0.0)[0, 0, :2].tolist() == [0, 1]
    assert gae(batch, lam=0.5)[0, 0, :2].tolist() == [0.5, 1]


@given(seeds, st.booleans())
def test_without_discount_it_is_the_reward_to_go(seed: int, holes: bool) -> None:
    batch = random_batch(seed, holes=holes)
    actual, expected = discounted_return(batch, 1.0), reward_to_go(batch)
    torch.testing.assert_close(actual[batch.mask], expected[batch.mask])
    torch.testing.assert_close(expected[..., 0], batch.rewards)
    torch.testing.assert_close(outcome(batch), batch.rewards - batch.require("kl_rewards").sum(-1))


# a critic


def test_gae_by_hand() -> None:
    batch = Batch.of([[1.0]], ONES, values=tokens(0.5, 0.25, 0.75))
    # deltas: gamma V' - V, at the end 1 - V
    gamma, lam = 0.5, 0.5
    last = 1 - 0.75
    middle = 0.5 * 0.75 - 0.25 + gamma * lam * last
    first = 0.5 * 0.25 - 0.5 + gamma * lam * middle
    assert gae(batch, gamma=gamma, lam=lam)[0, 0].tolist() == pytest.approx([first, middle, last])


def test_gae_steps_over_a_hole() -> None:
    mask = torch.tensor([[[True, False, True]]])
    batch = Batch.of([[1.0]], mask, response_mask=ONES, values=tokens(0.5, 99.0, 0.75))
    # the first token is followed by the last
    assert gae(batch, gamma=0.5, lam=0.5)[0, 0, 0].item() == pytest.approx(0.5 * 0.75 - 0.5 + 0.25 * 0.25)
    assert gae(batch, gamma=0.5, lam=0.5)[0, 0, 2].item() == pytest.approx(0.25)


@given(seeds, st.booleans())
def test_gae_with_everything_at_one_is_the_return_minus_the_value(seed: int, holes: bool) -> None:
    batch = random_batch(seed, holes=holes)
    expected = reward_to_go(batch) - batch.require("values")
    torch.testing.assert_close(gae(batch)[batch.mask], expected[batch.mask])


@given(seeds, st.floats(0, 1))
def test_gae_with_lambda_0_is_the_td_error(seed: int, gamma: float) -> None:
    batch = random_batch(seed)
    values, advantages = batch.require("values"), gae(batch, gamma=gamma, lam=0.0)
    x, n = batch.require("kl_rewards"), batch.lengths
    for p, g in ((0, 0), (1, 2)):
        for t in range(int(n[p, g])):
            last = t == int(n[p, g]) - 1
            reward = x[p, g, t] + (outcome(batch)[p, g] if last else 0)
            following = 0.0 if last else values[p, g, t + 1]
            assert float(advantages[p, g, t]) == pytest.approx(float(reward + gamma * following - values[p, g, t]))


@given(seeds, st.floats(0, 1))
def test_without_a_critic_whitened_gae_is_reinforce_pp(seed: int, gamma: float) -> None:
    batch = random_batch(seed).having(values=torch.zeros(2, 3, 5, dtype=torch.float64))
    torch.testing.assert_close(whitened_gae(batch, gamma=gamma), whitened_return(batch, gamma=gamma))


@given(seeds)
def test_whitened_gae_is_whitened_over_counted_tokens(seed: int) -> None:
    batch = random_batch(seed, holes=True)
    plain = gae(batch, gamma=0.9, lam=0.8)
    advantages = whitened_gae(batch, gamma=0.9, lam=0.8, correction=0, eps=0.3, floor=0.1)
    torch.testing.assert_close(advantages, whiten(plain, batch.mask, correction=0, eps=0.3, floor=0.1))


# steps


def steps_batch() -> Batch:
    """Two responses with steps that score (1, 0) and (1), ending at tokens 1 and 2, and at token 0."""
    ends = torch.tensor([[[False, True, True], [True, False, False]]])
    rewards = torch.tensor([[[9.0, 1.0, 0.0], [1.0, 0.0, 0.0]]], dtype=torch.float64)
    return Batch.of(rewards.sum(-1), lengths=[[3, 1]], token_rewards=rewards, step_ends=ends)


def test_a_token_gets_the_steps_it_leads_to() -> None:
    # step rewards 1, 0, 1: mean 2/3, variance 1/3 with ddof 1; what lies between steps (the 9) is none
    good, bad = (1 / 3) / math.sqrt(1 / 3), (-2 / 3) / math.sqrt(1 / 3)
    advantages = process_mean_std(steps_batch(), eps=0.0)
    assert advantages[0, 0].tolist() == pytest.approx([good + bad, good + bad, bad])
    assert advantages[0, 1].tolist() == pytest.approx([good, 0, 0])
    population = process_mean_std(steps_batch(), eps=0.0, correction=0)
    assert population[0, 1, 0].item() == pytest.approx((1 / 3) / math.sqrt(2 / 9))
    with_eps = process_mean_std(steps_batch(), eps=0.5)
    assert with_eps[0, 1, 0].item() == pytest.approx((1 / 3) / (math.sqrt(1 / 3) + 0.5))


def test_default_eps_of_steps() -> None:
    assert process_mean_std(steps_batch())[0, 1, 0].item() == pytest.approx((1 / 3) / (math.sqrt(1 / 3) + 1e-6))


def test_steps_that_all_score_the_same_teach_nothing() -> None:
    ends = torch.ones(1, 7, 1, dtype=torch.bool)
    same = torch.full((1, 7, 1), 0.7)
    batch = Batch.of(same[..., 0], token_rewards=same, step_ends=ends)
    assert process_mean_std(batch, eps=0.0).eq(0).all()
    none = batch.having(step_ends=~ends)
    assert process_mean_std(none).eq(0).all()
    # steps of 0.7 among tokens that end none: what lies between them is no score
    wide = torch.tensor([[[0.0, 0.7], [0.7, 0.0]]])
    sparse = Batch.of(wide.sum(-1), lengths=[[2, 2]], token_rewards=wide, step_ends=wide > 0)
    assert process_mean_std(sparse, eps=0.0).eq(0).all()
    below = sparse.having(token_rewards=torch.where(wide > 0, -wide, 0.0))
    assert process_mean_std(below, eps=0.0).eq(0).all()
    single = sparse.having(step_ends=torch.tensor([[[False, True], [False, False]]]))
    assert process_mean_std(single).eq(0).all()


def test_an_end_outside_the_response_is_none() -> None:
    batch = steps_batch()
    ends = batch.require("step_ends").clone()
    ends[0, 1, 2] = True
    assert torch.equal(process_mean_std(batch.having(step_ends=ends)), process_mean_std(batch))


@given(seeds)
def test_one_step_a_response_is_outcome_supervision(seed: int) -> None:
    batch = random_batch(seed)
    last = torch.nn.functional.one_hot(batch.lengths - 1, 5).bool()
    rewards = torch.where(last, outcome(batch)[..., None], 0.0)
    steps = Batch.of(outcome(batch), batch.mask, token_rewards=rewards, step_ends=last)
    actual = process_mean_std(steps)
    expected = group_mean_std(steps)[..., None].expand_as(actual)
    torch.testing.assert_close(actual[batch.mask], expected[batch.mask])


# the optimal baseline of each position


def test_optimal_token_baseline_by_hand() -> None:
    # energy 1 - 2 pi + sum pi^2: 1 - 1 + 0.5 = 0.5 and 1 - 0.5 + 0.4 = 0.9 at the first position
    batch = Batch.of(
        torch.tensor([[1.0, 0.0]], dtype=torch.float64),
        lengths=[[2, 1]],
        old_logps=torch.tensor([[[0.5, 0.25], [0.25, 1.0]]], dtype=torch.float64).log(),
        sum_squared_probs=torch.tensor([[[0.5, 0.3], [0.4, 0.0]]], dtype=torch.float64),
    )
    baseline = 0.5 * 1 / (0.5 + 0.9)
    advantages = optimal_token_baseline(batch, eps=0.0)
    assert advantages[0, 0].tolist() == pytest.approx([1 - baseline, 1])  # alone at the second position: no baseline
    assert advantages[0, 1, 0].item() == pytest.approx(-baseline)
    assert optimal_token_baseline(batch, eps=0.1)[0, 1, 0].item() == pytest.approx(-0.5 / 1.5)


@given(seeds)
def test_optimal_token_baseline_equals_a_plain_loop(seed: int) -> None:
    batch = random_batch(seed, holes=True)
    advantages = optimal_token_baseline(batch)
    pi, squares = batch.require("old_logps").exp(), batch.require("sum_squared_probs")
    P, G, T = batch.mask.shape
    to_go = reward_to_go(batch)
    for p in range(P):
        W = [
            [
                sum(float(1 - 2 * pi[p, g, u] + squares[p, g, u]) for u in range(t + 1) if batch.mask[p, g, u])
                for t in range(T)
            ]
            for g in range(G)
        ]
        for t in range(T):
            there = [g for g in range(G) if batch.mask[p, g, t]]
            b = sum(float(to_go[p, g, t]) * W[g][t] for g in there) / (sum(W[g][t] for g in there) + 1e-8)
            for g in there:
                expected = float(to_go[p, g, t]) - (b if len(there) > 1 else 0)
                assert float(advantages[p, g, t]) == pytest.approx(expected, abs=1e-9)


# other libraries' forms


def test_baseline_first_then_kl() -> None:
    kl = torch.tensor([[[-1.0, -2.0], [-4.0, 0.0]]], dtype=torch.float64)
    batch = Batch.of(torch.tensor([[30.0 - 3, 0.0 - 4]], dtype=torch.float64), lengths=[[2, 1]], kl_rewards=kl)
    # leave-one-out of (30, 0) is (30, -30), clipped to 10
    assert leave_one_out_then_kl(batch)[0, 0].tolist() == [10 - 3, 10 - 2]
    assert leave_one_out_then_kl(batch)[0, 1, 0].item() == -14
    assert group_mean_then_kl(batch, reward_clip=20.0)[0, 0].tolist() == [15 - 3, 15 - 2]
    standard = 15 / (math.sqrt(450) + 1e-9)
    assert group_mean_std_then_kl(batch)[0, 0].tolist() == pytest.approx([standard - 3, standard - 2])
    assert group_mean_std_then_kl(batch, eps=0.0, correction=0)[0, 0].tolist() == pytest.approx([1 - 3, 1 - 2])


@given(seeds)
def test_whitened_with_the_kl_to_go(seed: int) -> None:
    batch = random_batch(seed)
    a = group_mean_then_kl(batch, reward_clip=0.8)
    advantages = whitened_group_mean_then_kl(batch, reward_clip=0.8)
    torch.testing.assert_close(advantages, whiten(a, batch.mask, correction=0, eps=0.0, floor=1e-8))
    without = Batch.of(batch.rewards, batch.mask)
    plain = whitened_group_mean_then_kl(without, correction=1, eps=0.5, floor=0.0, reward_clip=99.0)
    torch.testing.assert_close(plain, whitened_group_mean(without, correction=1, eps=0.5))
    tenth = whitened_group_mean_then_kl(without.having(rewards=20 * batch.rewards))
    torch.testing.assert_close(
        tenth,
        whiten(
            (20 * group_mean(without)).clamp(-10, 10)[..., None].expand(a.shape),
            batch.mask,
            correction=0,
            eps=0.0,
            floor=1e-8,
        ),
    )


@given(seeds)
def test_without_kl_they_are_the_plain_ones(seed: int) -> None:
    batch = Batch.of(random_batch(seed).rewards)
    for part, plain in ((leave_one_out_then_kl, leave_one_out), (group_mean_then_kl, group_mean)):
        torch.testing.assert_close(part(batch, reward_clip=1e9), plain(batch))
    torch.testing.assert_close(group_mean_std_then_kl(batch, eps=1e-6), group_mean_std(batch))


def test_remax_as_its_authors_have_it() -> None:
    batch = Batch.of(
        torch.tensor([[9.0 - 0.3, 1.0]], dtype=torch.float64),
        lengths=[[2, 1]],
        greedy_rewards=[1.0],
        kl_rewards=torch.tensor([[[-0.1, -0.2], [0.0, 0.0]]], dtype=torch.float64),
    )
    # 9 - 1 is clipped to 5; the last token is discounted once, the first twice
    advantages = discounted_greedy_baseline(batch, gamma=0.5)
    assert advantages[0, 0].tolist() == pytest.approx([-0.1 + 1.25, -0.2 + 2.5])
    assert advantages[0, 1, 0].item() == 0
    assert discounted_greedy_baseline(batch)[0, 0, 1].item() == pytest.approx(-0.2 + 0.99 * 5)
    assert discounted_greedy_baseline(batch, gamma=1.0, clip=2.0)[0, 0, 0].item() == pytest.approx(1.9)
    exact = discounted_greedy_baseline(batch.having(kl_rewards=None, rewards=batch.rewards + 0.3), gamma=0.9)
    assert exact[0, 0, 0].item() == pytest.approx(5 * 0.81, rel=1e-14)  # a power of integers would be float32
    plain = Batch.of(batch.rewards, lengths=batch.lengths, greedy_rewards=[1.0])
    assert discounted_greedy_baseline(plain, gamma=1.0)[0, 0].tolist() == pytest.approx([5, 5])
