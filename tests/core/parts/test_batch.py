"""The batch: shapes that agree, fields that say who must fill them, and groups that stay whole."""

from typing import Any

import pytest
import torch
from torch import Tensor

from core import Batch, GrpoLabError, advantage
from core.parts.problems import Problem


def test_from_rewards_alone() -> None:
    batch = Batch.of([[1.0, 0.0, 2.0], [3.0, 4.0, 5.0]])
    assert (batch.groups, batch.group_size) == (2, 3)
    assert batch.mask.shape == (2, 3, 1)
    assert batch.lengths.tolist() == [[1, 1, 1], [1, 1, 1]]
    assert batch.max_tokens == 1
    assert batch.rewards.dtype == torch.float32


def test_lengths_make_prefix_masks() -> None:
    batch = Batch.of([[1, 0]], lengths=[[2, 3]], max_tokens=7)
    assert batch.mask.int().tolist() == [[[1, 1, 0], [1, 1, 1]]]
    assert batch.lengths.tolist() == [[2, 3]]
    assert batch.max_tokens == 7


def test_lengths_count_the_response_and_not_the_loss_mask() -> None:
    response = torch.tensor([[[True, True, True], [True, False, False]]])
    loss = torch.tensor([[[True, False, True], [False, False, False]]])
    assert Batch.of([[1.0, 0.0]], loss, response_mask=response).lengths.tolist() == [[3, 1]]


@pytest.mark.parametrize(
    ("rewards", "known", "message"),
    [
        ([1.0, 2.0], {}, r"rewards must be finite and \[P, G\]"),
        ([], {}, r"rewards must be finite and \[P, G\]"),
        ([[1.0, "x"]], {}, r"rewards must be finite and \[P, G\]"),
        ([[1.0, 0.0], [1.0]], {}, "group 1 has 1, but group 0 has 2"),
        ([[1.0, 0.0]], {"lengths": [[2, 5]], "max_tokens": 4}, "a response has 5 tokens, but max_tokens = 4"),
        ([[1.0, 0.0]], {"mask": torch.ones(1, 2, 3), "max_tokens": 2}, "a response has 3 tokens, but max_tokens = 2"),
        ([[1.0, 0.0]], {"max_tokens": 0}, "max_tokens = 0: must be a whole number of tokens"),
        ([[1.0, 0.0]], {"max_tokens": "4"}, "max_tokens = '4': must be"),
        ([[1.0, 0.0]], {"lengths": [[2, -1]]}, r"whole numbers of tokens from 0 up; got \[\[2, -1\]\]"),
        ([[1.0, 0.0]], {"lengths": [[2.0, 1.5]]}, "whole numbers of tokens"),
        ([[1.0, 0.0]], {"lengths": [2, 1]}, r"lengths have shape \[2\], but rewards \[1, 2\]"),
        ([[1.0, 0.0]], {"lengths": "ab"}, "lengths must be "),
        ([[1.0, float("nan")]], {}, "finite"),
        ([[1.0, float("inf")]], {}, "finite"),
        ([[1.0, 2.0]], {"mask": torch.ones(1, 2, 3), "lengths": [[1, 2]]}, "not both"),
        ([[1.0, 2.0]], {"greedy_rewards": [1.0, 2.0]}, r"greedy_rewards has shape \[2\].*P=1.*must be \[1\]"),
        ([[1.0, 2.0]], {"mask": torch.ones(2, 1, 3)}, r"mask has shape \[2, 1, 3\].*must be \[1, 2, 3\]"),
        ([[1.0, 2.0]], {"old_logps": torch.zeros(1, 2)}, r"old_logps has shape \[1, 2\].*must be \[1, 2, 1\]"),
        ([[1.0, 2.0]], {"correct": torch.zeros(2, 1)}, "correct has shape"),
        ([[1.0, 2.0]], {"values": torch.zeros(1, 2, 2)}, "values has shape"),
    ],
)
def test_what_does_not_fit_is_refused(rewards: Any, known: dict[str, Any], message: str) -> None:
    with pytest.raises(GrpoLabError, match=message):
        Batch.of(rewards, **known)


def test_a_missing_field_says_who_must_ask_for_it() -> None:
    batch = Batch.of([[1.0, 0.0]])
    for read in (batch.require, batch.rows):
        with pytest.raises(
            GrpoLabError, match=r"Batch\.values was not filled.*needs=\('values',\).*Batch\.of\(values="
        ):
            read("values")


