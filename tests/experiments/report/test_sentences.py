"""Every verdict as one plain sentence, with the numbers worked out by hand."""

from pathlib import Path
from typing import Any

import pytest

from experiments.report.sentences import plain_sentence
from experiments.results.tables.measurements import SCORED
from experiments.results.tables.tables import Question, Table, judge_table
from experiments.statistics import Curve, Judgement, Trajectory
from tests.experiments.report.studies import EARLY, FINALS, LOOKS, judge, write_study

GRPO = FINALS["grpo"]


def sentences(judgement: Judgement) -> list[str]:
    return [plain_sentence(each, judgement) for each in judgement.analysis.comparisons]


@pytest.mark.parametrize(
    ("differences", "declared", "expected"),
    [
        # mean .24, sd .02, half-width 4.3027 x .02 / sqrt(3) = .0497
        ([0.24, 0.26, 0.22], {}, "dapo is better than grpo: +24.0 points, between +19.0 and +29.0; 3 seeds"),
        ([-0.24, -0.26, -0.22], {}, "dapo is worse than grpo: −24.0 points, between −29.0 and −19.0; 3 seeds"),
        (
            [0.24, 0.26, 0.22],
            {"margin": 0.5},
            "dapo is better than grpo, but by less than 50.0 points: +24.0 points, between +19.0 and +29.0; 3 seeds",
        ),
        (
            [0.0, 0.02, -0.02],
            {"margin": 0.1},
            "dapo and grpo: no difference that matters: 0.0 points, the true one within ±10.0 points; 3 seeds",
        ),
        (  # the margin is 1.0, and -0.97 is not written as -1.0
            [0.04, 0.06, 0.02],
            {},
            "dapo and grpo: not enough evidence: +4.0 points, between −0.97 and +8.97; "
            "about 34 seeds would be enough to detect 1.0 points",
        ),
        (
            [0.04, 0.06, 0.02],
            {"margin": 0.001},
            "dapo and grpo: not enough evidence: +4.0 points, between −1.0 and +9.0; "
            "not even 1000 seeds would be enough to detect 0.1 points",
        ),
        ([0.04, 0.06], {}, "dapo and grpo: cannot be tested: +5.0 points; 2 seeds, and a test takes 3"),
        ([0.04], {}, "dapo and grpo: cannot be tested: +4.0 points; 1 seed, and a test takes 3"),
        ([0.04] * 3, {}, "dapo and grpo: cannot be tested: +4.0 points; the same difference at all 3 seeds"),
        ([0.0] * 3, {}, "dapo and grpo: cannot be tested: 0.0 points; the same score at all 3 seeds"),
    ],
)
def test_a_verdict_is_one_sentence_in_points(
    tmp_path: Path, differences: list[float], declared: dict[str, Any], expected: str
) -> None:
    finals = {
        "grpo": GRPO[: len(differences)],
        "dapo": [g + d for g, d in zip(GRPO, differences, strict=False)],
    }
    assert sentences(judge(write_study(tmp_path / "pair", finals, **declared))) == [expected]


def test_seeds_that_should_have_been_enough_are_not_promised_again(tmp_path: Path) -> None:
    """d = .031, -.009: sd .02 sqrt(12/11), for which 11 seeds would do, and 12 there are."""
    finals = {"grpo": [0.5] * 12, "dapo": [0.531, 0.491] * 6}
    (sentence,) = sentences(judge(write_study(tmp_path / "pair", finals, margin=0.02)))
    assert sentence.startswith("dapo and grpo: not enough evidence: +1.1 points, between ")
    assert sentence.endswith("; 12 seeds did not settle it")


def test_seeds_that_left_every_arm_are_what_is_missing(tmp_path: Path) -> None:
    study = write_study(tmp_path / "pair", {k: [*v, 0.5] for k, v in FINALS.items()}, unfinished=[("dapo", 3, "lost")])
    assert sentences(judge(study)) == ["dapo and grpo: cannot be tested: +4.0 points; too many seeds are missing"]


def test_each_pair_is_named_and_a_look_has_its_own_interval(tmp_path: Path) -> None:
    """At the first look, at 2 %, d = .20, .21, .19: half-width 6.965 x .01 / sqrt(3) = .0402."""
    settled, _ = sentences(judge(write_study(tmp_path / "looks", EARLY, **LOOKS)))
    assert settled == "dapo is better than grpo: +20.0 points, between +16.0 and +24.0 (98\u00a0%); 3 seeds"


def test_an_interval_without_zero_is_not_enough_among_several(tmp_path: Path) -> None:
    """d = .05, .06, .03: mean .0467, sd .0153, t = 5.29, p = .034 alone and .068 of two; half-width .0379."""
    finals = {"grpo": GRPO, "dapo": [0.55, 0.58, 0.57], "rloo": [0.49, 0.53, 0.53]}
    alone = {arm: finals[arm] for arm in ("grpo", "dapo")}
    observed = "+4.7 points, between +0.9 and +8.5"
    assert sentences(judge(write_study(tmp_path / "pair", alone))) == [f"dapo is better than grpo: {observed}; 3 seeds"]
    dapo, rloo = sentences(judge(write_study(tmp_path / "three", finals)))
    assert dapo.startswith(f"dapo and grpo: not enough evidence among 2 comparisons: {observed}; about ")
    assert rloo.startswith("rloo and grpo: not enough evidence: −0.3 points, between ")


def judged_table(scores: dict[str, list[float]], **asked: Any) -> Judgement:
    runs = [
        Trajectory(arm, seed, "finished", {asked.get("metric", "score"): Curve({SCORED: [0.0]}, [value])})
        for arm, row in scores.items()
        for seed, value in enumerate(row)
    ]
    return judge_table(Table("t", tuple(runs), ()), Question(baseline="a", **asked))


def test_a_table_keeps_its_own_unit_unless_it_is_known_to_hold_shares() -> None:
    """d = .24, .26, .22 as above; a loss is written as it is, to a tenth of the margin 0.01."""
    scores = {"a": [0.5, 0.52, 0.54], "b": [0.74, 0.78, 0.76]}
    assert sentences(judged_table(scores, metric="accuracy")) == [
        "b is better than a: +24.0 points, between +19.0 and +29.0; 3 seeds"
    ]
    assert sentences(judged_table(scores, metric="loss", higher_is_better=False)) == [
        "b is worse than a: +0.240, between +0.190 and +0.290 (lower is better); 3 seeds"
    ]
    percent = {arm: [100 * score for score in row] for arm, row in scores.items()}
    assert sentences(judged_table(percent, metric="accuracy", margin=1.0)) == [
        "b is better than a: +24.0, between +19.0 and +29.0; 3 seeds"
    ]
