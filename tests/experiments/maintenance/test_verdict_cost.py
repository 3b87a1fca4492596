"""How many seeds a decision takes, beside statsmodels and simulation."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower  # type: ignore[import-untyped]

from experiments.maintenance.benchmarks.verdict_cost import (
    POINTS,
    equivalence_power,
    sd_of_difference,
    seeds_for,
    t_power,
)


@pytest.mark.parametrize("seeds", [3, 5, 12])
@pytest.mark.parametrize("effect", [0.5, 1.5, 4.0])
def test_two_samples_are_those_of_statsmodels(effect: float, seeds: int) -> None:
    """Whose effect is in units of one sample's sd: the difference's is larger by the root of two."""
    expected = TTestIndPower().power(effect * math.sqrt(2), seeds, 0.05)
    assert t_power(effect, seeds, paired=False) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("margin", "seeds"), [(1.5, 5), (2.5, 4), (1.0, 12)])
def test_equivalence_is_that_of_simulation(margin: float, seeds: int) -> None:
    """20,000 studies of S standard normal differences; three standard errors of that are 0.011."""
    d = np.random.default_rng(0).standard_normal((20_000, seeds))
    half = stats.t.ppf(0.95, seeds - 1) * d.std(1, ddof=1) / math.sqrt(seeds)
    share = np.mean(np.abs(d.mean(1)) + half < margin)
    assert equivalence_power(margin, seeds, paired=True) == pytest.approx(share, abs=0.011)


def test_the_fewest_seeds() -> None:
    for paired in (True, False):
        n = seeds_for(0.01, paired=paired, equivalent=False)
        assert t_power(POINTS / 0.01, n, paired=paired) >= 0.8 > t_power(POINTS / 0.01, n - 1, paired=paired)
    assert seeds_for(0.01, paired=False, equivalent=False) <= seeds_for(0.01, paired=True, equivalent=False)


def test_the_sd_by_hand() -> None:
    """Differences 1, 1, 4 have variance 3; apart, the arms have variances 7/3 and 31/3."""
    scores = {"base": np.array([0.0, 1.0, 3.0]), "mine": np.array([1.0, 2.0, 7.0])}
    assert sd_of_difference(scores, "base", paired=True) == pytest.approx(math.sqrt(3))
    variances = (7 / 3, 31 / 3)
    assert sd_of_difference(scores, "base", paired=False) == pytest.approx(math.sqrt(sum(variances)))
