"""Estimators that read more than one group, or weigh a group's members: numbers by hand and plain loops."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import Batch, GrpoLabError
from estimators.advantages.batch import whiten, whitened_group_mean, whitened_return
from estimators.advantages.examples import group_median, shrunk_mean
from estimators.advantages.group import (
    best_minus_second,
    best_minus_second_std,
    group_mean,
    group_mean_batch_std,
    group_mean_nonzero_scaled,
    group_mean_relative,
    group_mean_spread_scaled,
    leave_one_out,
    leave_one_out_batch_std,
    length_weighted_mean,
)
from estimators.advantages.running import EVERY, running_baseline
from estimators.advantages.several_rewards import per_reward_std, per_reward_std_whitened

ragged = st.integers(0, 1000)


def doubles(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def random_batch(seed: int, P: int = 3, G: int = 4, T: int = 6) -> Batch:
    """Rewards in float64, ragged lengths."""
    draw = torch.Generator().manual_seed(seed)
    rewards = torch.randn(P, G, generator=draw, dtype=torch.float64)
    return Batch.of(rewards, lengths=torch.randint(1, T + 1, (P, G), generator=draw))


# the batch's std


def test_batch_std_by_hand() -> None:
    # all rewards 1 0 0 0 1 1 1 1: mean 5/8, squares 5 - 25/8 = 15/8, variance 15/56
    batch = Batch.of(doubles([1, 0, 0, 0], [1, 1, 1, 1]))
    std = math.sqrt(15 / 56)
    expected = doubles([0.75, -0.25, -0.25, -0.25], [0, 0, 0, 0]) / (std + 0.5)
    torch.testing.assert_close(group_mean_batch_std(batch, eps=0.5), expected)
    population = math.sqrt(15 / 64)
    torch.testing.assert_close(group_mean_batch_std(batch, eps=0.0, correction=0), expected * (std + 0.5) / population)


def test_batch_std_divides_every_group_by_the_same_number() -> None:
    batch = random_batch(0)
    ratio = group_mean(batch) / group_mean_batch_std(batch)
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))
    assert ratio[0, 0].item() == pytest.approx(batch.rewards.std().item() + 1e-4)


def test_a_batch_of_equal_rewards_is_zero_even_without_eps() -> None:
    batch = Batch.of(torch.full((2, 7), 0.7))
    for part in (group_mean_batch_std, leave_one_out_batch_std):
        assert torch.equal(part(batch, eps=0.0), torch.zeros(2, 7))


def test_leave_one_out_batch_std_by_hand() -> None:
    # leave-one-out: (1, -1) and (0, 0); mean 0, variance 2/3 with ddof 1
    batch = Batch.of(doubles([1, 0], [1, 1]))
    torch.testing.assert_close(leave_one_out_batch_std(batch, eps=0.0), doubles([1, -1], [0, 0]) / math.sqrt(2 / 3))
    torch.testing.assert_close(leave_one_out_batch_std(batch), doubles([1, -1], [0, 0]) / (math.sqrt(2 / 3) + 1e-4))


def test_leave_one_out_batch_std_of_larger_groups() -> None:
    # leave-one-out of (1, 0, 0): 1, -1/2, -1/2; variance 3/4 with ddof 1
    advantages = leave_one_out_batch_std(Batch.of(doubles([1, 0, 0])), eps=0.5)
    torch.testing.assert_close(advantages, doubles([1, -0.5, -0.5]) / (math.sqrt(0.75) + 0.5))


@given(ragged)
def test_leave_one_out_batch_std_has_variance_one(seed: int) -> None:
    advantages = leave_one_out_batch_std(random_batch(seed), eps=0.0, correction=0)
    assert advantages.square().mean().item() == pytest.approx(1)
    torch.testing.assert_close(advantages.sum(1), torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)


# OPO


def test_length_weighted_mean_by_hand() -> None:
    # (3 * 1 + 1 * 0) / 4
    batch = Batch.of(doubles([1, 0]), lengths=[[3, 1]])
    assert length_weighted_mean(batch).tolist() == [[0.25, -0.75]]


def test_length_weighted_mean_counts_the_tokens_that_count() -> None:
    """Holes of the mask are no tokens of the policy's."""
    mask = torch.tensor([[[True, False, True], [True, True, True]]])
    batch = Batch.of(doubles([1, 0]), mask, response_mask=torch.ones(1, 2, 3, dtype=torch.bool))
    torch.testing.assert_close(length_weighted_mean(batch), doubles([3 / 5, -2 / 5]))
    single = torch.zeros_like(mask)
    single[0, 0, 0] = True
    assert length_weighted_mean(batch.having(mask=single)).tolist() == [[0, -1]]
    empty = batch.having(mask=torch.zeros_like(mask))
    assert length_weighted_mean(empty).tolist() == [[1, 0]]


