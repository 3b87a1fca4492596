"""Filters: which groups are trained on."""

import pytest
import torch

from core import Batch, GrpoLabError
from estimators.filters import enough_spread, has_spread, mean_inside, none_truncated, nonuniform

CORRECT = torch.tensor([[True, False, False], [False, False, False], [True, True, True], [True, True, False]])


def test_keeps_groups_with_both_kinds_of_responses() -> None:
    batch = Batch.of(CORRECT.float(), correct=CORRECT)
    assert nonuniform(batch).tolist() == [True, False, False, True]


def test_reads_the_verdict_and_not_the_reward() -> None:
    """A length penalty gives every group spread; that is nothing to learn correctness from."""
    batch = Batch.of(torch.arange(12.0).view(4, 3), correct=CORRECT)
    assert nonuniform(batch).tolist() == [True, False, False, True]
    flat = Batch.of(torch.full((4, 3), 0.7), correct=CORRECT)
    assert nonuniform(flat).tolist() == [True, False, False, True]


def test_a_batch_without_verdicts_is_an_error() -> None:
    with pytest.raises(GrpoLabError, match="correct was not filled"):
        nonuniform(Batch.of([[1.0, 0.0]]))


def test_spread_is_read_from_the_reward_and_is_not_a_std() -> None:
    """Three times 0.1 has a std that is not exactly 0."""
    assert has_spread(Batch.of(torch.tensor([[0.1] * 3, [0.1, 0.1, 0.2]]), correct=CORRECT[:2])).tolist() == [
        False,
        True,
    ]
    assert torch.tensor([0.1] * 3, dtype=torch.float64).std() > 0


def test_means_strictly_inside() -> None:
    rewards = torch.tensor([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0], [0.0, 1.0]])
    assert mean_inside(Batch.of(rewards)).tolist() == [False, True, False, True]
    assert mean_inside(Batch.of(rewards), low=0.5, high=1.1).tolist() == [False, False, True, False]
    assert mean_inside(Batch.of(rewards), low=-1.0, high=0.5).tolist() == [True, False, False, False]
    # in float32 this mean would be 1, and not inside
    assert mean_inside(Batch.of(torch.tensor([[1.0, 1.0, 1.0 - 2**-24]]))).item()
    # the mean of seven times 0.7 is off by an ulp, and must not pass a strict bound at 0.7
    sevenths = Batch.of(torch.full((1, 7), 0.7))
    assert not mean_inside(sevenths, high=float(torch.tensor(0.7))).item()


def test_sampling_goes_on_only_below_the_share() -> None:
    one_in_two = Batch.of(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    assert enough_spread(one_in_two).tolist() == [True, False]
    assert enough_spread(one_in_two, share=0.5).tolist() == [True, True]
    three_in_four = Batch.of(torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]]))
    assert enough_spread(three_in_four).all()  # the default share is 0.6


def test_groups_with_a_cut_response_are_dropped_whole() -> None:
    truncated = torch.tensor([[False, False], [True, False], [True, True]])
    batch = Batch.of(torch.zeros(3, 2), truncated=truncated)
    assert none_truncated(batch).tolist() == [True, False, False]
