"""The package against scipy, statsmodels and rliable, wherever they compute the same thing.

statsmodels and rliable are used where installed. Of rliable only `rliable.metrics` is taken: it needs nothing but
numpy and scipy, while `rliable.library` needs a package that does not import with recent pandas.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, stats

from experiments.statistics import (
    holm,
    interquartile_mean,
    max_t,
    minimum_detectable_effect,
    power,
    probability_of_improvement,
    seeds_needed,
    sign_flip_p,
    tost,
    wilcoxon_exact,
    win_rate,
)
from experiments.statistics.bootstrap import iqm_intervals, percentile_interval
from experiments.statistics.budgets import value_at
from experiments.statistics.coupling import coupling
from experiments.statistics.multiplicity import benjamini_hochberg
from experiments.statistics.ranks import mean_ranks
from experiments.statistics.rates import binomial_interval, collapse_rate_upper
from experiments.statistics.scalars import auc, drawdown, final

CLOSE = 1e-9
SEEDS = range(20)

Array = NDArray[np.float64]

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)
scores = st.lists(st.integers(0, 30).map(lambda k: k / 30), min_size=1, max_size=9)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def multitest() -> Any:
    return pytest.importorskip("statsmodels.stats.multitest")


@pytest.fixture(scope="module")
def weightstats() -> Any:
    return pytest.importorskip("statsmodels.stats.weightstats")


@pytest.fixture(scope="module")
def paired_power() -> Any:
    return pytest.importorskip("statsmodels.stats.power").TTestPower()


@pytest.fixture(scope="module")
def proportion() -> Any:
    return pytest.importorskip("statsmodels.stats.proportion")


@pytest.fixture(scope="module")
def metrics() -> Any:
    return pytest.importorskip("rliable.metrics")


# scalars and budgets


@pytest.mark.parametrize("seed", SEEDS)
def test_curves(seed: int) -> None:
    g = rng(seed)
    budget = np.append(0.0, np.cumsum(g.uniform(1, 100, 30)))
    values = np.append(0.1, np.cumsum(g.normal(0.01, 0.1, 30)))
    curve = budget.tolist(), values.tolist()
    end = float(budget[-1])
    assert auc(*curve, end) == pytest.approx(integrate.trapezoid(values, budget) / end, rel=CLOSE)
    at = float(g.uniform(0, end))
    assert value_at(*curve, at) == pytest.approx(np.interp(at, budget, values), abs=CLOSE)
    area, _ = integrate.quad(lambda b: np.interp(b, budget, values), 0, at, points=budget[budget < at], limit=200)
    assert auc(*curve, at) == pytest.approx(area / at, abs=CLOSE)
    assert final(*curve, end) == pytest.approx(values[-4:].mean(), abs=CLOSE)  # a tenth of 31, rounded up
    falls = np.triu(values[:, None] - values[None, :])
    assert drawdown(*curve, end) == pytest.approx(falls.max(), abs=CLOSE)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=25))
def test_interquartile_mean(x: list[float]) -> None:
    assert interquartile_mean(x) == pytest.approx(stats.trim_mean(x, 0.25), rel=CLOSE, abs=CLOSE)


@given(scores)
def test_interquartile_mean_of_rliable(metrics: Any, x: list[float]) -> None:
    assert interquartile_mean(x) == pytest.approx(metrics.aggregate_iqm(np.array(x)[:, None]), abs=CLOSE)


# bootstrap: scipy draws the same seeds from an equal generator


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("n", [2, 5, 12])
def test_percentile_interval(n: int, level: float) -> None:
    d = rng(n).normal(size=n)
    reference = stats.bootstrap(
        (d,), np.mean, n_resamples=999, confidence_level=level, method="percentile", rng=rng(1)
    ).confidence_interval
    assert percentile_interval(d, level, 999, rng=rng(1)) == pytest.approx(tuple(reference), abs=CLOSE)


@pytest.mark.parametrize("n", [5, 8, 21])
def test_interquartile_mean_interval(n: int) -> None:
    table = {"a": rng(n).normal(size=n), "b": rng(n + 1).exponential(size=n)}
    intervals = iqm_intervals(table, 0.9, 999, rng=rng(1))

    def trimmed(x: Array, axis: int) -> Array:
        return np.asarray(stats.trim_mean(x, 0.25, axis=axis))

    for arm, x in table.items():
        reference = stats.bootstrap(
            (x,), trimmed, n_resamples=999, confidence_level=0.9, method="percentile", rng=rng(1)
        ).confidence_interval
        assert intervals[arm].interval == pytest.approx(tuple(reference), abs=CLOSE)


# tests on paired differences


@pytest.mark.parametrize("seed", SEEDS)
def test_tost(weightstats: Any, seed: int) -> None:
    x, y = rng(seed).normal(0, 1, (2, 3 + seed))
    for margin in (0.1, 0.7, 3.0):
        reference = weightstats.ttost_paired(x, y, -margin, margin)[0]
        assert tost(x - y, margin) == pytest.approx(reference, abs=CLOSE)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-4, 4), min_size=2, max_size=8).filter(any))
def test_wilcoxon_with_ties_and_zeros(d: list[int]) -> None:
    nonzero = [x for x in d if x]
    exact = stats.PermutationMethod(n_resamples=2 ** len(nonzero))
    if len(nonzero) > 1:
        assert wilcoxon_exact(d) == pytest.approx(stats.wilcoxon(nonzero, method=exact).pvalue, abs=CLOSE)


@pytest.mark.parametrize("n", [3, 6, 9])
def test_sign_flips(n: int) -> None:
    d = np.round(rng(n).normal(0.5, 1.0, n), 1)  # with ties
    reference = stats.permutation_test((d,), np.sum, permutation_type="samples", n_resamples=2**n)
    assert sign_flip_p(d) == pytest.approx(reference.pvalue, abs=CLOSE)


@pytest.mark.parametrize("n", [4, 7, 9])
def test_max_t_of_the_leading_comparison(n: int) -> None:
    """Flipping the signs of the seeds' numbers 1..n gives scipy the joint flips; T of the leader is the largest."""
    d = rng(n).normal(0.4, 1.0, (n, 3))
    unit = d / np.sqrt((d**2).sum(axis=0))

    def largest(flipped: Array) -> float:
        return float(np.abs(np.sign(flipped) @ unit).max())

    reference = stats.permutation_test(
        (np.arange(1.0, n + 1),), largest, permutation_type="samples", n_resamples=2**n, alternative="greater"
    )
    assert max_t(d).min() == pytest.approx(reference.pvalue, abs=CLOSE)


