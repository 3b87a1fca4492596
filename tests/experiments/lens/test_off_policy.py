"""Off-policy: by hand on two tokens, then what theory says of weights, age 0 and the sampler as anchor."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import experiments.lens.enumerate
from core import CORRECTIONS, CREDITS, OBJECTIVES, SELECTIONS, VARIANTS, Variant
from core.randomness import torch_generator
from experiments.lens.enumerate import expected_gradient
from experiments.lens.named import named_variant
from experiments.lens.off_policy import measure_off_policy
from experiments.lens.policy import Responses, TabularPolicy, make_policy
from experiments.lens.sampled import measure
from experiments.lens.samplers import at_ages, at_mismatches
from experiments.lens.step import Draw, differentiate, first_state, gradients, usable_groups

SMALL = make_policy((0.2, 0.7), vocabulary=2, max_tokens=3)
"""Four responses, of one token to three."""
OLD = at_ages(SMALL, [0, 2, 16])
APART = at_mismatches(SMALL, [1e-3, 0.1], seed=0)

# the policy goes on after nothing with A and after one letter with B, its sampler with A_OLD and B_OLD; rewards of
# stopping at once, after one letter, and of being cut
A, B, A_OLD, B_OLD = 0.8, 0.9, 0.5, 0.3
R = (0.5, 0.0, 1.0)


def two_tokens() -> TabularPolicy:
    def logits(a: float, b: float) -> Tensor:
        return torch.tensor([[[1 - a, a], [1 - b, b]]], dtype=torch.float64).log()

    rewards = torch.tensor([R], dtype=torch.float64)
    sampler = TabularPolicy(Responses.all(2, 2), logits(A_OLD, B_OLD), logits(A, B), rewards)
    return replace(sampler, logits=logits(A, B), sampler=sampler)


def by_hand(variant: Variant) -> tuple[float, float]:
    """E[g] in the logits of going on, after nothing and after one letter, over single responses."""
    gradient, _ = expected_gradient(two_tokens(), variant, groups=1, group_size=1)
    assert gradient[0].sum(-1).abs().max() < 1e-12
    return float(gradient[0, 0, 1]), float(gradient[0, 1, 1])


def corrected(name: str, **hyper: float) -> Variant:
    """The reward itself times log-probability, corrected: E[g] = E_sampler[w r d log pi]."""
    return replace(named_variant("no_baseline"), correction=CORRECTIONS[name].using(**hyper))


def test_the_true_gradient_by_hand() -> None:
    true = two_tokens().true_gradient[0, :, 1]
    assert float(true[0]) == pytest.approx(A * (1 - A) * ((1 - B) * R[1] + B * R[2] - R[0]))
    assert float(true[1]) == pytest.approx(A * B * (1 - B) * (R[2] - R[1]))


def test_no_correction_by_hand() -> None:
    """Every expectation is the sampler's, every derivative the policy's."""
    after = (1 - B_OLD) * R[1] + B_OLD * R[2]
    first = -(1 - A_OLD) * A * R[0] + A_OLD * (1 - A) * after
    second = A_OLD * (B_OLD * (1 - B) * R[2] - (1 - B_OLD) * B * R[1])
    assert by_hand(named_variant("no_baseline")) == pytest.approx((first, second))


def test_token_weights_by_hand_are_wrong_by_the_tokens_before_and_after() -> None:
    """What follows is still the sampler's at the first token, and what leads there at the second."""
    true = two_tokens().true_gradient[0, :, 1]
    first = float(true[0]) + A * (1 - A) * (B_OLD - B) * (R[2] - R[1])
    second = float(true[1]) * A_OLD / A
    assert by_hand(corrected("token_truncated", cap=100)) == pytest.approx((first, second))
    # the ratio of the second letter is 3: 2 are left of it
    assert by_hand(corrected("token_truncated", cap=2)) == pytest.approx((first, A_OLD * 2 * B_OLD * (1 - B) * R[2]))


def test_a_token_mask_by_hand() -> None:
    """The second letter, at a ratio of 3, is gone, and of the right response the first alone is left."""
    first = A * (1 - A) * ((1 - B_OLD) * R[1] + B_OLD * R[2]) - A * (1 - A) * R[0]
    assert by_hand(corrected("token_masked", high=2.5)) == pytest.approx((first, 0.0))


