import math

import pytest

from experiments.statistics import friedman, hedges_j, probability_of_improvement, win_rate


def test_hedges_j_has_a_closed_form_at_five_seeds() -> None:
    # ν = 4: Γ(2) / (√2 Γ(3/2)) with Γ(3/2) = √π / 2
    assert hedges_j(5) == pytest.approx(math.sqrt(2 / math.pi))
    assert round(hedges_j(5), 3) == 0.798
    assert hedges_j(3) == pytest.approx(1 / math.sqrt(math.pi))
    assert hedges_j(10_000) == pytest.approx(1, abs=1e-4)


def test_hedges_j_needs_three_seeds() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        hedges_j(2)


def test_win_rate_counts_ties_half() -> None:
    assert win_rate([0.1, 0.0, -0.2, 0.3]) == pytest.approx(2.5 / 4)


def test_pairing_separates_win_rate_from_probability_of_improvement() -> None:
    baseline = [0.1, 0.2, 0.3, 0.4, 0.5]
    arm = [score + 0.01 for score in baseline]
    assert win_rate([a - b for a, b in zip(arm, baseline, strict=True)]) == 1
    assert probability_of_improvement(arm, baseline) == pytest.approx(15 / 25)


def test_probability_of_improvement_counts_ties_half_even_under_rounding() -> None:
    assert probability_of_improvement([0.1 + 0.2], [0.3]) == 0.5
    assert probability_of_improvement([1, 2], [0]) == 1
    assert probability_of_improvement([1], [1, 2, 3]) == pytest.approx(1 / 6)


def test_friedman_by_hand() -> None:
    """Ranks (1, 2, 3), (1, 2, 3), (2, 1, 3): mean ranks 4/3, 5/3, 3, so chi2 = 12 * 3 / 12 * sum((R - 2)^2) = 14/3."""
    chi2, f, p = friedman([[0.1, 0.2, 0.3], [0.4, 0.5, 0.9], [0.2, 0.1, 0.7]])
    assert chi2 == pytest.approx(14 / 3)
    assert f == pytest.approx(2 * (14 / 3) / (6 - 14 / 3))  # = 7, on 2 and 4 degrees of freedom
    assert p == pytest.approx((1 + 7 * 2 / 4) ** -2)  # the tail of F with 2 and 4 degrees of freedom
    assert friedman([[0.5] * 3, [0.7] * 3]) == (0.0, 0.0, 1.0)
    assert friedman([[1, 2, 3], [4, 5, 6]])[1:] == (float("inf"), 0.0)
    with pytest.raises(ValueError, match="3 arms"):
        friedman([[1, 2], [3, 4]])
