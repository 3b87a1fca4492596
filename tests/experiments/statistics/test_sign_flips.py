import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments.statistics import max_t, sign_flip_interval, sign_flip_p

accuracies = st.integers(-30, 30).map(lambda k: k / 30)
samples = st.lists(accuracies, min_size=1, max_size=11)


def enumerated_p(d: list[float]) -> float:
    """Share of flips that reach the observed sum, in whole thirtieths and thus without rounding."""
    whole = [round(30 * x) for x in d]
    flips = product((1, -1), repeat=len(d))
    reached = [abs(sum(e * w for e, w in zip(flip, whole, strict=True))) >= abs(sum(whole)) for flip in flips]
    return sum(reached) / len(reached)


def test_sign_flip_p_by_hand() -> None:
    assert sign_flip_p([1, 1, 1, 1, 1]) == 2 / 32
    assert sign_flip_p([1, 2, -1]) == 6 / 8  # only ±(1 - 2 - (-1)) = 0 falls short of 2
    assert sign_flip_p([-1, 2, 4]) == 4 / 8  # |±1 ± 2 ± 4| >= 5 for 5 and 7
    assert sign_flip_p([0, 0, 0]) == 1
    assert sign_flip_p([3]) == 1


@given(samples)
def test_sign_flip_p_equals_enumeration_under_ties(d: list[float]) -> None:
    assert sign_flip_p(d) == enumerated_p(d)


@given(samples)
def test_sign_flip_p_is_a_multiple_of_its_floor(d: list[float]) -> None:
    steps = sign_flip_p(d) / (2 / 2 ** len(d))
    assert steps >= 1
    assert steps == int(steps)


@pytest.mark.parametrize("n", [2, 5, 8, 10])
def test_sign_flip_p_equals_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(5):
        d = rng.normal(0.5, 1.0, n)
        reference = stats.permutation_test(
            (d,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=2**n, vectorized=True
        )
        assert sign_flip_p(d) == pytest.approx(reference.pvalue, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 15, 16, 20])
def test_one_column_of_max_t_is_the_plain_test(n: int) -> None:
    d = np.random.default_rng(n).normal(0.3, 1.0, n)
    assert max_t(d[:, None]) == pytest.approx([sign_flip_p(d)], abs=1e-12)


def test_random_flips_approach_the_exact_p_and_count_the_observed_one() -> None:
    rng = np.random.default_rng(3)
    d = np.append(rng.normal(0.5, 1.0, 20), [0.0, 0.0])  # zeros change the number of seeds, not p
    exact = sign_flip_p(d[:20])
    assert sign_flip_p(d, np.random.default_rng(0)) == pytest.approx(exact, abs=4 * math.sqrt(exact / 99_999))
    assert sign_flip_p(np.ones(60), np.random.default_rng(0)) == 1 / 100_000
    assert max_t(d[:, None], np.random.default_rng(0))[0] == sign_flip_p(d, np.random.default_rng(0))


def test_many_seeds_need_a_generator() -> None:
    with pytest.raises(ValueError, match=r"pass rng=np\.random\.default_rng"):
        sign_flip_p(np.ones(21))


def test_interval_by_hand() -> None:
    # Four seeds, level 1/2: p <= 1/2 needs at most 4 of the 8 flips (up to mirror). Keeping some seeds and turning
    # the rest reaches the statistic for μ between the two means: the lower ends are -inf, 0, 1, 1, 2, 5/3, ...
    d = [0.0, 1.0, 2.0, 9.0]
    ends = [-math.inf]
    for kept in product((True, False), repeat=3):
        left = [x for x, keep in zip(d, (True, *kept), strict=True) if keep]
        right = [x for x in d if x not in left]
        if right:
            ends.append(min(sum(left) / len(left), sum(right) / len(right)))
    assert sign_flip_interval(d, 0.5)[0] == pytest.approx(sorted(ends)[4])


@pytest.mark.parametrize("n", [8, 11])
def test_interval_holds_exactly_the_shifts_that_are_not_rejected(n: int) -> None:
    d = np.random.default_rng(n).normal(0.2, 1.0, n)
    low, high = sign_flip_interval(d, 0.95)
    for shift, inside in [(low + 1e-6, True), (low - 1e-6, False), (high - 1e-6, True), (high + 1e-6, False)]:
        assert (sign_flip_p(d - shift) > 0.05) == inside
    assert low < d.mean() < high


@pytest.mark.parametrize("alpha", [0.05, 0.050005])  # on and between the steps of 1 / 100,000 that p makes
def test_interval_and_test_share_the_random_flips(alpha: float) -> None:
    d = np.random.default_rng(5).normal(0.2, 1.0, 24)
    low, high = sign_flip_interval(d, 1 - alpha, np.random.default_rng(7))
    for shift, inside in [(low + 1e-7, True), (low - 1e-7, False), (high - 1e-7, True), (high + 1e-7, False)]:
        assert (sign_flip_p(d - shift, np.random.default_rng(7)) > alpha) == inside


def test_interval_is_unbounded_when_no_shift_could_be_rejected() -> None:
    assert sign_flip_interval([1, 2, 3, 4, 5], 0.95) == (-math.inf, math.inf)
    assert all(map(math.isfinite, sign_flip_interval([1, 2, 3, 4, 5, 6], 0.95)))
