import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from experiments.statistics.betting import (
    anytime_equivalent,
    anytime_interval,
    anytime_p,
    direction,
    log_bayes_process,
    log_e_process,
)

Array = NDArray[np.float64]

R = 2000
samples = st.lists(st.integers(-30, 30).map(lambda k: k / 30), min_size=1, max_size=12)


def plain_e(d: list[float]) -> float:
    """The definition as a loop over bets and seeds."""
    payoffs = []
    for bet in (0.5, 1, 2, 4, -0.5, -1, -2, -4):
        capital = 1.0
        for i, x in enumerate(d):
            rms = math.sqrt(sum(y * y for y in d[: i + 1]) / (i + 1))
            capital *= 1 + math.tanh(bet * x / rms) if rms else 1.0
        payoffs.append(capital)
    return sum(payoffs) / 8


def test_equal_differences_by_hand() -> None:
    e = np.exp(log_e_process([0.02] * 6))
    for n in range(1, 7):  # z = 1 on every seed
        halves = [(1 + math.tanh(c)) ** n + (1 - math.tanh(c)) ** n for c in (0.5, 1, 2, 4)]
        assert e[n - 1] == pytest.approx(sum(halves) / 8)
    assert round(e[4], 2) == 10.61
    assert round(e[5], 2) == 20.12
    assert anytime_p([0.02] * 6)[-1] == pytest.approx(1 / e[5])


def test_two_seeds_by_hand() -> None:
    assert np.exp(log_e_process([5.0])) == pytest.approx([1.0])  # one sign is no evidence
    # z = 1, then -1: a bet gains 1 + tanh c and loses the same
    assert np.exp(log_e_process([1.0, -1.0]))[1] == pytest.approx(
        sum(1 - math.tanh(c) ** 2 for c in (0.5, 1, 2, 4)) / 4
    )


