"""Advantage estimators: numbers by hand, the identities that tie them together, and a contract that each must keep."""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import ADVANTAGES, Batch, GrpoLabError, Part
from core.parts.options import AdvantageOptions
from estimators.advantages.greedy import greedy_baseline
from estimators.advantages.group import (
    group_mean,
    group_mean_std,
    leave_one_out,
    length_weighted_mean,
    no_baseline,
)
from estimators.advantages.returns import reward_to_go

CENTRED = (group_mean, group_mean_std, leave_one_out)
finite = st.floats(-100, 100, allow_nan=False, width=32)
groups = st.integers(2, 6).flatmap(lambda G: st.lists(st.lists(finite, min_size=G, max_size=G), min_size=1, max_size=4))


def batch_of(rewards: Sequence[Sequence[float]], **fields: Any) -> Batch:
    """A batch in float64, where identities hold to the last digits."""
    return Batch.of(torch.tensor(rewards, dtype=torch.float64), **fields)


def close(actual: Tensor, expected: Tensor | Sequence[Sequence[float]], tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(
        actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=tolerance, atol=tolerance, check_dtype=True
    )


# numbers by hand


def test_one_correct_of_four() -> None:
    batch = batch_of([[1, 0, 0, 0]])
    # mean 1/4, squared deviations 9/16 + 3/16 = 3/4, so the variance is 1/4 with ddof 1 and 3/16 with ddof 0
    close(group_mean(batch), [[0.75, -0.25, -0.25, -0.25]])
    close(group_mean_std(batch, eps=0.0), [[1.5, -0.5, -0.5, -0.5]])
    root = math.sqrt(3)
    close(group_mean_std(batch, eps=0.0, correction=0), [[root, -1 / root, -1 / root, -1 / root]])
    close(leave_one_out(batch), [[1, -1 / 3, -1 / 3, -1 / 3]])
    close(no_baseline(batch), [[1, 0, 0, 0]])


def test_eps_is_added_to_the_std() -> None:
    # std of (0, 2) is sqrt(2) with ddof 1; eps = sqrt(2) doubles the divisor
    close(group_mean_std(batch_of([[0, 2]]), eps=math.sqrt(2)), [[-1 / math.sqrt(8), 1 / math.sqrt(8)]])


def test_default_std_has_ddof_1_and_eps_1e_6() -> None:
    close(group_mean_std(batch_of([[0, 2]])), [[-1 / (math.sqrt(2) + 1e-6), 1 / (math.sqrt(2) + 1e-6)]])


def test_groups_do_not_see_each_other() -> None:
    close(group_mean(batch_of([[1, 3], [10, 30]])), [[-1, 1], [-10, 10]])
    close(leave_one_out(batch_of([[1, 3], [10, 30]])), [[-2, 2], [-20, 20]])


def test_greedy_baseline_is_one_number_per_prompt() -> None:
    batch = batch_of([[1, 0], [1, 1]], greedy_rewards=[1.0, 0.5])
    close(greedy_baseline(batch), [[0, -1], [0.5, 0.5]])


def test_reward_to_go_by_hand() -> None:
    mask = torch.tensor([[[True, True, True], [True, False, False]]])
    penalties = torch.tensor([[[-0.1, -0.2, -0.3], [-0.5, 9.0, 9.0]]], dtype=torch.float64)
    # the outcome 1 lies on the last token; rewards already hold the penalties: 1 - 0.6 and 1 - 0.5
    batch = batch_of([[0.4, 0.5]], mask=mask, kl_rewards=penalties, greedy_rewards=[0.25])
    close(reward_to_go(batch)[0, 0], torch.tensor([0.4, 0.5, 0.7], dtype=torch.float64))
    assert reward_to_go(batch)[0, 1, 0].item() == pytest.approx(0.5)
    close(greedy_baseline(batch)[0, 0], torch.tensor([0.15, 0.25, 0.45], dtype=torch.float64))


def test_reward_to_go_adds_up_several_kinds_of_token_rewards() -> None:
    kl = torch.tensor([[[-1.0, -2.0]]], dtype=torch.float64)
    tokens = torch.tensor([[[10.0, 20.0]]], dtype=torch.float64)
    mask = torch.ones(1, 1, 2, dtype=torch.bool)
    batch = batch_of([[1 - 3 + 30]], mask=mask, kl_rewards=kl, token_rewards=tokens)
    close(reward_to_go(batch), torch.tensor([[[28.0, 19.0]]]))


ALONE = (
    "no_baseline",
    "greedy_baseline",
    "discounted_greedy_baseline",
    "running_baseline",
    "whitened_return",
    "gae",
    "whitened_gae",
    "turn_gae",
    "bilevel_gae",
    "whitened_bilevel_gae",
)
BATCH_WIDE = (
    "group_mean_batch_std",
    "leave_one_out_batch_std",
    "group_mean_spread_scaled",
    "group_mean_nonzero_scaled",
    "whitened_return",
    "whitened_group_mean",
    "whitened_group_mean_then_kl",
    "whitened_gae",
    "per_reward_std",
    "per_reward_std_whitened",
    "shrunk_mean",
    "group_in_batch",
    "whitened_bilevel_gae",
)


def test_what_is_defined_for_a_single_sample_and_what_reads_the_batch() -> None:
    shipped = {
        name: AdvantageOptions.of(part) for name, part in ADVANTAGES.items() if "estimators/advantages" in part.place
    }
    assert {name for name, options in shipped.items() if options.min_group == 1} == set(ALONE)
    assert {options.min_group for options in shipped.values()} == {1, 2}
    assert {name for name, options in shipped.items() if options.scope == "batch"} == set(BATCH_WIDE)


# identities


@given(groups)
def test_leave_one_out_is_the_centred_reward_times_g_over_g_minus_1(rewards: list[list[float]]) -> None:
    batch = batch_of(rewards)
    G = batch.group_size
    close(leave_one_out(batch), group_mean(batch) * G / (G - 1), 1e-10)


@given(groups)
def test_leave_one_out_equals_a_plain_loop(rewards: list[list[float]]) -> None:
    expected = [[r - sum(g[:i] + g[i + 1 :]) / (len(g) - 1) for i, r in enumerate(g)] for g in rewards]
    close(leave_one_out(batch_of(rewards)), expected, 1e-10)


@given(groups, st.sampled_from((0, 1)))
def test_standardised_rewards_equal_a_plain_loop(rewards: list[list[float]], ddof: int) -> None:
    def standardise(group: list[float]) -> list[float]:
        mean = sum(group) / len(group)
        std = math.sqrt(sum((r - mean) ** 2 for r in group) / (len(group) - ddof))
        return [(r - mean) / (std + 1e-3) for r in group]

    close(
        group_mean_std(batch_of(rewards), eps=1e-3, correction=ddof),
        [[0.0] * len(g) if max(g) == min(g) else standardise(g) for g in rewards],
        1e-9,
    )


@pytest.mark.parametrize("part", CENTRED, ids=lambda part: part.name)
@given(rewards=groups)
def test_centred_advantages_sum_to_zero_in_each_group(part: Part, rewards: list[list[float]]) -> None:
    advantages = part(batch_of(rewards))
    assert advantages.sum(1).abs().max() < 1e-9 * (1 + advantages.abs().max())


@given(groups)
def test_squares_of_standardised_rewards_sum_to_the_degrees_of_freedom(rewards: list[list[float]]) -> None:
    batch = batch_of([g for g in rewards if max(g) - min(g) > 0.1] or [[0.0, 1.0]])
    G = batch.group_size
    ddof_1, ddof_0 = (group_mean_std(batch, eps=0.0, correction=ddof) for ddof in (1, 0))
    close(ddof_1.square().sum(1), torch.full((batch.groups,), G - 1.0), 1e-6)
    close(ddof_0.square().sum(1), torch.full((batch.groups,), float(G)), 1e-6)
    close(ddof_0, ddof_1 * math.sqrt(G / (G - 1)), 1e-9)


@given(groups, st.floats(0.1, 10), finite)
def test_affine_maps_of_the_reward(rewards: list[list[float]], scale: float, shift: float) -> None:
    batch = batch_of([g for g in rewards if max(g) - min(g) > 0.1] or [[0.0, 1.0]])
    mapped, flipped = (batch.having(rewards=sign * scale * batch.rewards + shift) for sign in (1, -1))
    standardised = group_mean_std(batch, eps=0.0)
    close(group_mean_std(mapped, eps=0.0), standardised, 1e-6)
    close(group_mean_std(flipped, eps=0.0), -standardised, 1e-6)
    for part in (group_mean, leave_one_out):
        close(part(mapped), scale * part(batch), 1e-9)
        close(part(flipped), -scale * part(batch), 1e-9)


def test_greedy_baseline_is_invariant_when_the_greedy_reward_is_mapped_too() -> None:
    batch = batch_of([[0.2, -1.0, 4.0]], greedy_rewards=[0.7])
    mapped = batch_of([[3 * r + 5 for r in (0.2, -1.0, 4.0)]], greedy_rewards=[3 * 0.7 + 5])
    close(greedy_baseline(mapped), 3 * greedy_baseline(batch))


@pytest.mark.parametrize(("correct", "G"), [(k, G) for G in (2, 3, 8) for k in range(1, G)])
def test_binary_rewards(correct: int, G: int) -> None:
    batch = batch_of([[1.0] * correct + [0.0] * (G - correct)])
    p = correct / G
    close(group_mean(batch), [[1 - p] * correct + [-p] * (G - correct)])
    loo = [(G - correct) / (G - 1)] * correct + [-correct / (G - 1)] * (G - correct)
    close(leave_one_out(batch), [loo])
    root = math.sqrt(p / (1 - p))
    close(group_mean_std(batch, eps=0.0, correction=0), [[1 / root] * correct + [-root] * (G - correct)])


@given(finite, finite)
def test_two_samples(one: float, two: float) -> None:
    if abs(one - two) < 0.01:
        return
    batch = batch_of([[one, two]])
    sign = math.copysign(1, one - two)
    close(group_mean_std(batch, eps=0.0), [[sign / math.sqrt(2), -sign / math.sqrt(2)]], 1e-6)
    close(group_mean_std(batch, eps=0.0, correction=0), [[sign, -sign]], 1e-6)
    close(leave_one_out(batch), [[one - two, two - one]], 1e-9)
    close(group_mean(batch), [[(one - two) / 2, (two - one) / 2]], 1e-9)


@given(groups, st.floats(0.1, 10), st.floats(-10, 10))
def test_opo_and_remax_are_shift_invariant_and_of_degree_1(rewards: list[list[float]], a: float, b: float) -> None:
    """ReMax where the greedy reward is mapped too; OPO whatever the lengths."""
    lengths = [[1 + (3 * i + j) % 4 for j in range(len(group))] for i, group in enumerate(rewards)]
    greedy = [sum(group) / 3 for group in rewards]
    batch = batch_of(rewards, lengths=lengths, greedy_rewards=greedy)
    mapped = batch.having(rewards=a * batch.rewards + b, greedy_rewards=a * batch.require("greedy_rewards") + b)
    for part in (length_weighted_mean, greedy_baseline):
        torch.testing.assert_close(part(mapped), a * part(batch), rtol=1e-9, atol=1e-9)


@given(groups)
def test_the_greedy_baseline_at_the_group_mean_and_at_zero(rewards: list[list[float]]) -> None:
    batch = batch_of(rewards)
    at_mean = batch.having(greedy_rewards=batch.rewards.mean(1))
    close(greedy_baseline(at_mean), group_mean(batch), 1e-9)
    at_zero = batch.having(greedy_rewards=torch.zeros(batch.groups, dtype=torch.float64))
    assert torch.equal(greedy_baseline(at_zero), no_baseline(batch))


# a group without spread teaches nothing


@pytest.mark.parametrize("part", CENTRED, ids=lambda part: part.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equal_rewards_give_exactly_zero(part: Part, dtype: torch.dtype) -> None:
    """Their float32 mean is off by an ulp, and so is their std: the quotient of the two would be near 1."""
    for reward, G in product((0.1, 0.3, 0.7, 1e-8, -123.456), range(2, 65)):
        advantages = part(Batch.of(torch.full((1, G), reward, dtype=dtype)))
        assert torch.equal(advantages, torch.zeros(1, G, dtype=dtype)), (reward, G)


@pytest.mark.parametrize("correction", [0, 1])
def test_equal_rewards_give_zero_even_without_eps(correction: int) -> None:
    batch = Batch.of([[0.7, 0.7, 0.7], [1.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    advantages = group_mean_std(batch, eps=0.0, correction=correction)
    assert torch.equal(advantages[:2], torch.zeros(2, 3))
    assert advantages[2].isfinite().all()


def test_equal_rewards_are_not_zero_for_a_baseline_from_elsewhere() -> None:
    batch = Batch.of([[1.0, 1.0], [1.0, 1.0]], greedy_rewards=[0.0, 1.0])
    assert greedy_baseline(batch).tolist() == [[1, 1], [0, 0]]
    assert no_baseline(batch).tolist() == [[1, 1], [1, 1]]


def test_a_small_difference_between_large_rewards_is_kept() -> None:
    """2^24 - 2 and 2^24 - 1 are float32 numbers, their mean is not: centred ±1/2, standardised ±1/√2."""
    batch = Batch.of([[2.0**24 - 2, 2.0**24 - 1]])
    assert group_mean(batch).tolist() == [[-0.5, 0.5]]
    assert leave_one_out(batch).tolist() == [[-1, 1]]
    close(group_mean_std(batch, eps=0.0), [[-(0.5**0.5), 0.5**0.5]], 1e-6)


# unbiasedness, by enumeration on a bandit of three arms


def bandit_gradient(part: Part, G: int, **hyper: float) -> tuple[Tensor, Tensor]:
    """Expectation of the estimated gradient over all groups of G draws, and the true gradient of the reward."""
    theta = torch.tensor([0.3, -0.5, 1.1], dtype=torch.float64)
    reward = torch.tensor([3.0, 0.0, -0.1], dtype=torch.float64)
    probs = theta.softmax(0)
    score = torch.eye(3, dtype=torch.float64) - probs  # row a: gradient of log pi(a)
    expected = torch.zeros(3, dtype=torch.float64)
    for arms in product(range(3), repeat=G):
        drawn = torch.tensor(arms)
        advantages = part(Batch.of(reward[drawn][None]), **hyper)[0]
        expected += probs[drawn].prod() * (advantages[:, None] * score[drawn]).mean(0)
    return expected, probs * (reward - probs @ reward)


@pytest.mark.parametrize("G", [2, 3, 4])
def test_leave_one_out_is_unbiased_and_the_group_mean_shrinks(G: int) -> None:
    loo, true = bandit_gradient(leave_one_out, G)
    close(loo, true)
    centred, _ = bandit_gradient(group_mean, G)
    close(centred, true * (G - 1) / G)


def test_dividing_by_the_std_changes_the_direction() -> None:
    standardised, true = bandit_gradient(group_mean_std, 3, eps=1e-9)
    cosine = torch.nn.functional.cosine_similarity(standardised, true, dim=0)
    assert 0.5 < cosine < 0.98
    assert standardised.norm() / true.norm() < 0.5


def test_a_missing_field_says_who_must_ask_for_it() -> None:
    with pytest.raises(GrpoLabError, match="needs=\\('greedy_rewards',\\)"):
        greedy_baseline(Batch.of([[1.0, 0.0]]))


every_advantage = pytest.mark.parametrize("part", ADVANTAGES.values(), ids=list(ADVANTAGES))
