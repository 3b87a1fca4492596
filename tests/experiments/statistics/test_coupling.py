import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.statistics.coupling import Coupling, coupling

pairs = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=3, max_size=10)


def test_coupling_by_hand() -> None:
    # x - y = -1, 1, -1, 1 has variance 4/3; x and y have 5/3 each
    c = coupling([1, 2, 3, 4], [2, 1, 4, 3])
    assert c.correlation == pytest.approx(0.6)  # covariance 1, over 5/3
    assert c.variance_paired == pytest.approx(4 / 3 / 4)
    assert c.variance_unpaired == pytest.approx(10 / 3 / 4)
    assert c.ratio == pytest.approx(0.4)  # 1 - 0.6, as both arms have the same variance
    assert c.equivalent_unpaired_seeds == pytest.approx(10)  # 4 / 0.4
    # artanh(0.6) = ln(1.6 / 0.4) / 2 = ln 2, and √(n - 3) = 1: tanh(ln 2 ± 1.96)
    a, b = (math.exp(2 * (math.log(2) + z)) for z in (-1.959964, 1.959964))
    assert c.correlation_interval is not None
    assert c.correlation_interval == pytest.approx(((a - 1) / (a + 1), (b - 1) / (b + 1)), abs=1e-6)
    assert c.correlation_interval[0] < 0  # four seeds do not show that pairing gains anything


def test_unrelated_arms_gain_nothing_and_opposed_arms_lose() -> None:
    unrelated = coupling([0, 0, 1, 1], [0, 1, 0, 1])
    assert unrelated.correlation == pytest.approx(0)
    assert unrelated.equivalent_unpaired_seeds == pytest.approx(4)
    opposed = coupling([0, 1, 2, 3], [3, 2, 1, 0])
    assert opposed.ratio == pytest.approx(2)
    assert opposed.equivalent_unpaired_seeds == pytest.approx(2)
    assert opposed.correlation_interval is None  # at -1 it has no width by the formula, which claims too much


def test_the_claim_holds_in_simulation() -> None:
    """Paired with n seeds and unpaired with the equivalent number, the mean difference is as precise."""
    rng = np.random.default_rng(0)
    covariance = [[1.0, 0.6], [0.6, 2.0]]
    n, equivalent = 6, 6 * 3.0 / (3.0 - 2 * 0.6)  # = 10 runs per arm
    x, y = np.moveaxis(rng.multivariate_normal([0, 0], covariance, (40_000, n)), 2, 0)
    a, b = rng.normal(0, 1, (40_000, 10)), rng.normal(0, math.sqrt(2), (40_000, 10))
    assert equivalent == pytest.approx(10)
    paired, unpaired = (x - y).mean(axis=1).var(), (a.mean(axis=1) - b.mean(axis=1)).var()
    assert paired == pytest.approx(unpaired, rel=0.04)  # six standard errors of √(4 / 40,000)
    many = rng.multivariate_normal([0, 0], covariance, 200_000).T
    assert coupling(*many).ratio == pytest.approx(6 / equivalent, rel=0.02)


def test_interval_for_the_correlation_covers() -> None:
    rng = np.random.default_rng(1)
    draws = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], (2000, 8))
    intervals = [coupling(*draw.T).correlation_interval for draw in draws]
    inside = sum(interval is not None and interval[0] < 0.6 < interval[1] for interval in intervals)
    assert inside / 2000 == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 2000))


def test_what_is_not_defined_is_none() -> None:
    two = coupling([1, 2], [1, 3])
    assert (two.correlation, two.correlation_interval) == (None, None)
    assert two.ratio == pytest.approx(0.2)
    three = coupling([1, 2, 3], [1, 3, 2])
    assert three.correlation == pytest.approx(0.5)
    assert three.correlation_interval is None
    flat = coupling([0.1, 0.1, 0.1, 0.1], [0.0, 0.1, 0.2, 0.3])
    assert flat.correlation is None
    assert flat.ratio == pytest.approx(1)
    both_flat = coupling([0.1, 0.1, 0.1], [0.2, 0.2, 0.2])
    assert both_flat == Coupling(3, None, None, 0.0, 0.0, None, None)
    shifted = coupling([0.1, 0.2, 0.3, 0.4], [0.2, 0.3, 0.4, 0.5])
    assert (shifted.variance_paired, shifted.ratio, shifted.equivalent_unpaired_seeds) == (0.0, 0.0, None)


@given(pairs)
def test_coupling_is_symmetric_and_ignores_shifts(scores: list[tuple[int, int]]) -> None:
    x, y = (np.array(side) / 30 for side in zip(*scores, strict=True))
    c, turned, shifted = coupling(x, y), coupling(y, x), coupling(x + 5, y - 2)
    for other in (turned, shifted):
        assert other.ratio == pytest.approx(c.ratio, abs=1e-9)
        assert other.variance_unpaired == pytest.approx(c.variance_unpaired, abs=1e-9)
        assert other.correlation == pytest.approx(c.correlation, abs=1e-9)
    if c.correlation is not None and c.ratio is not None:
        spread = 2 * math.sqrt(x.var() * y.var()) / (x.var() + y.var())
        assert c.ratio == pytest.approx(1 - c.correlation * spread, abs=1e-9)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="coupling: need at least 2 values, got 1"):
        coupling([1], [1])
    with pytest.raises(ValueError, match="coupling: 3 scores against 2"):
        coupling([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="coupling: value 1 is nan"):
        coupling([1, 2], [1, math.nan])
    with pytest.raises(ValueError, match="level = 1"):
        coupling([1, 2], [1, 2], level=1.0)