def test_equal_rewards_are_exactly_zero_whatever_their_lengths() -> None:
    """Weighted by lengths the mean of equal rewards is off by an ulp for some of these."""
    off = 0
    for last in range(1, 60):
        rewards, lengths = torch.full((1, 3), 0.1, dtype=torch.float64), torch.tensor([[1, 7, last]])
        assert length_weighted_mean(Batch.of(rewards, lengths=lengths)).eq(0).all()
        off += bool((lengths * rewards).sum() / lengths.sum() != 0.1)
    assert off


@given(ragged)
def test_length_weighted_advantages_balance(seed: int) -> None:
    batch = random_batch(seed)
    balance = (batch.lengths * length_weighted_mean(batch)).sum(1)
    torch.testing.assert_close(balance, torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)


@given(ragged, st.integers(1, 5))
def test_equal_lengths_make_it_the_group_mean(seed: int, length: int) -> None:
    rewards = random_batch(seed).rewards
    batch = Batch.of(rewards, lengths=torch.full(rewards.shape, length))
    torch.testing.assert_close(length_weighted_mean(batch), group_mean(batch))


# GPG


def test_gpg_scales_up_what_groups_without_spread_take_away() -> None:
    batch = Batch.of(doubles([1, 0], [1, 1], [0, 0], [0, 0]))
    assert group_mean_spread_scaled(batch).tolist() == [[2, -2], [0, 0], [0, 0], [0, 0]]
    assert group_mean_spread_scaled(batch, scale=4.0)[0].tolist() == [0.5, -0.5]
    three_of_four = Batch.of(doubles([1, 0], [1, 0], [1, 0], [1, 1]))
    assert group_mean_spread_scaled(three_of_four)[0, 0].item() == pytest.approx(2 / 3, rel=1e-14)
    assert group_mean_nonzero_scaled(Batch.of(doubles([1, 0], [1, 0], [1, 0])))[0, 0].item() == 1
    seven = group_mean_nonzero_scaled(Batch.of(doubles([1, 1, 0, 1, 1, 1, 1, 1])))
    assert seven[0, 0].item() == pytest.approx(8 / 7 / 8, rel=1e-14)
    none = Batch.of(doubles([1, 1], [0, 0]))
    assert group_mean_spread_scaled(none).eq(0).all()


def test_gpg_in_verl_counts_rewards_that_are_not_zero() -> None:
    batch = Batch.of(doubles([1, 0], [1, 1], [0, 0], [0, 0]))
    torch.testing.assert_close(group_mean_nonzero_scaled(batch)[0], doubles([4 / 3, -4 / 3])[0])
    torch.testing.assert_close(group_mean_nonzero_scaled(batch, scale=2.0)[0], doubles([2 / 3, -2 / 3])[0])
    assert group_mean_nonzero_scaled(Batch.of(doubles([1, 0], [0, 0])))[0].tolist() == [2, -2]
    signed = Batch.of(2 * batch.rewards - 1)
    assert group_mean_nonzero_scaled(signed)[0].tolist() == [1, -1]
    assert group_mean_nonzero_scaled(Batch.of(doubles([0, 0]))).tolist() == [[0, 0]]


@given(ragged)
def test_gpg_without_groups_to_skip_is_dr_grpos_advantage(seed: int) -> None:
    batch = random_batch(seed)
    torch.testing.assert_close(group_mean_spread_scaled(batch), group_mean(batch))


# relative to the mean


