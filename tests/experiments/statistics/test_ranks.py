import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.statistics.ranks import cliques, mean_ranks


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
    bars = cliques({name: float(k) for k, name in enumerate(names)}, significant)
    assert [set(clique) for clique in bars] == expected


def test_cliques_refuse_an_unknown_arm() -> None:
    with pytest.raises(ValueError, match="a pair names 'z', which has no rank; the arms are a, b"):
        cliques({"b": 2.0, "a": 1.0}, [("a", "z")])


def test_ranks_and_cliques_work_together() -> None:
    scores = np.array([[0.9, 0.5, 0.52], [0.8, 0.4, 0.39], [0.9, 0.6, 0.61]])
    ranks = dict(zip(("good", "p", "q"), mean_ranks(scores).tolist(), strict=True))
    assert cliques(ranks, [("good", "p"), ("good", "q")]) == [("q", "p")]
