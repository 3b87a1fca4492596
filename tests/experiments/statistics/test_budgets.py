import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.statistics.budgets import common_budget, on_grid, value_at
from experiments.statistics.scalars import auc, final

BUDGET, VALUES = [0, 10, 30], [0.0, 0.4, 0.8]

curves = st.lists(
    st.tuples(st.integers(0, 1000), st.integers(0, 30)), min_size=1, max_size=12, unique_by=lambda e: e[0]
)


@pytest.mark.parametrize(("at", "expected"), [(0, 0.0), (2.5, 0.1), (10, 0.4), (15, 0.5), (30, 0.8)])
def test_value_at_is_linear_between_evaluations(at: float, expected: float) -> None:
    assert value_at(BUDGET, VALUES, at) == pytest.approx(expected)


def test_value_at_needs_only_the_evaluations_next_to_it() -> None:
    budget, values = [0, 10, 20, 30], [0.0, 0.4, math.nan, math.inf]
    assert value_at(budget, values, 5) == pytest.approx(0.2)
    assert value_at(budget, values, 10) == 0.4
    for at in (15, 20, 25, 30):
        with pytest.raises(ValueError, match=f"next to budget {at} is not finite"):
            value_at(budget, values, at)


def test_value_at_does_not_extrapolate() -> None:
    assert value_at(BUDGET, VALUES, 30 + 1e-9) == 0.8  # rounding
    for at in (-1, 30 + 1e-6, math.nan):
        with pytest.raises(ValueError, match=r"lies outside the curve, which runs from 0 to 30"):
            value_at(BUDGET, VALUES, at)


def test_common_budget_is_what_every_run_reaches() -> None:
    assert common_budget([([0, 10, 30], VALUES), ([0, 25], [0.1, 0.2])]) == 25
    with pytest.raises(ValueError, match="no curve given"):
        common_budget([])
    with pytest.raises(ValueError, match="common_budget, curve 1: the curve is empty"):
        common_budget([([0, 1], [0.0, 0.1]), ([], [])])


def test_runs_with_their_own_points_are_reduced_at_those_points() -> None:
    """Tokens: two runs of one straight line v = b / 100, evaluated at different places."""
    a, b = [0, 7, 50, 90], [0, 40, 60, 80, 100]
    curve = [([float(x) for x in points], [x / 100 for x in points]) for points in (a, b)]
    B = common_budget(curve)
    assert B == 90
    assert [auc(*c, B) for c in curve] == pytest.approx([0.45, 0.45])  # the same line, the same area
    assert [final(*c, B) for c in curve] == pytest.approx([(7 + 50 + 90) / 300, (40 + 60 + 80) / 300])


def test_grid_by_hand() -> None:
    table = on_grid([(BUDGET, VALUES), ([10, 20], [1.0, 0.0])], [0, 10, 15, 20, 30])
    nan = math.nan
    np.testing.assert_allclose(table, [[0.0, 0.4, 0.5, 0.6, 0.8], [nan, 1.0, 0.5, 0.0, nan]], rtol=1e-12)


def test_grid_leaves_out_what_lies_next_to_a_non_finite_evaluation() -> None:
    table = on_grid([([0, 10, 20, 30], [0.0, math.inf, 0.2, 0.3])], [0, 5, 10, 15, 20, 25])
    np.testing.assert_allclose(table, [[0.0, math.nan, math.nan, math.nan, 0.2, 0.25]], rtol=1e-12)
    assert np.isnan(on_grid([([0, 10], [math.nan, math.nan])], [0, 5, 10])).all()


@given(st.lists(curves, min_size=1, max_size=4), st.lists(st.integers(-50, 1050), max_size=8))
def test_grid_is_value_at_where_a_run_was_observed(raw: list[list[tuple[int, int]]], grid: list[int]) -> None:
    runs = [([float(b) for b, _ in sorted(run)], [v / 30 for _, v in sorted(run)]) for run in raw]
    table = on_grid(runs, grid)
    assert table.shape == (len(runs), len(grid))
    for (budget, values), row in zip(runs, table, strict=True):
        for at, value in zip(grid, row, strict=True):
            if budget[0] <= at <= budget[-1]:
                assert value == value_at(budget, values, at)
                assert min(values) - 1e-12 <= value <= max(values) + 1e-12
            else:
                assert math.isnan(value)


def test_grid_refuses_what_it_cannot_read() -> None:
    with pytest.raises(ValueError, match="no curve given"):
        on_grid([], [0, 1])
    with pytest.raises(ValueError, match="finite budgets as grid"):
        on_grid([(BUDGET, VALUES)], [0, math.nan])
    with pytest.raises(ValueError, match=r"finite budgets as grid, got shape \(1, 2\)"):
        on_grid([(BUDGET, VALUES)], [[0, 1]])
    with pytest.raises(ValueError, match=r"on_grid, curve 0: .*choose an axis on which the run advances"):
        on_grid([([0, 0, 0], VALUES)], [0])
    with pytest.raises(ValueError, match="value_at: 2 budgets for 3 values"):
        value_at([0, 1], VALUES, 0)