def test_relative_to_the_mean_by_hand() -> None:
    batch = Batch.of(doubles([1, 0, 0, 0], [0, 0, 0, 0], [3, 1, 3, 1]))
    expected = doubles([3, -1, -1, -1], [0, 0, 0, 0], [0.5, -0.5, 0.5, -0.5])
    torch.testing.assert_close(group_mean_relative(batch, eps=0.0), expected)
    torch.testing.assert_close(group_mean_relative(batch, eps=0.25)[0], doubles([1.5, -0.5, -0.5, -0.5])[0])
    assert group_mean_relative(batch)[0, 0].item() == pytest.approx(0.75 / (0.25 + 1e-6), rel=1e-12)


# pass@k


def test_only_the_best_learns() -> None:
    batch = Batch.of(doubles([3, 1, 0], [0, 2, 2], [5, 5, 5]))
    assert best_minus_second(batch).tolist() == [[2, 0, 0], [0, 0, 0], [0, 0, 0]]
    # deviations 5/3, -1/3, -4/3: squares 42/9, variance 7/3
    torch.testing.assert_close(best_minus_second_std(batch, eps=1.0)[0, 0].item(), 2 / (math.sqrt(7 / 3) + 1))
    assert best_minus_second_std(batch, eps=0.0)[1:].eq(0).all()
    torch.testing.assert_close(best_minus_second_std(batch, eps=0.0, correction=0)[0, 0].item(), 2 / math.sqrt(14 / 9))


@given(ragged)
def test_advantages_sum_to_the_lead_and_one_at_most_is_not_zero(seed: int) -> None:
    batch = random_batch(seed)
    advantages, ordered = best_minus_second(batch), batch.rewards.sort(1, descending=True).values
    torch.testing.assert_close(advantages.sum(1), ordered[:, 0] - ordered[:, 1])
    assert (advantages.ne(0).sum(1) <= 1).all()


# whitening


def test_whitening_by_hand() -> None:
    # three counted tokens 1, 2, 6: mean 3, squares 4 + 1 + 9 = 14
    mask = torch.tensor([[[True, True], [True, False]]])
    values = torch.tensor([[[1.0, 2.0], [6.0, 99.0]]], dtype=torch.float64)
    expected = torch.tensor([[[-2.0, -1.0], [3.0, 0.0]]], dtype=torch.float64)
    torch.testing.assert_close(whiten(values, mask, correction=1, eps=0.0), expected / math.sqrt(7))
    torch.testing.assert_close(whiten(values, mask, correction=0, eps=0.0), expected / math.sqrt(14 / 3))
    torch.testing.assert_close(whiten(values, mask, correction=1, eps=2.0), expected / 3)
    torch.testing.assert_close(whiten(values, mask, correction=1, eps=2.0, floor=23.0), expected / 5)


def test_two_tokens_are_enough_to_whiten() -> None:
    values, mask = torch.tensor([[[1.0, 3.0]]]), torch.ones(1, 1, 2, dtype=torch.bool)
    assert whiten(values, mask, correction=0, eps=0.0).tolist() == [[[-1, 1]]]


def test_whitening_of_one_token_of_none_and_of_equal_values_is_zero() -> None:
    mask = torch.tensor([[[True, False]]])
    values = torch.tensor([[[3.0, 5.0]]])
    for m in (mask, torch.zeros_like(mask)):
        assert whiten(values, m, correction=1, eps=0.0).eq(0).all()
    equal = torch.full((1, 7, 3), 0.7)
    assert whiten(equal, torch.ones(1, 7, 3, dtype=torch.bool), correction=1, eps=0.0).eq(0).all()


def test_reinforce_pp_weighs_a_response_by_its_tokens() -> None:
    # returns 1 1 1 on the long response, 0 on the short one: mean 3/4, variance 1/4 with ddof 1
    batch = Batch.of(doubles([1, 0]), lengths=[[3, 1]])
    advantages = whitened_return(batch, eps=0.0)
    assert advantages[0, 0].tolist() == pytest.approx([0.5, 0.5, 0.5])
    assert advantages[0, 1, 0].item() == pytest.approx(-1.5)


def test_reinforce_pp_discounts_towards_the_end() -> None:
    batch = Batch.of(doubles([1, 0]), lengths=[[2, 1]])
    # returns 1/2, 1 and 0: mean 1/2, squares 1/2, variance 1/4
    advantages = whitened_return(batch, gamma=0.5, eps=0.0)
    assert advantages[0, 0].tolist() == pytest.approx([0.0, 1.0])
    assert advantages[0, 1, 0].item() == pytest.approx(-1.0)


