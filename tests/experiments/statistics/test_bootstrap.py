import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from experiments.statistics.bootstrap import (
    IqmEstimate,
    bootstrap_t_interval,
    iqm_differences,
    iqm_intervals,
    percentile_interval,
    performance_profile,
)

R = 2000
Array = NDArray[np.float64]

samples = st.lists(st.integers(-30, 30), min_size=5, max_size=9)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def band(p: float) -> float:
    return 3 * math.sqrt(p * (1 - p) / R)


def draws(kind: str, n: int) -> Array:
    """R samples of n differences with mean 0."""
    g = np.random.default_rng([n, *kind.encode()])
    return g.normal(size=(R, n)) if kind == "normal" else g.exponential(size=(R, n)) - 1


def share_around_zero(intervals: list[tuple[float, float] | None]) -> float:
    return sum(interval is not None and interval[0] < 0 < interval[1] for interval in intervals) / R


def test_percentile_interval_by_hand() -> None:
    # resampled means of two values: 0, 1/2, 1 with chances 1/4, 1/2, 1/4
    assert percentile_interval([0.0, 1.0], 0.95, rng=rng()) == (0.0, 1.0)
    assert percentile_interval([0.0, 1.0], 0.4, rng=rng()) == (0.5, 0.5)


def test_bootstrap_t_interval_equals_enumeration() -> None:
    d = [0.1, 0.4, 0.5, 0.9, 1.6]
    mean, sd = 0.7, float(np.std(d, ddof=1))
    drawn = np.array(list(product(d, repeat=5)))
    varied = np.ptp(drawn, axis=1) > 0  # 5 of the 3125 resamples repeat one value: t* is infinite
    t = np.sort((drawn[varied].mean(axis=1) - mean) / drawn[varied].std(axis=1, ddof=1))
    infinite = [math.copysign(math.inf, x - mean) for x in d]
    t = np.sort(np.append(t, infinite))
    expected = mean - t[-1 - int(0.025 * t.size)] * sd, mean - t[int(0.025 * t.size)] * sd
    assert bootstrap_t_interval(d, resamples=200_000, rng=rng()) == pytest.approx(expected, rel=0.02)


def test_bootstrap_t_leans_towards_the_long_tail() -> None:
    d = np.array([0.0, 0.1, 0.2, 0.3, 0.5, 0.9, 2.5])
    interval = bootstrap_t_interval(d, rng=rng())
    assert interval is not None
    assert interval[1] - d.mean() > 1.5 * (d.mean() - interval[0])  # a t interval is symmetric


def test_bootstrap_t_is_unbounded_where_resamples_repeat_one_value() -> None:
    # four zeros and a one: a third of the resamples are all zeros, far below the mean with no spread
    interval = bootstrap_t_interval([0.0, 0.0, 0.0, 0.0, 1.0], rng=rng())
    assert interval is not None
    assert math.isfinite(interval[0])
    assert interval[1] == math.inf
    turned = bootstrap_t_interval([0.0, 0.0, 0.0, 0.0, -1.0], rng=rng())
    assert turned is not None
    assert turned == pytest.approx((-math.inf, -interval[0]))
    # all ones are 8 % of the resamples here, but they lie at the mean
    at_the_mean = bootstrap_t_interval([0.0, 1.0, 1.0, 1.0, 2.0], rng=rng())
    assert at_the_mean is not None
    assert all(map(math.isfinite, at_the_mean))
    k = 1 / 30
    rounded = np.array([k - 0.2, k, k, k, k, k + 0.2])
    assert rounded.mean() != k
    almost_at_the_mean = bootstrap_t_interval(rounded, rng=rng())
    assert almost_at_the_mean is not None
    assert all(map(math.isfinite, almost_at_the_mean))


def test_bootstrap_t_sees_repeated_values_through_rounding() -> None:
    noisy = [0.3 - 0.2, 0.2 - 0.1, 0.4 - 0.3, 0.1, 0.5]  # four times 0.1, up to rounding
    interval, exact = (bootstrap_t_interval(d, rng=rng()) for d in (noisy, [0.1, 0.1, 0.1, 0.1, 0.5]))
    assert interval is not None
    assert interval == pytest.approx(exact)
    assert interval[1] == math.inf


@given(samples, st.integers(1, 9), st.integers(-50, 50))
def test_intervals_move_with_the_data(d: list[int], scale: int, shift: int) -> None:
    x = np.array(d) / 30
    for interval in (percentile_interval, bootstrap_t_interval):
        base = interval(x, resamples=99, rng=rng())
        moved = interval(scale * x + shift, resamples=99, rng=rng())
        turned = interval(-x, resamples=99, rng=rng())
        if base is None:
            assert moved is turned is None
            continue
        assert moved == pytest.approx([scale * end + shift for end in base], abs=1e-6)
        assert turned == pytest.approx((-base[1], -base[0]), abs=1e-9)
        assert base[0] <= base[1]


