import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments.statistics import paired_t, tost, wilcoxon_exact

samples = st.lists(st.integers(-6, 6).map(lambda k: k / 30), min_size=3, max_size=11)


def test_paired_t_by_hand() -> None:
    # mean 2, sd 1, n = 3: t = 2√3 on 2 df, where P(|T| >= t) = 1 - t / √(2 + t²)
    p, interval = paired_t([1.0, 2.0, 3.0])
    assert p == pytest.approx(1 - math.sqrt(12 / 14))
    assert interval == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), abs=1e-6)


def test_paired_t_equals_scipy() -> None:
    rng = np.random.default_rng(1)
    for n in (2, 3, 5, 10, 40):
        d = rng.normal(0.3, 1.0, n)
        reference = stats.ttest_1samp(d, 0.0)
        p, interval = paired_t(d, 0.9)
        assert p == pytest.approx(reference.pvalue, rel=1e-9)
        assert interval == pytest.approx(tuple(reference.confidence_interval(0.9)), rel=1e-9)


@pytest.mark.parametrize("d", [[0.0, 0.0, 0.0], [0.1, 0.1, 0.1], [0.3 - 0.2, 0.2 - 0.1, 0.1]])
def test_differences_without_spread_carry_no_evidence(d: list[float]) -> None:
    assert paired_t(d) == (1.0, None)
    assert tost(d, 10.0) == 1.0


def test_p_is_never_zero() -> None:
    d = 1.0 + 1e-6 * np.random.default_rng(0).normal(size=400)
    assert paired_t(d)[0] > 0
    assert tost(d, 2.0) > 0


def test_tost_by_hand() -> None:
    # mean 0, sd 1, n = 3, margin 2: t = 2√3 on 2 df, one side
    assert tost([-1.0, 0.0, 1.0], 2.0) == pytest.approx((1 - math.sqrt(12 / 14)) / 2)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=8), st.floats(0.05, 1))
def test_tost_accepts_when_the_ninety_percent_interval_lies_inside_the_margin(d: list[float], margin: float) -> None:
    interval = paired_t(d, 0.9)[1]
    if interval is not None:
        furthest = max(abs(interval[0]), abs(interval[1]))
        if not math.isclose(furthest, margin, rel_tol=1e-9):
            assert (tost(d, margin) <= 0.05) == (furthest < margin)


def test_wilcoxon_by_hand() -> None:
    assert wilcoxon_exact([1, 2, 3, 4, 5]) == pytest.approx(2 / 32)
    assert wilcoxon_exact([-1, 2, 3, 4, 5]) == pytest.approx(4 / 32)
    assert wilcoxon_exact([0, 0, 1, 2, 3]) == pytest.approx(2 / 8)  # zeros are dropped
    assert wilcoxon_exact([1, 1, -1]) == pytest.approx(1)
    assert wilcoxon_exact([0, 0, 0]) == 1


def test_wilcoxon_sees_ties_through_rounding() -> None:
    d = [0.3 - 0.2, 0.2 - 0.1, -(0.4 - 0.3), 0.5]
    assert wilcoxon_exact(d) == wilcoxon_exact([1, 1, -1, 5])


def test_wilcoxon_equals_scipy_without_ties() -> None:
    rng = np.random.default_rng(2)
    for n in (3, 8, 20, 40):
        d = rng.normal(0.4, 1.0, n)
        assert wilcoxon_exact(d) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue, rel=1e-9)


@given(samples)
def test_wilcoxon_equals_enumeration_with_ties_and_zeros(d: list[float]) -> None:
    kept = np.array([round(30 * x) for x in d if x != 0])
    if kept.size == 0:
        assert wilcoxon_exact(d) == 1
        return
    ranks = stats.rankdata(np.abs(kept))
    flips = 1 - 2 * ((np.arange(2**kept.size)[:, None] >> np.arange(kept.size)) & 1)
    expected = np.mean(np.abs(flips @ ranks) >= abs(np.sign(kept) @ ranks))
    assert wilcoxon_exact(d) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("d", "message"),
    [([0.1], "at least 2"), ([0.1, math.nan], "value 1 is nan"), ([[0.1, 0.2]], "one number per seed")],
)
def test_bad_samples_are_refused(d: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_t(d)


def test_bad_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="level = 1"):
        paired_t([1, 2, 3], 1)
    with pytest.raises(ValueError, match="margin = 0"):
        tost([1, 2, 3], 0)
