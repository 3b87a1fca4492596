import math

import pytest

from experiments.statistics import final, interquartile_mean


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
