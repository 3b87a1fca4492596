"""The suite itself: every contract catches a part that breaks it, properties say what they should, and the command."""

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core import (
    ADVANTAGES,
    AGGREGATORS,
    CORRECTIONS,
    FILTERS,
    KLS,
    OBJECTIVES,
    SHAPINGS,
    VARIANTS,
    Batch,
    GrpoLabError,
    Part,
    TokenLoss,
    Variant,
)
from experiments.check.checks import Outcome
from experiments.check.command import add_options, run_check
from experiments.check.examples import make_batch, tensors
from experiments.check.suite import CHECKS, examine

DEFAULTS: dict[str, dict[str, Any]] = {
    "advantage": {"needs": (), "min_group": 2, "scope": "group", "state": None},
    "objective": {"level": "row", "prepare": None, "prepare_takes": None, "zero_at_zero_advantage": False},
    "aggregator": {"split_invariant": True},
}
BROKEN: dict[tuple[str, str], list[tuple[Part, str]]] = {}
"""(kind, check) to parts that the check must refuse, and a piece of what it must say."""


def part_of(kind: str, function: Callable[..., Any], axes: dict[str, str] | None = None, **options: Any) -> Part:
    """A part that is not registered."""
    supplied = frozenset(("max_tokens",) if kind in ("aggregator", "shaping") else ())
    # resolved: what is not registered has no config to ask
    return Part(kind, function, DEFAULTS.get(kind, {}) | options, axes or {}, supplied=supplied, is_resolved=True)


def breaks(kind: str, check: str, says: str = "", **options: Any) -> Callable[[Callable[..., Any]], Part]:
    """Note down a part that breaks a contract."""

    def add(function: Callable[..., Any]) -> Part:
        part = part_of(kind, function, **options)
        BROKEN.setdefault((kind, check), []).append((part, says))
        return part

    return add


def outcome(part: Part, name: str) -> Outcome:
    """What the check of this name finds."""
    (found,) = [check for check in CHECKS[part.kind] if check.name == name]
    return found(part)


# advantages that break a contract


@breaks("advantage", "shape and numbers", r"\[1\] for P, G, T")
def one_for_a_group(batch: Batch) -> Tensor:
    return batch.rewards.mean(1)


@breaks("advantage", "shape and numbers", "dtype torch.int64")
def integers(batch: Batch) -> Tensor:
    return batch.rewards.argsort(1).argsort(1)


@breaks("advantage", "shape and numbers", "nan at")
def no_epsilon(batch: Batch) -> Tensor:
    centred = batch.rewards - batch.rewards.amin(1, keepdim=True)
    return centred / batch.rewards.std(1, keepdim=True)


@breaks("advantage", "shape and numbers", "ZeroDivisionError: .*test_check.py")
def raises(batch: Batch) -> Tensor:
    return batch.rewards * (1 / 0)


@breaks("advantage", "smallest group", "nan .*groups of 1", min_group=1)
def others_of_one(batch: Batch) -> Tensor:
    others = (batch.rewards.sum(1, keepdim=True) - batch.rewards) / (batch.group_size - 1)
    return batch.rewards - others


