"""How many seeds a decision takes, beside statsmodels, the bench's own power and simulation."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower  # type: ignore[import-untyped]

from experiments.maintenance.benchmarks.decisions import LEAST, decides, ratio_interval, seeds_for
from experiments.statistics import power


@pytest.mark.parametrize("seeds", [3, 5, 12])
@pytest.mark.parametrize("effect", [0.5, 1.5, 4.0])
def test_two_samples_are_those_of_statsmodels(effect: float, seeds: int) -> None:
    """Whose effect is in units of one sample's sd: the difference's is larger by the root of two."""
    expected = TTestIndPower().power(effect * math.sqrt(2), seeds, 0.05)
    assert decides(effect, seeds, paired=False, equivalent=False) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seeds", [3, 5, 12])
@pytest.mark.parametrize("effect", [0.0, 0.5, 1.5])
def test_pairs_are_those_of_the_benchs_own_power(effect: float, seeds: int) -> None:
    assert decides(effect, seeds, paired=True, equivalent=False) == pytest.approx(power(effect, seeds), abs=1e-6)


@pytest.mark.parametrize(("effect", "seeds", "floor"), [(1.5, 5, 0.0), (2.5, 4, 0.9), (1.0, 12, 0.8), (2.5, 3, 1.0)])
def test_both_are_those_of_simulation(effect: float, seeds: int, floor: float) -> None:
    """40,000 studies of S normal differences; four standard errors of a rate are 0.01 at most."""
    d = np.random.default_rng(0).standard_normal((40_000, seeds))
    error = np.maximum(d.std(1, ddof=1), floor) / math.sqrt(seeds)
    found = np.mean(np.abs(d.mean(1) + effect) > stats.t.ppf(0.975, seeds - 1) * error)
    assert decides(effect, seeds, paired=True, equivalent=False, floor=floor) == pytest.approx(found, abs=0.01)
    within = np.mean(np.abs(d.mean(1)) + stats.t.ppf(0.95, seeds - 1) * error < effect)
    assert decides(effect, seeds, paired=True, equivalent=True, floor=floor) == pytest.approx(within, abs=0.01)


@pytest.mark.parametrize("equivalent", [False, True])
@pytest.mark.parametrize("paired", [False, True])
def test_the_fewest_seeds(paired: bool, equivalent: bool) -> None:
    n = math.ceil(seeds_for(0.8, paired=paired, equivalent=equivalent))
    few, enough = (decides(0.8, each, paired=paired, equivalent=equivalent) for each in (n - 1, n))
    assert few < 0.8 <= enough
    assert seeds_for(100, paired=paired, equivalent=equivalent) == LEAST


def test_more_than_there_will_ever_be_are_refused() -> None:
    with pytest.raises(SystemExit, match="more than 5000 seeds"):
        seeds_for(1e-3, paired=True, equivalent=False)


def test_the_interval_by_hand() -> None:
    """The jackknife of a mean is its t interval: 1, 2 and 6 have mean 3, s² = 7 and a standard error of √(7 / 3)."""
    x = np.array([1.0, 2.0, 6.0])
    low, high = ratio_interval(lambda places: float(x[list(places)].mean()), 3)
    half = stats.t.ppf(0.975, 2) * math.sqrt(7 / 3)
    assert (math.log(low), math.log(high)) == pytest.approx((3 - half, 3 + half))


@pytest.mark.parametrize("seeds", [5, 8])
def test_the_interval_of_a_ratio_of_variances_holds_the_truth(seeds: int) -> None:
    """Two readings of the same runs of five arms, paired and not: in 95 % of 1,000 studies, three errors are 0.02."""
    rng, truth = np.random.default_rng(seeds), (0.8**2 + 0.5**2 + 1.5**2) / (0.5**2 + 0.4**2)

    def holds() -> bool:
        run = 0.8 * rng.normal(size=seeds) + 0.5 * rng.normal(size=(5, seeds))
        ours, theirs = run + 0.4 * rng.normal(size=run.shape), run + 1.5 * rng.normal(size=run.shape)

        def log_ratio(places: tuple[int, ...]) -> float:
            a, b = ours[:, places], theirs[:, places]
            spread = b.var(1, ddof=1)
            return math.log((spread[1:].mean() + spread[0]) / (a[1:] - a[0]).var(1, ddof=1).mean())

        low, high = ratio_interval(log_ratio, seeds)
        return low < truth < high

    assert np.mean([holds() for _ in range(1000)]) == pytest.approx(0.95, abs=0.02)