# effects and coupling


@given(scores, scores)
def test_probability_of_improvement(metrics: Any, x: list[float], y: list[float]) -> None:
    probability = probability_of_improvement(x, y)
    u = stats.mannwhitneyu(x, y, method="asymptotic").statistic
    assert probability == pytest.approx(u / (len(x) * len(y)), abs=CLOSE)
    assert probability == pytest.approx(
        metrics.probability_of_improvement(np.array(x)[:, None], np.array(y)[:, None]), abs=CLOSE
    )


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=9))
def test_win_rate_is_the_probability_of_improvement_over_seeds_as_tasks(
    metrics: Any, pairs: list[tuple[int, int]]
) -> None:
    x, y = np.array(pairs, dtype=np.float64).T
    assert win_rate(x - y) == pytest.approx(metrics.probability_of_improvement(x[None], y[None]), abs=CLOSE)


@pytest.mark.parametrize("seed", SEEDS)
def test_coupling(seed: int) -> None:
    n = 4 + seed
    shared = rng(seed).normal(size=n)
    x, y = shared + rng(seed + 100).normal(0.2, 1.0, (2, n))
    c = coupling(x, y, level=0.9)
    correlation = stats.pearsonr(x, y)
    assert c.correlation == pytest.approx(correlation.statistic, abs=CLOSE)
    assert c.correlation_interval == pytest.approx(tuple(correlation.confidence_interval(0.9)), abs=CLOSE)
    gap = x.mean() - y.mean()
    assert c.variance_paired == pytest.approx((gap / stats.ttest_rel(x, y).statistic) ** 2, rel=CLOSE)
    assert c.variance_unpaired == pytest.approx((gap / stats.ttest_ind(x, y).statistic) ** 2, rel=CLOSE)


# power


@pytest.mark.parametrize("n", [3, 5, 8, 20])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 7])
def test_power(paired_power: Any, n: int, alpha: float) -> None:
    for d_z in (0.3, 1.0, 1.8):
        assert power(d_z, n, alpha) == pytest.approx(paired_power.power(d_z, n, alpha), abs=CLOSE)
    detectable = minimum_detectable_effect(n, alpha)
    # where the lower tail is far below 1e-9 statsmodels returns nan: the upper tail is then all there is
    tails = paired_power.power(detectable, n, alpha), paired_power.power(detectable, n, alpha / 2, alternative="larger")
    assert np.fmax(*tails) == pytest.approx(0.8, abs=CLOSE)


@pytest.mark.parametrize("d_z", [0.4, 0.8, 1.3, 2.5])
def test_seeds_needed(paired_power: Any, d_z: float) -> None:
    n = paired_power.solve_power(effect_size=d_z, alpha=0.05, power=0.8)
    assert seeds_needed(d_z, 0.05) == np.ceil(n)


# multiplicity and exploratory tables


@pytest.mark.parametrize("p", [[0.02], [0.0, 1.0, 0.5], [0.04, 0.01, 0.04, 0.3, 0.012], [0.02] * 7])
def test_holm(multitest: Any, p: list[float]) -> None:
    """Few cases: statsmodels collects garbage in every call, which takes a quarter of a second."""
    assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1], abs=CLOSE)


@given(p_values)
def test_benjamini_hochberg(multitest: Any, p: list[float]) -> None:
    q = benjamini_hochberg(p)
    assert q == pytest.approx(stats.false_discovery_control(p), abs=CLOSE)
    assert q == pytest.approx(multitest.multipletests(p, method="fdr_bh")[1], abs=CLOSE)


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("n", [1, 3, 10, 20])
def test_binomial_interval(proportion: Any, n: int, level: float) -> None:
    for k in range(n + 1):
        interval = binomial_interval(k, n, level)
        reference = stats.binomtest(k, n).proportion_ci(level, method="exact")
        assert interval == pytest.approx((reference.low, reference.high), abs=CLOSE)
        assert interval == pytest.approx(proportion.proportion_confint(k, n, 1 - level, method="beta"), abs=CLOSE)
    one_sided = stats.binomtest(0, n, alternative="less").proportion_ci(level, method="exact").high
    assert collapse_rate_upper(n, level) == pytest.approx(one_sided, abs=CLOSE)


@given(st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4), min_size=1, max_size=6))
def test_mean_ranks(table: list[list[int]]) -> None:
    reference = stats.rankdata(-np.array(table), axis=1).mean(axis=0)
    assert mean_ranks(table) == pytest.approx(reference, abs=CLOSE)
