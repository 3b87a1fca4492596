"""What became of a run's score on its way: by hand, by kind, and how often noise alone is taken for a fall."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from experiments.statistics import Course, Curve, Plan, Trajectory, course
from experiments.statistics.outcomes import collapse_warnings, failure_notes, outcomes
from experiments.statistics.stability import Kind, courses

COLLAPSE = [90, 204, 52, 56]  # right of 256 answers: .352, .797, .203, .219


def judged(right: list[int], n: int = 256, **options: object) -> Course:
    """The course of a run with so many right answers at each evaluation."""
    values = [each / n for each in right]
    return course(range(len(right)), values, len(right) - 1, 0.01, answers=[n] * len(right), **options)  # type: ignore[arg-type]


def test_the_end_is_held_against_start_and_peak_by_hand() -> None:
    """Start .30, peak .80, of 100 answers: L = .55, and z = Φ⁻¹(1 - .001/6) = 3.588 for three evaluations.

    var s = .00213 and var P = .00167. At E = .34 of one evaluation var E = .00226, so z √(.00226 + .00213/4 + .00167/4)
    = .203 < .21; at E = .35 it is .204 > .20, but L = .75 at nine tenths is missed by .40 > 3.588 √(.00229 + .00137).
    """
    assert judged([30, 80, 79, 34], 100).kind == "collapsed"
    assert judged([30, 80, 79, 35], 100).kind == "declined"
    assert judged([30, 80, 79, 79], 100).kind == "steady"


@pytest.mark.parametrize(
    ("right", "kind"),
    [
        (COLLAPSE, "collapsed"),
        ([90, 120, 128, 60, 170, 210, 220, 224], "dipped"),  # ends at .875, below its start at its third step
        ([90, 150, 190, 215, 220, 224], "steady"),
        ([90, 205, 203, 200, 165, 160, 155], "declined"),
        ([90, 205, 203, 200, 199, 201, 60], "collapsed"),  # at the last evaluation, whose model is what is left
        ([97, 164, 218, 205, 200, 57, 169], "declined"),  # .22 at the last but one is a dip: it keeps .61 of its gain
        ([97, 164, 218, 205, 200, 57, 212], "dipped"),
        ([90, 80, 50, 20], "collapsed"),  # never gained, and ends below its start
        ([90, 95, 88, 92, 90, 91], "steady"),
        ([90, 40, 150, 200], "dipped"),
        ([256, 256, 256, 256], "steady"),
        ([0, 0, 0, 0], "steady"),
        ([90, 200], "steady"),
        ([200, 90], "collapsed"),
    ],
)
def test_kinds(right: list[int], kind: Kind) -> None:
    assert judged(right).kind == kind
    upside_down = course(
        range(len(right)), [-each for each in right], len(right) - 1, 2.56, noise=5.0, higher_is_better=False
    )
    assert upside_down.kind == kind


def test_the_numbers_of_a_course() -> None:
    course = judged(COLLAPSE)
    assert (course.start, course.peak, course.peak_at) == (90 / 256, 204 / 256, 1)
    assert (course.end, course.averaged) == (54 / 256, 2)
    dipped = judged([90, 120, 128, 60, 170, 224])
    assert (dipped.lowest, dipped.lowest_at, dipped.end) == (60 / 256, 3, 224 / 256)


def test_few_answers_cannot_tell_what_many_can() -> None:
    """Of .75, .25 and .50 each: the same curve with 8 and with 800 answers an evaluation."""
    assert judged([2, 6, 4, 2], 8).kind == "steady"
    assert judged([200, 600, 400, 200], 800).kind == "collapsed"


def test_less_than_the_margin_is_no_fall_and_what_comes_after_the_budget_is_ignored() -> None:
    values = [0.30, 0.40, 0.30, 0.30]
    assert course(range(4), values, 3, 0.04).kind == "collapsed"
    assert course(range(4), values, 3, 0.05).kind == "declined"  # half of the gain is .05: not more than the margin
    assert course(range(4), values, 3, 0.1).kind == "steady"
    assert course(range(4), values, 1, 0.04).kind == "steady"


@given(st.lists(st.integers(0, 100), min_size=1, max_size=12), st.integers(1, 1000))
def test_a_curve_that_only_rises_is_steady(percent: list[int], n: int) -> None:
    values = [each / 100 for each in sorted(percent)]
    assert course(range(len(values)), values, len(values), 0.01, answers=[n] * len(values)).kind == "steady"


def test_a_start_and_a_margin_are_needed_and_finite_values() -> None:
    with pytest.raises(ValueError, match="course: the first evaluation is at 5, not 0"):
        course([5, 10], [0.1, 0.2], 10, 0.1)
    with pytest.raises(ValueError, match="course: margin = 0"):
        course([0, 10], [0.1, 0.2], 10, 0)
    with pytest.raises(ValueError, match="course: the evaluation at budget 10 is nan; treat the run as failed"):
        course([0, 10], [0.1, math.nan], 10, 0.1)


SHAPES: dict[str, Callable[[int], NDArray[np.float64]]] = {
    "at .35 throughout": lambda n: np.full(n + 1, 0.35),
    "at .90 throughout": lambda n: np.full(n + 1, 0.9),
    "from .35 to .90": lambda n: 0.35 + 0.55 * (1 - np.exp(-4 * np.arange(n + 1) / n)),
}


@pytest.mark.parametrize("evaluations", [4, 20])
@pytest.mark.parametrize("shape", SHAPES)
def test_noise_alone_is_rarely_taken_for_a_fall(evaluations: int, shape: str) -> None:
    """Of 500 runs whose true accuracy never falls; of so many, 4 in 1000 are more than eight once in 10,000 times."""
    rng = np.random.default_rng(evaluations)
    truth = SHAPES[shape](evaluations)
    kinds = [judged(rng.binomial(128, truth).tolist(), 128).kind for _ in range(500)]
    assert len(kinds) - kinds.count("steady") <= 8
    assert kinds.count("collapsed") <= 6


def run(arm: str, seed: int, values: list[float], answers: list[int] | None = None, start: int = 0) -> Trajectory:
    spent = {"steps": [10 * (start + i) for i in range(len(values))]}
    return Trajectory(arm, seed, "finished", {"accuracy": Curve(spent, values, answers)})


PLAN = Plan(metric="accuracy", baseline="base", seeds=(0, 1, 2), budget=30)


def test_without_the_number_of_answers_the_spread_of_all_runs_is_the_noise() -> None:
    """Steps .1, .1, .1 of eight runs and .4, -.5, 0 of one: the median of their squares is .01, so sd = .1 / √.91."""
    rising = [run("base", s, [0.3, 0.4, 0.5, 0.6]) for s in range(3)]
    fallen = run("arm", 0, [0.3, 0.7, 0.2, 0.2])
    by_run = courses(PLAN, [*rising, fallen], 30)
    assert {key: each.kind for key, each in by_run.items() if each} == {
        **{("base", s): "steady" for s in range(3)},
        ("arm", 0): "declined",  # L = .5 is missed by .3, and 3.588 √(.011/2 + .011/4 + .011/4) = .376
    }
    quiet = [run("base", s, [0.3, 0.31, 0.32, 0.33]) for s in range(3)]
    quiet_course = courses(PLAN, [*quiet, fallen], 30)["arm", 0]
    assert quiet_course is not None
    assert quiet_course.kind == "collapsed"


def test_collapses_are_listed_by_seed_and_a_clean_record_only_where_it_is_known() -> None:
    n = [256] * 4
    values = [each / 256 for each in COLLAPSE]
    runs = [
        *(run("base", s, [0.35, 0.6, 0.7, 0.75], n) for s in range(3)),
        *(run("arm", s, values, n) for s in (0, 2)),
        run("arm", 1, [0.35, 0.8, 0.75, 0.6], n),
        *(run("late", s, [0.5, 0.6], n[:2], start=1) for s in range(3)),
    ]
    arms = outcomes(PLAN, runs, 30)
    assert [(each.arm, each.collapsed, each.declined, each.untold) for each in arms] == [
        ("base", 0, 0, 0),
        ("arm", 2, 1, 0),
        ("late", 0, 0, 3),
    ]
    assert collapse_warnings(PLAN, arms) == [
        "arm: 2 of 3 finished runs collapsed (seeds 0, 2), ending with less than half of what they had gained, all of "
        "them below where they began. Seed 0 went from 0.352 to 0.797 at 10 steps and ended at 0.211."
    ]
    notes = failure_notes(PLAN, arms)
    assert "arm: 0 of 3 runs failed and 2 collapsed; the 95 % interval of the rate is 9 % to 99 %." in notes
    assert (
        "arm: of 3 finished runs 1 declined, ending with less than nine tenths of what it had gained (seed 1)." in notes
    )
    assert any(note.startswith("No run failed in base, late: 3 seeds") for note in notes)
    assert any(note.startswith("Whether runs collapsed is not known of 3 of late") for note in notes)
