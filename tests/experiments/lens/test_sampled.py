"""Sampled batches: they agree with the enumerated ones, pay for all they sample, and show what theory predicts."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from core import ADVANTAGES, VARIANTS, Batch, GrpoLabError, Variant, advantage
from experiments.lens.enumerate import expected_gradient
from experiments.lens.measures import Estimate
from experiments.lens.named import named_variant
from experiments.lens.policy import Responses, TabularPolicy, make_policy
from experiments.lens.sampled import Measurement, measure, one_step, sample_groups
from experiments.lens.step import token_constant

TWO = make_policy((0.1, 0.8), vocabulary=2, max_tokens=2)
NAMES = ["reinforce", "rloo", "dr_grpo", "grpo", "remax", "dapo", "reinforce_pp_baseline", "opo", "gspo"]


def sampled(
    variant: Variant | str, policy: TabularPolicy, *, group_size: int, rollouts: int, **more: Any
) -> Measurement:
    variant = named_variant(variant) if isinstance(variant, str) else variant
    return measure(policy, variant, group_size=group_size, rollouts=rollouts, **{"batches": 400, "seed": 0, **more})


def agree(estimate: Estimate, value: float, errors: float = 4.0) -> bool:
    return abs(estimate.value - value) <= errors * estimate.error + 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_sampled_agrees_with_enumerated(name: str) -> None:
    if name not in VARIANTS:
        pytest.skip(f"{name} is not registered")
    variant = named_variant(name)
    constant = token_constant(variant.aggregator, TWO.responses.max_tokens)
    _, moments = expected_gradient(TWO, variant, groups=2, group_size=2)
    measured = sampled(variant, TWO, group_size=2, rollouts=4).numbers
    for quantity, value in moments.numbers(constant).items():
        assert agree(measured[quantity], value), (quantity, measured[quantity], value)


def test_draws_follow_the_policy_and_depend_on_their_key_alone() -> None:
    draw = sample_groups(TWO, 20_000, 2, 7, 0, 0)
    again = sample_groups(TWO, 20_000, 2, 7, 0, 0)
    assert torch.equal(draw.responses, again.responses)
    for n in range(2):
        counts = torch.bincount(draw.responses[draw.prompts == n].flatten(), minlength=3)
        torch.testing.assert_close(counts / counts.sum(), TWO.probabilities[n].float(), atol=0.012, rtol=0)
    assert not torch.equal(sample_groups(TWO, 20_000, 2, 7, 1, 0).responses, draw.responses)


def test_all_variants_see_the_same_draws() -> None:
    """RLOO and Dr. GRPO differ by a constant, so on the same draws nothing but the scale may differ."""
    policy = make_policy()
    one, other = (sampled(name, policy, group_size=4, rollouts=16, batches=40) for name in ("rloo", "dr_grpo"))
    for quantity in ("cosine", "direction_bias_squared", "variance", "mse", "snr", "tokens"):
        assert one.numbers[quantity].value == pytest.approx(other.numbers[quantity].value, rel=1e-9)
    assert other.numbers["factor"].value == pytest.approx(one.numbers["factor"].value * 3 / 4)


def test_a_filter_pays_for_what_it_throws_away_and_remax_for_its_greedy_responses() -> None:
    """Every response of this policy is one token, and none is ever right: nothing can be kept."""
    hopeless = TabularPolicy(
        Responses.all(2, 1),
        logits=torch.zeros(1, 1, 2, dtype=torch.float64),
        reference=torch.zeros(1, 1, 2, dtype=torch.float64),
        rewards=torch.zeros(1, 2, dtype=torch.float64),
    )
    size: dict[str, Any] = {"groups": 3, "group_size": 2, "seed": 0, "index": 0, "state": None}
    step, tokens, _ = one_step(hopeless, named_variant("dapo"), **size)
    assert step is None
    assert tokens == 10 * 3 * 2  # ten rounds
    _, tokens, _ = one_step(hopeless, named_variant("remax"), **size)
    assert tokens == 3 * 2 + 3
    _, tokens, _ = one_step(hopeless, named_variant("rloo"), **size)
    assert tokens == 3 * 2


def test_weights_show_the_length_bias() -> None:
    policy = make_policy((0.5,))
    flat = sampled("dr_grpo", policy, group_size=8, rollouts=32)
    for verdict in ("right", "wrong"):
        assert all(agree(weight, 1) for weight in flat.weights[verdict][1:])
    steep = sampled("grpo", policy, group_size=8, rollouts=32)
    for verdict in ("right", "wrong"):
        two, four = steep.weights[verdict][1], steep.weights[verdict][3]
        assert two.value / four.value == pytest.approx(2, abs=0.15)  # 1/2 against 1/4 of a row


def test_weights_by_difficulty_show_the_division_by_the_std() -> None:
    policy = make_policy((0.05, 0.5, 0.95))
    plain, scaled = (
        [each["relative_scale"] for each in sampled(name, policy, group_size=8, rollouts=48, batches=800).by_prompt]
        for name in ("leave_one_out", "group_mean_std")
    )
    assert all(agree(scale, 1) for scale in plain)
    for end in (0, 2):
        assert scaled[end].value - scaled[1].value > 2 * (scaled[end].error + scaled[1].error)


def test_a_running_estimator_goes_on_from_batch_to_batch() -> None:
    seen = []

    @advantage(min_group=1, state=int)
    def counting(batch: Batch, state: int) -> tuple[Tensor, int]:
        """The reward, and how many batches have been seen."""
        seen.append((state, batch.step))
        return batch.rewards, state + 1

    assert "counting" in ADVANTAGES
    measured = sampled("counting", TWO, group_size=1, rollouts=2, batches=30)
    assert [state for state, _ in seen] == list(range(32 + 30))
    assert agree(measured.numbers["factor"], 1)


def test_terms_beside_the_reward_show_as_bias() -> None:
    plain = VARIANTS["rloo"]().resolved()
    penalised = replace(plain, kl_coef=0.5)
    bonus = replace(plain, entropy_coef=0.2)
    assert agree(sampled(plain, TWO, group_size=4, rollouts=16).numbers["bias_squared"], 0)
    for variant in (penalised, bonus):
        _, moments = expected_gradient(TWO, variant, groups=1, group_size=2)
        # the expectation does not depend on the number of groups, so many of them make it sharp
        measured = sampled(variant, TWO, group_size=2, rollouts=40).numbers
        assert moments.numbers(1.0)["bias_squared"] > 0.001
        assert agree(measured["bias_squared"], moments.numbers(1.0)["bias_squared"])


def test_the_constant_of_an_aggregator_is_measured_by_calling_it() -> None:
    constants = {name: token_constant(VARIANTS[name]().aggregator, 5) for name in ("rloo", "dr_grpo", "grpo", "dapo")}
    assert constants == {"rloo": pytest.approx(1), "dr_grpo": pytest.approx(5), "grpo": None, "dapo": None}


def test_too_few_batches_are_refused() -> None:
    with pytest.raises(GrpoLabError, match="--batches 5"):
        sampled("rloo", TWO, group_size=2, rollouts=4, batches=5)
