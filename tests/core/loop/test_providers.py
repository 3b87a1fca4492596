"""What fills a batch's fields: the reference and its renewal, squared probabilities, rewards by token."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from core import PROVIDERS, SETTINGS, Batch, GrpoLabError
from core.loop.learn import fill
from core.loop.providers.shipped import reference, squared_probs
from core.loop.run_state import RunState
from core.loop.update import compute_logps
from core.model.logps import sum_squared_probs
from core.model.policy import Policy
from core.parts.options import ProviderOptions
from core.parts.registry import config

MakeBatch: TypeAlias = Callable[..., Batch]


def run_of(policy: Policy, *bindings: str) -> RunState:
    text = "train.task = @chain_sums()\ntrain.generator = @native()\ntrain.variant = @grpo()\n"
    with config(text=text, bindings=bindings):
        recipe = SETTINGS["train"]()
    return RunState(replace(recipe, micro_tokens=10**9), 0, policy)


def logps(policy: Policy, batch: Batch) -> Tensor:
    return compute_logps(policy, batch, temperature=1.0, micro_tokens=10**9)


def moved(policy: Policy, by: float) -> None:
    """Change every weight, as an update would."""
    draw = torch.Generator().manual_seed(int(by * 1000))
    for parameter in policy.model.parameters():
        parameter.data += by * torch.randn(parameter.shape, generator=draw)


def test_the_reference_is_frozen_by_default(tiny: Policy, make_batch: MakeBatch) -> None:
    batch = make_batch()
    before = logps(tiny, batch)
    filler = reference(run_of(tiny))
    moved(tiny, 0.3)
    for step in (1, 2, 500):
        assert torch.equal(filler(batch.having(step=step)), before)
    assert filler.state_dict() == {}


def test_the_reference_is_replaced_by_the_policy_every_so_many_steps(tiny: Policy, make_batch: MakeBatch) -> None:
    """With `every = 2` before the rollouts of steps 3, 5, ...: after two updates each."""
    batch = make_batch()
    filler = reference(run_of(tiny), every=2)
    first = logps(tiny, batch)
    moved(tiny, 0.3)
    assert torch.equal(filler(batch.having(step=2)), first)
    second = logps(tiny, batch)
    assert torch.equal(filler(batch.having(step=3)), second)
    moved(tiny, 0.2)
    assert torch.equal(filler(batch.having(step=4)), second)
    assert not torch.equal(second, first)


def test_the_reference_may_come_only_part_of_the_way(tiny: Policy, make_batch: MakeBatch) -> None:
    batch, start = make_batch(), copy.deepcopy(tiny.model.state_dict())
    filler = reference(run_of(tiny), every=1, share=0.25)
    moved(tiny, 0.3)
    actual = filler(batch.having(step=2))
    now = tiny.model.state_dict()
    tiny.model.load_state_dict({name: 0.75 * start[name] + 0.25 * now[name] for name in start})
    torch.testing.assert_close(actual, logps(tiny, batch), rtol=1e-5, atol=1e-5)


def test_a_renewed_reference_goes_on_from_a_checkpoint(tiny: Policy, make_batch: MakeBatch) -> None:
    batch, start = make_batch(), copy.deepcopy(tiny.model.state_dict())
    filler = reference(run_of(tiny), every=2)
    moved(tiny, 0.3)
    expected = filler(batch.having(step=3))
    state = filler.state_dict()
    tiny.model.load_state_dict(start)
    resumed = reference(run_of(tiny), every=2)
    resumed.load_state_dict(state)
    assert torch.equal(resumed(batch.having(step=4)), expected)


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"every": 0}, r"reference\.every = 0: must be a whole number from 1 up or None"),
        ({"every": 1, "share": 0.0}, r"reference\.share = 0\.0: must be a number above 0 and up to 1"),
        ({"every": 1, "share": 1.5}, r"reference\.share = 1\.5: must be a number above 0 and up to 1"),
    ],
)
def test_impossible_renewals_are_refused(tiny: Policy, hyper: dict[str, Any], message: str) -> None:
    with pytest.raises(GrpoLabError, match=message):
        reference(run_of(tiny), **hyper)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_squared_probabilities(tiny: Policy, make_batch: MakeBatch, temperature: float) -> None:
    batch = make_batch()
    actual = squared_probs(run_of(tiny, f"train.temperature = {temperature}"))(batch)
    assert actual.shape == batch.mask.shape
    tokens = batch.require("response_tokens")
    for p, g in ((0, 0), (2, 1)):
        response = tokens[p, g][batch.response_mask[p, g]]
        sequence = torch.cat([batch.prompt_tokens[p], response])
        tiny.model.set_attn_implementation("eager")
        logits = tiny.model(input_ids=sequence[None], use_cache=False).logits[0, len(batch.prompt_tokens[p]) - 1 : -1]
        tiny.model.set_attn_implementation("grpo_lab_packed")
        expected = torch.softmax(logits / temperature, -1).square().sum(-1)
        torch.testing.assert_close(actual[p, g, : len(response)], expected.detach(), rtol=1e-4, atol=1e-5)
        assert actual[p, g, len(response) :].eq(0).all()


def test_squared_probabilities_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(7, 4, generator=draw), torch.randn(5, 4, generator=draw)
    bias = torch.randn(5, generator=draw)
    expected = torch.softmax((hidden @ weight.T + bias) / 2, -1).square().sum(-1)
    monkeypatch.setattr("core.model.logps.CHUNK_ELEMENTS", {"cpu": 10})
    torch.testing.assert_close(sum_squared_probs(hidden, weight, bias=bias, temperature=2.0), expected)


def test_rewards_by_token_are_part_of_the_reward() -> None:
    """What a provider gives for tokens of the response is added up; what lies past its end is not."""
    batch = Batch.of([[1.0, 2.0]], lengths=[[2, 1]])
    values = torch.tensor([[[0.1, 0.2], [0.4, 99.0]]])
    filled = fill(batch, {"token_rewards": lambda _: values})
    assert filled.rewards[0].tolist() == pytest.approx([1.3, 2.4])
    assert torch.equal(filled.require("token_rewards"), values)


def test_every_field_that_a_shipped_part_needs_has_a_provider_but_for_those_of_a_task() -> None:
    filled = {ProviderOptions.of(part).fills for part in PROVIDERS.values()}
    assert filled == {"greedy_rewards", "ref_logps", "sum_squared_probs", "values"}
