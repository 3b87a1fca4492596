"""Episodes that can be enumerated: a stop or a further turn by hand, then sums, values and gradients of any world."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core import GrpoLabError
from estimators.aggregators import seq_mean_token_mean
from experiments.lens.enumerate import expected_gradient, gradients_apart
from experiments.lens.episodes import History, Reply, make_episodes
from experiments.lens.named import named_variant
from experiments.lens.sampled import sample_groups
from experiments.lens.search import CALLS, GOOD, HIT_REWARD, HITS, KNOWS, make_search
from tests.experiments.lens.worlds import Lottery, stop_or_go


def test_a_stop_or_a_further_turn_by_hand() -> None:
    """Stop with 1 - c = 0.6 and return 1; or go on for 0.5, and 1 more with probability 0.25 in the second turn."""
    policy = stop_or_go(c=0.4, stop=1.0, go=0.5, more=0.25)
    assert policy.responses.tokens.tolist() == [[0, 0, 0], [1, 2, 0], [1, 2, 1]]
    turns = policy.responses.turns
    assert turns is not None
    assert turns.sampled.tolist() == [[True, False, False], [True, False, True], [True, False, True]]
    assert turns.numbers.tolist() == [[1, 0, 0], [1, 1, 2], [1, 1, 2]]
    assert turns.anchors.tolist() == [[1, 0, 0], [1, 0, 2], [1, 0, 2]]
    assert policy.responses.draws.tolist() == [1, 2, 2]
    assert policy.turn_rewards is not None
    assert policy.turn_rewards[0].tolist() == [[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.5, 0.0, 1.0]]
    torch.testing.assert_close(policy.rewards, torch.tensor([[1.0, 0.5, 1.5]]).double())
    torch.testing.assert_close(policy.probabilities, torch.tensor([[0.6, 0.3, 0.1]]).double())
    # at the first turn 0.6 * 1 + 0.4 * (0.5 + 0.25); at the second only what is still to come
    torch.testing.assert_close(policy.values[0, 2], torch.tensor([0.9, 0.0, 0.25]).double())
    # c (1 - c) (0.5 + 0.25 - 1) for going on, c m (1 - m) for the second turn's token
    torch.testing.assert_close(policy.true_gradient[0, :, 1], torch.tensor([-0.06, 0.4 * 0.1875]).double())


def test_observations_have_no_weight_and_no_gradient() -> None:
    """Under the mean of an episode's tokens, going on counts by half: of its three tokens the policy wrote two."""
    policy = stop_or_go(c=0.4, stop=1.0, go=0.5, more=0.25)
    variant = replace(named_variant("no_baseline"), aggregator=seq_mean_token_mean)
    gradient, _ = expected_gradient(policy, variant, groups=1, group_size=1)
    assert float(gradient[0, 0, 1]) == pytest.approx(0.4 * 0.6 * (0.75 / 2 - 1.0))
    # and what is said of an observation's log-probability is not heard
    K = torch.arange(3)
    ones = torch.ones(3, 3, dtype=torch.float64)
    moved = policy.gradients(torch.zeros_like(K), K, ones, 0 * ones, torch.zeros_like(K), 1)
    logits = policy.logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(policy.response_logps(logits.log_softmax(-1)).sum(), logits)
    torch.testing.assert_close(moved[0], expected)


def test_the_search_by_hand() -> None:
    """Two turns on the prompt that needs the tool: a hit with 0.6 * 0.8; what is right, found and paid for."""
    policy = make_search(2, turn_reward=-0.2)
    alone, hit, miss = KNOWS[0]
    found = GOOD * HITS
    called = found * (hit + HIT_REWARD) + (1 - found) * miss - 0.2
    assert float(policy.success[0]) == pytest.approx((1 - CALLS) * alone + CALLS * called)
    assert float(policy.true_gradient[0, 0, 1] * 3) == pytest.approx(CALLS * (1 - CALLS) * (called - alone))
    assert policy.responses.turns is not None
    assert sorted(policy.responses.turns.calls.sum(1).tolist()) == [0, 0, 1, 1, 1, 1, 1, 1]


