import math
from itertools import product
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from experiments.statistics import benjamini_hochberg, holm, max_t, sign_flip_p

Table: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.float64]]

tables = arrays(
    np.float64,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
    elements=st.integers(-10, 10).map(lambda k: k / 30),
)
chances = st.lists(st.integers(0, 100).map(lambda k: k / 100), max_size=8)


def plain_max_t(d: Table) -> list[float]:
    """The definition as a loop: flip all columns jointly, compare with the largest of those not yet passed."""
    norms = [float(np.sqrt((column**2).sum())) or 1.0 for column in d.T]
    flips = [np.array(flip) for flip in product((1, -1), repeat=d.shape[0])]
    flipped = [[abs(flip @ d[:, j]) / norms[j] for j in range(d.shape[1])] for flip in flips]
    observed = [abs(d[:, j].sum()) / norms[j] for j in range(d.shape[1])]
    remaining, p, largest = set(range(d.shape[1])), [0.0] * d.shape[1], 0.0
    while remaining:
        j = max(remaining, key=lambda column: observed[column])
        reached = [max(row[k] for k in remaining) >= observed[j] - 1e-9 for row in flipped]
        largest = max(largest, sum(reached) / len(reached))
        p[j] = largest
        remaining.remove(j)
    return p


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.5]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == pytest.approx([0.02])


def test_holm_refuses_what_is_not_a_p() -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        holm([0.2, 1.2])
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        holm([0.2, float("nan")])


@given(tables)
def test_max_t_equals_its_definition(d: Table) -> None:
    assert max_t(d) == pytest.approx(plain_max_t(d), abs=1e-12)


@given(tables)
def test_max_t_is_at_least_the_raw_p(d: Table) -> None:
    assert (max_t(d) >= [sign_flip_p(column) for column in d.T]).all()


@given(tables)
def test_max_t_ignores_the_order_of_seeds_and_comparisons(
    d: Table,
) -> None:
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(d.shape[0]), rng.permutation(d.shape[1])
    assert max_t(d[rows][:, columns]) == pytest.approx(max_t(d)[columns], abs=1e-12)
    scales = 10.0 ** rng.integers(-3, 4, size=d.shape[1])
    assert max_t(d * scales) == pytest.approx(max_t(d), abs=1e-12)


def test_max_t_keeps_the_floor_of_one_test() -> None:
    d = np.abs(np.random.default_rng(0).normal(size=(8, 7)))
    assert max_t(d) == pytest.approx([2 / 2**8] * 7)


def test_max_t_passes_by_columns_of_zeros() -> None:
    d = np.column_stack([np.arange(1.0, 9.0), np.zeros(8)])
    assert max_t(d) == pytest.approx([2 / 2**8, 1.0])


def test_max_t_refuses_what_is_not_a_table() -> None:
    with pytest.raises(ValueError, match="shape"):
        max_t(np.ones(4))


def test_q_by_hand() -> None:
    # sorted .01 .03 .04 .5, times 4/1 4/2 4/3 1: .04 .06 .0533 .5; the second may not exceed the third
    assert benjamini_hochberg([0.04, 0.01, 0.5, 0.03]) == pytest.approx([0.16 / 3, 0.04, 0.5, 0.16 / 3])
    assert benjamini_hochberg([0.2]) == pytest.approx([0.2])
    assert benjamini_hochberg([]).size == 0


@given(chances, st.sampled_from([0.01, 0.05, 0.2]))
def test_q_rejects_what_the_step_up_procedure_rejects(p: list[float], alpha: float) -> None:
    q = benjamini_hochberg(p)
    ordered = sorted(p)
    passing = [x for k, x in enumerate(ordered, 1) if x <= alpha * k / len(p) + 1e-12]
    assert ((q <= alpha + 1e-12) == [x <= max(passing, default=-1.0) for x in p]).all()
    assert (q >= p).all()
    assert (q <= 1).all()


def test_q_refuses_what_is_not_a_p() -> None:
    for bad in ([0.2, 1.2], [0.2, math.nan], [[0.1, 0.2]]):
        with pytest.raises(ValueError, match=r"one p-value in \[0, 1\]"):
            benjamini_hochberg(bad)
