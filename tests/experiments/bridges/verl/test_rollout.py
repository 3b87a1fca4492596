"""verl's rows as complete groups, and back: by hand."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from core import Batch
from core.errors import GrpoLabError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("verl")
    from tensordict import NonTensorData, NonTensorStack, TensorDict

    from experiments.bridges.running import RunningVariant
    from experiments.bridges.variant import variant_of
    from experiments.bridges.verl.maths import MASK, TRAINED
    from experiments.bridges.verl.rollout import Reading, batch_of, fields_of, order_of

KEYS = ["b_1_0", "pad_0_0", "a_0_0", "b_0_0", "a_1_0"]
PADS = [False, True, False, False, False]
ORDER = [2, 4, 3, 0]
READING = Reading(group_size=2, max_tokens=3, stops={9})


def nested(*rows: list[float]) -> Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


def table(**changes: Any) -> TensorDict:
    """Five rows in the order of `KEYS`; the last token of a response carries its score."""
    fields: dict[str, Any] = {
        "prompts": nested([5, 6], [9], [7], [5, 6], [7]),
        "responses": nested([1, 2, 3], [9], [1, 2, 9], [4, 9], [9]),
        "response_mask": nested([1, 1, 1], [0], [1, 0, 1], [1, 1], [1]),
        "rm_scores": nested([0.0, 0, 0.5], [0.0], [0.0, 0, 1], [0.0, 0], [0.25]),
        "old_log_probs": nested([-1.0, -2, -3], [-9.0], [-1.0, -1, -1], [-2.0, -2], [-4.0]),
    }
    verdicts = [{"acc": 0.0}, {"acc": 0.0}, {"acc": 1, "form": 0.5}, {"acc": False}, {"acc": True, "form": 1.5}]
    extra = [NonTensorData({"reward_extra_info": each}) for each in changes.pop("verdicts", verdicts)]
    return TensorDict({**fields, "extra_fields": NonTensorStack(*extra), **changes}, batch_size=5)


def test_rows_are_sorted_into_groups_and_made_up_ones_left_out() -> None:
    assert order_of(KEYS, PADS, 2) == ORDER
    batch = batch_of(table(), ORDER, READING, step=4)
    assert batch.rewards.tolist() == [[1.0, 0.25], [0.0, 0.5]]
    assert batch.lengths.tolist() == [[3, 1], [2, 3]]
    assert batch.mask.long().tolist() == [[[1, 0, 1], [1, 0, 0]], [[1, 1, 0], [1, 1, 1]]]
    assert batch.require("old_logps")[1, 1].tolist() == [-1, -2, -3]
    assert batch.ref_logps is None
    assert batch.step == 4
    assert batch.max_tokens == 3


def test_a_response_is_truncated_that_is_as_long_as_can_be_and_does_not_end() -> None:
    assert batch_of(table(), ORDER, READING, 1).require("truncated").tolist() == [[False, False], [False, True]]


def test_a_prompt_has_the_same_number_wherever_it_is() -> None:
    first, second = batch_of(table(), ORDER, READING, 1).prompt_ids.tolist()
    assert first != second
    other = table(prompts=nested([7], [9], [5, 6], [7], [5, 6]))
    assert batch_of(other, ORDER, READING, 2).prompt_ids.tolist() == [second, first]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["a_0_0", "a_0_1"], "response a_0_1: an agent loop gave several outputs"),
        (["a_0_0", "a_1_0", "b_0_0"], r"prompt b has 1 responses, but actor_rollout_ref\.rollout\.n = 2"),
    ],
)
def test_what_is_no_complete_group_is_refused(keys: list[str], message: str) -> None:
    with pytest.raises(GrpoLabError, match=message):
        order_of(keys, [False] * len(keys), 2)


def test_the_verdict_and_parts_of_the_reward_are_what_the_reward_function_returned() -> None:
    read = Reading(2, 3, {9}, needs_verdict=True)
    assert batch_of(table(), ORDER, read, 1).require("correct").tolist() == [[True, True], [False, False]]
    parts = Reading(2, 3, {9}, ("acc", "form"), (1.0, 0.5))
    known = [{"acc": 0.0, "form": 2.0}] * 5
    batch = batch_of(table(verdicts=known), ORDER, parts, 1)
    assert batch.require("reward_parts")[0, 0].tolist() == [0.0, 2.0]
    assert batch.reward_names == ("acc", "form")
    assert batch.reward_weights == (1.0, 0.5)
    with pytest.raises(GrpoLabError, match=r"returned no number 'form' for a response \(acc beside its score\)"):
        batch_of(table(), ORDER, parts, 1)
    with pytest.raises(GrpoLabError, match=r"returned no number 'acc' for a response \(nothing beside its score"):
        batch_of(table(verdicts=[{}] * 5), ORDER, read, 1)


def test_advantages_come_back_to_their_rows_and_made_up_rows_are_not_of_the_step() -> None:
    """Dr. GRPO: a reward minus its group's mean, 0.625 and 0.25."""
    data = table()
    batch = batch_of(data, ORDER, READING, 1)
    rows = RunningVariant(variant_of("dr_grpo")).learn_from(batch, torch.ones(2).bool())
    fields = fields_of(rows, ORDER, data["response_mask"], ["rewards"])
    assert [row.tolist() for row in fields["advantages"].unbind()] == [
        [0.25, 0.25, 0.25],
        [0.0],
        [0.375, 0.0, 0.375],
        [-0.25, -0.25],
        [-0.375],
    ]
    assert fields[TRAINED].tolist() == [True, False, True, True, True]
    assert [row.tolist() for row in fields[MASK].unbind()] == [[1, 1, 1], [0], [1, 0, 1], [1, 1], [1]]
    assert fields["grpolab_rewards"].tolist() == [0.5, 0.0, 1.0, 0.0, 0.25]


def test_a_group_that_the_filter_drops_is_of_no_step() -> None:
    batch = Batch.of([[1.0, 0.0], [1.0, 1.0]], lengths=[[1, 1], [1, 1]], correct=torch.tensor([[1, 0], [1, 1]]).bool())
    variant = variant_of("dapo", bindings=["dapo.shaping = ()", "dapo.filter_rounds = 1"])
    batch = batch.having(truncated=torch.zeros(2, 2).bool())
    rows = RunningVariant(variant).learn_from(batch, torch.ones(2).bool())
    fields = fields_of(rows, [0, 1, 2, 3], nested([1], [1], [1], [1]), [])
    assert fields[TRAINED].tolist() == [True, True, False, False]
