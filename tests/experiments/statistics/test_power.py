import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special, stats

from experiments.statistics import minimum_detectable_effect, power, seeds_needed

SEEDS = {  # d_z: seeds for 80 % power at α = .05, .05/3, .05/7, .05/28
    0.5: (34, 45, 54, 68),
    0.75: (16, 22, 26, 33),
    1: (10, 14, 17, 21),
    1.25: (8, 10, 12, 15),
    1.5: (6, 8, 10, 12),
    2: (5, 6, 7, 9),
    3: (4, 5, 5, 7),
}
EFFECTS = {  # n: d_z with 80 % power at α = .05, .05/3, .05/7
    3: (3.26, 5.67, 8.66),
    5: (1.68, 2.29, 2.87),
    6: (1.43, 1.88, 2.27),
    8: (1.16, 1.45, 1.70),
    10: (1.00, 1.22, 1.41),
    15: (0.78, 0.93, 1.05),
    20: (0.66, 0.78, 0.87),
}


@pytest.mark.parametrize(("d_z", "seeds"), SEEDS.items())
def test_seeds_needed_table(d_z: float, seeds: tuple[int, ...]) -> None:
    for comparisons, n in zip((1, 3, 7, 28), seeds, strict=True):
        alpha = 0.05 / comparisons
        assert seeds_needed(d_z, alpha) == n
        assert power(d_z, n - 1, alpha) < 0.8 <= power(d_z, n, alpha)


@pytest.mark.parametrize(("n", "effects"), EFFECTS.items())
def test_minimum_detectable_effect_table(n: int, effects: tuple[float, ...]) -> None:
    for comparisons, d_z in zip((1, 3, 7), effects, strict=True):
        assert minimum_detectable_effect(n, 0.05 / comparisons) == pytest.approx(d_z, abs=0.00501)


@pytest.mark.parametrize(
    ("n", "d_z", "expected"), [(5, 1.0, 0.4014), (10, 1.0, 0.8031), (5, 1.5, 0.7107), (20, 0.5, 0.5645)]
)
def test_power_values(n: int, d_z: float, expected: float) -> None:
    assert power(d_z, n) == pytest.approx(expected, abs=5e-5)
    assert power(-d_z, n) == power(d_z, n)


@pytest.mark.parametrize("n", [2, 3, 5, 12])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 28])
@pytest.mark.parametrize("d_z", [0.0, 0.5, 2.0, 10.0, 400.0])
def test_power_equals_integration_over_the_observed_sd(n: int, alpha: float, d_z: float) -> None:
    """Given s/σ = r, the test rejects when a normal with mean d_z √n leaves ± t r: scipy's own tail may be nan."""
    critical, shift = stats.t.ppf(1 - alpha / 2, n - 1), d_z * math.sqrt(n)

    def given_ratio(r: float) -> float:
        density = 2 * (n - 1) * r * stats.chi2.pdf((n - 1) * r * r, n - 1)
        return float(density * (special.ndtr(shift - critical * r) + special.ndtr(-shift - critical * r)))

    corner = shift / critical  # where the rejection chance falls
    points = sorted({0.0, *np.clip([0.9 * corner, corner, 1.1 * corner, 1.0, 2.0], 0.0, 10.0)})
    parts = [integrate.quad(given_ratio, a, b, limit=200)[0] for a, b in zip(points, [*points[1:], 12.0], strict=True)]
    assert power(d_z, n, alpha) == pytest.approx(sum(parts), abs=2e-6)


@given(st.floats(0.05, 6), st.floats(0.001, 0.2), st.floats(0.3, 0.95))
def test_seeds_needed_is_the_first_that_suffices(d_z: float, alpha: float, target: float) -> None:
    n = seeds_needed(d_z, alpha, target)
    assert power(d_z, n, alpha) >= target
    assert n == 2 or power(d_z, n - 1, alpha) < target


@given(st.integers(2, 60), st.floats(0.001, 0.1), st.floats(0.3, 0.95))
def test_minimum_detectable_effect_inverts_power(n: int, alpha: float, target: float) -> None:
    assert power(minimum_detectable_effect(n, alpha, target), n, alpha) == pytest.approx(target, abs=1e-7)


def test_seeds_needed_for_a_minute_effect_ends() -> None:
    assert seeds_needed(1e-6, 0.05) == pytest.approx((1.959964 + 0.841621) ** 2 * 1e12, rel=1e-5)


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 seeds"):
        power(1.0, 1)
    with pytest.raises(ValueError, match="alpha = 1"):
        power(1.0, 5, 1.0)
    with pytest.raises(ValueError, match="must be finite"):
        power(math.nan, 5)
    with pytest.raises(ValueError, match="d_z"):
        seeds_needed(0.0, 0.05)
    with pytest.raises(ValueError, match=r"power = 0\.01"):
        minimum_detectable_effect(5, 0.05, 0.01)


def test_seeds_for_a_vanishing_effect_are_a_number() -> None:
    assert seeds_needed(1e-300, 0.05) > 10**200
