import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from experiments.statistics.answers import noise
from experiments.statistics.paired import paired_t
from experiments.statistics.two_level import crossed_t, variance_components
from tests.experiments.statistics.simulations import Evaluation, band, two_level_rates

Array = NDArray[np.float64]

R = 1000
CELLS = np.array([[1.0, 2.0], [3.0, 6.0]])  # MS of seeds 9, of questions 4, residual 1

tables = arrays(np.float64, st.tuples(st.integers(2, 5), st.integers(2, 6)), elements=st.integers(-8, 8).map(float))


def two_samples(cells: Array, gap: float) -> tuple[Array, Array]:
    """Scores [S, Q, 2] of two arms whose mean differences are `cells`; only the first varies between samples."""
    x = np.stack([cells + gap / 2, cells - gap / 2], axis=2)
    return x, np.zeros_like(x)


def test_crossed_t_by_hand() -> None:
    result = crossed_t(CELLS)
    assert result.mean == 3
    assert result.standard_error == pytest.approx(math.sqrt(3))  # (9 + 4 - 1) / 4
    assert result.df == pytest.approx(144 / (81 + 16 + 1))
    assert result.p == pytest.approx(2 * stats.t.sf(math.sqrt(3), 144 / 98))
    half = stats.t.ppf(0.975, 144 / 98) * math.sqrt(3)
    assert result.interval == pytest.approx((3 - half, 3 + half))
    assert not result.seeds_only


def test_variance_components_by_hand() -> None:
    components = variance_components(*two_samples(CELLS, gap=1.0))  # within a cell: variance 1/2, over 2 samples
    assert components.seed == pytest.approx((9 - 1) / 4)
    assert components.question == pytest.approx((4 - 1) / 4)
    assert components.seed_question == pytest.approx((1 - 0.25) / 4)
    assert components.sampling == pytest.approx(0.25 / 4)
    assert components.truncated == ()
    assert components.total == pytest.approx(3)
    assert components.standard_error == pytest.approx(crossed_t(CELLS).standard_error)
    assert components.sampling_share == pytest.approx(0.0625 / 3)
    doubled = components.doubling()
    assert {before for before, _ in doubled.values()} == {components.standard_error}
    after = {what: after**2 for what, (_, after) in doubled.items()}
    assert after == pytest.approx(
        {
            "seeds": 2 / 2 + 0.75 + 0.25 / 2,
            "questions": 2 + 0.75 / 2 + 0.25 / 2,
            "samples": 2 + 0.75 + 0.1875 + 0.0625 / 2,
        }
    )


def test_sampling_noise_is_that_of_coins() -> None:
    """Two arms, K = 4, all cells alike: the differences of a cell are 0, 1, 0, 0, so v = 3/16 · 4/3."""
    x = np.broadcast_to([1.0, 1.0, 1.0, 0.0], (2, 3, 4))
    y = np.broadcast_to([1.0, 0.0, 1.0, 0.0], (2, 3, 4))
    components = variance_components(x, y)
    assert components.sampling == pytest.approx(3 / 16 * 4 / 3 / (2 * 3 * 4))
    assert components.seed == components.question == components.seed_question == 0
    assert components.truncated == ("seed", "question", "seed_question")  # a flat table
    assert components.sampling_share == 1


def test_identical_scores_have_no_variance() -> None:
    components = variance_components(np.ones((2, 2, 2)), np.ones((2, 2, 2)))
    assert components.total == components.sampling_share == 0
    assert components.doubling()["seeds"] == (0, 0)


def test_components_are_unbiased() -> None:
    rng = np.random.default_rng(0)
    S, Q, K = 5, 8, 3
    estimates = []
    for _ in range(400):
        d = 2.0 * rng.normal(size=(S, 1, 1)) + 1.5 * rng.normal(size=(1, Q, 1)) + 1.0 * rng.normal(size=(S, Q, 1))
        x, y = d + rng.normal(size=(S, Q, K)), rng.normal(size=(S, Q, K))
        c = variance_components(x, y)
        estimates.append((c.seed * S, c.question * Q, c.seed_question * S * Q, c.sampling * S * Q * K))
    mean, error = np.mean(estimates, axis=0), np.std(estimates, axis=0) / math.sqrt(len(estimates))
    assert (np.abs(mean - [4, 2.25, 1, 2]) < 3 * error).all()
    assert (error < 0.2).all()