@given(samples)
def test_percentile_interval_stays_within_the_data(d: list[int]) -> None:
    interval = percentile_interval(d, resamples=99, rng=rng())
    assert interval is None or min(d) <= interval[0] <= interval[1] <= max(d)


def test_values_that_all_agree_have_no_interval() -> None:
    for d in ([0.1] * 5, [0.0] * 6, [0.3 - 0.2, 0.2 - 0.1, 0.1, 0.1, 0.1]):
        assert bootstrap_t_interval(d, rng=rng()) is None
        assert percentile_interval(d, rng=rng()) is None
        assert iqm_intervals({"a": d}, rng=rng())["a"].interval is None


def test_percentile_coverage_at_five_seeds_is_what_the_warning_says() -> None:
    g = rng(5)
    intervals = [percentile_interval(d, resamples=499, rng=g) for d in draws("normal", 5)]
    assert share_around_zero(intervals) == pytest.approx(0.835, abs=0.025)


@pytest.mark.parametrize(
    ("kind", "n", "expected"),
    [("normal", 5, 0.942), ("normal", 10, 0.943), ("exponential", 5, 0.932), ("exponential", 10, 0.942)],
)
def test_bootstrap_t_coverage_is_near_nominal(kind: str, n: int, expected: float) -> None:
    g = rng(n)
    intervals = [bootstrap_t_interval(d, resamples=499, rng=g) for d in draws(kind, n)]
    assert share_around_zero(intervals) == pytest.approx(expected, abs=band(expected))


@pytest.mark.parametrize(("n", "expected"), [(5, 0.900), (10, 0.945)])
def test_coverage_of_the_interquartile_mean(n: int, expected: float) -> None:
    g = rng(n)
    intervals = [iqm_intervals({"a": x}, resamples=499, rng=g)["a"].interval for x in draws("normal", n)]
    assert share_around_zero(intervals) == pytest.approx(expected, abs=band(expected))


def test_interquartile_means_by_hand() -> None:
    scores = {"a": [0.1, 0.2, 0.3, 0.4, 9.0], "b": [1.0, 1.0, 1.0, 1.0, 1.0]}
    estimates = iqm_intervals(scores, rng=rng())
    assert estimates["a"].value == pytest.approx(0.3)
    assert estimates["b"] == IqmEstimate(5, 1.0, None)
    interval = estimates["a"].interval
    assert interval is not None
    assert interval[0] == pytest.approx(0.1 + 0.1 / 3, abs=0.04)  # about (0.1 + 0.1 + 0.2) / 3
    assert interval[1] > 3  # the outlier is drawn twice in a quarter of the resamples


def test_few_seeds_have_no_interval_and_twenty_are_trusted() -> None:
    for n in (1, 3, 4):
        estimate = iqm_intervals({"a": np.arange(n)}, rng=rng())["a"]
        assert estimate == IqmEstimate(n, (n - 1) / 2, None)
    for n, approximate in [(5, True), (19, True), (20, False)]:
        estimate = iqm_intervals({"a": np.arange(n)}, resamples=99, rng=rng())["a"]
        assert estimate.interval is not None
        assert estimate.approximate == approximate
        profile = performance_profile({"a": np.arange(n)}, [1.0], resamples=99, rng=rng())["a"]
        assert profile.approximate == approximate


def test_all_arms_are_resampled_by_the_same_seeds() -> None:
    x = rng(1).normal(size=8)
    arms = {"a": x, "copy": x, "shifted": x + 1, "mirror": -x, "other": rng(2).normal(size=8)}
    intervals = {arm: estimate.interval for arm, estimate in iqm_intervals(arms, rng=rng()).items()}
    low, high = intervals["a"] or (0.0, 0.0)
    assert intervals["copy"] == (low, high)
    assert intervals["shifted"] == pytest.approx((low + 1, high + 1))
    assert intervals["mirror"] == pytest.approx((-high, -low))
    assert iqm_intervals({"other": arms["other"]}, rng=rng())["other"].interval == intervals["other"]
    profiles = performance_profile(arms, [0.0, 0.5], rng=rng())
    assert profiles["copy"] == profiles["a"]


