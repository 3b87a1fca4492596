"""The error rate of a study that was looked at before: by an independent form, by hand where one can, and its words."""

import numpy as np
import pytest
from scipy import stats

from experiments.statistics.grown import STUDIES, Look, error_rate, grown
from experiments.statistics.multiplicity import holm
from experiments.statistics.records import Family
from tests.experiments.statistics.simulations import band


def looks(*sizes: tuple[int, int, float]) -> tuple[Look, ...]:
    return tuple(Look(*each) for each in sizes)


def rate_by_scipy(looks: tuple[Look, ...], family: Family, R: int) -> float:
    """By t tests of scipy's, and Holm study by study; other draws."""
    scores = np.random.default_rng(99).normal(size=(R, max(x.arms for x in looks), max(x.seeds for x in looks)))
    wrong = np.zeros(R, dtype=bool)
    for look in looks:
        rows = scores[:, : look.arms, : look.seeds]
        pairs = [(k, j) for j in range(look.arms) for k in range(j + 1, look.arms) if family == "all" or j == 0]
        p = np.column_stack([stats.ttest_rel(rows[:, k], rows[:, j], axis=1).pvalue for k, j in pairs])
        wrong |= [min(holm(each)) <= look.alpha for each in p]
    return float(wrong.mean())


@pytest.mark.parametrize(
    ("looks", "family"),
    [
        (looks((3, 2, 0.05), (5, 2, 0.05)), "baseline"),
        (looks((3, 2, 0.05), (5, 3, 0.05), (7, 3, 0.01)), "baseline"),
        (looks((4, 3, 0.1), (6, 4, 0.1)), "all"),
    ],
)
def test_the_rate_is_that_of_studies_made_one_by_one(looks: tuple[Look, ...], family: Family) -> None:
    R = 5000
    rate = error_rate(looks, family)
    assert rate_by_scipy(looks, family, R) == pytest.approx(rate, abs=band(rate, R) + band(rate, STUDIES // 5))


@pytest.mark.parametrize("n", [3, 7, 8, 20])
def test_one_look_has_the_rate_it_was_declared_with(n: int) -> None:
    assert error_rate(looks((n, 2, 0.05))) == pytest.approx(0.05, abs=band(0.05, STUDIES))
    assert error_rate(looks((n, 2, 0.05))) == error_rate(looks((n, 2, 0.05), (n, 2, 0.05)))


def test_two_comparisons_at_two_sizeslie_between_the_largest_and_the_sum() -> None:
    """P(A or B) is at least each and at most their sum; looks far apart are nearly independent."""
    for far in (5, 9, 50):
        assert 0.05 < error_rate(looks((3, 2, 0.05), (far, 2, 0.05))) < 0.10
    rates = [error_rate(looks((3, 2, 0.05), (far, 2, 0.05))) for far in (4, 9, 50)]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(1 - 0.95**2, abs=0.005)


def test_the_sentence_says_how_often_and_at_which_levels() -> None:
    one = grown(looks((3, 2, 0.05), (5, 2, 0.05), (9, 2, 0.05)), None, 4, "baseline")
    assert one is not None
    rate = f"{100 * one.error_rate:.1f}"
    assert one.sentence == (
        "Looked at after 3, 5 and 9 seeds, each at 0.05: equal arms are called different at one of these looks in "
        f"{rate} % of such studies. The seeds since the look before are fewer than 3: alone they decide nothing."
    )
    assert 11.5 < float(rate) < 12.2  # 0.119 by 200,000 studies of scipy's t tests
    other = grown(looks((3, 2, 0.05), (3, 3, 0.01)), None, 0, "baseline")
    assert other is not None
    assert other.sentence.startswith("Looked at after 3 seeds of 2 arms, then 3 seeds of 3 arms, at 0.05, then 0.01: ")
    assert other.sentence.endswith(" % of such studies.")


def test_a_look_that_could_claim_nothing_does_not_count() -> None:
    assert grown(looks((2, 2, 0.05), (5, 2, 0.05)), None, 3, "baseline") is None
    assert grown(looks((5, 1, 0.05), (5, 2, 0.05)), None, 0, "baseline") is None
    assert grown(looks((5, 2, 0.05), (5, 2, 0.05)), None, 0, "baseline") is None


@pytest.mark.parametrize("looks", [(), looks((2, 2, 0.05)), looks((5, 1, 0.05))])
def test_sizeswithout_a_rate_are_refused(looks: tuple[Look, ...]) -> None:
    with pytest.raises(ValueError, match="3 seeds and 2 arms"):
        error_rate(looks)