@given(tables)
def test_the_paired_t_over_seeds_stands_in_when_questions_vary_less_than_the_residual(cells: Array) -> None:
    result = crossed_t(cells)
    seeds = cells.mean(axis=1)
    lower = seeds.std(ddof=1) / math.sqrt(len(seeds))
    assert result.standard_error >= lower * (1 - 1e-9) or result.interval is None
    if result.seeds_only:
        p, interval = paired_t(seeds, least_error=math.sqrt(noise(cells) / cells.size))
        if interval is None and result.interval is not None:  # seeds that agree to the last digit
            return
        assert result.p == pytest.approx(p)
        assert (result.interval is None) == (interval is None)
        if interval is not None:
            assert result.interval == pytest.approx(interval, abs=1e-9)
            assert result.df == len(seeds) - 1


@given(tables, st.randoms(use_true_random=False))
def test_order_sign_and_unit_do_not_matter(cells: Array, random: "np.random.RandomState") -> None:
    rng = np.random.default_rng(int(1e6 * random.random()))
    shuffled = cells[rng.permutation(cells.shape[0])][:, rng.permutation(cells.shape[1])]
    result, other = crossed_t(cells), crossed_t(-4.0 * shuffled)
    assert other.mean == pytest.approx(-4 * result.mean)
    assert other.standard_error == pytest.approx(4 * result.standard_error, abs=1e-9)
    if result.interval is not None and not result.seeds_only and not other.seeds_only:
        assert other.p == pytest.approx(result.p, rel=1e-6)


def test_families_take_the_place_of_questions() -> None:
    cells = np.array([[1.0, 4.0, 2.0, 0.0], [2.0, 7.0, 6.0, 1.0], [0.0, 3.0, 5.0, 5.0]])
    by_family = np.column_stack([cells[:, [0, 2]].mean(axis=1), cells[:, 1], cells[:, 3]])
    assert crossed_t(cells, families=["add", "sort", "add", "spell"]) == crossed_t(by_family)
    assert crossed_t(cells, families=[1, 2, 3, 4]) == crossed_t(cells)


@pytest.mark.parametrize("cells", [np.zeros((3, 4)), np.full((3, 4), 0.1)])
def test_differences_without_spread_carry_no_evidence(cells: Array) -> None:
    result = crossed_t(cells)
    assert (result.p, result.interval, result.df) == (1.0, None, None)


def test_bad_input_is_refused() -> None:
    good = np.ones((2, 3, 2))
    with pytest.raises(ValueError, match=r"shapes \(2, 3, 2\) and \(2, 4, 2\) differ"):
        variance_components(good, np.ones((2, 4, 2)))
    with pytest.raises(ValueError, match="use crossed_t"):
        variance_components(np.ones((2, 3, 1)), np.ones((2, 3, 1)))
    with pytest.raises(ValueError, match="at least 2 seeds and 2 questions"):
        crossed_t(np.ones((1, 3)))
    with pytest.raises(ValueError, match="averaged by family: shape"):
        crossed_t(np.ones((2, 3)), families=["a", "a", "a"])
    with pytest.raises(ValueError, match="2 families for 3 questions"):
        crossed_t(np.ones((2, 3)), families=["a", "b"])
    with pytest.raises(ValueError, match="2 axes"):
        crossed_t(np.ones((2, 3, 2, 2)))
    with pytest.raises(ValueError, match=r"the score at \(1, 0\) is nan"):
        crossed_t([[1.0, 2.0], [math.nan, 3.0]])
    with pytest.raises(ValueError, match="level = 1"):
        crossed_t(CELLS, level=1.0)


@pytest.mark.slow
def test_false_positives_on_fixed_questions() -> None:
    seeds, crossed, one_seed = two_level_rates(Evaluation(S=5, Q=500), R)
    assert seeds == pytest.approx(0.05, abs=band(0.05, R))
    assert crossed <= 0.065 + band(0.065, R)
    assert one_seed == pytest.approx(0.55, abs=0.1)  # what compare_checkpoints warns of


@pytest.mark.slow
@pytest.mark.parametrize(
    ("evaluation", "over_seeds"),
    [(Evaluation(5, 100, variant_question=0.7), 0.08), (Evaluation(10, 30, 8, variant_question=0.7), 0.25)],
)
def test_false_positives_on_a_population_of_questions(evaluation: Evaluation, over_seeds: float) -> None:
    seeds, crossed, _ = two_level_rates(evaluation, R)
    assert crossed <= 0.07
    assert seeds == pytest.approx(over_seeds, abs=band(over_seeds, R))  # the other claim, so the wrong test
