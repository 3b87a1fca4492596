"""The theory, by enumerating every batch of a small case: to 1e-10, without sampling."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core import ADVANTAGES, AGGREGATORS, FILTERS, OBJECTIVES, VARIANTS, GrpoLabError, Variant
from experiments.lens.enumerate import expected_gradient
from experiments.lens.named import named_variant
from experiments.lens.policy import Responses, TabularPolicy, make_policy

ONE = make_policy((0.3,), vocabulary=3, max_tokens=2)
"""One prompt, seven responses of one token or two."""
TWO = make_policy((0.1, 0.8), vocabulary=2, max_tokens=2)
"""A hard prompt and an easy one, three responses."""


def close(actual: Tensor, target: Tensor) -> None:
    torch.testing.assert_close(actual, target, rtol=0.0, atol=1e-10)


def expected(variant: Variant | str, policy: TabularPolicy = ONE, *, groups: int = 1, group_size: int = 2) -> Tensor:
    variant = named_variant(variant) if isinstance(variant, str) else variant
    return expected_gradient(policy, variant, groups=groups, group_size=group_size)[0]


def direction_bias(variant: Variant | str, policy: TabularPolicy, *, groups: int = 1, group_size: int) -> float:
    variant = named_variant(variant) if isinstance(variant, str) else variant
    _, moments = expected_gradient(policy, variant, groups=groups, group_size=group_size)
    return math.sqrt(max(0.0, moments.numbers(None)["direction_bias_squared"]))


def test_a_bandit_by_hand() -> None:
    """Reward 1 with probability 3/4. At G = 2 only mixed groups, probability 3/8, have an advantage."""
    bandit = TabularPolicy(
        Responses.all(2, 1),
        logits=torch.tensor([[[1.0, 3.0]]], dtype=torch.float64).log(),
        reference=torch.zeros(1, 1, 2, dtype=torch.float64),
        rewards=torch.tensor([[0.0, 1.0]], dtype=torch.float64),
    )
    one = torch.tensor([[[-1.0, 1.0]]], dtype=torch.float64)
    # advantages +-1, so each mixed batch has the gradient (-1, 1) / 2
    close(expected("rloo", bandit), one * 3 / 16)
    close(expected("dr_grpo", bandit), one * 3 / 32)
    # +-1 / sqrt(2), but for the eps of the std
    torch.testing.assert_close(expected("grpo", bandit), one * 3 / 16 / math.sqrt(2), rtol=1e-5, atol=0.0)
    _, moments = expected_gradient(bandit, named_variant("rloo"), groups=1, group_size=2)
    assert moments.tokens == pytest.approx(2)
    # |g|^2 is 1/2 in the 3/8 that are mixed; |true|^2 is 2 * (3/16)^2
    assert moments.power == pytest.approx((3 / 16) / (2 * (3 / 16) ** 2))


@pytest.mark.parametrize("group_size", [2, 3])
def test_rloo_is_unbiased_and_dr_grpo_is_at_its_factor(group_size: int) -> None:
    G = group_size
    close(expected("rloo", group_size=G), ONE.true_gradient)
    close(expected("group_mean", group_size=G), ONE.true_gradient * (G - 1) / G)
    # the variant itself: its aggregator divides by the limit
    gradient = expected("dr_grpo", group_size=G) * ONE.responses.max_tokens
    close(gradient, ONE.true_gradient * (G - 1) / G)


def test_the_same_over_batches_of_two_prompts() -> None:
    close(expected("rloo", TWO, groups=2), TWO.true_gradient)
    close(expected("group_mean", TWO, groups=2), TWO.true_gradient / 2)


@pytest.mark.parametrize("name", ["no_baseline", "greedy_baseline", "leave_one_out", "gae"])
@pytest.mark.parametrize("policy", [ONE, TWO], ids=["one prompt", "two prompts"])
def test_a_baseline_that_does_not_see_the_response_leaves_the_expectation(name: str, policy: TabularPolicy) -> None:
    if name not in ADVANTAGES:
        pytest.skip(f"{name} is not registered")
    close(expected(name, policy), policy.true_gradient)


def test_grpo_is_biased_in_direction_by_difficulty_and_by_length() -> None:
    # binary rewards: up to G = 3 all groups with spread have one std, and it is only a scale
    for group_size in (2, 3):
        assert direction_bias("group_mean_std", TWO, group_size=group_size) < 1e-6
    assert direction_bias("group_mean_std", TWO, group_size=4) > 0.005
    assert direction_bias("leave_one_out", TWO, group_size=4) < 1e-6
    # 1 / length, at G = 2 where the std is innocent
    by_length = replace(named_variant("leave_one_out"), aggregator=AGGREGATORS["seq_mean_token_mean"])
    assert direction_bias(by_length, ONE, group_size=2) > 0.01
    assert direction_bias("grpo", TWO, group_size=4) > 0.01


def test_grpo_favours_hard_and_easy_prompts() -> None:
    policy = make_policy((0.05, 0.5, 0.9), vocabulary=2, max_tokens=2)
    scales = (expected("group_mean_std", policy, group_size=5) * policy.true_gradient).flatten(1).sum(1)
    scales /= policy.true_gradient.flatten(1).square().sum(1)
    assert scales[0] > 1.1 * scales[1]
    assert scales[2] > 1.1 * scales[1]


@pytest.mark.parametrize("aggregator", ["seq_mean_token_sum", "seq_mean_token_mean", "token_mean"])
@pytest.mark.parametrize(
    "objective",
    ["clip", "dual_clip", "capped_clip", "gspo_clip", "gspo_token_clip", "cispo_clip", "sapo_gate", "vespo_weight"],
)
@pytest.mark.parametrize("advantage", ["group_mean_std", "greedy_baseline"])
def test_on_policy_objectives_have_the_gradient_of_reinforce(objective: str, aggregator: str, advantage: str) -> None:
    if objective not in OBJECTIVES:
        pytest.skip(f"{objective} is not registered")
    plain = replace(named_variant(advantage), aggregator=AGGREGATORS[aggregator])
    close(expected(replace(plain, objective=OBJECTIVES[objective])), expected(plain))


def test_a_filter_is_enumerated_over_what_its_rounds_leave() -> None:
    plain = named_variant("leave_one_out")
    filtered = replace(plain, filter=VARIANTS["dapo"]().filter, filter_rounds=1)
    gradient, moments = expected_gradient(ONE, filtered, groups=1, group_size=2)
    # one round of one group: what is dropped has no advantage anyway
    close(gradient, expected(plain))
    mixed = 2 * 0.3 * 0.7
    many, tokens = expected_gradient(ONE, replace(filtered, filter_rounds=200), groups=1, group_size=2)
    close(many, gradient / mixed)
    assert tokens.tokens == pytest.approx(moments.tokens / mixed)
    both, _ = expected_gradient(ONE, replace(filtered, filter_rounds=200), groups=2, group_size=2)
    close(both, many)


def test_refusals_say_why() -> None:
    with pytest.raises(GrpoLabError, match="too many to enumerate"):
        expected("rloo", groups=3, group_size=3)
    with pytest.raises(GrpoLabError, match="defined from 2 samples"):
        expected("rloo", group_size=1)
    if "enough_spread" in FILTERS:
        together = replace(named_variant("rloo"), filter=FILTERS["enough_spread"])
        with pytest.raises(GrpoLabError, match="'enough_spread' judges groups together"):
            expected(together, groups=2)
        # a round of one group is judged as it is
        alone = replace(together, filter_rounds=1)
        close(expected(alone), expected("rloo"))
