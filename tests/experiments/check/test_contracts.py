"""Every contract catches a part that breaks it, and lets parts of an unusual form pass."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core import (
    ADVANTAGES,
    Batch,
    Part,
    TokenLoss,
)
from core.parts.problems import Score
from core.parts.registry import config
from experiments.check.examples import make_batch
from experiments.check.suite import CHECKS, examine
from tests.experiments.check.broken import (
    BINDINGS,
    BROKEN,
    at_random,
    in_place,
    noisy,
    outcome,
    part_of,
    raises,
    summed,
)

MUSTS = [check for checks in CHECKS.values() for check in checks if check.must]


@pytest.mark.parametrize("check", MUSTS, ids=lambda check: f"{check.kind}-{check.name}")
def test_each_contract_refuses_what_breaks_it(check: Any) -> None:
    cases = BROKEN[check.kind, check.name]
    for part, reason in cases:
        with config(bindings=BINDINGS[part]):
            result = check(part)
        assert result.state == "does not hold", part.name
        assert reason
        assert re.search(reason, result.reason), f"{part.name}: {result.reason}"
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
    for name, value in make_batch(3, 4, seed=2, holes=True).tensors().items():
        assert torch.equal(value, before.require(name)), name


def test_an_exception_is_an_outcome_with_its_line() -> None:
    result = outcome(raises, "permutation")
    assert result.state == "does not hold"
    line = raises.function.__code__.co_firstlineno + 2
    assert result.reason == f"raised ZeroDivisionError: division by zero (broken.py:{line})"


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


def takes_everything(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    behaviour_logps: Tensor,
    ref_logps: Tensor,
    values: Tensor,
    sum_squared_probs: Tensor,
    entropy: Tensor,
    lengths: Tensor,
    truncated: Tensor,
    rewards: Tensor,
) -> TokenLoss:
    """Every tensor there is."""
    by_token = behaviour_logps + ref_logps + values + sum_squared_probs + entropy + old_logps + mask
    by_row = (rewards + lengths + truncated)[:, None]
    return TokenLoss(-advantages * logps * (1 + (by_token * by_row).square()), {"sum": by_token})


@pytest.mark.parametrize(
    "part",
    [
        part_of("advantage", by_numpy),
        part_of("objective", centred_in_its_group, level="group"),
        part_of("objective", takes_everything, zero_at_zero_advantage=True),
    ],
    ids=lambda part: part.name,
)
def test_nothing_is_held_against_a_sound_part(part: Part) -> None:
    assert not [(c.name, o.reason) for c, o in examine(part).failures]


@pytest.mark.parametrize("value", [1, 0.5, True, np.float32(0.5), np.bool_(True), torch.tensor(0.5), Score(0.5, False)])
def test_a_reward_may_return_any_number(value: Any) -> None:
    part = part_of("reward", lambda problem, response: value)
    assert outcome(part, "returns a number, a bool or a Score").state == "holds"