def test_reinforce_pp_baseline_gives_groups_without_spread_minus_the_mean() -> None:
    # centred 1/2 on three tokens, -1/2 on one, 0 on four: mean 1/8, squares 1 - 1/8, variance 1/8
    batch = Batch.of(doubles([1, 0], [1, 1]), lengths=[[3, 1], [2, 2]])
    advantages = whitened_group_mean(batch, eps=0.0)
    assert advantages[0, 0, 0].item() == pytest.approx(3 / 8 / math.sqrt(1 / 8))
    assert advantages[1, 0, 0].item() == pytest.approx(-1 / 8 / math.sqrt(1 / 8))


@given(ragged, st.integers(0, 1))
def test_whitened_advantages_have_mean_0_and_variance_1_over_tokens(seed: int, correction: int) -> None:
    batch = random_batch(seed)
    for part in (whitened_return, whitened_group_mean):
        tokens = part(batch, eps=0.0, correction=correction)[batch.mask].tolist()
        spread = statistics.variance(tokens) if correction else statistics.pvariance(tokens)
        assert statistics.fmean(tokens) == pytest.approx(0, abs=1e-9)
        assert spread == pytest.approx(1)


# several rewards


def two_rewards() -> Batch:
    """A reward of 0 and 1 and one of 0 and 100, in two groups; the second reward is constant in the second group."""
    parts = torch.tensor([[[1.0, 0], [0, 100]], [[1, 5], [0, 5]]], dtype=torch.float64)
    return Batch.of(
        parts.sum(-1), lengths=[[1, 3], [1, 1]], reward_parts=parts, reward_names=("a", "b"), reward_weights=(1.0, 2.0)
    )


def test_each_reward_is_standardised_before_they_are_added_up() -> None:
    # with G = 2 every standardised reward is +-1/sqrt(2): sums (1 - 2, -1 + 2) and (1, -1), over sqrt(2)
    sums = doubles([-1, 1], [1, -1]) / math.sqrt(2)
    # mean 0, variance 2/3 with ddof 1
    torch.testing.assert_close(per_reward_std(two_rewards(), eps=0.0), sums / math.sqrt(2 / 3))
    # the default eps of 1e-4 enters twice
    eps = 1e-4
    scaled = sums * math.sqrt(0.5) / (math.sqrt(0.5) + eps)
    first = doubles([1 / (math.sqrt(0.5) + eps) / 2 - 200 / 2 / (math.sqrt(5000) + eps)])[0, 0]
    advantages = per_reward_std(two_rewards())
    std = torch.stack([first, -first, scaled[1, 0], scaled[1, 1]]).std()
    torch.testing.assert_close(advantages[0, 0], first / (std + eps))


def test_over_tokens_a_long_response_counts_more() -> None:
    # sums over sqrt(2): -1 on one token, 1 on three, 1 and -1: mean 1/3, squares 6 - 6/9 = 16/3, variance 16/15
    advantages = per_reward_std_whitened(two_rewards(), eps=0.0, whiten_eps=0.0)
    scale = math.sqrt(16 / 15)
    assert advantages[0, 1].tolist() == pytest.approx([2 / 3 / scale] * 3)
    assert advantages[0, 0, 0].item() == pytest.approx(-4 / 3 / scale)


def test_a_reward_without_spread_adds_nothing() -> None:
    parts = torch.tensor([[[2.0, 0.7], [0.0, 0.7], [0.0, 0.7]]], dtype=torch.float64)
    batch = Batch.of(parts.sum(-1), reward_parts=parts)
    alone = Batch.of(parts[..., 0], reward_parts=parts[..., :1])
    for correction in (0, 1):
        actual = per_reward_std(batch, eps=0.0, correction=correction)
        torch.testing.assert_close(actual, per_reward_std(alone, eps=0.0, correction=correction))
        # one group of one reward: standardised twice is standardised once
        expected = doubles([2, -1, -1]) / math.sqrt(6 / (3 - correction))
        torch.testing.assert_close(actual, expected)
    # with eps the first standard deviation shows: values 2, -1, -1 over (std + 1) and then over their own std
    std = math.sqrt(8 / 9)
    inner = doubles([4 / 3, -2 / 3, -2 / 3]) / (std + 1)
    torch.testing.assert_close(
        per_reward_std(batch, eps=1.0, correction=0), inner / (math.sqrt(float(inner.square().mean())) + 1)
    )
    mixed = per_reward_std(batch, eps=1.0, correction=1)
    inner = doubles([4 / 3, -2 / 3, -2 / 3]) / (math.sqrt(4 / 3) + 1)
    torch.testing.assert_close(mixed, inner / (float(inner.std()) + 1))