@breaks("advantage", "no gradient", "kept in the state", state=list)
def keeps_a_graph(batch: Batch, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    with torch.enable_grad():
        mean = batch.rewards.mean()
    return batch.rewards - mean, [*state, mean]


@breaks("advantage", "permutation", "reordered rewards")
def minus_the_first(batch: Batch) -> Tensor:
    return batch.rewards - batch.rewards[:, :1]


@breaks("advantage", "permutation", "reordered rewards")
def ties_broken_by_place(batch: Batch) -> Tensor:
    best = torch.zeros_like(batch.rewards)
    return best.scatter(1, batch.rewards.argmax(1, keepdim=True), 1.0) - 1 / batch.group_size


@breaks("advantage", "padding", "three empty columns")
def by_width(batch: Batch) -> Tensor:
    return batch.rewards / batch.mask.shape[-1]


@breaks("advantage", "masked NaN", "nan outside the responses", needs=("old_logps",))
def product_with_the_mask(batch: Batch) -> Tensor:
    return batch.rewards + (batch.require("old_logps") * batch.response_mask).sum(-1)


@breaks("advantage", "same input, same output", "second call")
def noisy(batch: Batch) -> Tensor:
    return batch.rewards + torch.rand(batch.rewards.shape)


@breaks("advantage", "same input, same output", "global random generator")
def draws_for_nothing(batch: Batch) -> Tensor:
    torch.rand(3)
    return batch.rewards


@breaks("advantage", "inputs left alone", "rewards was changed in place")
def in_place(batch: Batch) -> Tensor:
    return batch.rewards.sub_(batch.rewards.mean(1, keepdim=True))


@breaks("advantage", "groups apart, as declared", "group . (alone|beside other groups)")
def mean_of_all(batch: Batch) -> Tensor:
    return batch.rewards - batch.rewards.mean()


@breaks("advantage", "groups apart, as declared", "alone")
def over_the_number_of_groups(batch: Batch) -> Tensor:
    return batch.rewards / batch.groups


@breaks("advantage", "declares what it reads", "greedy_rewards was not filled")
def undeclared(batch: Batch) -> Tensor:
    return batch.rewards - batch.require("greedy_rewards")[:, None]


@breaks("advantage", "state can be saved", "raised", state=lambda: {"mean": lambda: 0.0})
def unsaved(batch: Batch, state: Any) -> tuple[Tensor, Any]:
    return batch.rewards - state["mean"](), state


class Forgetful:
    """A mean that is lost in a checkpoint."""

    def __init__(self) -> None:
        self.mean = 0.0

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Forgetful, ()


@breaks("advantage", "state can be saved", "after saving and loading", state=Forgetful, scope="batch")
def forgets(batch: Batch, state: Forgetful) -> tuple[Tensor, Forgetful]:
    advantages = batch.rewards - state.mean
    after = Forgetful()
    after.mean = float(batch.rewards.mean()) + 1
    return advantages, after


@breaks("advantage", "axes", "eps", axes={"std": "+ {eps:g}"})
def says_what_it_has_not(batch: Batch) -> Tensor:
    return batch.rewards


@breaks("advantage", "no spread, not nearly 0", "rewards of 1 get 0")
def float32_mean(batch: Batch) -> Tensor:
    return batch.rewards - batch.rewards.mean(1, keepdim=True)


@breaks("advantage", "no spread, not nearly 0", "for . rewards of", scope="batch")
def nearly_zero(batch: Batch) -> Tensor:
    centred = (batch.rewards - batch.rewards.double().mean(1, keepdim=True)).masked_fill(batch.no_spread[:, None], 0.0)
    return centred + 1e-17


@breaks("advantage", "no spread, not nearly 0", "the only group.*rewards of 1 get 0", scope="batch")
def whitened_in_float32(batch: Batch) -> Tensor:
    return (batch.rewards - batch.rewards.mean()) / (batch.rewards.std() + 1e-9)


# objectives


@breaks("objective", "shape and numbers", r"returned \[\], but must return")
def summed(logps: Tensor, advantages: Tensor) -> Tensor:
    return -(advantages * logps).sum()


@breaks("objective", "shape and numbers", "loss nan at")
def log_of_a_log(logps: Tensor) -> Tensor:
    return logps.log()


@breaks("objective", "what it logs", "'ratio' is ")
def logs_a_number(logps: Tensor, advantages: Tensor) -> TokenLoss:
    return TokenLoss(-advantages * logps, {"ratio": logps.mean()})


@breaks("objective", "what it logs", "'ratio' holds on to the graph")
def logs_a_graph(logps: Tensor, old_logps: Tensor, advantages: Tensor) -> TokenLoss:
    ratio = torch.exp(logps - old_logps)
    return TokenLoss(-advantages * ratio, {"ratio": ratio})


@breaks("objective", "gradient", "is 0")
def detached(logps: Tensor, advantages: Tensor) -> Tensor:
    return -advantages * logps.detach()


@breaks("objective", "masked NaN", "nan at")
def quotient_of_zeros(logps: Tensor, old_logps: Tensor, mask: Tensor) -> Tensor:
    return (logps / old_logps).sum(-1, keepdim=True) * mask


@breaks("objective", "padding", "three empty columns")
def mean_over_the_width(logps: Tensor, advantages: Tensor) -> Tensor:
    return -advantages * logps.mean(-1, keepdim=True)


@breaks("objective", "permutation", "rows in the order")
def by_place(logps: Tensor, advantages: Tensor) -> Tensor:
    return -advantages * logps * torch.arange(len(logps))[:, None]


@breaks("objective", "permutation", "rows in the order", level="group")
def first_group_twice(logps: Tensor, advantages: Tensor) -> Tensor:
    return -advantages * logps * (1 + (torch.arange(len(logps)) == 0).float()[:, None, None])


@breaks("objective", "micro-batches", "by themselves")
def centred_over_the_step(logps: Tensor, advantages: Tensor) -> Tensor:
    return -(advantages - advantages.mean()) * logps


@breaks("objective", "micro-batches", "by themselves", level="group")
def centred_over_groups(logps: Tensor, advantages: Tensor) -> Tensor:
    return -(advantages - advantages.mean()) * logps


@breaks("objective", "no advantage, no loss", "where every advantage is 0", zero_at_zero_advantage=True)
def with_a_penalty(logps: Tensor, old_logps: Tensor, advantages: Tensor) -> Tensor:
    return -advantages * logps + (logps - old_logps).square()


@breaks("objective", "same input, same output", "second call")
def noisy_loss(logps: Tensor, advantages: Tensor) -> Tensor:
    return -advantages * logps * torch.rand(logps.shape)


@breaks("objective", "inputs left alone", "advantages was changed in place")
def clamps_in_place(logps: Tensor, advantages: Tensor) -> Tensor:
    return -advantages.clamp_(min=0) * logps


@breaks("objective", "axes", "missing", axes={"clip": "{missing}"})
def objective_says_what_it_has_not(logps: Tensor, advantages: Tensor) -> Tensor:
    return -advantages * logps


# aggregators


@breaks("aggregator", "shape and numbers", "dtype torch.int64")
def whole_numbers(mask: Tensor) -> Tensor:
    return mask.long()


@breaks("aggregator", "shape and numbers", "negative")
def below_zero(mask: Tensor) -> Tensor:
    return -mask.float()


@breaks("aggregator", "shape and numbers", "outside the mask")
def everywhere(mask: Tensor) -> Tensor:
    return torch.ones(mask.shape) / mask.shape[0]


@breaks("aggregator", "shape and numbers", "must return")
def reduced(mask: Tensor) -> Tensor:
    return mask.float().mean()


@breaks("aggregator", "nothing counted", "nan")
def divides_by_nothing(mask: Tensor) -> Tensor:
    return mask.float() / mask.sum()


@breaks("aggregator", "padding", "three empty columns")
def over_the_width(mask: Tensor) -> Tensor:
    return mask.float() / mask.numel()


@breaks("aggregator", "permutation", "rows in the order")
def later_rows_more(mask: Tensor) -> Tensor:
    return mask.float() * (1 + torch.arange(len(mask)))[:, None]


@breaks("aggregator", "same input, same output", "second call")
def random_weights(mask: Tensor) -> Tensor:
    return mask * torch.rand(mask.shape)


@breaks("aggregator", "inputs left alone", "mask was changed in place")
def clears_the_mask(mask: Tensor) -> Tensor:
    weights = mask.float()
    mask.zero_()
    return weights


@breaks("aggregator", "axes", "missing", axes={"aggregation": "{missing}"})
def aggregator_says_what_it_has_not(mask: Tensor) -> Tensor:
    return mask.float()


# KLs


@breaks("kl", "shape and numbers", "must return")
def of_the_row(logps: Tensor, ref_logps: Tensor) -> Tensor:
    return (logps - ref_logps).sum(-1)


@breaks("kl", "0 where the policies are equal", "0.5 instead of 0")
def never_zero(logps: Tensor, ref_logps: Tensor) -> Tensor:
    return logps - ref_logps + 0.5


@breaks("kl", "tokens apart", "log-probabilities of -9")
def minus_the_row_mean(logps: Tensor, ref_logps: Tensor) -> Tensor:
    return logps - ref_logps - (logps - ref_logps).mean(-1, keepdim=True)


@breaks("kl", "same input, same output", "second call")
def noisy_kl(logps: Tensor, ref_logps: Tensor) -> Tensor:
    return (logps - ref_logps) * torch.rand(logps.shape)


@breaks("kl", "inputs left alone", "ref_logps was changed in place")
def negates_in_place(logps: Tensor, ref_logps: Tensor) -> Tensor:
    return logps + ref_logps.neg_()


@breaks("kl", "axes", "missing", axes={"KL": "{missing}"})
def kl_says_what_it_has_not(logps: Tensor, ref_logps: Tensor) -> Tensor:
    return logps - ref_logps


# value losses


@breaks("value_loss", "shape and numbers", "must return")
def mean_of_the_row(values: Tensor, returns: Tensor) -> Tensor:
    return (values - returns).square().mean(-1)


@breaks("value_loss", "least where the value is the return", "off it")
def away_from_the_return(values: Tensor, returns: Tensor) -> Tensor:
    return -(values - returns).square()


@breaks("value_loss", "points to the return", "gradients")
def towards_the_old_value(values: Tensor, returns: Tensor, old_values: Tensor) -> Tensor:
    return (values - returns).square() + 3 * (values - old_values).square()


@breaks("value_loss", "tokens apart", "NaN at")
def minus_the_mean_error(values: Tensor, returns: Tensor) -> Tensor:
    errors = values - returns
    return (errors - errors.mean(-1, keepdim=True)).square() + errors.square()


@breaks("value_loss", "same input, same output", "second call")
def noisy_square(values: Tensor, returns: Tensor) -> Tensor:
    return (values - returns).square() * torch.rand(values.shape)


@breaks("value_loss", "inputs left alone", "returns was changed in place")
def adds_in_place(values: Tensor, returns: Tensor) -> Tensor:
    return (values + returns.neg_()).square()


@breaks("value_loss", "axes", "missing", axes={"value loss": "{missing}"})
def value_loss_says_what_it_has_not(values: Tensor, returns: Tensor) -> Tensor:
    return (values - returns).square()


# corrections


@breaks("correction", "shape and numbers", "must return")
def one_factor_a_row(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, old_logps - behaviour_logps, 0.0).sum(-1, keepdim=True).exp()[:, :0]


@breaks("correction", "shape and numbers", "factors")
def log_ratio(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    return 1 + torch.where(mask, old_logps - behaviour_logps, 0.0)


@breaks("correction", "1 where sampler and trainer agree", "2 instead of 1")
def doubled(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    return 2 * torch.where(mask, old_logps - behaviour_logps, 0.0).exp()


@breaks("correction", "masked NaN", "outside the mask")
def times_the_mask(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    return torch.exp((old_logps - behaviour_logps) * mask)


@breaks("correction", "micro-batches", "by itself")
def over_the_mean(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    factors = torch.where(mask, old_logps - behaviour_logps, 0.0).exp()
    return factors / factors.mean()


@breaks("correction", "padding", "three empty columns")
def mean_of_the_width(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, old_logps - behaviour_logps, 0.0).mean(-1, keepdim=True).exp().expand(mask.shape)


@breaks("correction", "same input, same output", "second call")
def noisy_correction(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    return torch.exp((old_logps - behaviour_logps) * torch.rand(mask.shape))


@breaks("correction", "inputs left alone", "old_logps was changed in place")
def subtracts_in_place(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    return old_logps.sub_(behaviour_logps).exp()


@breaks("correction", "axes", "missing", axes={"correction": "{missing}"})
def correction_says_what_it_has_not(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    return torch.ones(mask.shape)


# filters


@breaks("filter", "shape", "dtype torch.float32")
def as_numbers(batch: Batch) -> Tensor:
    return batch.rewards.mean(1)


@breaks("filter", "shape", "must return")
def each_sample(batch: Batch) -> Tensor:
    return batch.rewards > 0


@breaks("filter", "shape", "old_logps was not filled")
def reads_too_early(batch: Batch) -> Tensor:
    return batch.require("old_logps").sum((1, 2)) < 0


@breaks("filter", "permutation", "reordered rewards")
def first_sample_right(batch: Batch) -> Tensor:
    return batch.rewards[:, 0] > 0


@breaks("filter", "masked NaN", "nan outside the responses")
def sums_everything(batch: Batch) -> Tensor:
    return batch.require("behaviour_logps").sum((1, 2)) < 0


@breaks("filter", "same input, same output", "second call")
def at_random(batch: Batch) -> Tensor:
    return torch.rand(batch.groups) < 0.5


@breaks("filter", "inputs left alone", "rewards was changed in place")
def clamps_rewards(batch: Batch) -> Tensor:
    return batch.rewards.clamp_(min=0).sum(1) > 0


@breaks("filter", "axes", "missing", axes={"filter": "{missing}"})
def filter_says_what_it_has_not(batch: Batch) -> Tensor:
    return ~batch.no_spread


# shapings


@breaks("shaping", "shape and numbers", "must return")
def one_reward(rewards: Tensor, lengths: Tensor, truncated: Tensor) -> Tensor:
    return rewards.mean()


@breaks("shaping", "shape and numbers", "IndexError")
def only_for_groups(rewards: Tensor, lengths: Tensor, truncated: Tensor) -> Tensor:
    return rewards - lengths / lengths.amax(1, keepdim=True)


@breaks("shaping", "shape and numbers", "nan")
def length_over_nothing(rewards: Tensor, lengths: Tensor, truncated: Tensor, *, max_tokens: int) -> Tensor:
    return rewards + (max_tokens - lengths).log() * 0


@breaks("shaping", "permutation", "reordered")
def later_samples_less(rewards: Tensor, lengths: Tensor, truncated: Tensor) -> Tensor:
    return rewards - torch.arange(rewards.shape[-1])


@breaks("shaping", "same input, same output", "second call")
def noisy_rewards(rewards: Tensor, lengths: Tensor, truncated: Tensor) -> Tensor:
    return rewards + torch.rand(rewards.shape)


@breaks("shaping", "inputs left alone", "rewards was changed in place")
def punishes_in_place(rewards: Tensor, lengths: Tensor, truncated: Tensor) -> Tensor:
    return rewards.sub_(lengths / 100)


@breaks("shaping", "axes", "missing", axes={"shaping": "{missing}"})
def shaping_says_what_it_has_not(rewards: Tensor, lengths: Tensor, truncated: Tensor) -> Tensor:
    return rewards


# variants


def composed(**parts: Any) -> Variant:
    """GRPO's parts but for these."""
    usual = {"advantage": ADVANTAGES["group_mean"], "objective": OBJECTIVES["clip"],
             "aggregator": AGGREGATORS["token_mean"]}  # fmt: skip
    return Variant(**usual | parts)


@breaks("variant", "builds", "must be a registered objective")
def wrong_kind() -> Variant:
    return composed(objective=AGGREGATORS["token_mean"])


@breaks("variant", "builds", "returned dict")
def no_variant() -> Any:
    return {"advantage": ADVANTAGES["group_mean"]}


@breaks("variant", "axis card", "nothing under baseline")
def says_nothing() -> Variant:
    return composed(advantage=part_of("advantage", lambda batch: batch.rewards, axes={"baseline": " "}))


@breaks("variant", "a whole step", "loss nan")
def not_a_number() -> Variant:
    return composed(objective=part_of("objective", log_of_a_log.function))


@breaks("variant", "a whole step", "the gradient is 0")
def learns_nothing() -> Variant:
    return composed(advantage=part_of("advantage", lambda batch: torch.zeros_like(batch.rewards)))


@breaks("variant", "a whole step", "does not depend on the policy")
def without_a_policy() -> Variant:
    return composed(objective=part_of("objective", detached.function))


@breaks("variant", "smallest step", "NaN")
def too_small() -> Variant:
    return composed(advantage=others_of_one)


@breaks("variant", "nothing counted", "loss nan")
def divides_by_no_token() -> Variant:
    return composed(aggregator=divides_by_nothing)


MUSTS = [check for checks in CHECKS.values() for check in checks if check.must]


@pytest.mark.parametrize("check", MUSTS, ids=lambda check: f"{check.kind}-{check.name}")
def test_each_contract_refuses_what_breaks_it(check: Any) -> None:
    cases = BROKEN[check.kind, check.name]
    for part, says in cases:
        found = check(part)
        assert found.state == "does not hold", part.name
        assert says
        assert re.search(says, found.reason), f"{part.name}: {found.reason}"
    assert check.remedy


def test_every_broken_part_belongs_to_a_contract() -> None:
    assert set(BROKEN) <= {(check.kind, check.name) for check in MUSTS}


def test_check_names_are_unique_within_a_kind() -> None:
    for checks in CHECKS.values():
        names = [check.name for check in checks]
        assert len(set(names)) == len(names)


def test_a_broken_part_leaves_the_examples_as_they_were() -> None:
    before = make_batch(3, 4, seed=2, holes=True)
    examine(in_place)
    for name, value in tensors(make_batch(3, 4, seed=2, holes=True)).items():
        assert torch.equal(value, tensors(before)[name]), name


def test_an_exception_is_an_outcome_with_its_line() -> None:
    found = outcome(raises, "permutation")
    assert found.state == "does not hold"
    line = raises.function.__code__.co_firstlineno + 2
    assert found.reason == f"raised ZeroDivisionError: division by zero (test_check.py:{line})"


def test_where_the_first_contract_fails_the_rest_is_left_for_later() -> None:
    findings = examine(summed)
    assert [check.name for check, _ in findings.failures] == ["shape and numbers"]
    later = {o.reason for _, o in findings.outcomes[1:] if o.state == "does not apply"}
    assert "'shape and numbers' comes first" in later


def test_outcomes_are_the_same_every_time_and_do_not_depend_on_global_seeds() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    for part in (ADVANTAGES["group_mean_std"], noisy, at_random):
        first = examine(part).outcomes
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(2)
        assert examine(part).outcomes == first
        torch.set_rng_state(state)


# parts of an unusual form that keep their contract


def by_numpy(batch: Batch) -> Tensor:
    """Outside torch, which refuses what has a gradient."""
    rewards = batch.rewards.double().numpy()
    centred = torch.from_numpy(rewards - rewards.mean(1, keepdims=True))
    return centred.masked_fill(batch.no_spread[:, None], 0.0).float()


def centred_in_its_group(logps: Tensor, advantages: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
    """Whole groups at a time, [P, G, T], less for long responses."""
    tokens = mask.sum((1, 2), keepdim=True).clamp(min=1)
    mean = torch.where(mask, advantages, 0.0).sum((1, 2), keepdim=True) / tokens
    return -(advantages - mean) * logps / lengths.clamp(min=1)[..., None]


def asks_for_everything(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, behaviour_logps: Tensor, ref_logps: Tensor,
    values: Tensor, sum_squared_probs: Tensor, entropy: Tensor, lengths: Tensor, truncated: Tensor, rewards: Tensor,
) -> TokenLoss:  # fmt: skip
    """Every tensor there is."""
    by_token = behaviour_logps + ref_logps + values + sum_squared_probs + entropy + old_logps + mask
    by_row = (rewards + lengths + truncated)[:, None]
    return TokenLoss(-advantages * logps * (1 + (by_token * by_row).square()), {"sum": by_token})


@pytest.mark.parametrize(
    "part",
    [
        part_of("advantage", by_numpy),
        part_of("objective", centred_in_its_group, level="group"),
        part_of("objective", asks_for_everything, zero_at_zero_advantage=True),
    ],
    ids=lambda part: part.name,
)
def test_nothing_is_held_against_a_sound_part(part: Part) -> None:
    assert not [(c.name, o.reason) for c, o in examine(part).failures]


# properties, on parts of which they are known


def quiet_mean(batch: Batch) -> Tensor:
    """The mean over the group, without the trap."""
    return (
        batch.rewards.double()
        .sub(batch.rewards.double().mean(1, keepdim=True))
        .masked_fill(batch.no_spread[:, None], 0.0)
    )


def flat(batch: Batch) -> Tensor:
    """Declares the batch and reads a group."""
    return quiet_mean(batch)


def unguarded(logps: Tensor, old_logps: Tensor, advantages: Tensor) -> Tensor:
    """The gradient of the branch not taken is 0 times infinity."""
    ratio = torch.exp(logps - old_logps)
    return -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)


SCALING, SHIFT = "scaling the rewards", "adding a constant to the rewards changes nothing"
SIGN, ZERO = "flipping the sign of the rewards flips the advantages", "sums to zero over a group"


@pytest.mark.parametrize(
    ("part", "name", "state", "reason"),
    [
        (ADVANTAGES["group_mean"], SCALING, "holds", "degree 1"),
        (ADVANTAGES["group_mean_std"], SCALING, "holds", "changes nothing"),
        (part_of("advantage", lambda batch: batch.rewards.square()), SCALING, "does not hold", "neither"),
        (ADVANTAGES["group_mean"], SHIFT, "holds", ""),
        (ADVANTAGES["no_baseline"], SHIFT, "does not hold", "rewards \\+ 2"),
        (ADVANTAGES["greedy_baseline"], SHIFT, "holds", ""),
        (ADVANTAGES["leave_one_out"], SIGN, "holds", ""),
        (part_of("advantage", lambda batch: batch.rewards.relu()), SIGN, "does not hold", ""),
        (ADVANTAGES["leave_one_out"], ZERO, "holds", ""),
        (ADVANTAGES["no_baseline"], ZERO, "does not hold", "the sum is"),
        (ADVANTAGES["group_mean"], "sums to zero over tokens", "does not hold", "48 tokens"),
        (ADVANTAGES["group_mean"], "no spread, no advantage", "holds", ""),
        (ADVANTAGES["no_baseline"], "no spread, no advantage", "does not hold", "an advantage of 8"),
        (no_epsilon, "no spread, no advantage", "does not hold", "an advantage of inf"),
        (ADVANTAGES["no_baseline"], "no spread, not nearly 0", "does not apply", "anyway"),
        (part_of("advantage", flat, scope="batch"), "reads the whole batch, as declared", "does not hold", "group"),
        (part_of("advantage", mean_of_all.function, scope="batch"), "reads the whole batch, as declared", "holds", ""),
        (part_of("advantage", mean_of_all.function, scope="batch"), "groups apart, as declared", "does not apply", ""),
        (OBJECTIVES["clip"], "on-policy its gradient is REINFORCE's", "holds", ""),
        (with_a_penalty, "has a loss without advantage, as declared", "does not apply", "declared"),
        (part_of("objective", summed.function), "on-policy its gradient is REINFORCE's", "does not hold", ""),
        (part_of("objective", OBJECTIVES["policy_gradient"].function), "has a loss without advantage, as declared",
         "does not hold", "could be declared"),
        (part_of("objective", with_a_penalty.function), "has a loss without advantage, as declared", "holds", ""),
        (OBJECTIVES["policy_gradient"], "finite however far the policy has moved", "holds", ""),
        (OBJECTIVES["clip"], "finite however far the policy has moved", "holds", ""),
        (part_of("objective", unguarded), "finite however far the policy has moved", "does not hold",
         "log-ratio of \\+100"),
        (AGGREGATORS["token_mean"], "every token counts the same", "holds", ""),
        (AGGREGATORS["token_mean"], "every row counts the same", "does not hold", "4 3 tokens"),
        (AGGREGATORS["token_mean"], "a row without a counted token still counts as a row", "does not hold", ""),
        (AGGREGATORS["seq_mean_token_mean"], "every row counts the same", "holds", ""),
        (AGGREGATORS["seq_mean_token_mean"], "weights sum to 1", "holds", ""),
        (AGGREGATORS["seq_mean_token_mean"], "a row without a counted token still counts as a row", "holds", ""),
        (AGGREGATORS["seq_mean_token_sum_norm"], "a row's weights depend on no other row's length", "holds", ""),
        (AGGREGATORS["seq_mean_token_sum_norm"], "weights sum to 1", "does not hold", "to 0.37"),
        (part_of("aggregator", divides_by_nothing.function, split_invariant=False),
         "any split into micro-batches gives the same loss", "does not hold", "as declared"),
        (KLS["k1"], "expected gradient", "holds", "no use"),
        (KLS["k2"], "expected gradient", "holds", r"KL\(pi \|\| ref\)"),
        (KLS["k3"], "expected gradient", "holds", r"KL\(ref \|\| pi\)"),
        (KLS["k1"], "never negative", "does not hold", "for logps"),
        (KLS["k3"], "expected value is KL(pi || ref)", "holds", ""),
        (KLS["k2"], "expected value is KL(pi || ref)", "does not hold", ""),
        (part_of("kl", lambda logps, ref_logps: (logps - ref_logps).detach()), "as a loss it has a gradient",
         "does not hold", "kl_place='reward'"),
        (CORRECTIONS["token_truncated"], "bounded above", "holds", "2 at most"),
        (part_of("correction", doubled.function), "bounded above", "does not hold", "log-ratio of 80"),
        (FILTERS["nonuniform"], "a group without spread", "holds", "all right: dropped"),
        (FILTERS["nonuniform"], "keeps a group that is half right", "holds", ""),
        (part_of("filter", lambda batch: batch.rewards.mean(1) > batch.rewards.mean()),
         "a verdict depends on its own group alone", "does not hold", "beside other groups"),
        (SHAPINGS["soft_overlong"], "never rises with length", "holds", ""),
        (SHAPINGS["soft_overlong"], "leaves short responses alone", "holds", ""),
        (SHAPINGS["soft_overlong"], "change at most", "holds", "-0.5 at 20 of 20 tokens"),
        (part_of("shaping", lambda rewards, lengths, truncated: rewards + lengths), "never rises with length",
         "does not hold", "becomes 2 at 1 tokens, 3 at 2"),
        (part_of("shaping", lambda rewards, lengths, truncated: rewards - lengths.float().mean()),
         "each response by itself", "does not hold", ""),
        (VARIANTS["grpo"], "everything it needs is provided", "holds", ""),
        (VARIANTS["remax"], "everything it needs is provided", "holds", "greedy_rewards: one greedy response"),
        (part_of("variant", lambda: composed(advantage=part_of("advantage", quiet_mean, needs=("step_ends",)))),
         "everything it needs is provided", "does not hold", "nothing fills step_ends"),
    ],
    ids=lambda value: value.name if isinstance(value, Part) else None,
)  # fmt: skip
def test_a_property_is_found(part: Part, name: str, state: str, reason: str) -> None:
    found = outcome(part, name)
    assert found.state == state, found.reason
    assert re.search(reason, found.reason), found.reason


def test_rewards_are_reported_on() -> None:
    names = count()
    steady = part_of("reward", lambda problem, response: response == problem.answer)
    moody = part_of("reward", lambda problem, response: float(next(names)))
    broken = part_of("reward", lambda problem, response: math.nan)
    assert outcome(steady, "scores an empty response").reason == "0"
    assert outcome(steady, "same response, same score").state == "holds"
    assert outcome(moody, "same response, same score").state == "does not hold"
    assert outcome(broken, "scores an empty response").reason == "nan for ''"
    assert not examine(broken).failures
    together = part_of(
        "reward", lambda problems, responses: [[float(len(t)) for t in g] for g in responses], together=True
    )
    assert outcome(together, "scores an empty response").reason == "0"
    assert outcome(together, "same response, same score").state == "holds"


# the command

GOOD = '''
from torch import Tensor
from core import Batch, advantage

@advantage
def {name}(batch: Batch, *, quantile: float = 0.5) -> Tensor:
    """Reward minus the median of its group."""
    return batch.rewards - batch.rewards.quantile(quantile, dim=1, keepdim=True)
'''
BAD = '''
from torch import Tensor
from core import Batch, objective

@objective
def {name}(logps: Tensor, advantages: Tensor) -> Tensor:
    """Centred over the step, which micro-batches split."""
    return -(advantages - advantages.mean(0)) * logps
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_registry: None) -> Iterator[Path]:
    """A folder of the user's; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def check(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return run_check(parser.parse_args(arguments))


def refusal(*arguments: str) -> str:
    with pytest.raises(GrpoLabError) as refused:
        check(*arguments)
    return str(refused.value)


def test_a_good_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "my_good_parts.py").write_text(GOOD.format(name="good_median"))
    assert check("my_good_parts.py") == 0
    out = capsys.readouterr().out
    assert "advantage good_median  my_good_parts.py:5" in out
    assert "✓ scaling the rewards: scales the advantages alike (degree 1)" in out
    assert "· sums to zero over a group: the sum is" in out
    assert out.splitlines()[-1] == "1 part, 0 failures"
    assert "\n  ✗" not in out
    # and once more, now that it has been imported
    assert check("my_good_parts.py", "--json") == 0


def test_a_file_with_a_broken_part(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "deeper").mkdir()
    text = GOOD.format(name="other_median") + BAD.format(name="centred_loss")
    (folder / "deeper" / "my_bad_parts.py").write_text(text)
    assert check("deeper/my_bad_parts.py") == 1
    out = capsys.readouterr().out
    assert "objective centred_loss  deeper/my_bad_parts.py" in out
    assert "✗ micro-batches: at [0, 0]: " in out
    assert "→ couple rows in `prepare`" in out
    assert out.splitlines()[-2:] == ["✗ centred_loss: micro-batches", "2 parts, 1 failure"]
    assert check("deeper/my_bad_parts.py", "other_median") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 part, 0 failures"


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "my_json_parts.py").write_text(BAD.format(name="json_loss"))
    assert check("my_json_parts.py", "clip", "json_loss", "--json") == 1
    clip, mine = json.loads(capsys.readouterr().out)
    assert (clip["part"], clip["kind"], mine["part"]) == ("clip", "objective", "json_loss")
    assert mine["place"] == f"{folder / 'my_json_parts.py'}:5"
    by_name = {found["name"]: found for found in mine["checks"]}
    assert by_name["micro-batches"]["outcome"] == "does not hold"
    assert by_name["micro-batches"]["must"]
    assert by_name["micro-batches"]["remedy"]
    assert by_name["padding"] == {"name": "padding", "must": True, "outcome": "holds", "reason": "", "remedy": ""}
    assert not any(f["must"] and f["outcome"] == "does not hold" for f in clip["checks"])


def test_bindings_reach_the_part(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "my_bound_parts.py").write_text(GOOD.format(name="bound_median"))
    assert check("my_bound_parts.py", "-b", "bound_median.quantile = 1.0") == 0
    assert "· flipping the sign of the rewards" in capsys.readouterr().out
    with pytest.raises(GrpoLabError, match="had no effect"):
        check("my_bound_parts.py", "-b", "clip.eps_low = 0.1")
    (folder / "mine.gin").write_text("import my_bound_parts\nbound_median.quantile = 1.0\n")
    assert check("bound_median", "-c", "mine.gin") == 0
    assert "· flipping the sign of the rewards" in capsys.readouterr().out


def test_parts_with_nothing_to_check_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("chain_sums") == 0
    assert "registered; nothing to check without a model" in capsys.readouterr().out


def test_a_shipped_file_is_not_imported_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = OBJECTIVES["clip"].place.rpartition(":")[0]
    assert check(file) == 0
    assert "objective clip" in capsys.readouterr().out


def test_mistakes(folder: Path) -> None:
    assert refusal("nowhere.py") == f"file not found: nowhere.py (looked from {folder})"
    assert "unknown part 'gropo': did you mean grpo" in refusal("gropo")

    (folder / "my_empty_file.py").write_text("x = 1\n")
    assert "my_empty_file.py registers no part; put a decorator over a function" in refusal("my_empty_file.py")

    (folder / "my_raising_file.py").write_text("x = 1\ny = x / 0\n")
    message = refusal("my_raising_file.py")
    assert "my_raising_file.py cannot be imported: ZeroDivisionError: division by zero (line 2)" in message

    (folder / "my_misspelt_file.py").write_text("def f(:\n")
    assert "SyntaxError" in refusal("my_misspelt_file.py")
    (folder / "my_exiting_file.py").write_text("import sys\nsys.exit(3)\n")
    assert "SystemExit: 3 (line 2)" in refusal("my_exiting_file.py")

    (folder / "json.py").write_text(GOOD.format(name="shadowed_median"))
    assert "the name 'json' is taken by the module at" in refusal("json.py")

    wrong = GOOD.format(name="wrong_signature").replace("batch: Batch", "rollout: Batch")
    (folder / "my_wrong_signature.py").write_text(wrong)
    assert "takes (rollout) but must take (batch)" in refusal("my_wrong_signature.py")


def test_a_file_may_be_named_more_than_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "my_repeated_parts.py").write_text(GOOD.format(name="repeated_median"))
    targets: Sequence[str] = ("my_repeated_parts.py", "./my_repeated_parts.py")
    assert check(*targets) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 part, 0 failures"
