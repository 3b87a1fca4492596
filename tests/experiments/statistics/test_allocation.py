"""Seeds and samples: figures by hand, against every other allocation, and what simulated studies do."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from experiments.statistics.allocation import Allocation, Cost, Halving, NoiseModel, cheapest, optimal_samples
from experiments.statistics.two_level import VarianceComponents, variance_components

NOISE = NoiseModel(between=1.0, within=4.0)
COST = Cost(run=9.0, sample=1.0)


def test_noise_by_hand() -> None:
    """Two seeds, three samples: terms 0.1, 0.05 and 0.2 of Var(mean d) are 0.3 between and 1.2 within at one seed."""
    components = VarianceComponents(0.1, 0.07, 0.05, 0.2, ())
    noise = NoiseModel.of(components, 2, 3)
    assert (noise.between, noise.within, noise.fixed) == pytest.approx((0.3, 1.2, 0.07))
    assert noise.half_width(2, 3) == pytest.approx(stats.t.ppf(0.975, 1) * components.standard_error)
    assert noise.sd(3) == pytest.approx(math.sqrt(0.7))
    mean = NoiseModel.mean([noise, NoiseModel(0.1, 0.2)])
    assert (mean.between, mean.within, mean.fixed) == pytest.approx((0.2, 0.7, 0.035))


def test_the_best_number_of_samples_by_hand() -> None:
    assert optimal_samples(NOISE, COST) == 6.0  # √(4 · 9): (1 + 4/6) (9 + 6) = 25
    products = {K: (1 + 4 / K) * (9 + K) for K in range(1, 50)}
    assert min(products, key=lambda K: products[K]) == 6
    assert optimal_samples(NoiseModel(0.0, 4.0), COST) == 9.0, "samples cost no more than runs"
    assert optimal_samples(NoiseModel(1.0, 0.0), COST) == 0.0


def test_samples_for_a_width_by_hand() -> None:
    """At five seeds t = 2.776; 5 (w / t)² - 1 = 1 takes within / 1 = 4 samples."""
    width = 2.7764451051977987 * math.sqrt(2 / 5)
    assert NOISE.samples_for(width, 5) == pytest.approx(4.0)
    assert NOISE.half_width(5, 4) == pytest.approx(width)
    assert NOISE.samples_for(width / 2, 5) == math.inf
    assert NOISE.seeds_for(width, 4) == 5
    assert NOISE.seeds_for(width / 2, 4) == 13  # t falls to 2.179: 2.179 √(2/13) = .855 and 2.201 √(2/12) = .899
    assert NoiseModel(1.0, 4.0, fixed=1.0).seeds_for(1.9, 4) is None


@given(
    st.floats(0.0, 4.0), st.floats(0.01, 20.0), st.floats(0.5, 30.0), st.floats(0.5, 3.0), st.integers(1, 4), st.data()
)
def test_nothing_is_cheaper(between: float, within: float, run: float, width: float, multiple: int, data: Any) -> None:
    noise, cost = NoiseModel(between, within), Cost(run, 1.0)
    seeds, samples = data.draw(st.integers(3, 8)), data.draw(st.integers(1, 6))
    best = cheapest(noise, cost, width, seeds=seeds, samples=samples, multiple=multiple)
    assert best is not None
    assert noise.half_width(best.seeds, best.samples) <= width * (1 + 1e-9)
    assert best.seeds >= seeds
    assert best.samples >= samples
    assert best.samples % multiple == 0
    spent = cost.total(best.seeds, best.samples)
    for S in range(seeds, 60):
        for K in range(multiple * -(-samples // multiple), 200, multiple):
            if cost.total(S, K) < spent * (1 - 1e-9):
                assert noise.half_width(S, K) > width * (1 - 1e-9)


def test_halving_by_hand() -> None:
    """Now √(1 + 4/2) at five seeds."""
    found = Halving(NOISE, COST, Allocation(5, 2), 0.95, multiple=1)
    assert found.half_width == pytest.approx(2.7764451 * math.sqrt(3 / 5) / 2)
    assert found.seeds_alone == Allocation(13, 2)
    assert found.more(Allocation(13, 2)) == pytest.approx(8 / 5)
    best = found.cheapest
    assert best is not None
    width = found.noise.half_width(best.seeds, best.samples)
    assert width <= found.half_width
    assert 0 < found.more(best) < 8 / 5
    alike = Halving(NoiseModel(0.01, 4.0), Cost(100.0, 0.5), Allocation(5, 2), 0.95, multiple=3)
    assert alike.cheapest == Allocation(5, 9), "samples alone do"
    claim = Halving(NoiseModel(1.0, 4.0, fixed=9.0), COST, Allocation(5, 2), 0.95, multiple=1)
    assert claim.cheapest is None
    assert claim.seeds_alone is None


def test_runs_that_cost_nothing_are_refused() -> None:
    for run, sample in ((0.0, 1.0), (1.0, 0.0), (1.0, math.nan)):
        with pytest.raises(ValueError, match="must lie strictly between"):
            Cost(run, sample)


def answers(rng: np.random.Generator, S: int, K: int, Q: int = 40) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two arms [S, Q, K] whose differences vary by seed (sd .2), by seed and question (.5) and by sample (.6 √2)."""
    cells = rng.normal(0, 0.2, (S, 1)) + rng.normal(0, 0.5, (S, Q)) + rng.normal(0, 1.0, Q)
    x, y = (rng.normal(0, 0.6, (S, Q, K)) for _ in range(2))
    return cells[..., None] + x, y


