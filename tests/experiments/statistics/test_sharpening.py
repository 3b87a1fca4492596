"""Sampled against greedy answers: when they disagree the verdict says so; noise is no disagreement."""

import dataclasses

import pytest

from experiments.statistics import Curve, Judgement, Plan, Trajectory, judge

PLAN = Plan(metric="test/accuracy", baseline="base", seeds=(0, 1, 2), budget=3, margin=0.01)
BASE = (0.50, 0.52, 0.54)


def run(arm: str, seed: int, sampled: float, greedy: float) -> Trajectory:
    scores = {"test/accuracy": sampled, "test/greedy_accuracy": greedy}
    curves = {metric: Curve({"steps": [0, 1, 2, 3]}, [0.3, *[score] * 3]) for metric, score in scores.items()}
    return Trajectory(arm, seed, "finished", curves)


def judged(sampled: tuple[float, ...], greedy: tuple[float, ...], plan: Plan = PLAN) -> Judgement:
    """The arm's differences from the baseline, sampled and greedy, by seed."""
    runs = [run("base", seed, score, score + 0.1) for seed, score in enumerate(BASE)]
    runs += [
        run("arm", seed, score + s, score + 0.1 + g)
        for seed, (score, s, g) in enumerate(zip(BASE, sampled, greedy, strict=True))
    ]
    judgement = judge(plan, runs)
    assert judgement is not None
    return judgement


def test_a_gain_in_sampled_answers_alone_is_called_sharpening() -> None:
    """Sampled +.04, .05, .03; greedy 0, .005, -.005. Less: .04, .045, .035, t = .04 √3 / .005 = 13.86, p = .0052."""
    judgement = judged((0.04, 0.05, 0.03), (0.0, 0.005, -0.005))
    (row,) = judgement.beside
    assert (row.n, row.metric) == (3, "test/greedy_accuracy")
    assert (row.difference, row.other, row.excess) == pytest.approx((0.04, 0.0, 0.04))
    assert row.p == pytest.approx(0.00517, abs=1e-5)
    assert row.interval == pytest.approx((-0.01242, 0.01242), abs=1e-5)  # 4.3027 × .005 / √3
    assert row.disagree
    (warning,) = judgement.warnings
    assert warning.startswith("Sampled and greedy answers disagree: arm vs base differs by +0.04 in sampled answers")
    assert "The gain is one in how surely it answers (sharpening), not in which answer it holds most likely." in warning


@pytest.mark.parametrize(
    ("sampled", "greedy"),
    [
        ((0.04, 0.05, 0.03), (0.01, 0.012, 0.011)),  # a smaller gain, but a gain
        ((0.04, 0.05, 0.03), (0.10, -0.08, 0.01)),  # too noisy to tell
        ((0.04, -0.05, 0.03), (0.0, -0.1, 0.0)),  # nothing was decided that could be qualified
        ((0.04, 0.05, 0.03), (0.08, 0.09, 0.10)),  # greedy answers gain more
    ],
)
def test_what_is_no_disagreement(sampled: tuple[float, ...], greedy: tuple[float, ...]) -> None:
    judgement = judged(sampled, greedy)
    (row,) = judgement.beside
    assert not row.disagree
    assert judgement.warnings == ()


def test_a_verdict_on_greedy_answers_is_held_against_sampled_ones() -> None:
    plan = dataclasses.replace(PLAN, metric="test/greedy_accuracy")
    judgement = judged((0.0, 0.005, -0.005), (-0.04, -0.05, -0.03), plan)
    assert judgement.beside[0].disagree
    assert "in greedy answers, but by" in judgement.warnings[0]
    assert "The loss is one in how surely it answers, not" in judgement.warnings[0]


def test_there_is_no_row_where_only_one_was_measured() -> None:
    runs = [
        Trajectory(each.arm, each.seed, "finished", {"test/accuracy": each.curves["test/accuracy"]})
        for arm, gain in (("base", 0.0), ("arm", 0.1))
        for each in (run(arm, seed, score + gain, 0.0) for seed, score in enumerate(BASE))
    ]
    judgement = judge(PLAN, runs)
    assert judgement is not None
    assert judgement.beside == ()
