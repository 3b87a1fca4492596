"""At equal tokens or seconds no arm gains by where its evaluations lie, by numbers that can be redone by hand."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from experiments.statistics import Curve, Judgement, Plan, Trajectory, judge, scores
from experiments.statistics.budgets import mean_at
from experiments.statistics.records import Comparison
from experiments.statistics.runs import answers_of, cheapest_window

STEPS = [0.0, 3.0, 6.0, 9.0, 10.0]
"""Of ten steps, evaluated every third and at the end."""
PLAN = Plan(metric="accuracy", baseline="base", seeds=(0, 1, 2), budget=10, margin=0.02)


def run(arm: str, seed: int, values: Sequence[float], *, tokens: float) -> Trajectory:
    """`values` at `STEPS`; `tokens` a step, and a hundredth as many seconds."""
    spent = {
        "steps": STEPS,
        "sampled_tokens": [tokens * s for s in STEPS],
        "seconds": [tokens / 100 * s for s in STEPS],
    }
    return Trajectory(arm, seed, "finished", {"accuracy": Curve(spent, values)})


def judged(runs: Sequence[Trajectory], plan: Plan = PLAN) -> Judgement:
    judgement = judge(plan, runs)
    assert judgement is not None
    return judgement


def at_equal(judgement: Judgement, axis: str) -> Comparison:
    analysis = judgement.axes[axis]
    assert analysis is not None
    return analysis.comparisons[0]


def test_a_run_that_spent_one_percent_less_gains_no_evaluation() -> None:
    """Only it has its last evaluation within the budget: cut there, it has steps 6, 9, 10, all others 3, 6, 9.

    Finals are (.4 + .6 + .7) / 3 and (.3 + .4 + .6) / 3, so that it would seem .133 better than its pair. At 12,000,
    18,000 and 20,000 tokens the others are at steps 5.941, 8.911 and 9.901: less by .0020, .0059 and .0099.
    """
    curve = np.array([0.2, 0.3, 0.4, 0.6, 0.7])
    runs = [run("base", seed, curve.tolist(), tokens=2020) for seed in PLAN.seeds]
    ahead = (0.001, 0.0, -0.001)
    runs += [run("arm", seed, (curve + d).tolist(), tokens=2000 if seed == 0 else 2020) for seed, d in enumerate(ahead)]
    cut = scores(PLAN, runs, "sampled_tokens", None, "worst")
    assert [cut["arm"][s] - cut["base"][s] for s in PLAN.seeds] == pytest.approx([0.4 / 3 + 0.001, 0, -0.001])
    judgement = judged(runs)
    assert judgement.analysis.comparisons[0].verdict == "equivalent"
    gained = (0.1 / 3 * 6 / 101 + 0.2 / 3 * 9 / 101 + 0.1 * 10 / 101) / 3  # slopes of the curve x steps behind
    for axis in ("sampled_tokens", "seconds"):
        assert at_equal(judgement, axis).verdict == "equivalent"
        assert at_equal(judgement, axis).effect.mean_difference == pytest.approx(gained / 3)
    assert judgement.warnings == ()


def test_arms_on_one_line_do_not_differ_at_equal_tokens() -> None:
    """Both learn .1 a thousand tokens, but the arm spends half as many again: it is evaluated at 450 and 900."""
    ahead = (0.0, 0.001, 0.002)
    runs = [
        run(arm, seed, [0.0001 * tokens * s + d * (arm == "arm") for s in STEPS], tokens=tokens)
        for arm, tokens in (("base", 100), ("arm", 150))
        for seed, d in enumerate(ahead)
    ]
    cut = scores(PLAN, runs, "sampled_tokens", None, "worst")
    assert cut["arm"][0] - cut["base"][0] == pytest.approx((0 + 0.045 + 0.09 - 0.06 - 0.09 - 0.1) / 3)
    judgement = judged(runs)
    assert at_equal(judgement, "sampled_tokens").effect.mean_difference == pytest.approx(0.001)
    assert judgement.warnings == (
        "Depends on the budget: arm vs base is better (+0.0427) at equal steps, equivalent (+0.001) at equal sampled "
        "tokens, 1,000 a run.",
    )


def test_a_departure_that_the_cut_would_hide_is_found() -> None:
    """At 1,000 tokens the arm is at step 5: cut to steps 0 and 3, with step 0 as noisy as the end, it seems undecided.

    At 600, 900 and 1,000 tokens it is at steps 3, 4.5 and 5, where it has .4 and not .5.
    """
    runs = []
    for seed, (d, noise) in enumerate(((0.0, 0.1), (0.001, -0.2), (0.002, 0.2))):
        runs.append(run("base", seed, [0.2, 0.3, 0.5, 0.5, 0.5], tokens=100))
        runs.append(run("arm", seed, [0.5 + noise, 0.4 + d, 0.4 + d, 0.5 + noise, 0.5 + noise], tokens=200))
    judgement = judged(runs)
    cut = scores(PLAN, runs, "sampled_tokens", None, "worst")
    assert [cut["arm"][s] - cut["base"][s] for s in PLAN.seeds] == pytest.approx([0, -0.1495, 0.051])
    assert judgement.analysis.comparisons[0].verdict == "inconclusive"
    assert at_equal(judgement, "sampled_tokens").verdict == "worse"
    assert at_equal(judgement, "sampled_tokens").effect.mean_difference == pytest.approx(-0.099)
    assert "worse (-0.099) at equal sampled tokens, 1,000 a run." in judgement.warnings[0]


def test_where_no_verdict_departs_the_evaluations_themselves_stand() -> None:
    """All inconclusive, as read by either: the difference at equal tokens is of evaluations that were made."""
    runs = []
    for seed, d in enumerate((0.1, -0.2, 0.3)):
        runs.append(run("base", seed, [0.2, 0.3, 0.4, 0.5, 0.6], tokens=100))
        runs.append(run("arm", seed, [0.2, 0.3 + d, 0.4 + d, 0.5 + d, 0.6 + d], tokens=101))
    judgement = judged(runs)
    cut = (0.3 + 0.4 + 0.5 - 0.4 - 0.5 - 0.6) / 3 + 0.2 / 3
    assert at_equal(judgement, "sampled_tokens").effect.mean_difference == pytest.approx(cut)
    assert judgement.warnings == ()


def test_runs_that_were_not_evaluated_before_training_are_read_from_where_all_have_begun() -> None:
    """Evaluated at steps 1, 2, 3; at 1 % more tokens a step the first evaluation is beyond the cheapest run's."""
    runs = [
        Trajectory(
            arm,
            seed,
            "finished",
            {"accuracy": Curve({"steps": [1, 2, 3], "sampled_tokens": [t, 2 * t, 3 * t]}, [0.3 + d, 0.5 + d, 0.7 + d])},
        )
        for arm, ahead in (("base", (0.0, 0.0, 0.0)), ("arm", (0.001, 0.0, -0.001)))
        for seed, d in enumerate(ahead)
        for t in (100 if (arm, seed) == ("arm", 0) else 101,)
    ]
    assert cheapest_window(PLAN, runs, "sampled_tokens") == [200, 300]
    judgement = judged(runs, replace(PLAN, budget=3))
    behind = 0.2 * (2 + 3) / 101 / 2  # slope of the curve x steps behind
    assert at_equal(judgement, "sampled_tokens").effect.mean_difference == pytest.approx(behind / 3)
    assert judgement.warnings == ()


def test_answers_are_read_where_scores_are() -> None:
    rng = np.random.default_rng(0)
    runs = []
    for arm, tokens in (("base", 100.0), ("arm", 130.0)):
        samples = [rng.integers(0, 2, size=(4, k)).astype(float) for k in (2, 2, 2, 4, 4)]
        spent = {"steps": STEPS, "sampled_tokens": [tokens * s for s in STEPS]}
        curve = Curve(spent, [float(each.mean()) for each in samples], samples=samples)
        runs.append(Trajectory(arm, 0, "finished", {"accuracy": curve}))
    points = cheapest_window(PLAN, runs, "sampled_tokens")
    assert points == [600, 900, 1000]

    def read(budget: Sequence[float], values: Sequence[float]) -> float:
        return mean_at(budget, values, points)

    table = scores(PLAN, runs, "sampled_tokens", None, "worst", read=read)
    answers = answers_of(PLAN, runs, "sampled_tokens", None, read=read)
    for arm in ("base", "arm"):
        assert answers[arm][0].shape == (4, 2)
        assert answers[arm][0].mean() == pytest.approx(table[arm][0])