def test_without_weights_each_reward_counts_once() -> None:
    batch = two_rewards()
    plain = batch.having(reward_weights=())
    torch.testing.assert_close(per_reward_std(plain), per_reward_std(batch.having(reward_weights=(1.0, 1.0))))
    with pytest.raises(GrpoLabError, match="reward_parts"):
        per_reward_std(Batch.of([[1.0, 0.0]]))


def test_rewards_that_all_agree_teach_nothing() -> None:
    batch = Batch.of(torch.full((2, 3), 0.7), reward_parts=torch.full((2, 3, 2), 0.7))
    assert per_reward_std(batch, eps=0.0).eq(0).all()
    assert per_reward_std_whitened(batch, eps=0.0, whiten_eps=0.0).eq(0).all()


# carried from step to step


def test_the_running_baseline_is_that_of_earlier_steps() -> None:
    batch = Batch.of(doubles([1, 0], [1, 1]), prompt_ids=torch.tensor([7, 8]))
    first, state = running_baseline(batch, {})
    assert first.tolist() == [[1, 0], [1, 1]]  # nothing is known at first
    assert state == {7: 0.5, 8: 1.0, EVERY: 0.75}
    again, later = running_baseline(batch.having(rewards=doubles([1, 1], [0, 0])), state)
    assert again.tolist() == [[0.5, 0.5], [-1, -1]]
    assert later == pytest.approx({7: 0.9 * 0.5 + 0.1, 8: 0.9, EVERY: 0.9 * 0.75 + 0.05})
    assert state == {7: 0.5, 8: 1.0, EVERY: 0.75}  # the old state is left alone
    tenth, _ = running_baseline(batch, {7: 0.1, 8: 0.1})
    assert tenth[0, 0].item() == 1 - 0.1
    _, thirds = running_baseline(Batch.of(torch.tensor([[1.0, 0.0, 0.0]])), {})
    assert thirds[0] == pytest.approx(1 / 3, rel=1e-12)
    new, _ = running_baseline(batch.having(prompt_ids=torch.tensor([1, 2])), state)
    assert new.tolist() == [[0.25, -0.75], [0.25, 0.25]]  # unseen prompts: the mean over all
    _, first_prompt = running_baseline(batch.having(prompt_ids=torch.tensor([0, 1])), {})
    assert first_prompt == {0: 0.5, 1: 1.0, EVERY: 0.75}  # no prompt is called EVERY
    _, quick = running_baseline(batch.having(rewards=doubles([1, 1], [0, 0])), state, decay=0.0)
    assert quick[7] == 1.0


# examples


def test_median() -> None:
    assert group_median(Batch.of(doubles([1, 0, 0, 5, 2]))).tolist() == [[0, -1, -1, 4, 1]]


def test_shrinking_by_hand() -> None:
    # other prompt's mean 1; first baseline (0 + 2 * 1) / (1 + 2), second (1 + 2) / 3
    batch = Batch.of(doubles([1, 0], [1, 1]))
    torch.testing.assert_close(shrunk_mean(batch, strength=2.0)[0], doubles([1 / 3, -1])[0])
    assert shrunk_mean(batch)[0].tolist() == [0.5, -1]


@given(ragged)
def test_no_strength_or_one_prompt_is_leave_one_out(seed: int) -> None:
    batch = random_batch(seed)
    torch.testing.assert_close(shrunk_mean(batch, strength=0.0), leave_one_out(batch))
    one = batch.select(torch.tensor([1]))
    torch.testing.assert_close(shrunk_mean(one), leave_one_out(one))
    much = shrunk_mean(batch, strength=1e9)
    elsewhere = torch.stack([batch.rewards[[j for j in range(3) if j != p]].mean() for p in range(3)])
    torch.testing.assert_close(much, batch.rewards - elsewhere[:, None], atol=1e-7, rtol=1e-7)