SEEDS = st.integers(0, 10**6)


@settings(max_examples=8, deadline=None)
@given(SEEDS)
def test_episodes_have_probability_one_together(seed: int) -> None:
    policy = Lottery(seed).policy
    torch.testing.assert_close(policy.probabilities.sum(1), torch.ones(2, dtype=torch.float64))


@settings(max_examples=8, deadline=None)
@given(SEEDS)
def test_return_and_gradient_are_those_of_a_recursion(seed: int) -> None:
    lottery = Lottery(seed)
    logits = lottery.policy.logits.clone().requires_grad_()
    expected = lottery.expected_return(logits)
    (gradient,) = torch.autograd.grad(expected.mean(), logits)
    torch.testing.assert_close(lottery.policy.success, expected.detach())
    torch.testing.assert_close(lottery.policy.true_gradient, gradient)


@settings(max_examples=8, deadline=None)
@given(SEEDS)
def test_values_are_what_is_still_to_come(seed: int) -> None:
    """At every token the expected value after it: along episodes, values and rewards so far are a martingale."""
    policy = Lottery(seed).policy
    assert policy.turn_rewards is not None
    torch.testing.assert_close(policy.values[:, 0, 0], policy.success)
    drawn = policy.responses.sampled
    before = policy.values + policy.turn_rewards.cumsum(-1) - policy.turn_rewards
    for state in range(policy.responses.prefixes):
        here = (policy.responses.states == state) & drawn
        passing = here.any(-1)
        weight = policy.probabilities[:, passing]
        mean = (weight * policy.rewards[:, passing]).sum(1) / weight.sum(1)
        torch.testing.assert_close(before[:, here], mean[:, None].expand(-1, int(here.sum())))


@settings(max_examples=3, deadline=None)
@given(SEEDS)
def test_what_needs_no_group_statistics_is_unbiased(seed: int) -> None:
    policy = Lottery(seed).policy
    for name, group_size in (("no_baseline", 1), ("leave_one_out", 2)):
        gradient, _ = expected_gradient(policy, named_variant(name), groups=1, group_size=group_size)
        torch.testing.assert_close(gradient, policy.true_gradient, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["grpo", "rloo"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_enumerated_expectations_are_those_of_sampling(name: str, seed: int) -> None:
    """The mean of 5,000 batches is as far from E[g] as their exact variance says: within four errors."""
    policy, variant, groups = Lottery(seed).policy, named_variant(name), 5_000
    expected, moments = expected_gradient(policy, variant, groups=1, group_size=2)
    sampled = sample_groups(policy, groups, 2, seed)
    mean = gradients_apart(policy, variant, sampled, torch.arange(groups)[:, None]).mean(0)
    square = float(policy.true_gradient.square().sum())
    error = math.sqrt((moments.power - moments.square) * square / groups)
    assert float((mean - expected.flatten()).norm()) < 4 * error
    assert error < 0.2 * float(expected.norm())
    lengths = policy.responses.draws[sampled.responses].sum(1).double()
    assert float(lengths.mean()) == pytest.approx(moments.tokens, abs=4 * float(lengths.std()) / math.sqrt(groups))


def test_a_world_that_is_none_is_refused() -> None:
    def coin(_: int, history: History) -> list[Reply]:
        return [Reply(0.5, 0), Reply(0.4, 1)] if history.turn == 1 else [Reply()]

    with pytest.raises(GrpoLabError, match="do not add up to 1"):
        make_episodes(coin, lambda *_: 0.0)

    def by_prompt(prompt: int, history: History) -> list[Reply]:
        return [Reply(observation=0)] if history.turn <= prompt else [Reply()]

    with pytest.raises(GrpoLabError, match="not in episodes"):
        make_episodes(by_prompt, lambda *_: 0.0, prompts=2)
