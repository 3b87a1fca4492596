import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.statistics.scalars import TimeTo, auc, drawdown, final, interquartile_mean, time_to

runs = st.lists(st.integers(0, 30).map(lambda k: k / 30), min_size=2, max_size=12)


def test_final_averages_the_last_three_of_a_short_curve() -> None:
    assert final([0, 10, 20, 30], [0.0, 0.1, 0.2, 0.6], common_budget=30) == pytest.approx(0.3)


def test_final_includes_the_common_budget_and_ignores_what_lies_beyond() -> None:
    budget, values = [0, 10, 20, 30, 40], [0.0, 0.1, 0.2, 0.6, math.nan]
    assert final(budget, values, common_budget=30) == pytest.approx(0.3)
    assert final(budget, values, common_budget=29.9) == pytest.approx(0.1)


@pytest.mark.parametrize(("n", "k"), [(30, 3), (31, 4), (40, 4), (41, 5)])
def test_final_takes_the_last_tenth_rounded_up(n: int, k: int) -> None:
    expected = sum(range(n - k, n)) / k
    assert final(range(n), [float(v) for v in range(n)], common_budget=n) == pytest.approx(expected)


def test_final_counts_only_evaluations_within_the_budget_for_the_tenth() -> None:
    assert final(range(100), [float(v) for v in range(100)], common_budget=19) == pytest.approx(18)


