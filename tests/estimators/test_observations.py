"""What an environment wrote has log-probabilities too, and whatever they are, nothing of a step depends on them."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from core import ADVANTAGES, AGGREGATORS, CORRECTIONS, CREDITS, KLS, OBJECTIVES, Batch, Part, Variant
from core.loop.loss import compute_advantages, kl_in_reward, step_loss
from core.parts.options import AdvantageOptions
from core.parts.variant import ANCHORS
from estimators.advantages.group import group_mean_std
from estimators.aggregators import seq_mean_token_mean
from estimators.objectives.token import clip

VERSION = 9
OF_POLICIES = (
    "old_logps",
    "ref_logps",
    "behaviour_logps",
    "behaviour_entropy",
    "support_logmass",
    "sum_squared_probs",
    "values",
)
"""What models say of every token that they read."""
JUNK = (math.nan, math.inf, -math.inf, -1e4, 3.0)


def episode_batch() -> tuple[Batch, Tensor, Tensor]:
    """Episodes of one to three turns with everything filled, the present log-probabilities and entropies."""
    draw = torch.Generator().manual_seed(0)

    def noise() -> Tensor:
        return torch.randn(3, 4, 9, generator=draw, dtype=torch.float64)

    written = torch.tensor([1, 1, 0, 1, 1, 1, 0, 0, 1]).bool()
    response = torch.arange(9) < torch.tensor([9, 5, 2, 9])[:, None].expand(3, 4, 1)
    sampled = response & written
    turns = torch.where(response, torch.tensor([1, 1, 1, 2, 2, 2, 2, 2, 3]), 0)
    last = sampled & torch.tensor([0, 1, 0, 0, 0, 1, 0, 0, 1]).bool()
    own = torch.where(last, noise(), 0.0)
    tokens = torch.where(sampled, noise(), 0.0)
    logps = -noise().abs() - 0.1
    outcomes = torch.randn(3, 4, generator=draw, dtype=torch.float64)
    batch = Batch.of(
        outcomes + own.sum(-1) + tokens.sum(-1),
        sampled,
        response_mask=response,
        sampled_mask=sampled,
        turns=turns,
        turn_rewards=own,
        anchors=torch.where(sampled, turns, 0),
        token_rewards=tokens,
        step_ends=last,
        greedy_rewards=torch.zeros(3).double(),
        reward_parts=torch.stack([outcomes, outcomes.square()], -1),
        token_version=torch.randint(0, VERSION, (3, 4, 9), generator=draw),
        old_logps=logps + 0.2 * noise(),
        ref_logps=logps + 0.2 * noise(),
        behaviour_logps=logps + 0.2 * noise(),
        behaviour_entropy=noise().abs(),
        support_logmass=-noise().abs(),
        sum_squared_probs=noise().abs() / 9,
        values=noise(),
    )
    return batch, logps, noise().abs()


def outcome(variant: Variant, batch: Batch, logps: Tensor, entropy: Tensor) -> dict[str, Tensor]:
    """Advantages at counted tokens, and a step's loss with its gradients."""
    batch = kl_in_reward(variant, batch)
    advantages, _ = compute_advantages(variant, batch, AdvantageOptions.of(variant.advantage).first_state())
    leaf, entropy = logps.clone().requires_grad_(), entropy.clone().requires_grad_()
    loss = step_loss(variant, batch, leaf, advantages, entropy=entropy, version=VERSION)
    gradients = torch.autograd.grad(loss, (leaf, entropy), allow_unused=True, materialize_grads=True)
    return {"advantages": advantages[batch.mask], "loss": loss, "logps": gradients[0], "entropy": gradients[1]}


def nothing_changes(**parts: Any) -> None:
    variant = Variant(**{"advantage": group_mean_std, "objective": clip, "aggregator": seq_mean_token_mean} | parts)
    batch, logps, entropy = episode_batch()
    observed = batch.response_mask & ~batch.mask
    assert observed.any()
    expected = outcome(variant, batch, logps, entropy)
    assert expected["loss"].isfinite()
    assert expected["logps"][batch.mask].ne(0).any()
    for junk in JUNK:
        spoilt = {name: batch.require(name).masked_fill(observed, junk) for name in OF_POLICIES}
        actual = outcome(
            variant, batch.having(**spoilt), logps.masked_fill(observed, junk), entropy.masked_fill(observed, junk)
        )
        for name, value in expected.items():
            assert torch.equal(actual[name], value), f"{name} with {junk} at observations"
        for name in ("logps", "entropy"):
            assert actual[name][observed].eq(0).all()


def each(parts: Mapping[str, Part]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("part", parts.values(), ids=list(parts))


@each(AGGREGATORS)
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=list(OBJECTIVES))
def test_of_every_objective_and_aggregator(objective: Part, part: Part) -> None:
    nothing_changes(objective=objective, aggregator=part, entropy_coef=0.1)


@each(ADVANTAGES)
def test_of_every_advantage(part: Part) -> None:
    nothing_changes(advantage=part)


@each(KLS)
@pytest.mark.parametrize("place", ["loss", "reward"])
def test_of_every_divergence(part: Part, place: str) -> None:
    nothing_changes(kl=part, kl_coef=0.3, kl_place=place)


@each(CORRECTIONS)
@pytest.mark.parametrize("denominator", ["all", "kept"])
def test_of_every_correction(part: Part, denominator: str) -> None:
    nothing_changes(correction=part, denominator=denominator)


@each(CREDITS)
def test_of_every_credit(part: Part) -> None:
    nothing_changes(credit=part)


@pytest.mark.parametrize("anchor", ANCHORS)
def test_of_every_anchor(anchor: str) -> None:
    nothing_changes(anchor=anchor)


@pytest.mark.parametrize("name", ["gae", "whitened_gae", "turn_gae", "bilevel_gae", "whitened_bilevel_gae"])
def test_what_a_critic_is_to_predict(name: str) -> None:
    """At tokens of the policy's own; an environment's have no weight in its loss."""
    batch, _, _ = episode_batch()
    part = ADVANTAGES[name]
    target = AdvantageOptions.of(part).target
    assert target is not None
    hyper = {key: value for key, value in part.defaults.items() if key in AdvantageOptions.of(part).target_takes}
    observed = batch.response_mask & ~batch.mask
    for junk in JUNK:
        spoilt = batch.having(values=batch.require("values").masked_fill(observed, junk))
        assert torch.equal(target(spoilt, **hyper), target(batch, **hyper))