def test_a_response_mask_by_hand() -> None:
    """Ratios of the three: 0.2 / 0.5, 0.8 * 0.1 / (0.5 * 0.7) and 0.8 * 0.9 / (0.5 * 0.3) = 4.8; the last is out."""
    first = -(1 - A) * A * R[0] + A * (1 - B) * (1 - A) * R[1]
    second = -A * (1 - B) * B * R[1]
    assert by_hand(corrected("sequence_masked", high=4)) == pytest.approx((first, second))
    exact = two_tokens().true_gradient[0, :, 1].tolist()
    assert by_hand(corrected("sequence_masked", high=5)) == pytest.approx(exact)


def test_noise_by_hand() -> None:
    """E|g|^2 without correction: each logit of going on has an opposite twin."""
    _, moments = expected_gradient(two_tokens(), named_variant("no_baseline"), groups=1, group_size=1)
    stopped = (1 - A_OLD) * (R[0] * A) ** 2
    one = A_OLD * (1 - B_OLD) * R[1] ** 2 * ((1 - A) ** 2 + B**2)
    cut = A_OLD * B_OLD * R[2] ** 2 * ((1 - A) ** 2 + (1 - B) ** 2)
    square = float(two_tokens().true_gradient.square().sum())
    assert moments.power == pytest.approx(2 * (stopped + one + cut) / square)
    assert moments.tokens == pytest.approx(1 + A_OLD)


def expected(policy: TabularPolicy, variant: Variant, group_size: int = 2) -> Tensor:
    return expected_gradient(policy, variant, groups=1, group_size=group_size)[0]


@pytest.mark.parametrize("policy", [*OLD, *APART], ids=["age 0", "age 2", "age 16", "near", "far"])
def test_weights_of_whole_responses_are_unbiased_at_any_age(policy: TabularPolicy) -> None:
    whole = CORRECTIONS["sequence_truncated"].using(cap=1e6)
    for name in ("leave_one_out", "no_baseline"):
        gradient = expected(policy, replace(named_variant(name), correction=whole))
        torch.testing.assert_close(gradient, policy.true_gradient, rtol=0, atol=1e-10)


def test_without_weights_the_bias_grows_with_age() -> None:
    plain = named_variant("leave_one_out")
    bias = [(expected(p, plain) - p.true_gradient).norm() / p.true_gradient.norm() for p in OLD]
    assert bias[0] < 1e-10
    assert 0.01 < bias[1] < bias[2] / 2


@pytest.mark.parametrize("name", list(CORRECTIONS))
def test_at_age_0_every_correction_is_none(name: str) -> None:
    plain = VARIANTS["grpo"]().resolved()
    one = expected(OLD[0], replace(plain, correction=CORRECTIONS[name]))
    torch.testing.assert_close(one, expected(OLD[0], plain), rtol=0, atol=1e-10)


@pytest.mark.parametrize("policy", [*OLD, *APART], ids=["age 0", "age 2", "age 16", "near", "far"])
def test_without_a_clip_weights_on_the_trainer_are_the_ratio_to_the_sampler(policy: TabularPolicy) -> None:
    """exp(log pi - old) exp(old - behaviour) = exp(log pi - behaviour), whatever old is."""
    plain = replace(named_variant("grpo"), objective=OBJECTIVES["clip"].using(eps_low=1.0, eps_high=1e6))
    decoupled = replace(plain, correction=CORRECTIONS["token_truncated"].using(cap=1e6))
    anchored = replace(plain, anchor="sampler")
    torch.testing.assert_close(expected(policy, decoupled), expected(policy, anchored), rtol=0, atol=1e-10)
    loglinear = replace(decoupled, anchor="loglinear")
    torch.testing.assert_close(expected(policy, loglinear), expected(policy, anchored), rtol=0, atol=1e-10)


