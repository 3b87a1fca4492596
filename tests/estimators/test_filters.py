"""Filters: which groups are trained on."""

import pytest
import torch

from core import FILTERS, Batch, GrpoLabError
from estimators.filters import nonuniform

every_filter = pytest.mark.parametrize("part", FILTERS.values(), ids=list(FILTERS))
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
