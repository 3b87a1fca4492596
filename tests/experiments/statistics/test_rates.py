import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments.statistics.rates import binomial_interval, collapse_rate_upper, mcnemar


def test_binomial_interval_has_closed_forms_at_the_ends() -> None:
    assert binomial_interval(0, 5) == pytest.approx((0.0, 1 - 0.025 ** (1 / 5)))
    assert binomial_interval(5, 5) == pytest.approx((0.025 ** (1 / 5), 1.0))
    assert binomial_interval(0, 1) == pytest.approx((0.0, 0.975))
    assert binomial_interval(1, 2) == pytest.approx((1 - math.sqrt(0.975), math.sqrt(0.975)))  # 2p(1-p) + p² >= 0.025


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95]))
def test_binomial_interval_leaves_half_the_error_in_each_tail(counts: tuple[int, int], level: float) -> None:
    k, n = counts

    def tail(rate: float, ks: range) -> float:
        return sum(math.comb(n, j) * rate**j * (1 - rate) ** (n - j) for j in ks)

    low, high = binomial_interval(k, n, level)
    assert 0 <= low <= k / n <= high <= 1
    if k > 0:
        assert tail(low, range(k, n + 1)) == pytest.approx((1 - level) / 2)
    if k < n:
        assert tail(high, range(k + 1)) == pytest.approx((1 - level) / 2)
    assert binomial_interval(n - k, n, level) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("n", "percent"), [(1, 95), (3, 63), (5, 45), (10, 26), (20, 14)])
def test_no_collapse_in_n_runs(n: int, percent: int) -> None:
    upper = collapse_rate_upper(n)
    assert round(100 * upper) == percent
    assert (1 - upper) ** n == pytest.approx(0.05)  # a higher rate would rarely leave n runs unharmed
    assert upper == pytest.approx(binomial_interval(0, n, 0.9)[1])  # one side of the two-sided 90 %


def test_counts_and_levels_out_of_range_are_refused() -> None:
    for k, n in [(-1, 3), (4, 3), (0, 0)]:
        with pytest.raises(ValueError, match=f"binomial_interval: {k} of {n} runs"):
            binomial_interval(k, n)
    with pytest.raises(ValueError, match="level = 1"):
        binomial_interval(1, 3, 1.0)
    with pytest.raises(ValueError, match="n = 0"):
        collapse_rate_upper(0)
    with pytest.raises(ValueError, match="level = 0"):
        collapse_rate_upper(3, 0.0)


def test_mcnemar_counts_the_pairs_of_which_one_has_the_event() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(1, 0) == 1  # one fair coin shows nothing
    assert mcnemar(5, 0) == pytest.approx(2 / 2**5)
    assert mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 2**6)
    assert mcnemar(3, 3) == 1
    assert 0 < mcnemar(0, 5000) < 1e-300
    with pytest.raises(ValueError, match="mcnemar: -1 and 2 pairs"):
        mcnemar(-1, 2)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_binomial_test_of_a_half(one: int, other: int) -> None:
    expected = stats.binomtest(one, one + other).pvalue if one + other else 1.0
    assert mcnemar(one, other) == pytest.approx(expected) == pytest.approx(mcnemar(other, one))
