import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from experiments.statistics import holm
from experiments.statistics.betting import anytime_interval, log_bayes_process, log_e_process
from experiments.statistics.racing import ASSUMPTION, RaceState, race
from experiments.statistics.records import Family
from tests.experiments.statistics.simulations import (
    NULLS,
    band,
    false_claims,
    false_race_rates,
    interval_coverage,
    peeking_t_rate,
    race_power,
    races,
)

Array = NDArray[np.float64]
Table = dict[str, dict[int, float]]

R = 2000
SEEDS = (7, 3, 11, 0, 5, 2, 9, 4, 1, 8, 6, 10)  # a declared order


def around(shifts: dict[str, float], n: int = 12, sd: float = 0.01, seed: int = 0) -> Table:
    """Scores of the first n declared seeds: a shared seed effect, the arm's shift, and noise."""
    rng = np.random.default_rng(seed)
    level = rng.normal(0.5, 0.05, 12)
    rows = {arm: level + shift + sd * rng.normal(size=12) for arm, shift in shifts.items()}
    return {arm: dict(zip(SEEDS[:n], row[:n].tolist(), strict=True)) for arm, row in rows.items()}


def run(scores: Table, *, family: Family = "baseline", margin: float = 0.001, alpha: float = 0.05) -> RaceState:
    return race(scores, seeds=SEEDS, baseline="base", family=family, margin=margin, alpha=alpha)


def test_an_arm_leaves_once_it_is_decided_and_the_baseline_never() -> None:
    table = around({"base": 0.0, "good": 0.2, "bad": -0.2, "close": 0.005})
    state = run(table)
    assert state.live_arms == ("base", "close")
    assert set(state.dropped) == {"good", "bad"}
    assert (state.row, state.stop) == (12, "budget")
    good, bad, close = state.comparisons
    assert (good.verdict, bad.verdict, close.verdict) == ("better", "worse", "inconclusive")
    assert (good.n, bad.n, close.n) == (state.dropped["good"], state.dropped["bad"], 12)
    d = np.array(list(table["close"].values())) - np.array(list(table["base"].values()))
    assert close.p_bayes == pytest.approx(min(1.0, 1 / np.exp(log_bayes_process(d)).max()))
    assert [c.adjusted_p_anytime for c in state.comparisons] == pytest.approx(
        list(holm([c.p_anytime for c in state.comparisons]))
    )
    assert state.notes == (ASSUMPTION,)


def test_two_arms_stop_when_e_reaches_twenty() -> None:
    scores = around({"base": 0.0, "arm": 0.015})
    d = [scores["arm"][seed] - scores["base"][seed] for seed in SEEDS]
    reached = int(np.argmax(log_e_process(d) >= math.log(20))) + 1
    assert 6 < reached < 12
    state = run(scores)
    assert (state.row, state.stop, state.live_arms) == (reached, "decided", ("base",))
    (c,) = state.comparisons
    assert c.e_value == c.largest_e_value == pytest.approx(math.exp(log_e_process(d)[reached - 1]))
    assert c.p_anytime == c.adjusted_p_anytime == pytest.approx(1 / c.e_value)
    assert c.mean_difference == pytest.approx(np.mean(d[:reached]))
    assert c.interval == c.simultaneous_interval == anytime_interval(d[:reached])
    assert run({arm: dict(list(runs.items())[: reached - 1]) for arm, runs in scores.items()}).stop is None


def test_lower_may_be_better() -> None:
    scores = around({"base": 0.0, "arm": 0.2})
    assert race(scores, seeds=SEEDS, baseline="base", higher_is_better=False).comparisons[0].verdict == "worse"
    lower = race(scores, seeds=SEEDS, baseline="base", family="all", higher_is_better=False)
    assert lower.live_arms == ("base",)
    assert race(scores, seeds=SEEDS, baseline="base", family="all").live_arms == ("arm",)


def test_the_loser_of_a_pair_is_dropped_and_the_threshold_is_m_over_alpha() -> None:
    scores = around({"base": 0.0, "a": 0.2, "b": 0.3}, sd=0.002)
    state = run(scores, family="all")
    assert (state.live_arms, state.stop) == (("b",), "decided")
    for c in state.comparisons:
        if c.verdict in ("better", "worse"):
            assert c.largest_e_value >= 3 / 0.05
            assert c.adjusted_p_anytime == pytest.approx(3 * c.p_anytime)
            assert c.n == min(state.dropped.get(arm, 99) for arm in (c.arm, c.baseline) if arm in state.dropped)
    assert [(c.arm, c.baseline) for c in state.comparisons] == [("a", "base"), ("b", "base"), ("b", "a")]


