"""Numbers of a gradient estimator: by hand, and with errors that hold."""

import numpy as np
import pytest

from experiments.lens.measures import BUDGET, Estimate, Moments, Sums, estimates, jackknife_error


def sums(gradients: np.ndarray, true: np.ndarray, blocks: int) -> Sums:
    return Sums.concat([Sums.of(part, true, np.full(len(part), 10.0)) for part in np.array_split(gradients, blocks)])


def test_numbers_by_hand() -> None:
    """E[g] = (2, 1) where the true gradient is (1, 0), with variance 4, from 500 tokens a batch."""
    numbers = Moments(along=2.0, along_square=4.0, square=5.0, power=9.0, tokens=500.0).numbers(0.5)
    assert numbers["scale"] == 2
    assert numbers["factor"] == 1
    assert numbers["cosine"] == pytest.approx(2 / 5**0.5)
    assert numbers["direction_bias_squared"] == 1 / 4
    assert numbers["bias_squared"] == 1 / 4  # (1, 1/2) against (1, 0)
    assert numbers["variance"] == 4 / 4 * 500 / BUDGET
    assert numbers["mse"] == 0.5 + 1 / 4
    assert numbers["snr"] == 5 / 2


def test_squares_are_those_of_different_batches_by_hand() -> None:
    # batches (2, 1) and (0, 3), true (1, 0): the product of the two is 0 * 2 + 1 * 3
    moments = sums(np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([1.0, 0.0]), 1).total().moments()
    assert moments.along == 1
    assert moments.along_square == 0
    assert moments.square == 3
    assert moments.power == (5 + 9) / 2


def test_an_unbiased_estimator_shows_no_bias_whatever_its_noise_and_errors_hold() -> None:
    draw = np.random.default_rng(0)
    true = np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    off: dict[str, list[float]] = {"scale": [], "direction_bias_squared": [], "bias_squared": []}
    for _ in range(200):
        estimated = estimates(sums(true + 3 * draw.normal(size=(200, 6)), true, 50), 1.0)
        off["scale"].append((estimated["scale"].value - 1) / estimated["scale"].error)
        for name in ("direction_bias_squared", "bias_squared"):
            off[name].append(estimated[name].value / estimated[name].error)
    assert 0.85 < np.std(off["scale"]) < 1.15
    for name in ("direction_bias_squared", "bias_squared"):
        assert abs(np.mean(off[name])) < 0.25
        assert 0.4 < np.std(off[name]) < 1.1  # on the safe side
        assert np.mean(np.array(off[name]) > 2) < 0.05


def test_a_biased_estimator_shows_its_bias() -> None:
    draw = np.random.default_rng(1)
    true = np.array([2.0, 0.0, 0.0])
    estimated = estimates(sums(np.array([1.0, 0.5, 0.0]) + 0.5 * draw.normal(size=(1000, 3)), true, 50), 1.0)
    for name, value in (("scale", 0.5), ("direction_bias_squared", 0.25), ("cosine", 0.8**0.5)):
        assert abs(estimated[name].value - value) < 4 * estimated[name].error


def test_an_estimate_that_is_not_finite_is_null_in_json() -> None:
    assert Estimate(float("nan"), float("inf")).to_json() == {"value": None, "error": None}
    assert Estimate(0.5, 0.1).to_json() == {"value": 0.5, "error": 0.1}


def test_there_is_no_error_where_a_block_left_out_leaves_nothing() -> None:
    """Values 1, 2, 3: 2/3 * (1 + 0 + 1) = 4/3; with few batches one may have no signal, or no noise."""
    assert jackknife_error(np.array([1.0, 2.0, 3.0])) == pytest.approx((4 / 3) ** 0.5)
    assert np.isnan(jackknife_error(np.array([1.0, 2.0, np.inf])))
