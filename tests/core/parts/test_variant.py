"""A method as a value: what it refuses, what it needs, and its card."""

from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from core import CORRECTIONS, GrpoLabError, Variant, aggregator
from core.loop.loss import needs_old_logps
from core.parts.registry import config
from estimators.advantages.greedy import greedy_baseline
from estimators.advantages.group import group_mean, group_mean_std
from estimators.aggregators import token_mean
from estimators.corrections import token_truncated
from estimators.filters import nonuniform
from estimators.kl import k1, k3
from estimators.objectives.token import clip, policy_gradient
from estimators.shaping import soft_overlong
from estimators.values import squared_error


def make(**more: Any) -> Variant:
    return Variant(**({"advantage": group_mean, "objective": clip, "aggregator": token_mean} | more))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"advantage": clip}, r"Variant: advantage must be a registered advantage, not the objective 'clip'"),
        ({"objective": "clip"}, "objective must be a registered objective, not 'clip'; in gin write @name"),
        ({"aggregator": None}, "aggregator must be a registered aggregator, not None"),
        ({"kl": token_mean}, "kl must be a registered kl"),
        ({"correction": k1}, "correction must be a registered correction"),
        ({"shaping": [nonuniform]}, "shaping must be a registered shaping"),
        ({"kl_place": "Loss"}, "Variant.kl_place = 'Loss': must be 'loss' or 'reward'"),
        ({"truncated": "drop"}, "Variant.truncated = 'drop': must be 'keep' or 'mask'"),
        ({"kl_coef": 0.1}, "kl_coef=0.1 needs a kl"),
        ({"reward_clip": -1.0}, "reward_clip = -1.0: must be a number above 0 or None"),
        ({"entropy_coef": float("nan")}, "entropy_coef = nan: must be a number"),
        ({"kl": k3, "kl_coef": -0.1}, "kl_coef = -0.1: must be a number from 0 up"),
        ({"filter": nonuniform, "filter_rounds": 0}, "filter_rounds = 0: must be a whole number from 1 to 10,000"),
        ({"name": "mine", "truncated": "drop"}, "mine.truncated = 'drop'"),
    ],
)
def test_what_cannot_work_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(GrpoLabError, match=message):
        make(**more)


def test_parts_in_use() -> None:
    variant = make(kl=k3, kl_coef=0.1, filter=nonuniform, shaping=[soft_overlong])
    assert variant.parts == (group_mean, clip, token_mean, k3, nonuniform, soft_overlong)
    assert make().parts == (group_mean, clip, token_mean)


def test_a_coefficient_of_zero_needs_no_reference() -> None:
    assert not make(kl=k3).uses_kl
    assert "ref_logps" not in make(kl=k3).needs
    assert make(kl=k3, kl_coef=0.1).uses_kl
    assert "ref_logps" in make(kl=k3, kl_coef=0.1).needs


def test_needs_are_those_of_the_parts() -> None:
    assert "greedy_rewards" in make(advantage=greedy_baseline).needs
    assert "greedy_rewards" not in make().needs
    assert "old_logps" in make().needs
    assert "old_logps" not in make(objective=policy_gradient).needs
    assert "behaviour_logps" in make(correction=CORRECTIONS["token_truncated"]).needs


def test_old_log_probs_are_computed_only_where_they_differ_or_are_read() -> None:
    assert not needs_old_logps(make(), 1)
    assert needs_old_logps(make(), 2)
    assert needs_old_logps(make(kl=k1, kl_coef=0.1, kl_place="reward"), 1)
    assert not needs_old_logps(make(kl=k1, kl_coef=0.0, kl_place="reward"), 1)
    assert not needs_old_logps(make(kl=k3, kl_coef=0.1), 1)
    assert needs_old_logps(make(correction=CORRECTIONS["token_truncated"]), 1)


def test_the_card_says_what_is_in_force() -> None:
    variant = make(
        advantage=group_mean_std.using(eps=0.5, correction=0),
        objective=clip.using(eps_high=0.28),
        kl=k1,
        kl_coef=0.05,
        kl_place="reward",
        correction=CORRECTIONS["token_truncated"],
        filter=nonuniform,
        filter_rounds=4,
        shaping=[soft_overlong],
        truncated="mask",
        entropy_coef=0.01,
        reward_clip=5.0,
        name="mine",
    )
    assert variant.card() == {
        "baseline": "group mean",
        "std": "group, ddof 0, + 0.5",
        "ratio": "token",
        "clip": "1 - 0.2 to 1 + 0.28",
        "aggregation": "mean over all tokens of the step",
        "KL": "k1() in the reward, coefficient 0.05",
        "correction": "token_truncated(cap=2.0, floor=0.0)",
        "filter": "nonuniform(), at most 4 rounds",
        "shaping": "soft_overlong(buffer=0.2, penalty=0.5)",
        "truncated responses": "mask",
        "entropy bonus": "0.01",
        "reward clip": "5",
    }
    assert str(variant).splitlines()[0] == "mine"
    assert "  clip                 1 - 0.2 to 1 + 0.28" in str(variant).splitlines()


def test_the_card_follows_bindings_until_the_variant_is_resolved() -> None:
    variant = make()
    with config(bindings=["clip.eps_low = 0.4"]):
        assert variant.card()["clip"] == "1 - 0.4 to 1 + 0.2"
        fixed = variant.resolved()
    assert fixed.card()["clip"] == "1 - 0.4 to 1 + 0.2"
    assert variant.card()["clip"] == "1 - 0.2 to 1 + 0.2"
    assert fixed.parts[0].is_resolved


def test_a_part_without_axes_stands_for_itself() -> None:
    from core import Batch, advantage

    @advantage
    def bare_advantage_in_a_test(batch: Batch, *, scale: float = 2.0) -> object:
        """The reward, scaled."""
        return scale * batch.rewards

    assert make(advantage=bare_advantage_in_a_test).card()["advantage"] == "bare_advantage_in_a_test(scale=2.0)"


def test_a_part_without_axes_is_one_respect() -> None:
    @aggregator
    def aggregator_without_axes(mask: Tensor) -> Tensor:
        """Everything."""
        return mask.float()

    @aggregator(axes={"aggregation": "everything"})
    def aggregator_with_axes(mask: Tensor) -> Tensor:
        """Everything."""
        return mask.float()

    base, other = make(), make(aggregator=aggregator_without_axes)
    assert other.changes(base) == ["aggregator: aggregation (axes= on it would show more)"]
    assert base.changes(other) == ["aggregator: aggregation"]
    assert replace(other, aggregator=aggregator_with_axes).changes(base) == ["aggregator: aggregation"]


@pytest.mark.parametrize(
    ("more", "axis"),
    [
        ({"kl": k3, "kl_coef": 0.1}, "KL"),
        ({"value_loss": squared_error}, "value loss"),
        ({"correction": token_truncated}, "correction"),
        ({"filter": nonuniform}, "filter"),
        ({"shaping": [soft_overlong]}, "shaping"),
        ({"truncated": "mask"}, "truncated responses"),
        ({"entropy_coef": 0.1}, "entropy bonus"),
        ({"reward_clip": 1.0}, "reward clip"),
    ],
)
def test_whatever_else_a_variant_is_made_of_is_a_respect_too(more: dict[str, Any], axis: str) -> None:
    assert make(**more).changes(make()) == [axis]
    assert make().changes(make(**more)) == [axis]
