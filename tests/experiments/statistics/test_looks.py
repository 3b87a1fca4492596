import math

import numpy as np
import pytest

from experiments.statistics import Analysis, analyze
from experiments.statistics.looks import Looks, Scores
from tests.experiments.statistics.simulations import band

LOOKS = Looks(((8, 0.01), (12, 0.015), (20, 0.025)))
SEEDS = tuple(reversed(range(100, 120)))  # the declared order, not the sorted one


def study(shifts: list[float], n: int, sd: float = 0.01, seed: int = 0) -> dict[str, dict[int, float]]:
    table = np.random.default_rng(seed).normal(0.5, sd, (len(shifts), 20)) + np.array(shifts)[:, None]
    return {f"a{k}": dict(zip(SEEDS[:n], row[:n].tolist(), strict=True)) for k, row in enumerate(table)}


def judge(scores: Scores, level: float) -> Analysis:
    return analyze(scores, baseline="a0", alpha=level, margin=0.01)


def test_nothing_is_judged_before_the_first_look() -> None:
    state = LOOKS.decide(study([0, 0.1], 7), SEEDS, judge)
    assert (state.row, state.stop, state.next_look, state.analyses, state.decided) == (7, None, 8, (), ())


def test_a_clear_difference_ends_at_the_first_look() -> None:
    state = LOOKS.decide(study([0, 0.1], 15), SEEDS, judge)
    assert (state.row, state.stop, state.next_look) == (15, "decided", None)
    (decision,) = state.decided
    assert (decision.look, decision.n, decision.alpha) == (1, 8, 0.01)
    assert decision.comparison.adjusted_p == 2 / 2**8
    assert "99 % interval" in decision.sentence
    assert decision.sentence.endswith("Look 1 of 3, after 8 seeds, at level 0.01.")
    (analysis,) = state.analyses
    assert analysis.seeds == tuple(sorted(SEEDS[:8]))  # the first eight as declared


def test_what_was_settled_early_stays_and_the_rest_goes_on() -> None:
    scores = study([0, 0.1, 0.006], 12, sd=0.02)
    state = LOOKS.decide(scores, SEEDS, judge)
    assert [len(state.analyses), state.stop, state.next_look] == [2, None, 20]
    assert [(d.comparison.arm, d.look) for d in state.decided] == [("a1", 1)]


def test_the_last_look_ends_the_study() -> None:
    state = LOOKS.decide(study([0, 0.006], 20, sd=0.02), SEEDS, judge)
    assert [analysis.alpha for analysis in state.analyses] == [0.01, 0.015, 0.025]
    assert (state.stop, state.next_look, state.decided) == ("budget", None, ())


def test_equivalence_ends_it_too() -> None:
    state = LOOKS.decide(study([0, 0.0], 8, sd=0.002), SEEDS, judge)
    assert (state.stop, state.next_look) == ("equivalent", None)
    assert state.decided[0].comparison.verdict == "equivalent"
    mixed = LOOKS.decide(study([0, 0.0, 0.1], 8, sd=0.002), SEEDS, judge)
    assert mixed.stop == "decided"


def test_only_whole_rows_in_the_declared_order_count() -> None:
    scores = study([0, 0.1], 20)
    del scores["a1"][SEEDS[7]]
    assert LOOKS.decide(scores, SEEDS, judge).row == 7
    assert LOOKS.decide(scores, SEEDS, judge).next_look == 8


@pytest.mark.parametrize(
    ("looks", "message"),
    [
        ((), "declare increasing numbers of seeds"),
        (((8, 0.01), (8, 0.02)), r"n = \[8, 8\]: declare increasing"),
        (((2, 0.01), (8, 0.02)), "3 or more"),
        (((8, 0.03), (12, 0.03)), "sum to 0.06 > alpha = 0.05"),
        (((8, 0.0), (12, 0.03)), "level of the look at n = 8 = 0"),
    ],
)
def test_bad_declarations_are_refused(looks: tuple[tuple[int, float], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Looks(looks)


def test_levels_may_sum_to_alpha_in_decimals() -> None:
    assert math.fsum(level for _, level in Looks(((8, 0.1), (9, 0.2)), alpha=0.3).looks) > 0.3


def test_bad_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="12 seeds declared, but the last look takes 20"):
        LOOKS.decide(study([0, 0.1], 8), SEEDS[:12], judge)
    with pytest.raises(ValueError, match="a seed is declared twice"):
        LOOKS.decide({}, [1, 1], judge)
    with pytest.raises(ValueError, match="arm 'a1' has seed 7, which is not among those declared"):
        LOOKS.decide({"a0": {}, "a1": {7: 0.5}}, SEEDS, judge)
    with pytest.raises(ValueError, match="arm 'a1', seed 119: score nan is not a finite number"):
        LOOKS.decide({"a0": {}, "a1": {119: math.nan}}, SEEDS, judge)


@pytest.mark.slow
def test_false_claims_over_all_looks() -> None:
    looks = Looks(((5, 0.01), (6, 0.015), (7, 0.025)))  # few seeds, whose t tests are quick
    R, wrong = 400, 0
    for seed in range(R):
        state = looks.decide(study([0, 0], 7, seed=seed), SEEDS, lambda s, a: analyze(s, baseline="a0", alpha=a))
        wrong += any(decision.comparison.verdict != "equivalent" for decision in state.decided)
    assert wrong / R <= 0.05 + band(0.05, R)
    assert wrong / R >= 0.025 - band(0.025, R)  # the last look alone has 0.025
