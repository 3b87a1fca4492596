import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from experiments.statistics.checkpoints import CAVEAT, compare_checkpoints

Array = NDArray[np.float64]

pairs = st.tuples(st.integers(2, 9), st.integers(1, 4)).flatmap(
    lambda shape: st.tuples(*[arrays(np.float64, shape, elements=st.integers(0, 1).map(float))] * 2)
)


def column(*correct: int) -> Array:
    return np.array(correct, dtype=float)[:, None]


def test_one_sample_by_hand() -> None:
    a, b = column(1, 1, 1, 0, 1), column(0, 0, 1, 0, 0)
    c = compare_checkpoints(a, b, names=("new", "old"))
    assert (c.higher_a, c.higher_b) == (3, 0)
    assert c.p_mcnemar == 2 / 8
    # differences 1, 1, 0, 0, 1: mean 0.6, variance 0.3, t = √6 on 4 df
    assert c.mean_difference == pytest.approx(0.6)
    assert c.p_t == pytest.approx(2 * stats.t.sf(6**0.5, 4))
    assert c.interval == pytest.approx((0.6 - 2.776445 * 0.06**0.5, 0.6 + 2.776445 * 0.06**0.5), abs=1e-6)
    assert "new vs old: mean 0.8 vs 0.2 on 5 questions" in c.sentence
    assert "exact McNemar, 3 questions to 0)" in c.sentence


def test_several_samples_favour_by_their_mean() -> None:
    a = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
    b = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0]])
    c = compare_checkpoints(a, b)
    assert (c.questions, c.samples, c.higher_a, c.higher_b) == (4, 3, 1, 1)
    assert c.p_mcnemar == 1
    assert "1 questions to 1 by the mean of 3 samples" in c.sentence


def test_mcnemar_equals_statsmodels() -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    rng = np.random.default_rng(0)
    for _ in range(10):
        a, b = rng.random((40, 1)) < 0.7, rng.random((40, 1)) < 0.5
        counts = [[int((a & b).sum()), int((a & ~b).sum())], [int((~a & b).sum()), int((~a & ~b).sum())]]
        assert compare_checkpoints(a, b).p_mcnemar == pytest.approx(tables.mcnemar(counts, exact=True).pvalue)


@given(pairs)
def test_the_caveat_is_always_in_the_sentence_and_swapping_mirrors(both: tuple[Array, Array]) -> None:
    c, swapped = compare_checkpoints(*both), compare_checkpoints(*both[::-1])
    for result in (c, swapped):
        assert result.sentence.endswith(CAVEAT)
        assert 'never "do the two algorithms differ"' in result.sentence
        assert 0 < result.p_mcnemar <= 1
        assert 0 < result.p_t <= 1
    assert c.p_t == pytest.approx(swapped.p_t)
    assert (c.p_mcnemar, c.higher_a, c.higher_b) == (swapped.p_mcnemar, swapped.higher_b, swapped.higher_a)
    if c.interval is not None:
        assert c.p_t == pytest.approx(stats.ttest_rel(both[0].mean(axis=1), both[1].mean(axis=1)).pvalue)


def test_identical_checkpoints() -> None:
    c = compare_checkpoints(column(1, 0, 1), column(1, 0, 1))
    assert (c.p_t, c.p_mcnemar, c.interval) == (1.0, 1.0, None)
    assert "interval not defined" in c.sentence
    assert c.sentence.endswith(CAVEAT)


def test_p_is_never_zero() -> None:
    assert compare_checkpoints(np.ones((2000, 1)), np.zeros((2000, 1))).p_mcnemar > 0


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a has shape \(3, 1\), b \(4, 1\); evaluate both"):
        compare_checkpoints(np.ones((3, 1)), np.ones((4, 1)))
    with pytest.raises(ValueError, match=r"new has shape \(3,\)"):
        compare_checkpoints([1, 0, 1], column(1, 0, 1), names=("new", "old"))
    with pytest.raises(ValueError, match="b has a score that is not finite at question 1"):
        compare_checkpoints(column(1, 0), [[1.0], [np.nan]])