def test_agreement_within_the_margin_ends_a_race() -> None:
    scores = around({"base": 0.0, "arm": 0.0}, sd=0.001)
    state = run(scores, margin=0.01)
    assert (state.stop, state.comparisons[0].verdict) == ("equivalent", "equivalent")
    assert state.row < 12
    assert "equivalent within ±0.01" in state.comparisons[0].sentence
    everyone = run(around({"base": 0.0, "a": 0.0, "b": 0.0}, sd=0.001), family="all", margin=0.01)
    assert (everyone.stop, everyone.live_arms) == ("equivalent", ("base", "a", "b"))
    for c in everyone.comparisons:
        assert c.simultaneous_interval is not None
        assert max(map(abs, c.simultaneous_interval)) < 0.01


def test_better_may_yet_be_smaller_than_the_margin() -> None:
    scores = around({"base": 0.0, "arm": 0.005}, sd=1e-8)
    (c,) = run(scores, margin=0.5).comparisons
    assert (c.verdict, c.smaller_than_margin) == ("better", True)
    assert "better, but smaller than 0.5" in c.sentence


def test_only_the_completed_prefix_of_whole_rows_counts() -> None:
    scores = around({"base": 0.0, "a": 0.01, "b": 0.2})
    short = {arm: dict(runs) for arm, runs in scores.items()}
    del short["a"][SEEDS[4]]
    state = run(short)
    assert (state.row, state.stop, state.live_arms) == (4, None, ("base", "a", "b"))
    first = {arm: {seed: runs[seed] for seed in SEEDS[:4]} for arm, runs in scores.items()}
    assert run(first) == state
    assert {c.n for c in state.comparisons} == {4}


def test_before_the_first_row() -> None:
    state = run({"base": {}, "arm": {}})
    assert (state.row, state.stop, state.live_arms, dict(state.dropped)) == (0, None, ("base", "arm"), {})
    (c,) = state.comparisons
    assert (c.verdict, c.n, c.mean_difference, c.p_anytime) == ("untestable", 0, None, 1.0)


@pytest.mark.parametrize("shift", [0.0, 0.01])
def test_differences_that_all_agree_decide_nothing(shift: float) -> None:
    scores = {"base": {s: 0.1 * s for s in SEEDS}, "arm": {s: 0.1 * s + shift for s in SEEDS}}
    state = run(scores, margin=0.5)
    (c,) = state.comparisons
    assert (state.stop, c.verdict, c.p_anytime, c.e_value) == ("budget", "untestable", 1.0, 1.0)
    assert ("is the seed really applied?" if shift else "do the two arms really differ?") in c.sentence


@settings(max_examples=8)
@given(st.integers(0, 10_000), st.sampled_from(["baseline", "all"]), st.floats(0, 0.03))
def test_a_launcher_that_runs_only_live_arms_ends_where_the_full_table_does(
    seed: int, family: Family, gap: float
) -> None:
    full = around({"base": 0.0, "a": gap, "b": 2 * gap, "c": 0.0}, seed=seed)
    scores: Table = {arm: {} for arm in full}
    before = state = run(scores, family=family, margin=0.02)
    while state.stop is None:
        assert state.live_arms
        for arm in state.live_arms:
            scores[arm][SEEDS[state.row]] = full[arm][SEEDS[state.row]]
        before, state = state, run(scores, family=family, margin=0.02)
        assert state.row == before.row + 1
        assert before.dropped.items() <= state.dropped.items()
        decided = [
            {(c.arm, c.baseline) for c in s.comparisons if c.verdict in ("better", "worse", "equivalent")}
            for s in (before, state)
        ]
        assert decided[0] <= decided[1]
    assert run(full, family=family, margin=0.02) == state
    assert family == "all" or "base" in state.live_arms


@given(st.integers(0, 10_000), st.sampled_from(["baseline", "all"]))
def test_order_of_arms_and_unit_do_not_matter(seed: int, family: Family) -> None:
    scores = around({"base": 0.0, "a": 0.01, "b": 0.02}, seed=seed)
    state = run(scores, family=family)
    mirrored = run(dict(reversed(scores.items())), family=family)
    percent = {arm: {s: 100 * x for s, x in runs.items()} for arm, runs in scores.items()}
    scaled = race(percent, seeds=SEEDS, baseline="base", family=family, margin=0.1)
    for other in (mirrored, scaled):
        assert (other.row, other.stop, set(other.live_arms)) == (state.row, state.stop, set(state.live_arms))
        assert dict(other.dropped) == dict(state.dropped)
        p = {frozenset((c.arm, c.baseline)): c.p_anytime for c in state.comparisons}
        assert {frozenset((c.arm, c.baseline)): c.p_anytime for c in other.comparisons} == pytest.approx(p)


