"""Answers less what chance made of them: by hand, without bias, and with less noise where surprise tells much."""

import numpy as np
import pytest

from experiments.statistics.ability import adjusted


def test_by_hand() -> None:
    """Within the second question the slope is 1 / 2, within the first 1 / 4: each has the other's."""
    right = [[1.0, 0.0], [1.0, 0.0]]
    surprise = [[1.0, -3.0], [1.0, -1.0]]
    assert adjusted(right, surprise).tolist() == [[1 - 0.5, 0 + 1.5], [1 - 0.25, 0 + 0.25]]
    assert adjusted(right, np.zeros((2, 2))).tolist() == right
    for shapes in (((2, 2), (2, 3)), ((1, 2), (1, 2)), ((2, 1), (2, 1))):
        with pytest.raises(ValueError, match="answers of shape"):
            adjusted(*(np.zeros(shape) for shape in shapes))


def test_it_has_no_bias_and_less_noise() -> None:
    """A token is right with p, then surprise is log p + H or log (1 - p) + H: nearly all that chance does."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0.6, 0.99, 64)
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    raw, less = [], []
    for _ in range(4000):
        right = rng.random((64, 2)) < p[:, None]
        surprise = np.where(right, np.log(p)[:, None], np.log(1 - p)[:, None]) + entropy[:, None]
        raw.append(right.mean() - p.mean())
        less.append(adjusted(right, surprise).mean() - p.mean())
    for errors in (raw, less):
        assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(4000)
    assert np.std(less) < 0.6 * np.std(raw)
