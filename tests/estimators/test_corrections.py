"""Corrections of the sampler's mismatch: numbers by hand, and what holds whatever the numbers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import Part
from estimators.corrections import (
    geometric_mean_masked,
    sequence_masked,
    sequence_truncated,
    token_masked,
    token_truncated,
)


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


def factors(part: Part, ratios: list[float], mask: list[bool] | None = None, **hyper: float) -> list[float]:
    """Factors for one row of these ratios of trainer to sampler."""
    behaviour = torch.full((1, len(ratios)), -3.0, dtype=torch.float64)
    old = behaviour + torch.tensor([ratios], dtype=torch.float64).log()
    inside = torch.tensor([mask or [True] * len(ratios)])
    factors: Tensor = part(old, behaviour, inside, **hyper)
    assert factors[~inside].eq(1).all()
    return factors[0].tolist()


def test_the_floor_by_hand() -> None:
    assert factors(token_truncated, [0.1, 0.7, 9], floor=0.5, cap=5.0) == pytest.approx([0.5, 0.7, 5])
    assert factors(token_truncated, [0.1]) == pytest.approx([0.1])


def test_whole_responses_by_hand() -> None:
    """The product of the counted ratios is 1.5; the hole has no part in it."""
    ratios, mask = [3.0, 99.0, 0.5], [True, False, True]
    assert factors(sequence_truncated, ratios, mask) == pytest.approx([1.5, 1, 1.5])
    assert factors(sequence_truncated, ratios, mask, cap=1.2) == pytest.approx([1.2, 1, 1.2])
    assert factors(sequence_truncated, ratios, mask, floor=1.7) == pytest.approx([1.7, 1, 1.7])
    assert factors(sequence_truncated, [3.0, 3.0]) == pytest.approx([2, 2])
    assert factors(sequence_masked, ratios, mask) == pytest.approx([1.5, 1, 1.5])
    assert factors(sequence_masked, ratios, mask, high=1.4) == [0, 1, 0]
    assert factors(sequence_masked, ratios, mask, low=1.6) == [0, 1, 0]
    assert factors(sequence_masked, [1.8, 1.8]) == [0, 0]
    assert factors(sequence_masked, [0.001, 0.001]) == pytest.approx([1e-6, 1e-6])


def test_masked_tokens_by_hand() -> None:
    assert factors(token_masked, [0.1, 1.0, 2.9, 3.1, 9.0], [True] * 4 + [False]) == pytest.approx([0.1, 1, 2.9, 0, 1])
    assert factors(token_masked, [0.1, 1.0, 2.9], low=0.5, high=2.0) == pytest.approx([0, 1, 0])
    assert factors(token_masked, [1.0], low=1.0) == factors(token_masked, [1.0], high=1.0) == [1]  # bounds included


def test_rows_judged_by_their_geometric_mean() -> None:
    """4 and 1 have a geometric mean of 2; what is kept keeps its own ratios, unbounded."""
    assert factors(geometric_mean_masked, [4.0, 99.0, 1.0], [True, False, True]) == pytest.approx([4, 1, 1])
    assert factors(geometric_mean_masked, [4.0, 1.0], high=1.9) == [0, 0]
    assert factors(geometric_mean_masked, [4.0, 1.0], low=2.1) == [0, 0]
    assert factors(geometric_mean_masked, [0.3, 0.7]) == [0, 0]  # mean 0.46, below the default of 0.5
    assert factors(geometric_mean_masked, [0.4, 0.7]) == pytest.approx([0.4, 0.7])  # 0.53
    assert factors(geometric_mean_masked, [5.0, 5.1]) == [0, 0]
    assert factors(geometric_mean_masked, [4.9, 4.9]) == pytest.approx([4.9, 4.9])
    assert factors(geometric_mean_masked, [6.0]) == [0]
    assert factors(geometric_mean_masked, [6.0, 6.0], [False, False]) == [1, 1]


@given(st.integers(0, 100))
def test_a_responses_weight_is_the_product_of_its_tokens_weights(seed: int) -> None:
    old, behaviour, mask = rows(seed)
    token = token_truncated(old, behaviour, mask, cap=math.inf)
    whole = sequence_truncated(old, behaviour, mask, cap=math.inf)
    product = token.prod(1, keepdim=True).expand_as(whole)
    torch.testing.assert_close(whole[mask], product[mask])
    torch.testing.assert_close(sequence_masked(old, behaviour, mask, high=math.inf), whole)
    torch.testing.assert_close(token_masked(old, behaviour, mask, high=math.inf), token)
    torch.testing.assert_close(geometric_mean_masked(old, behaviour, mask, low=0.0, high=math.inf), token)


def test_a_token_that_the_sampler_could_not_score_is_not_corrected() -> None:
    assert factors(token_truncated, [1.5, math.nan]) == pytest.approx([1.5, 1])
    assert factors(token_masked, [1.5, math.nan]) == pytest.approx([1.5, 1])
    assert factors(sequence_truncated, [1.5, math.nan]) == pytest.approx([1.5, 1.5])
    assert factors(sequence_masked, [1.5, math.nan]) == pytest.approx([1.5, 1.5])
    assert factors(geometric_mean_masked, [1.5, math.nan]) == pytest.approx([1.5, 1])