def mean_differences(rng: np.random.Generator, R: int, S: int, K: int, Q: int = 40) -> NDArray[np.float64]:
    """Of R such studies of the same questions."""
    cells = rng.normal(0, 0.2, (R, S, 1)) + rng.normal(0, 0.5, (R, S, Q))
    sampled = rng.normal(0, 0.6 * math.sqrt(2 / K), (R, S, Q))  # the mean of K samples of two arms
    return np.asarray((cells + sampled).mean(axis=(1, 2)))


TRUE = NoiseModel(between=0.2**2 + 0.5**2 / 40, within=2 * 0.6**2 / 40)


def test_simulated_studies_vary_as_it_says() -> None:
    """The mean difference has the sd √((between + within / K) / S), whatever S and K: 4,000 studies each."""
    rng = np.random.default_rng(0)
    for S, K in ((3, 1), (5, 2), (5, 12)):
        means = mean_differences(rng, 4000, S, K)
        assert means.std() == pytest.approx(TRUE.sd(K) / math.sqrt(S), rel=0.04)


def test_what_a_small_study_shows_tells_what_a_large_one_will_do() -> None:
    """Noise found with five seeds and two samples, over 400 studies, is the true noise; so is the width foretold."""
    rng = np.random.default_rng(1)
    found = NoiseModel.mean(
        [NoiseModel.of(variance_components(*answers(rng, 5, 2)).on_these_questions, 5, 2) for _ in range(400)]
    )
    assert found.within == pytest.approx(TRUE.within, rel=0.02)
    assert found.between == pytest.approx(TRUE.between, rel=0.12)
    widths = []
    for _ in range(400):
        components = variance_components(*answers(rng, 6, 16)).on_these_questions
        widths.append(stats.t.ppf(0.975, 5) ** 2 * components.total)
    assert math.sqrt(np.mean(widths)) == pytest.approx(found.half_width(6, 16), rel=0.06)


def test_the_best_share_gives_the_smallest_interval_for_the_time() -> None:
    """Runs of 10 s and samples of .1 s: 1,000 s spent at the best K, and at others, on simulated studies."""
    rng, cost = np.random.default_rng(2), Cost(10.0, 0.1)
    best = optimal_samples(TRUE, cost)
    assert best == pytest.approx(math.sqrt(TRUE.within / TRUE.between * 100))
    spread = {}
    for K in (1, round(best), 100):
        S = round(1000 / (cost.run + K * cost.sample))
        spread[K] = mean_differences(rng, 3000, S, K).var()
    assert min(spread, key=lambda K: spread[K]) == round(best)
