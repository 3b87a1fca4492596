import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.statistics.exploratory import (
    benjamini_hochberg,
    binomial_interval,
    cliques,
    collapse_rate_upper,
    mean_ranks,
)

chances = st.lists(st.integers(0, 100).map(lambda k: k / 100), max_size=8)


def test_q_by_hand() -> None:
    # sorted .01 .03 .04 .5, times 4/1 4/2 4/3 1: .04 .06 .0533 .5; the second may not exceed the third
    assert benjamini_hochberg([0.04, 0.01, 0.5, 0.03]) == pytest.approx([0.16 / 3, 0.04, 0.5, 0.16 / 3])
    assert benjamini_hochberg([0.2]) == pytest.approx([0.2])
    assert benjamini_hochberg([]).size == 0


@given(chances, st.sampled_from([0.01, 0.05, 0.2]))
def test_q_rejects_what_the_step_up_procedure_rejects(p: list[float], alpha: float) -> None:
    q = benjamini_hochberg(p)
    ordered = sorted(p)
    passing = [x for k, x in enumerate(ordered, 1) if x <= alpha * k / len(p) + 1e-12]
    assert ((q <= alpha + 1e-12) == [x <= max(passing, default=-1.0) for x in p]).all()
    assert (q >= p).all()
    assert (q <= 1).all()


def test_q_refuses_what_is_not_a_p() -> None:
    for bad in ([0.2, 1.2], [0.2, math.nan], [[0.1, 0.2]]):
        with pytest.raises(ValueError, match=r"one p-value in \[0, 1\]"):
            benjamini_hochberg(bad)


def test_binomial_interval_has_closed_forms_at_the_ends() -> None:
    assert binomial_interval(0, 5) == pytest.approx((0.0, 1 - 0.025 ** (1 / 5)))
    assert binomial_interval(5, 5) == pytest.approx((0.025 ** (1 / 5), 1.0))
    assert binomial_interval(0, 1) == pytest.approx((0.0, 0.975))
    assert binomial_interval(1, 2) == pytest.approx((1 - math.sqrt(0.975), math.sqrt(0.975)))  # 2p(1-p) + p² >= 0.025


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95]))
def test_binomial_interval_leaves_half_the_error_in_each_tail(counts: tuple[int, int], level: float) -> None:
    k, n = counts

    def tail(rate: float, ks: range) -> float:
        return sum(math.comb(n, j) * rate**j * (1 - rate) ** (n - j) for j in ks)

    low, high = binomial_interval(k, n, level)
    assert 0 <= low <= k / n <= high <= 1
    if k > 0:
        assert tail(low, range(k, n + 1)) == pytest.approx((1 - level) / 2)
    if k < n:
        assert tail(high, range(k + 1)) == pytest.approx((1 - level) / 2)
    assert binomial_interval(n - k, n, level) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("n", "percent"), [(1, 95), (3, 63), (5, 45), (10, 26), (20, 14)])
def test_no_collapse_in_n_runs(n: int, percent: int) -> None:
    upper = collapse_rate_upper(n)
    assert round(100 * upper) == percent
    assert (1 - upper) ** n == pytest.approx(0.05)  # a higher rate would rarely leave n runs unharmed
    assert upper == pytest.approx(binomial_interval(0, n, 0.9)[1])  # one side of the two-sided 90 %


def test_counts_and_levels_out_of_range_are_refused() -> None:
    for k, n in [(-1, 3), (4, 3), (0, 0)]:
        with pytest.raises(ValueError, match=f"binomial_interval: {k} of {n} runs"):
            binomial_interval(k, n)
    with pytest.raises(ValueError, match="level = 1"):
        binomial_interval(1, 3, 1.0)
    with pytest.raises(ValueError, match="n = 0"):
        collapse_rate_upper(0)
    with pytest.raises(ValueError, match="level = 0"):
        collapse_rate_upper(3, 0.0)


def test_mean_ranks_by_hand() -> None:
    # ranks 1 2 3 and 2.5 1 2.5
    scores = [[0.9, 0.8, 0.1], [0.2, 0.3, 0.2]]
    assert mean_ranks(scores) == pytest.approx([1.75, 1.5, 2.75])
    assert mean_ranks(scores, higher_is_better=False) == pytest.approx([2.25, 2.5, 1.25])
    assert mean_ranks([[0.1 + 0.2, 0.3, 0.0]]) == pytest.approx([1.5, 1.5, 3])  # a tie but for rounding
    assert mean_ranks([[7.0]]) == pytest.approx([1])


@given(st.integers(1, 5).flatmap(lambda v: st.lists(st.lists(st.integers(0, 5), min_size=v, max_size=v), min_size=1)))
def test_ranks_of_a_seed_have_a_fixed_sum(scores: list[list[int]]) -> None:
    ranks = mean_ranks(scores)
    arms = len(scores[0])
    assert ranks.sum() == pytest.approx(arms * (arms + 1) / 2)
    assert mean_ranks(scores, higher_is_better=False) == pytest.approx(arms + 1 - ranks)


def test_mean_ranks_refuse_what_is_not_a_table() -> None:
    for bad in (np.ones(2), np.ones((1, 0)), np.array([[1.0, math.nan]])):
        with pytest.raises(ValueError, match=r"finite scores \[seeds, arms\]"):
            mean_ranks(bad)


def test_cliques_by_hand() -> None:
    ranks = {"c": 3.0, "a": 1.2, "d": 3.6, "b": 2.2}
    assert cliques(ranks, []) == [("a", "b", "c", "d")]
    assert cliques(ranks, [("a", "d")]) == [("a", "b", "c"), ("b", "c", "d")]
    assert cliques(ranks, [("d", "a"), ("c", "a")]) == [("a", "b"), ("b", "c", "d")]
    assert cliques(ranks, [("a", "b"), ("a", "c"), ("a", "d")]) == [("b", "c", "d")]
    assert cliques(ranks, list(combinations("abcd", 2))) == []
    # a and c do not differ, but b between them differs from both: the line has no place for a bar from a to c
    assert cliques({"a": 1, "b": 2, "c": 3}, [("a", "b"), ("b", "c")]) == []
    assert cliques({}, []) == []


@given(st.integers(1, 6), st.integers(0, 2**15 - 1))
def test_cliques_are_the_maximal_runs_without_a_significant_pair(arms: int, bits: int) -> None:
    names = "abcdef"[:arms]
    significant = [pair for k, pair in enumerate(combinations(names, 2)) if bits >> k & 1]
    free = [
        set(names[i:j])
        for i in range(arms)
        for j in range(i + 2, arms + 1)
        if not any(pair in significant for pair in combinations(names[i:j], 2))
    ]
    expected = [clique for clique in free if not any(clique < other for other in free)]
    found = cliques({name: float(k) for k, name in enumerate(names)}, significant)
    assert [set(clique) for clique in found] == expected


def test_cliques_refuse_an_unknown_arm() -> None:
    with pytest.raises(ValueError, match="a pair names 'z', which has no rank; the arms are a, b"):
        cliques({"b": 2.0, "a": 1.0}, [("a", "z")])


def test_ranks_and_cliques_work_together() -> None:
    scores = np.array([[0.9, 0.5, 0.52], [0.8, 0.4, 0.39], [0.9, 0.6, 0.61]])
    ranks = dict(zip(("good", "p", "q"), mean_ranks(scores).tolist(), strict=True))
    assert cliques(ranks, [("good", "p"), ("good", "q")]) == [("q", "p")]
