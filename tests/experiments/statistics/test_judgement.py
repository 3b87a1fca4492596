"""A study judged as planned: failures, budgets and axes, by numbers that can be redone by hand."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.statistics import Curve, FixedN, Judgement, Plan, Trajectory, judge, scores
from experiments.statistics.predictions import Prediction
from experiments.statistics.two_level import crossed_t
from tests.experiments.statistics.studies import fixed

PLAN = Plan(metric="accuracy", baseline="base", seeds=(0, 1, 2, 3, 4), budget=4, margin=0.02)


def run(arm: str, seed: int, score: float, *, status: Any = "finished", tokens: float = 100.0) -> Trajectory:
    """Evaluations at steps 0 to 4: 0.2 before training, then `score`; `tokens` per step."""
    steps = [0.0, 1.0, 2.0, 3.0, 4.0]
    curve = Curve({"steps": steps, "sampled_tokens": [tokens * s for s in steps]}, [0.2, *[score] * 4])
    return Trajectory(arm, seed, status, {"accuracy": curve}, cause="" if status == "finished" else "nan")


def study(base: Sequence[float], arm: Sequence[float], **of_arm: Any) -> list[Trajectory]:
    return [
        *(run("base", seed, score) for seed, score in enumerate(base)),
        *(run("arm", seed, score, **of_arm) for seed, score in enumerate(arm)),
    ]


def judged(plan: Plan, runs: Sequence[Trajectory]) -> Judgement:
    judgement = judge(plan, runs)
    assert judgement is not None
    return judgement


UNKNOWN: Any = "drop"
BASE = [0.50, 0.52, 0.54, 0.56, 0.58]
BETTER = [0.60, 0.61, 0.65, 0.66, 0.69]  # d = .10, .09, .11, .10, .11


def test_the_verdict_is_that_of_the_scores() -> None:
    judgement = judged(PLAN, study(BASE, BETTER))
    comparison = judgement.analysis.comparisons[0]
    assert comparison.verdict == "better"
    assert comparison.effect.mean_difference == pytest.approx(0.102)
    assert comparison.sentence.startswith("arm vs base on accuracy at equal steps: better")
    assert judgement.warnings == ()
    assert [each.finished for each in judgement.outcomes] == [5, 5]
    assert judgement.policies["worst"] == judgement.policies["intersect"]


def test_a_failed_run_keeps_the_worse_of_its_first_score_and_the_floor() -> None:
    runs = [*study(BASE, BETTER[:4]), run("arm", 4, 0.69, status="failed")]
    plan = dataclasses.replace(PLAN, floor=0.3)
    assert scores(plan, runs, "steps", 4, "worst")["arm"][4] == 0.2
    assert scores(dataclasses.replace(plan, floor=0.1), runs, "steps", 4, "worst")["arm"][4] == 0.1
    assert scores(plan, runs, "steps", 4, "intersect")["arm"] == pytest.approx(dict(enumerate(BETTER[:4])))
    without_a_score = [*runs[:-1], Trajectory("arm", 4, "failed")]
    assert scores(plan, without_a_score, "steps", 4, "worst")["arm"][4] == 0.3
    upside_down = dataclasses.replace(plan, higher_is_better=False)
    assert scores(upside_down, runs, "steps", 4, "worst")["arm"][4] == 0.3


def test_a_verdict_that_hangs_on_failures_says_so_first() -> None:
    judgement = judged(PLAN, [*study(BASE, BETTER[:4]), run("arm", 4, 0.69, status="failed")])
    worst, intersect = (judgement.policies[policy] for policy in ("worst", "intersect"))
    assert worst is not None
    assert intersect is not None
    assert (worst.comparisons[0].verdict, worst.comparisons[0].effect.n) == ("inconclusive", 5)
    assert (intersect.comparisons[0].verdict, intersect.comparisons[0].effect.n) == ("better", 4)
    assert judgement.warnings[0].startswith("Depends on failure handling: arm vs base is inconclusive with")
    arm = judgement.outcomes[1]
    assert (arm.failed, arm.imputed, arm.causes) == (1, 1, ("nan",))
    assert arm.failure_rate == pytest.approx((0.00505, 0.71642), abs=1e-4)  # Clopper-Pearson, 1 of 5
    assert any("arm: 1 of 5 runs failed (kept with their declared score)" in note for note in judgement.analysis.notes)


def test_what_the_machine_lost_leaves_its_seed_out_of_every_arm() -> None:
    judgement = judged(PLAN, [*study(BASE, BETTER[:4]), run("arm", 4, 0.69, status="lost")])
    assert judgement.analysis.seeds == (0, 1, 2, 3)
    assert judgement.policies["worst"] == judgement.policies["intersect"]
    assert judgement.outcomes[1].lost == 1
    assert any(note.startswith("1 of 5 seeds removed from every arm (seed 4)") for note in judgement.analysis.notes)
    assert not any(note.startswith("Interim") for note in judgement.analysis.notes)


def test_arms_are_not_ranked_when_more_than_a_fifth_of_the_seeds_is_gone() -> None:
    lost = [run("arm", seed, 0.69, status="lost") for seed in (3, 4)]
    judgement = judged(PLAN, [*study(BASE, BETTER[:3]), *lost])
    comparison = judgement.analysis.comparisons[0]
    assert (comparison.verdict, comparison.adjusted_p) == ("untestable", None)
    assert "2 of 5 planned seeds were removed, more than 20 %" in comparison.sentence
    failed = [dataclasses.replace(each, status="failed") for each in lost]
    judgement = judged(PLAN, [*study(BASE, BETTER[:3]), *failed])
    assert judgement.analysis.comparisons[0].verdict == "inconclusive"  # kept at their declared score
    assert judgement.policies["intersect"] is not None
    assert judgement.policies["intersect"].comparisons[0].verdict == "untestable"


@pytest.mark.parametrize("there", [True, False])
def test_a_run_that_goes_on_makes_the_analysis_interim(there: bool) -> None:
    going_on = [run("arm", 4, 0.69, status="pending")] if there else []
    judgement = judged(PLAN, [*study(BASE, BETTER[:4]), *going_on])
    assert judgement.analysis.seeds == (0, 1, 2, 3)
    assert judgement.outcomes[1].pending == 1
    assert judgement.analysis.notes[0].startswith("Interim: 4 of the 5 declared seeds")


def test_an_arm_that_fails_everywhere_is_judged_all_the_same() -> None:
    failed = [run("arm", seed, 0.9, status="failed") for seed in PLAN.seeds]
    judgement = judged(PLAN, [*study(BASE, []), *failed])
    assert judgement.analysis.comparisons[0].verdict == "worse"
    assert judgement.policies["intersect"] is None
    assert "without the failed runs nothing is left" in judgement.warnings[0]


def test_a_collapse_is_counted_and_a_clean_record_is_put_in_proportion() -> None:
    fallen = Curve({"steps": [0, 1, 2, 3, 4]}, [0.2, 0.6, 0.0, 0.0, 0.0])
    runs = [*study(BASE, BETTER[:4]), Trajectory("arm", 4, "finished", {"accuracy": fallen})]
    judgement = judged(PLAN, runs)
    assert judgement.outcomes[1].collapsed == 1
    assert any(
        "No failure in base: 5 seeds without one are compatible with a failure rate of up to 45 %" in note
        for note in judgement.analysis.notes
    )


def test_a_verdict_that_hangs_on_the_budget_axis_says_so_first() -> None:
    """The arm spends twice the tokens: at the baseline's 400, 500, 600 it is at steps 2, 2.5 and 3: .2 + .01 a seed."""
    steps = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    runs = [
        Trajectory(
            arm,
            seed,
            "finished",
            {
                "accuracy": Curve(
                    {"steps": steps, "sampled_tokens": [spent * s for s in steps]},
                    [0.2, 0.2, 0.2, low + 0.02 * seed, *[score] * 3],
                )
            },
        )
        for arm, spent, scores_, low in (("base", 100, BASE, 0.4), ("arm", 200, BETTER, 0.2))
        for seed, score in enumerate(scores_)
    ]
    judgement = judged(dataclasses.replace(PLAN, budget=6), runs)
    tokens = judgement.axes["sampled_tokens"]
    assert tokens is not None
    assert judgement.analysis.comparisons[0].verdict == "better"
    assert tokens.axis == "sampled_tokens"
    assert tokens.comparisons[0].verdict == "worse"
    assert judgement.warnings == (
        "Depends on the budget: arm vs base is better (+0.102) at equal steps, worse (-0.32) at equal sampled tokens, "
        "600 a run.",
    )


