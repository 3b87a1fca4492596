import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.statistics.budgets import mean_at, value_at
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


def test_mean_at_is_of_values_between_evaluations() -> None:
    assert mean_at(BUDGET, VALUES, [5, 10, 20]) == pytest.approx((0.2 + 0.4 + 0.6) / 3)
    assert mean_at(BUDGET, VALUES, BUDGET) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="mean_at: no points to read the curve at"):
        mean_at(BUDGET, VALUES, [])
    with pytest.raises(ValueError, match="budget 31 lies outside the curve"):
        mean_at(BUDGET, VALUES, [10, 31])


def test_runs_with_their_own_points_are_reduced_at_those_points() -> None:
    """Tokens: two runs of one straight line v = b / 100, evaluated at different places."""
    a, b = [0, 7, 50, 90], [0, 40, 60, 80, 100]
    curve = [([float(x) for x in points], [x / 100 for x in points]) for points in (a, b)]
    B = 90.0  # what both reach
    assert [auc(*c, B) for c in curve] == pytest.approx([0.45, 0.45])  # the same line, the same area
    assert [final(*c, B) for c in curve] == pytest.approx([(7 + 50 + 90) / 300, (40 + 60 + 80) / 300])


@given(curves, st.integers(-50, 1050))
def test_a_value_lies_between_its_neighbours(raw: list[tuple[int, int]], at: int) -> None:
    budget, values = [float(b) for b, _ in sorted(raw)], [v / 30 for _, v in sorted(raw)]
    if budget[0] <= at <= budget[-1]:
        after = next(place for place, spent in enumerate(budget) if spent >= at)
        ends = values[max(after - 1, 0)], values[after]
        assert min(ends) - 1e-12 <= value_at(budget, values, at) <= max(ends) + 1e-12
    else:
        with pytest.raises(ValueError, match="lies outside the curve"):
            value_at(budget, values, at)


def test_a_curve_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match=r"value_at: .*choose an axis on which the run advances"):
        value_at([0, 0, 0], VALUES, 0)
    with pytest.raises(ValueError, match="value_at: the curve is empty"):
        value_at([], [], 0)
    with pytest.raises(ValueError, match="value_at: 2 budgets for 3 values"):
        value_at([0, 1], VALUES, 0)