def test_a_clip_separates_them_once_ratios_to_the_sampler_are_outside() -> None:
    plain = named_variant("grpo")
    weighed = replace(plain, correction=CORRECTIONS["token_truncated"].using(cap=1e6))
    anchored = replace(plain, anchor="sampler")
    apart = [(expected(p, weighed) - expected(p, anchored)).norm() / p.true_gradient.norm() for p in OLD]
    assert apart[0] < 1e-10
    assert apart[2] > 0.1


CORRECTED: dict[str, Any] = {"correction": CORRECTIONS["token_truncated"]}
ENUMERATED: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, CORRECTED) for name in ("grpo", "rloo", "dapo", "gspo", "cispo", "remax")},
    "tokens kept": ("dapo", {"correction": CORRECTIONS["rejection"].using(high=1.05), "denominator": "kept"}),
    "one of each group": ("rloo", {"selection": SELECTIONS["gfpo"].using(k=1), "statistics": "before"}),
    # what looks at a whole batch, by declaration and without
    **{name: (name, CORRECTED) for name in ("reinforce_pp", "clip_cov")},
    "a mean over the step": ("grpo", {"correction": CORRECTIONS["normalized"]}),
    "a moment of the step": ("grpo", {"correction": CORRECTIONS["second_moment_rejection"].using(threshold=1e-3)}),
    "an objective that prepares": ("grpo", {"objective": OBJECTIVES["m2po"]}),
    "tokens of the batch": ("grpo", {"credit": CREDITS["top_entropy"]}),
}


@pytest.mark.parametrize("case", ENUMERATED)
def test_enumeration_is_that_of_every_ordered_batch_by_itself(case: str) -> None:
    """However the batches are computed: a plain loop over them, each response in each place."""
    name, parts = ENUMERATED[case]
    variant = replace(named_variant(name), filter=None, **parts)
    policy = OLD[1]
    words = list(itertools.product(range(len(policy.responses.tokens)), repeat=3))
    gradient = torch.zeros_like(policy.true_gradient).flatten()
    for prompt, word in itertools.product(range(policy.prompts), words):
        draw = Draw(torch.tensor([prompt]), torch.tensor([word]))
        batch, _ = usable_groups(policy, variant, draw, step=1)
        random = torch_generator(0, "objective")
        step, _ = differentiate(policy, variant, draw, batch, first_state(variant), random)
        probability = policy.behaviour.probabilities[prompt, list(word)].prod() / policy.prompts
        gradient += probability * gradients(policy, [step])[0]
    torch.testing.assert_close(expected(policy, variant, 3).flatten(), gradient, rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", ["dapo", "reinforce_pp", "a mean over the step", "an objective that prepares"])
def test_batches_are_computed_at_once(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same 2,040 batches, without 2,040 passes: a part that sees a whole step is called for each, alone."""
    name, parts = ENUMERATED[case]
    passes = []

    def counted(*arguments: Any) -> Any:
        passes.append(arguments)
        return differentiate(*arguments)

    monkeypatch.setattr(experiments.lens.enumerate, "differentiate", counted)
    policy = at_ages(make_policy((0.2, 0.5, 0.8), max_tokens=3), [8])[0]
    expected(policy, replace(named_variant(name), filter=None, **parts), 3)
    assert len(passes) < 100


def test_sampled_agrees_with_enumerated() -> None:
    variant = replace(named_variant("rloo"), correction=CORRECTIONS["token_truncated"])
    _, moments = expected_gradient(OLD[2], variant, groups=2, group_size=2)
    measured = measure(OLD[2], variant, group_size=2, rollouts=4, batches=400, seed=0).numbers
    for quantity, value in moments.numbers(1.0).items():
        estimate = measured[quantity]
        assert abs(estimate.value - value) <= 4 * estimate.error + 1e-9, quantity


def test_every_variant_is_measured_at_every_age() -> None:
    measured = measure_off_policy(
        [named_variant("rloo"), named_variant("grpo")], kind="age", at=(0, 2), group_size=2, start=SMALL
    )
    assert measured.divergences[0] == 0
    assert measured.divergences[1] > 0.003
    fresh, old = measured.numbers["rloo"]
    assert fresh["bias_squared"] < 1e-20
    assert old["bias_squared"] > 1e-4
    assert list(measured.numbers) == ["rloo", "grpo"]