def test_without_a_declared_budget_the_least_that_was_spent_counts() -> None:
    short = Curve({"steps": [0, 1, 2, 3]}, [0.2, 0.3, 0.4, 0.5])
    runs = [
        run("base", 0, 0.5),
        Trajectory("arm", 0, "finished", {"accuracy": short}),
        Trajectory("arm", 1, "failed", {"accuracy": Curve({"steps": [0]}, [0.2])}),  # shortens nobody
    ]
    plan = dataclasses.replace(PLAN, budget=None)
    assert scores(plan, runs, "steps", None, "worst")["arm"] == {0: pytest.approx(0.4), 1: 0.0}
    assert scores(plan, runs, "steps", None, "worst")["base"][0] == pytest.approx(0.5)


def test_what_was_not_declared_is_exploratory_and_corrected_as_one_family() -> None:
    length = [
        Curve({"steps": [0, 1, 2, 3, 4]}, [8.0, *[10.0 + seed % 2 + extra] * 4])
        for extra in (0, 1)
        for seed in range(5)
    ]
    runs = [
        dataclasses.replace(each, curves={**each.curves, "length": curve})
        for each, curve in zip(study(BASE, BETTER), length, strict=True)
    ]
    runs[9] = dataclasses.replace(
        runs[9], curves={**runs[9].curves, "length": Curve({"steps": [0, 1, 2, 3, 4]}, [8.0, *[13.0] * 4])}
    )
    plan = dataclasses.replace(PLAN, threshold=0.6)
    rows = {each.quantity: each for each in judged(plan, runs).exploratory}
    assert set(rows) == {"accuracy, auc", "length, final"}  # drawdown is 0 everywhere, and no seed tells times apart
    assert rows["length, final"].mean_difference == pytest.approx(1.4)
    p = {name: each.p for name, each in rows.items()}
    assert rows["accuracy, auc"].q == pytest.approx(min(2 * min(p.values()), max(p.values())))
    assert all(each.q >= each.p for each in rows.values())