def test_iqm_differences_are_paired_by_seed() -> None:
    base = [0.1, 0.9, 0.2, 0.8, 0.5, 0.4, 0.7, 0.3]
    noisy = [b + 0.1 + e for b, e in zip(base, [0.0, 0.01, -0.01, 0.02, -0.02, 0.0, 0.01, -0.01], strict=True)]
    estimates = iqm_differences({"base": base, "arm": noisy, "shifted": [b + 0.1 for b in base]}, "base", rng=rng())
    assert list(estimates) == ["arm", "shifted"]
    # two cut at each end: (.3 + .4 + .5 + .7) / 4 = .475, and (.39 + .5 + .58 + .81) / 4 = .57
    assert estimates["arm"].value == pytest.approx(0.095)
    assert estimates["shifted"].value == pytest.approx(0.1)
    assert estimates["shifted"].interval is None
    low, high = estimates["arm"].interval or (math.nan, math.nan)
    assert 0.06 < low < 0.095 < high < 0.13  # runs differ by 0.8, the arms by about 0.1 on each seed
    unpaired = iqm_intervals({"base": base}, rng=rng())["base"].interval or (0.0, 0.0)
    assert high - low < (unpaired[1] - unpaired[0]) / 4
    assert iqm_differences({"base": base[:4], "arm": noisy[:4]}, "base", rng=rng())["arm"].interval is None
    with pytest.raises(ValueError, match="unknown baseline 'x'; the arms are base, arm"):
        iqm_differences({"base": base, "arm": noisy}, "x", rng=rng())


def test_profile_by_hand() -> None:
    profile = performance_profile({"a": [0.1, 0.5, 0.9]}, [0.0, 0.5, 0.6, 1.0], rng=rng())["a"]
    assert profile.share == pytest.approx((1, 2 / 3, 1 / 3, 0))
    assert (profile.low[0], profile.high[0], profile.low[3], profile.high[3]) == (1, 1, 0, 0)
    # all three draws pass 0.5 with chance 8/27, none with 1/27 = 3.7 %
    assert (profile.low[1], profile.high[1]) == (0, 1)
    narrow = performance_profile({"a": [0.1, 0.5, 0.9]}, [0.5], level=0.9, rng=rng())["a"]
    assert (narrow.low[0], narrow.high[0]) == pytest.approx((1 / 3, 1))


def test_profile_counts_a_score_at_the_threshold_even_under_rounding() -> None:
    assert performance_profile({"a": [0.3, 0.2]}, [0.1 + 0.2], resamples=9, rng=rng())["a"].share == (0.5,)


def test_the_band_of_a_profile_is_binomial() -> None:
    profile = performance_profile({"a": np.arange(10)}, np.arange(10) - 0.5, resamples=40_000, rng=rng())["a"]
    for share, low, high in zip(profile.share, profile.low, profile.high, strict=True):
        expected = np.array([stats.binom.ppf(tail, 10, share) for tail in (0.025, 0.975)]) / 10
        assert [low, high] == pytest.approx(expected)


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=9))
def test_profile_falls_with_the_threshold(x: list[int]) -> None:
    profile = performance_profile({"a": x}, range(-10, 11), resamples=49, rng=rng())["a"]
    for line in (profile.share, profile.low, profile.high):
        assert (np.diff(line) <= 1e-12).all()
    assert (profile.share[0], profile.share[-1]) == (1, 0)
    assert sum(profile.share) - 11 == pytest.approx(np.mean(x))  # x passes the x + 11 thresholds from -10 on


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="bootstrap_t_interval: need at least 5 values, got 4"):
        bootstrap_t_interval([1, 2, 3, 4], rng=rng())
    with pytest.raises(ValueError, match="percentile_interval: need at least 2 values, got 1"):
        percentile_interval([1], rng=rng())
    with pytest.raises(ValueError, match="level = 0"):
        percentile_interval([1, 2], 0.0, rng=rng())
    with pytest.raises(ValueError, match="0 resamples; at least one"):
        percentile_interval([1, 2], resamples=0, rng=rng())
    with pytest.raises(ValueError, match="iqm_intervals: no arm given"):
        iqm_intervals({}, rng=rng())
    with pytest.raises(ValueError, match="iqm_intervals, arm 'b': value 1 is nan"):
        iqm_intervals({"a": [1, 2], "b": [1, math.nan]}, rng=rng())
    with pytest.raises(ValueError, match=r"performance_profile: arms differ in their number of runs \(a 2, b 3\)"):
        performance_profile({"a": [1, 2], "b": [1, 2, 3]}, [0], rng=rng())
    with pytest.raises(ValueError, match="performance_profile, thresholds: value 0 is inf"):
        performance_profile({"a": [1, 2]}, [math.inf], rng=rng())