def test_rows_flatten_groups_in_order() -> None:
    batch = Batch.of([[1.0, 2.0], [3.0, 4.0]])
    assert batch.rows("rewards").tolist() == [1, 2, 3, 4]
    assert batch.rows("mask").shape == (4, 1)


def test_no_spread_is_decided_by_max_and_min() -> None:
    """In float32 neither the mean of seven times 0.7 is 0.7, nor their std 0."""
    batch = Batch.of([[0.7] * 7, [0.7] * 6 + [0.7000001]])
    assert batch.no_spread.tolist() == [True, False]


def numbered(P: int, G: int = 2, T: int = 3, start: int = 0) -> Batch:
    values = torch.arange(P * G * T, dtype=torch.float32).view(P, G, T) + start
    return Batch(
        rewards=values[..., 0],
        response_mask=torch.ones(P, G, T, dtype=torch.bool),
        mask=torch.ones(P, G, T, dtype=torch.bool),
        prompt_ids=torch.arange(P) + start,
        max_tokens=9,
        reward_parts=values[..., :2],
        old_logps=values,
        greedy_rewards=values[:, 0, 0],
        problems=tuple(Problem(str(start + p), "", start + p) for p in range(P)),
        prompt_tokens=tuple(torch.full((p + 1,), start + p) for p in range(P)),
        response_tokens=values.long(),
    )


def test_selecting_groups_takes_every_field_along() -> None:
    batch = numbered(4)
    picked = batch.select(torch.tensor([2, 0]))
    assert [p.index for p in picked.problems] == [2, 0]
    assert [len(p) for p in picked.prompt_tokens] == [3, 1]
    for name in ("rewards", "mask", "prompt_ids", "reward_parts", "old_logps", "greedy_rewards", "response_tokens"):
        assert torch.equal(getattr(picked, name), getattr(batch, name)[[2, 0]]), name
    none = batch.select(torch.tensor([], dtype=torch.long))
    assert none.groups == 0
    assert none.problems == ()
    assert none.no_spread.shape == (0,)


def test_joining_pads_to_the_widest_and_keeps_every_group() -> None:
    one, other = numbered(2, T=3), numbered(1, T=5, start=100)
    joined = Batch.concat([one, other])
    assert joined.mask.shape == (3, 2, 5)
    assert joined.lengths.tolist() == [[3, 3], [3, 3], [5, 5]]
    assert joined.old_logps is not None
    assert joined.old_logps[0, 0].tolist() == [0, 1, 2, 0, 0]
    assert joined.old_logps[2, 1].tolist() == [105, 106, 107, 108, 109]
    assert joined.reward_parts is not None
    assert joined.reward_parts.shape == (3, 2, 2)
    assert [p.index for p in joined.problems] == [0, 1, 100]
    assert [len(p) for p in joined.prompt_tokens] == [1, 2, 1]
    assert joined.prompt_ids.tolist() == [0, 1, 100]
    assert joined.greedy_rewards is not None
    assert joined.greedy_rewards.tolist() == [0, 6, 100]


def test_joining_one_changes_nothing() -> None:
    batch = numbered(3)
    joined = Batch.concat([batch])
    for name, value in vars(batch).items():
        same = torch.equal(getattr(joined, name), value) if isinstance(value, Tensor) else True
        assert same, name


def test_filling_a_field_leaves_the_original_alone() -> None:
    batch = Batch.of([[1.0, 0.0]])
    filled = batch.having(old_logps=torch.zeros(1, 2, 1))
    assert batch.old_logps is None
    assert filled.require("old_logps").shape == (1, 2, 1)
    assert filled.rewards is batch.rewards


@pytest.mark.parametrize("name", ["sampled_mask", "turns", "turn_rewards", "anchors", "tool_calls"])
def test_what_episodes_alone_have_is_read_and_not_asked_for(name: str) -> None:
    """Two messages that agree with each other."""
    with pytest.raises(GrpoLabError, match=f"Batch.{name} is None: no environment answered"):
        Batch.of([[1.0, 0.0]]).require(name)
    with pytest.raises(GrpoLabError, match="what episodes alone have is read, and may be None"):

        @advantage(needs=(name,))
        def greedy_for_turns(batch: Batch) -> Tensor:
            """Asks for what it cannot have."""
            return batch.rewards