def test_time_to_a_threshold_is_censored_at_the_budget_and_ranked() -> None:
    rising = [
        Curve({"steps": [0, 1, 2, 3, 4]}, [0.2, *[0.9 if s >= after else 0.2 for s in range(1, 5)]])
        for after in (1, 2, 1, 3, 2)
    ]
    runs = [*study(BASE, []), *(Trajectory("arm", s, "finished", {"accuracy": c}) for s, c in enumerate(rising))]
    rows = {each.quantity: each for each in judged(dataclasses.replace(PLAN, threshold=0.6), runs).exploratory}
    row = rows["steps to accuracy 0.6"]
    assert row.test == "Wilcoxon signed rank, exact"
    assert row.interval is None
    assert row.p == pytest.approx(0.125)  # one difference is 0, four are negative: 2 / 2^4


@pytest.mark.parametrize(
    ("plan", "runs", "message"),
    [
        (PLAN, [*study(BASE, BETTER), run("arm", 0, 0.5)], "arm 'arm', seed 0 is there twice"),
        (PLAN, [*study(BASE, BETTER), run("arm", 7, 0.5)], "has seed 7, which is not in the plan"),
        (dataclasses.replace(PLAN, metric="reward"), study(BASE, BETTER), "has no 'reward'; it has accuracy"),
        (dataclasses.replace(PLAN, scalar="best"), study(BASE, BETTER), "unknown scalar 'best'; choose one of final"),
        (dataclasses.replace(PLAN, failures=UNKNOWN), study(BASE, BETTER), "unknown failure policy 'drop'"),
        (dataclasses.replace(PLAN, axis="hours"), study(BASE, BETTER), "has no 'hours'; it has steps, sampled_tokens"),
    ],
)
def test_refused(plan: Plan, runs: list[Trajectory], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judge(plan, runs)


def test_without_a_pair_there_is_no_judgement() -> None:
    assert judge(PLAN, study(BASE, [])) is None
    assert judge(PLAN, [run("base", 0, 0.5), run("arm", 1, 0.5)]) is None


def test_json_has_everything_and_is_valid() -> None:
    plain = json.loads(json.dumps(judged(PLAN, study(BASE, BETTER)).to_json(), allow_nan=False))
    assert plain["comparisons"][0]["verdict"] == "better"
    assert plain["axes"]["sampled_tokens"]["arm vs base"]["n"] == 5
    assert plain["outcomes"][0]["arm"] == "base"
    assert plain["coupling"]["arm vs base"]["correlation"] > 0.9
    assert plain["plan"]["failures"] == "worst"


@given(st.permutations(range(10)))
def test_the_order_of_runs_does_not_matter_within_an_arm(order: list[int]) -> None:
    runs = study(BASE, BETTER)
    shuffled = sorted((runs[place] for place in order), key=lambda r: r.arm != "base")
    assert judged(PLAN, shuffled) == judged(PLAN, runs)


@given(st.sets(st.tuples(st.sampled_from(["base", "arm"]), st.integers(0, 4)), max_size=4), st.data())
def test_no_run_leaves_silently(missing: set[tuple[str, int]], data: st.DataObject) -> None:
    """Whatever becomes of runs: planned = finished + failed + lost + pending, and a smaller n has a note."""
    status = {key: data.draw(st.sampled_from(["failed", "lost", "pending", None])) for key in sorted(missing)}
    runs: list[Trajectory] = []
    for each in study(BASE, BETTER):
        outcome: Any = status.get((each.arm, each.seed), "finished")
        runs += [] if outcome is None else [dataclasses.replace(each, status=outcome)]
    judgement = judge(PLAN, runs)
    if judgement is None:
        return
    for row in judgement.outcomes:
        assert row.planned == row.finished + row.failed + row.lost + row.pending == 5
    if len(judgement.analysis.seeds) < 5:
        assert any(note.startswith("Interim") or "removed from every arm" in note for note in judgement.analysis.notes)


def test_the_bootstrap_t_interval_is_wider_than_t_and_takes_five_seeds() -> None:
    judgement = judged(PLAN, study(BASE, BETTER))
    comparison = judgement.analysis.comparisons[0]
    interval = judgement.bootstrap_t(comparison)
    assert interval is not None
    assert comparison.effect.interval is not None
    assert interval[0] < comparison.effect.mean_difference < interval[1]
    assert interval[1] - interval[0] > comparison.effect.interval[1] - comparison.effect.interval[0]
    assert interval == judgement.bootstrap_t(comparison)  # the same scores, the same interval
    assert list(judgement.to_json()["bootstrap_t"]["arm vs base"]) == list(interval)
    four = judged(dataclasses.replace(PLAN, seeds=(0, 1, 2, 3)), study(BASE[:4], BETTER[:4]))
    assert four.bootstrap_t(four.analysis.comparisons[0]) is None


# races and looks

TEN = dataclasses.replace(PLAN, seeds=tuple(range(10)), race=True)


def test_a_race_says_who_runs_next_and_gives_no_fixed_n_p() -> None:
    base = [0.5 + 0.01 * (s % 3) for s in range(7)]
    better = [score + 0.1 + 0.001 * (s % 2) for s, score in enumerate(base)]
    judgement = judged(TEN, study(base, better))
    assert judgement.sequential is not None
    assert judgement.sequential.stop == "decided"
    assert judgement.sequential.row == 6  # the seventh row was run, but counts no more: six nearly equal ones decide
    comparison = judgement.analysis.comparisons[0]
    assert (comparison.verdict, comparison.label, comparison.effect.n) == ("better", "anytime", 6)
    assert "anytime p = 0.0" in comparison.sentence
    assert comparison.fixed_n is None
    assert comparison.adjusted_p == pytest.approx(1 / 20.12, rel=0.02)
    assert (judgement.policies, judgement.axes, judgement.exploratory) == ({}, {}, ())
    assert (
        "6 of at most 10 seeds were run: it ended because every comparison was decided" in judgement.analysis.notes[-1]
    )
    text = json.dumps(judgement.to_json())
    assert "paired t" not in text
    assert "TOST" not in text


def test_a_race_shows_no_number_of_a_fixed_n() -> None:
    """Looked for by value: what the same scores give without a race is nowhere in what a race writes."""
    base, arm = np.random.default_rng(7).normal(0.5, 0.02, size=(2, 12)).round(4).tolist()
    plan = dataclasses.replace(PLAN, seeds=tuple(range(12)))
    planned, raced = (judged(dataclasses.replace(plan, race=race), study(base, arm)) for race in (False, True))
    names = [field.name for field in dataclasses.fields(FixedN)]
    (row,) = raced.to_json()["comparisons"]
    assert (row["n"], row["verdict"]) == (12, "inconclusive")
    assert {row[name] for name in names} == {None}
    (comparison,) = planned.analysis.comparisons
    fields = [getattr(fixed(comparison), name) for name in names]
    ends = [*(comparison.effect.interval or ()), *(fixed(comparison).flip_interval or ())]
    numbers = [*ends, *(value for value in fields if isinstance(value, float))]
    assert len(numbers) >= 11
    written = json.dumps(raced.to_json())
    assert all(json.dumps(value) in json.dumps(planned.to_json()) for value in numbers)
    assert not [value for value in numbers if json.dumps(value) in written]


def test_a_race_without_a_decision_goes_on() -> None:
    judgement = judged(TEN, study(BASE, [0.4, 0.6, 0.5, 0.6, 0.5]))
    assert judgement.sequential is not None
    assert (judgement.sequential.stop, judgement.sequential.row) == (None, 5)
    assert judgement.sequential.live == ("base", "arm")
    assert judgement.analysis.comparisons[0].verdict == "inconclusive"


def test_looks_take_the_first_that_decides() -> None:
    plan = dataclasses.replace(PLAN, looks=((3, 0.02), (5, 0.03)))
    judgement = judged(plan, study(BASE, BETTER))
    assert judgement.sequential is not None
    assert judgement.sequential.stop == "decided"
    assert "Look 1 of 2, after 3 seeds, at level 0.02" in judgement.analysis.comparisons[0].sentence
    assert judge(plan, study(BASE[:2], BETTER[:2])) is None  # no look is due


# two levels of noise


def with_answers(runs: Sequence[Trajectory], right: Any) -> list[Trajectory]:
    """Every run answers 4 questions twice; `right(arm, seed)` is how many of the 8 answers are right, in order."""
    return [answering(each, (np.arange(8) < right(each.arm, each.seed)).reshape(4, 2).astype(float)) for each in runs]


def answering(run: Trajectory, answers: Any) -> Trajectory:
    """The run with the same answers [Q, K] to every evaluation but the first."""
    curve = run.curves["accuracy"]
    samples = np.stack([np.full_like(answers, curve.values[0]), *[answers] * (len(curve.values) - 1)])
    return dataclasses.replace(run, curves={"accuracy": dataclasses.replace(curve, samples=samples)})


def answers_to(runs: list[Trajectory]) -> Any:
    """[runs, Q, K]."""
    return np.array([run.curves["accuracy"].samples[-1] for run in runs], dtype=np.float64)  # type: ignore[index]


def test_variance_is_split_where_answers_are_known() -> None:
    base, arm = [0.5, 0.625, 0.5, 0.625, 0.5], [0.75, 0.875, 0.75, 0.875, 0.75]
    judgement = judged(PLAN, with_answers(study(base, arm), lambda name, seed: 4 + seed % 2 + 2 * (name == "arm")))
    split = judgement.variances["arm", "base"]
    assert split.seed == pytest.approx(0)  # the same gain on every seed, on the same question
    assert split.question > 0
    assert judged(PLAN, study(BASE, BETTER)).variances == {}


def test_a_claim_about_questions_like_these_is_judged_over_seeds_and_questions() -> None:
    plan = dataclasses.replace(PLAN, questions="population")
    base, arm = [0.5, 0.625, 0.5, 0.625, 0.5], [0.875, 0.875, 0.75, 0.875, 0.75]
    runs = with_answers(study(base, arm), lambda name, seed: 4 + seed % 2 + (2 + (seed == 0)) * (name == "arm"))
    judgement = judged(plan, runs)
    comparison = judgement.analysis.comparisons[0]
    assert comparison.test == "t over seeds and questions, Holm"
    assert comparison.label == "model-based"
    assert (fixed(comparison).p_flip, fixed(comparison).detectable, fixed(comparison).seeds_for_margin) == (
        None,
        None,
        None,
    )
    answers = answers_to(runs)
    d = answers[5:] - answers[:5]
    assert comparison.effect.mean_difference == pytest.approx(d.mean())
    assert fixed(comparison).p_t == pytest.approx(crossed_t(d).p)
    assert list(judgement.axes) == ["steps"]
    with pytest.raises(ValueError, match="arm 'base', seed 0 lacks the answers by question"):
        judge(plan, study(BASE, BETTER))
    with pytest.raises(ValueError, match=r"have mean 0.5, but its .accuracy. is 0.51"):
        judge(plan, with_answers(study([0.51, *base[1:]], arm), lambda name, seed: 4 + seed % 2))


def test_families_of_questions_take_their_place() -> None:
    plan = dataclasses.replace(PLAN, questions="population")
    base, arm = [0.5, 0.625, 0.5, 0.625, 0.5], [0.875, 0.875, 0.75, 0.875, 0.75]
    runs = with_answers(study(base, arm), lambda name, seed: 4 + seed % 2 + (2 + (seed == 0)) * (name == "arm"))
    answers = answers_to(runs)
    d = answers[5:] - answers[:5]
    families = tuple("aab" + "b" * (d.shape[1] - 3))
    judgement = judged(plan, [dataclasses.replace(run, families=families) for run in runs])
    comparison, by_hand = judgement.analysis.comparisons[0], crossed_t(d, families=families)
    assert comparison.effect.mean_difference == pytest.approx((d[:, :2].mean() + d[:, 2:].mean()) / 2)
    assert (fixed(comparison).p_t, comparison.effect.interval) == (by_hand.p, by_hand.interval)
    assert any("Questions come in 2 families" in note for note in judgement.analysis.notes)
    alone = judged(plan, [dataclasses.replace(run, families=("a",) * d.shape[1]) for run in runs])
    assert fixed(alone.analysis.comparisons[0]).p_t == pytest.approx(crossed_t(d).p)  # one family is none


def test_a_noisy_claim_about_questions_like_these_is_inconclusive_in_words() -> None:
    rng = np.random.default_rng(0)
    runs = []
    for each in study(BASE, BASE):
        drawn = (rng.random((6, 2)) < 0.5).astype(float)
        runs.append(answering(run(each.arm, each.seed, float(drawn.mean())), drawn))
    comparison = judged(dataclasses.replace(PLAN, questions="population"), runs).analysis.comparisons[0]
    answers = answers_to(runs)
    crossed = crossed_t(answers[5:] - answers[:5])
    assert fixed(comparison).p_t == pytest.approx(crossed.p)
    assert comparison.effect.interval == pytest.approx(crossed.interval)
    assert comparison.verdict == "inconclusive"
    assert "shares of the variance say what more seeds or questions would buy" in comparison.sentence


# predictions


def test_what_was_predicted_is_judged_when_all_runs_have_ended() -> None:
    plan = dataclasses.replace(PLAN, predictions=(Prediction.parse("arm > base on accuracy by 0.02"),))
    judgement = judged(plan, study(BASE, BETTER))
    assert judgement.claim is not None
    assert judgement.claim.outcome == "supported"
    assert judged(plan, study(BASE, BETTER[:4])).claim is None


def test_a_prediction_on_another_metric_leaves_out_what_was_not_measured() -> None:
    length = [
        Curve({"steps": [0, 1, 2, 3, 4]}, [math.nan, *[9.0 + seed % 2 + extra] * 4])
        for extra in (0, 2)
        for seed in range(5)
    ]
    length[9] = Curve({"steps": [0, 1, 2, 3, 4]}, [math.nan, *[11.5] * 4])
    runs = [
        dataclasses.replace(each, curves={**each.curves, "length": curve})
        for each, curve in zip(study(BASE, BETTER), length, strict=True)
    ]
    plan = dataclasses.replace(PLAN, predictions=(Prediction.parse("arm < base on length by 0.5"),))
    claim = judged(plan, runs).claim
    assert claim is not None
    assert claim.outcome == "not supported"
    assert claim.assessments[0].comparison.effect.mean_difference == pytest.approx(2.1)


def test_a_run_that_ended_before_the_declared_budget_is_named() -> None:
    short = Curve({"steps": [0, 1, 2, 3], "sampled_tokens": [0, 100, 200, 300]}, [0.2, 0.5, 0.5, 0.5])
    runs = [*study(BASE, BETTER[:4]), Trajectory("arm", 4, "finished", {"accuracy": short})]
    notes = judged(PLAN, runs).analysis.notes
    message = (
        "1 of 10 finished runs ended more than 10 % before the declared budget of 4 steps, the first (arm seed 4) at 3"
    )
    assert any(message in note for note in notes)


def test_a_claim_bows_to_the_rules_that_verdicts_bow_to() -> None:
    plan = dataclasses.replace(PLAN, predictions=(Prediction.parse("arm > base on accuracy by 0.02"),))
    lost = [run("arm", seed, 0.69, status="lost") for seed in (3, 4)]
    judgement = judged(plan, [*study(BASE, BETTER[:3]), *lost])
    assert judgement.claim is None
    assert any("not judged before the runs that are missing are made up" in note for note in judgement.analysis.notes)
    for change in ({"race": True, "seeds": tuple(range(10))}, {"questions": "population"}):
        with pytest.raises(ValueError, match="predictions take all seeds and these questions"):
            judge(dataclasses.replace(plan, **change), study(BASE, BETTER))


def test_a_metric_without_a_value_in_a_run_costs_the_claim_that_seed_alone() -> None:
    steps = {"steps": [0, 1, 2, 3, 4]}
    nothing, something = Curve(steps, [math.nan] * 5), [Curve(steps, [5.0 + s % 2] * 5) for s in range(5)]
    runs = [
        dataclasses.replace(each, curves={**each.curves, "wrong": something[each.seed]}) for each in study(BASE, BETTER)
    ]
    runs[9] = dataclasses.replace(runs[9], curves={**runs[9].curves, "wrong": nothing})
    plan = dataclasses.replace(PLAN, predictions=(Prediction.parse("arm = base on wrong by 0.5"),))
    judgement = judged(plan, runs)
    assert judgement.claim is not None
    assert judgement.claim.assessments[0].comparison.effect.n == 4
    assert any("leave out the seeds of runs without a value: arm seed 4" in note for note in judgement.analysis.notes)
    for place in range(5, 10):
        runs[place] = dataclasses.replace(runs[place], curves={**runs[place].curves, "wrong": nothing})
    judgement = judged(plan, runs)
    assert judgement.claim is None
    assert any("What was predicted cannot be judged: prediction" in note for note in judgement.analysis.notes)


def test_a_seed_that_the_machine_lost_in_every_arm_is_noted() -> None:
    lost = [run(arm, 4, 0.6, status="lost") for arm in ("base", "arm")]
    notes = judged(PLAN, [*study(BASE[:4], BETTER[:4]), *lost]).analysis.notes
    assert any(
        note.startswith("1 of 5 seeds removed from every arm (seed 4): base lacks seed 4; arm") for note in notes
    )


def test_seeds_that_are_pending_are_not_called_removed() -> None:
    notes = judged(PLAN, study(BASE[:3], BETTER[:3])).analysis.notes
    assert any(note.startswith("Interim: 3 of the 5") for note in notes)
    assert not any("removed" in note for note in notes)


def test_p_is_adjusted_for_the_comparisons_that_were_declared() -> None:
    runs = [*study(BASE, BETTER), run("other", 0, 0.5, status="pending")]
    comparison = judged(PLAN, runs).analysis.comparisons[0]
    assert fixed(comparison).adjusted_p_t == pytest.approx(2 * (fixed(comparison).p_t or 0))
    assert "m = 2" in comparison.sentence


def test_failed_runs_never_reach_the_threshold() -> None:
    rising = Curve({"steps": [0, 1, 2, 3, 4]}, [0.2, 0.9, 0.9, 0.9, 0.9])
    quick = [Trajectory("arm", s, "finished", {"accuracy": rising}) for s in range(4)]
    runs = [*study(BASE, []), *quick, run("arm", 4, 0.9, status="failed")]
    rows = {each.quantity: each for each in judged(dataclasses.replace(PLAN, threshold=0.6), runs).exploratory}
    row = rows["steps to accuracy 0.6"]
    assert row.n == 5
    # the running mean of (.2, .9) is .55, of (.2, .9, .9) .67: reached at step 2, but for the failed run, 2 - 4 = -2
    assert row.mean_difference == pytest.approx(-1.6)
    assert row.reached is not None
    assert row.reached == pytest.approx((0.8, 0.0))


def test_a_score_with_the_untrained_model_in_it_is_named() -> None:
    rare = Curve({"steps": [0, 2, 4]}, [0.2, 0.5, 0.5])
    runs = [*study(BASE, BETTER[:4]), Trajectory("arm", 4, "finished", {"accuracy": rare})]
    assert any(
        "1 of 10 finished runs were evaluated less than 3 times between the start and the budget, the first arm "
        "seed 4" in note
        for note in judged(PLAN, runs).analysis.notes
    )