@given(st.integers(0, 10_000), st.sampled_from(["baseline", "all"]), st.floats(0, 0.03))
def test_sentences_carry_anytime_numbers_only(seed: int, family: Family, gap: float) -> None:
    for c in run(around({"base": 0.0, "a": gap, "b": 0.0}, seed=seed), family=family, margin=0.02).comparisons:
        assert re.search(r"E = \S+ \(largest \S+\), anytime p = \S+, adjusted ", c.sentence)
        assert re.search(r"anytime [\d.]+ % interval (\[|empty)", c.sentence)
        assert all(c.sentence[: match.start()].endswith("anytime ") for match in re.finditer(r"\bp = ", c.sentence))
        assert not re.search(r"paired t|sign flip|max-T|Wilcoxon|TOST", c.sentence)
        if c.verdict == "inconclusive":
            assert not re.search(r"no (significant )?difference|equal|same|equivalent|identical", c.sentence)


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        ({"base": {}, "arm": {}}, {"seeds": range(9)}, "9 seeds declared; a race needs at least 10"),
        ({"base": {}, "arm": {}}, {"seeds": [1] * 12}, "a seed is declared twice"),
        ({"base": {}}, {}, r"1 arm\(s\) given"),
        ({"bose": {}, "arm": {}}, {}, "unknown baseline 'base'; the arms are bose, arm"),
        ({"base": {}, "arm": {}}, {"family": "some"}, "unknown family 'some'"),
        ({"base": {}, "arm": {99: 0.1}}, {}, "arm 'arm' has seed 99, which is not among those declared"),
        ({"base": {}, "arm": {3: math.inf}}, {}, "arm 'arm', seed 3: score inf is not a finite number"),
        ({"base": {}, "arm": {3: None}}, {}, "arm 'arm', seed 3: score None is not a finite number"),
        ({"base": {}, "arm": {}}, {"alpha": 0.5}, "alpha = 0.5"),
        ({"base": {}, "arm": {}}, {"margin": 0.0}, "margin = 0"),
    ],
)
def test_bad_input_is_refused(scores: Table, options: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"seeds": SEEDS, "baseline": "base"} | options
    with pytest.raises(ValueError, match=message):
        race(scores, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", NULLS)
def test_false_rejections_however_often_one_looks(kind: str) -> None:
    by_20, by_50 = false_race_rates(kind, R)
    measured = {"normal": (0.028, 0.035), "t3": (0.025, 0.033), "cauchy": (0.022, 0.029)} | {
        "exponential": (0.028, 0.035),
        "collapsing": (0.024, 0.033),
        "30 items": (0.029, 0.037),
    }
    assert by_50 <= 0.05
    assert (by_20, by_50) == pytest.approx(measured[kind], abs=band(0.035, R))


def test_false_rejections_outside_the_null_and_of_peeking() -> None:
    assert false_race_rates("skewed", R) == pytest.approx((0.080, 0.107), abs=band(0.1, R))
    assert peeking_t_rate(R, 20) == pytest.approx(0.23, abs=band(0.23, R))


@pytest.mark.parametrize(
    ("d_z", "by_10", "by_20", "seeds"), [(0.8, 0.30, 0.66, 14.7), (1.0, 0.45, 0.86, 12.4), (2.0, 0.96, 1.0, 7.3)]
)
def test_power_of_a_race(d_z: float, by_10: float, by_20: float, seeds: float) -> None:
    rates = race_power(d_z, R)
    assert rates[:2] == pytest.approx((by_10, by_20), abs=band(0.5, R))
    assert rates[2] == pytest.approx(seeds, abs=0.4)


def test_coverage_of_the_interval_at_all_times() -> None:
    assert interval_coverage(500, 20) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("family", ["baseline", "all"])
def test_false_claims_of_a_race(family: Family) -> None:
    shifts = (0.0, 0.0, 0.0)
    wrong = [false_claims(state, shifts) > 0 for state in races(shifts, 300, family=family)]
    assert sum(wrong) / 300 <= 0.05


def test_a_race_keeps_the_best_arm_and_saves_runs() -> None:
    shifts = (0.0, 0.0, 0.0, 3.0)
    states = list(races(shifts, 60))
    assert all("a3" in state.live_arms for state in states)
    used = [sum(state.dropped.get(f"a{k}", state.row) for k in range(4)) for state in states]
    assert np.mean(used) < 0.7 * 4 * 20
