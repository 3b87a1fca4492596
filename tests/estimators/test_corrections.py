"""Corrections of the sampler's mismatch: numbers by hand, and a contract that each must keep."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import CORRECTIONS
from estimators.corrections import token_truncated

every_correction = pytest.mark.parametrize("part", CORRECTIONS.values(), ids=list(CORRECTIONS))


def rows(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    old, behaviour = (torch.randn(4, 6, generator=draw) - 2 for _ in range(2))
    mask = torch.rand(4, 6, generator=draw) < 0.7
    return old, behaviour, mask


def test_by_hand() -> None:
    """Ratios 1, 2, 1/2 and 8, the last cut at the cap; outside the mask 1."""
    ratios = torch.tensor([[1.0, 2.0, 0.5, 8.0, 8.0]])
    mask = torch.tensor([[True, True, True, True, False]])
    behaviour = torch.full_like(ratios, -3.0)
    factors = token_truncated(behaviour + ratios.log(), behaviour, mask, cap=3.0)
    torch.testing.assert_close(factors, torch.tensor([[1.0, 2.0, 0.5, 3.0, 1.0]]))


def test_the_default_cap_is_2() -> None:
    factors = token_truncated(torch.tensor([[math.log(5)]]), torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool))
    assert factors.item() == 2


@given(st.integers(0, 100), st.floats(0.5, 5))
def test_never_above_the_cap_and_importance_sampling_without_it(seed: int, cap: float) -> None:
    old, behaviour, mask = rows(seed)
    assert token_truncated(old, behaviour, mask, cap=cap)[mask].max() <= cap
    unbounded = token_truncated(old, behaviour, mask, cap=math.inf)
    torch.testing.assert_close(unbounded[mask], torch.exp(old - behaviour)[mask])