def test_final_uses_all_evaluations_when_there_are_fewer_than_three() -> None:
    assert final([0, 10], [0.2, 0.4], common_budget=10) == pytest.approx(0.3)
    assert final([0, 10], [0.2, 0.4], common_budget=5) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("budget", "values", "message"),
    [
        ([0, 10], [0.1], "2 budgets for 1 values"),
        ([0, 10, 10], [0.1, 0.2, 0.3], "strictly increasing"),
        ([0, math.nan], [0.1, 0.2], "finite"),
        ([100, 200], [0.1, 0.2], "no evaluation at or before the common budget 50; the first is at 100"),
        ([], [], "the curve is empty"),
        ([0, 10, 20], [0.1, math.nan, 0.3], "at budget 10 is nan"),
    ],
)
def test_final_refuses_bad_curves(budget: list[float], values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        final(budget, values, common_budget=50)


def test_interquartile_mean_cuts_a_quarter_at_each_end() -> None:
    assert interquartile_mean([9, 0, 3]) == pytest.approx(4)  # none cut
    assert interquartile_mean([100, 1, 2, 3, -50]) == pytest.approx(2)  # one at each end
    assert interquartile_mean([8, 7, 6, 5, 4, 3, 2, 100]) == pytest.approx(5.5)  # two at each end


def test_auc_by_hand() -> None:
    # trapezoids 0..10: 2, 10..30: 12, in all 14 over a budget of 30
    assert auc([0, 10, 30], [0.0, 0.4, 0.8], 30) == pytest.approx(14 / 30)
    # up to 20 the value is 0.6: 2 + 5 = 7 over 20
    assert auc([0, 10, 30], [0.0, 0.4, 0.8], 20) == pytest.approx(7 / 20)
    assert auc([0, 10, 30], [0.0, 0.4, 0.8], 5) == pytest.approx(0.1)


def test_auc_of_a_flat_curve_is_its_height_and_ignores_what_lies_beyond() -> None:
    assert auc([0, 3, 10, 20], [0.7, 0.7, 0.7, math.nan], 10) == pytest.approx(0.7)


def test_auc_takes_a_curve_that_ends_at_the_budget_up_to_rounding() -> None:
    assert auc([0, 10], [0.0, 1.0], 10 + 1e-9) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("budget", "values", "B", "message"),
    [
        ([0, 10], [0.0, 1.0], 11, "budget 11 lies outside the curve, which runs from 0 to 10"),
        ([1, 10], [0.0, 1.0], 10, "auc: the first evaluation is at 1, not 0"),
        ([0, 10], [0.0, math.inf], 10, "auc: the evaluation at budget 10 is inf"),
        ([0, 10], [0.0, math.nan], 5, "next to budget 5 is not finite"),
        ([0, 10], [0.0, 1.0], 0, "auc: common_budget = 0"),
        ([0, 10], [0.0, 1.0], math.nan, "auc: common_budget = nan"),
    ],
)
def test_auc_refuses_what_it_would_have_to_guess(
    budget: list[float], values: list[float], B: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        auc(budget, values, B)


@given(runs, st.integers(-5, 5))
def test_auc_shifts_and_scales_with_the_curve(values: list[float], shift: int) -> None:
    budget = range(0, 10 * len(values), 10)
    area = auc(budget, values, budget[-1])
    assert min(values) - 1e-12 <= area <= max(values) + 1e-12
    assert auc(budget, [2 * v + shift for v in values], budget[-1]) == pytest.approx(2 * area + shift)
    assert auc([3 * b for b in budget], values, 3 * budget[-1]) == pytest.approx(area)


def test_running_mean_starts_with_the_mean_of_what_there_is() -> None:
    # running means: 0.1, (0.1 + 0.5) / 2 = 0.3, (0.1 + 0.5 + 0.9) / 3 = 0.5, (0.5 + 0.9 + 0.4) / 3 = 0.6
    budget, values = [0, 10, 20, 30], [0.1, 0.5, 0.9, 0.4]
    for threshold, time in [(0.1, 0), (0.11, 10), (0.3, 10), (0.31, 20), (0.5, 20), (0.51, 30), (0.6, 30)]:
        assert time_to(budget, values, 30, threshold) == TimeTo(time, True)
    assert time_to(budget, values, 30, 0.61) == TimeTo(30, False)


def test_time_to_counts_only_what_lies_within_the_budget() -> None:
    budget, values = [0, 10, 20, 30], [0.0, 0.0, 0.9, math.nan]
    assert time_to(budget, values, 20, 0.3) == TimeTo(20, True)
    assert time_to(budget, values, 19, 0.3) == TimeTo(19, False)  # censored at B, not at the last evaluation


def test_time_to_of_a_metric_that_should_fall() -> None:
    budget, values = [0, 10, 20, 30], [9.0, 5.0, 4.0, 3.0]  # running means 9, 7, 6, 4
    assert time_to(budget, values, 30, 6.0, higher_is_better=False) == TimeTo(20, True)
    assert time_to(budget, values, 30, 3.9, higher_is_better=False) == TimeTo(30, False)


def test_time_to_is_not_held_up_by_rounding() -> None:
    assert (0.7 + 0.7 + 0.7) / 3 < 0.7
    assert time_to([0, 1, 2, 3, 4], [0.5, 0.5, 0.7, 0.7, 0.7], 4, 0.7) == TimeTo(4, True)
    assert time_to([0, 1, 2], [-0.3, -0.3, -0.3], 2, 0.0) == TimeTo(2, False)
    assert time_to([0, 1, 2], [-0.3, 0.1, 0.2], 2, 0.0) == TimeTo(2, True)
    assert time_to([0, 1, 2, 3], [5.0, -0.3, 0.1, 0.2], 3, 0.0, higher_is_better=False) == TimeTo(3, True)


def test_time_to_is_not_censored_where_nothing_was_evaluated() -> None:
    assert time_to([0, 10, 20], [0.0, 0.9, 0.9], 50, 0.4) == TimeTo(10, True)
    with pytest.raises(ValueError, match="by the last evaluation at 20, and nothing is known from there to the common"):
        time_to([0, 10, 20], [0.0, 0.0, 0.0], 50, 0.4)
    assert time_to([0, 10, 20], [0.0, 0.0, 0.0], 20 + 1e-9, 0.4).reached is False


@given(runs, st.integers(0, 30))
def test_time_to_is_the_first_crossing_of_the_plain_definition(values: list[float], thirtieths: int) -> None:
    windows = [[round(30 * v) for v in values[max(0, i - 2) : i + 1]] for i in range(len(values))]
    hits = [i for i, window in enumerate(windows) if sum(window) >= thirtieths * len(window)]
    expected = TimeTo(hits[0], True) if hits else TimeTo(len(values) - 1, False)
    assert time_to(range(len(values)), values, len(values) - 1, thirtieths / 30) == expected


def test_drawdown_by_hand() -> None:
    budget, values = range(6), [0.2, 0.5, 0.3, 0.9, 0.6, 0.7]
    assert drawdown(budget, values, 5) == pytest.approx(0.3)
    assert drawdown(budget, values, 2) == pytest.approx(0.2)
    assert drawdown(budget, values, 1) == 0
    assert drawdown(budget, values, 5, higher_is_better=False) == pytest.approx(0.7)  # from 0.2 up to 0.9


@given(runs, st.booleans())
def test_drawdown_is_the_worst_pair_in_order(values: list[float], higher_is_better: bool) -> None:
    sign = 1 if higher_is_better else -1
    worst = max(sign * (a - b) for i, a in enumerate(values) for b in values[i:])
    assert drawdown(range(len(values)), values, len(values), higher_is_better) == pytest.approx(worst, abs=1e-15)


@pytest.mark.parametrize(
    ("budget", "values", "message"),
    [
        ([0, 10], [0.1], "2 budgets for 1 values"),
        ([0, 10, 10], [0.1, 0.2, 0.3], "strictly increasing"),
        ([100, 200], [0.1, 0.2], "no evaluation at or before the common budget 50"),
        ([], [], "the curve is empty"),
    ],
)
def test_every_scalar_refuses_bad_curves_by_name(budget: list[float], values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=f"auc: .*{message}"):
        auc(budget, values, 50)
    with pytest.raises(ValueError, match=f"time_to: .*{message}"):
        time_to(budget, values, 50, 0.5)
    with pytest.raises(ValueError, match=f"drawdown: .*{message}"):
        drawdown(budget, values, 50)


def test_non_finite_evaluations_and_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="drawdown: the evaluation at budget 10 is nan; treat the run as failed"):
        drawdown([0, 10], [0.1, math.nan], 50)
    with pytest.raises(ValueError, match="time_to: the evaluation at budget 10 is nan"):
        time_to([0, 10], [0.9, math.nan], 50, 0.5)
    with pytest.raises(ValueError, match="time_to: threshold = nan"):
        time_to([0, 10], [0.9, 0.9], 10, math.nan)
    with pytest.raises(ValueError, match="final: common_budget = nan"):
        final([0, 10], [0.9, 0.9], math.nan)