@given(samples)
def test_e_equals_its_definition_at_every_prefix(d: list[float]) -> None:
    e = np.exp(log_e_process(d))
    assert e == pytest.approx([plain_e(d[: n + 1]) for n in range(len(d))], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("d", [[1.0, 2.0, 3.0, 4.0], [0.1] * 9, [0.0, 5.0, 0.0, 1.0, -2.0, 9.0, 0.3]])
def test_e_is_a_fair_bet_on_signs(d: list[float]) -> None:
    """Averaged over all flips E is exactly 1 at every n, and the share of flips that ever reach 20 is below 1/20."""
    flips = np.array(list(product((1.0, -1.0), repeat=len(d))))
    log_e = log_e_process(flips * np.array(d))
    assert np.exp(log_e).mean(axis=0) == pytest.approx(np.ones(len(d)))
    assert (log_e.max(axis=1) >= math.log(20)).mean() <= 1 / 20


@given(samples, st.sampled_from([-1.0, 100.0, -1e-180, 1e250]))
def test_unit_and_sign_do_not_matter(d: list[float], factor: float) -> None:
    scaled = factor * np.array(d)
    assert log_e_process(scaled) == pytest.approx(log_e_process(d), abs=1e-9)
    assert log_bayes_process(scaled) == pytest.approx(log_bayes_process(d), abs=1e-9)
    ahead = np.abs(np.cumsum(d)) > 1e-9
    assert (direction(scaled) * np.sign(factor))[ahead].tolist() == direction(d)[ahead].tolist()


@given(samples)
def test_anytime_p_never_grows_and_is_the_reciprocal_of_the_largest_e(d: list[float]) -> None:
    p = anytime_p(d)
    assert (np.diff(p) <= 0).all()
    assert p[-1] == pytest.approx(min(1.0, math.exp(-log_e_process(d).max())))


def test_anytime_p_outlasts_later_doubt_but_not_the_direction() -> None:
    d = [1.0] * 6 + [-1.0] * 8
    assert anytime_p(d)[-1] == anytime_p(d)[5] < 0.05
    assert log_e_process(d)[-1] < 0
    assert direction(d)[[0, 5, 13]].tolist() == [1, 1, -1]
    assert direction([1.0, -1.0]).tolist() == [1, 0]


def test_p_is_never_zero() -> None:
    assert anytime_p(np.ones(3000))[-1] > 0


def test_many_sequences_at_once() -> None:
    d = np.random.default_rng(0).normal(0.5, 1, (3, 4, 10))
    assert log_e_process(d)[1, 2] == pytest.approx(log_e_process(d[1, 2]))
    assert anytime_p(d)[2, 0] == pytest.approx(anytime_p(d[2, 0]))
    assert log_bayes_process(d)[0, 3] == pytest.approx(log_bayes_process(d[0, 3]))


@pytest.mark.parametrize("n", [8, 12, 20])
def test_the_interval_ends_where_shifts_begin_to_be_rejected(n: int) -> None:
    for seed in range(5):
        d = np.random.default_rng([n, seed]).normal(0.3, 1.0, n)
        interval = anytime_interval(d)
        assert interval is not None
        low, high = interval
        shifts = np.linspace(d.min() - 30, d.max() + 30, 20_001)
        kept = shifts[log_e_process(d - shifts[:, None]).max(axis=1) < math.log(20)]
        step = shifts[1] - shifts[0]
        for end, reference in ((low, kept[0]), (high, kept[-1])):
            if math.isfinite(end) and abs(end) < 25:
                assert end == pytest.approx(reference, abs=step + 1e-3 * abs(reference - np.median(d)))


def test_the_interval_moves_and_scales_with_the_data() -> None:
    d = np.random.default_rng(1).normal(0.3, 1.0, 15)
    low, high = anytime_interval(d) or (math.nan, math.nan)
    assert anytime_interval(10 * d + 5) == pytest.approx((10 * low + 5, 10 * high + 5), rel=2e-3)
    assert anytime_interval(-d) == pytest.approx((-high, -low), rel=2e-3)
    wider = anytime_interval(d, 0.01)
    assert wider is not None
    assert wider[0] < low < high < wider[1]


def test_the_interval_is_unbounded_where_nothing_can_be_excluded() -> None:
    unbounded = (-math.inf, math.inf)
    assert anytime_interval(np.random.default_rng(0).normal(size=5)) == unbounded
    assert anytime_interval([0.1] * 9) == unbounded  # agreeing differences do not show how much they vary
    assert anytime_interval([0.3 - 0.2, 0.2 - 0.1] * 5) == unbounded


def test_the_interval_is_empty_when_differences_drift() -> None:
    assert anytime_interval([0.0, 0.01] * 5 + [1.0, 1.01] * 5) is None
    assert not anytime_equivalent([0.0, 0.01] * 5 + [1.0, 1.01] * 5, 2.0)


def test_the_interval_is_wider_than_that_of_a_fixed_n() -> None:
    widths = []
    for d in np.random.default_rng(3).normal(size=(200, 20)):
        low, high = anytime_interval(d) or (math.nan, math.nan)
        widths.append(high - low)
    assert np.mean(widths) == pytest.approx(1.35, abs=0.1)  # the t interval: 0.94


@given(st.integers(0, 1000), st.floats(0.2, 2.0))
def test_equivalent_means_the_interval_lies_inside_the_margin(seed: int, margin: float) -> None:
    d = np.random.default_rng(seed).normal(0.1, 0.5, 16)
    interval = anytime_interval(d)
    inside = interval is not None and -margin < interval[0] and interval[1] < margin
    assert anytime_equivalent(d, margin) == inside


def test_bayes_factor_by_formula() -> None:
    d = np.random.default_rng(0).normal(0.5, 1.0, 12)
    log_bf = log_bayes_process(d, g=2.0)
    assert log_bf[0] == pytest.approx(0)
    for n in range(2, 13):
        t, v, m = stats.ttest_1samp(d[:n], 0.0).statistic, n - 1, 1 + 2.0 * n
        bf = m**-0.5 * ((1 + t**2 / v) / (1 + t**2 / (v * m))) ** ((v + 1) / 2)
        assert log_bf[n - 1] == pytest.approx(math.log(bf))
    assert log_bayes_process([0.0, 0.0]) == pytest.approx([-0.5 * math.log(2), -0.5 * math.log(3)])
    assert log_bayes_process([0.1] * 4) == pytest.approx([0.5 * (n - 1) * math.log1p(n) for n in range(1, 5)])


def test_bayes_factor_is_a_fair_bet_on_normal_differences_only() -> None:
    rng = np.random.default_rng(0)
    for draws, fair in ((rng.normal(size=(R, 50)), True), (rng.exponential(size=(R, 50)) - 1, False)):
        ever = (log_bayes_process(draws).max(axis=1) >= math.log(20)).mean()
        assert (ever <= 0.05) == fair


@pytest.mark.parametrize("d", [[], [1.0, math.nan], 3.0])
def test_bad_differences_are_refused(d: list[float]) -> None:
    with pytest.raises(ValueError, match="race: expected finite differences"):
        log_e_process(d)
