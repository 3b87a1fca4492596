"""No standard error, interval or verdict is finer than the answers behind it allow."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from experiments.statistics import Curve, Judgement, Plan, Trajectory, analyze, judge, paired_t, race, tost
from experiments.statistics.answers import counted_error, least_error, noise
from experiments.statistics.rule import ANSWERS_TEST
from experiments.statistics.runs import answers_of
from experiments.statistics.samples import Array
from tests.experiments.statistics.studies import fixed

D = np.array([[0.0, 0.2], [0.2, 0.0], [0.1, 0.16]])  # residuals ∓0.09, ±0.11, ∓0.02: MS_E = 0.0412 / 2
LEAST = math.sqrt(0.0206 / 6)
BASE = np.array([[0.4, 0.5], [0.5, 0.3], [0.6, 0.4]])


def rows(table: Array) -> dict[int, Any]:
    return dict(enumerate(table))


def study(base: Array, arm: Array) -> tuple[dict[str, dict[int, float]], dict[str, dict[int, Any]]]:
    """Scores and answers of two arms from tables [S, Q] or [S, Q, K]."""
    tables = {"base": base, "arm": arm}
    return (
        {name: {s: float(row.mean()) for s, row in enumerate(table)} for name, table in tables.items()},
        {name: rows(table) for name, table in tables.items()},
    )


def test_the_least_error_by_hand() -> None:
    assert noise(D) == pytest.approx(0.0206)
    x, y = (BASE + D).mean(axis=1), BASE.mean(axis=1)
    error, basis = least_error({"base": rows(BASE), "arm": rows(BASE + D)}, ("arm", "base"), [0, 1, 2], x, y)
    assert error == pytest.approx(LEAST)
    assert basis == "by question"
    scores, answers = study(BASE, BASE + D)
    c = analyze(scores, baseline="base", answers=answers).comparisons[0]
    assert c.effect.sd_difference == pytest.approx(
        0.03 / math.sqrt(3)
    )  # seeds differ by 0.1, 0.1, 0.13: an error of 0.01
    assert c.effect.standard_error == c.effect.answers_error == pytest.approx(LEAST)
    assert c.effect.answers == "by question"
    half = stats.t.ppf(0.975, 2) * LEAST
    assert c.effect.interval == pytest.approx((0.11 - half, 0.11 + half))
    assert fixed(c).p_t == fixed(c).p_answers == c.adjusted_p == pytest.approx(2 * stats.t.sf(0.11 / LEAST, 2))
    assert c.effect.d_z == pytest.approx(0.11 / (LEAST * math.sqrt(3)))
    assert c.verdict == "inconclusive"
    assert "standard error 0.0586 (what the answers allow: the seeds agree to 0.01)" in c.sentence
    alone = analyze(scores, baseline="base").comparisons[0]
    assert (alone.verdict, alone.effect.answers, alone.effect.answers_error) == ("better", "unknown", None)


def test_samples_that_agree_within_a_question_less_than_the_questions_do() -> None:
    """Every cell has the samples 0 and 1: v = 1/2 and K = 2, though the table of means is flat but for one seed."""
    y = np.zeros((3, 4, 2))
    x = np.tile([0.0, 1.0], (3, 4, 1))
    x[0, 0, 0] = 1.0
    assert noise(x - y) == pytest.approx(11 / 12 * 0.5 / 2)
    assert noise((x - y).mean(axis=2)) < 0.1


def test_noise_that_arms_share_is_not_counted() -> None:
    x = np.random.default_rng(0).random((4, 8, 3)).round()
    assert noise(x - x) == 0.0
    assert noise((x - x)[:, :, :1]) == 0.0


def test_the_binomial_error_by_hand() -> None:
    """p̃ = 51/102 and 61/102 of 100 answers each, three seeds."""
    error = counted_error(np.full(3, 0.6), np.full(3, 0.5), np.full(3, 100.0), np.full(3, 100.0))
    assert error == pytest.approx(math.sqrt((0.25 + 61 / 102 * 41 / 102) / 100 / 3))
    always = counted_error(np.ones(3), np.ones(3), np.full(3, 98.0), np.full(3, 98.0))
    assert always == pytest.approx(math.sqrt(2 * 0.99 * 0.01 / 98 / 3))  # about one answer in 98, for either arm
    scores = {"base": {0: 0.5, 1: 0.52, 2: 0.51}, "arm": {0: 0.6, 1: 0.62, 2: 0.6101}}
    one = analyze(scores, baseline="base", answers=100)
    each = analyze(scores, baseline="base", answers={arm: dict.fromkeys(range(3), 100) for arm in scores})
    assert one == each
    assert (one.comparisons[0].effect.answers, one.comparisons[0].verdict) == ("by number", "inconclusive")
    assert any("only the number is known" in note for note in one.notes)


@pytest.mark.parametrize("samples", [1, 3])
def test_answers_that_all_shift_alike_leave_no_error_of_rounding(samples: int) -> None:
    """Every question gains .1 at every seed: the residuals of the table are 0, though not in floats."""
    base = np.random.default_rng(0).random((5, 7, samples))
    scores, answers = study(base, base + 0.1)
    c = analyze(scores, baseline="base", answers=answers).comparisons[0]
    assert (c.verdict, c.effect.sd_difference) == ("untestable", 0.0)
    assert (c.effect.standard_error, c.effect.answers_error) == (0.0, 0.0)
    assert noise(np.full((3, 4), 0.1) + 1e-7 * np.eye(3, 4)) > 0


def test_seeds_that_differ_more_than_their_answers_are_judged_as_before() -> None:
    d = np.array([[0.3, 0.5], [-0.2, 0.0], [0.1, 0.3]])
    scores, answers = study(BASE, BASE + d)
    known, unknown = (analyze(scores, baseline="base", answers=a).comparisons[0] for a in (answers, None))
    changed = {"answers", "answers_error", "p_answers"}
    assert {k: v for k, v in known.to_json().items() if k not in changed} == {
        k: v for k, v in unknown.to_json().items() if k not in changed
    }


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(3, 9), st.booleans())
def test_nothing_is_finer_than_the_answers(seed: int, n: int, sampled: bool) -> None:
    rng = np.random.default_rng(seed)
    p = rng.random(6)[None, :, None]
    x, y = (rng.random((n, 6, 2 if sampled else 1)) < p).astype(float), (rng.random((n, 6, 2)) < p).astype(float)
    scores, answers = study(y, x)
    analysis = analyze(scores, baseline="base", answers=answers, margin=0.5)
    c, plain = analysis.comparisons[0], analyze(scores, baseline="base", margin=0.5).comparisons[0]
    assert c.effect.standard_error is not None
    assert c.effect.answers_error is not None
    assert c.effect.standard_error == max(c.effect.answers_error, plain.effect.standard_error or 0.0)
    if c.effect.interval is None or plain.effect.interval is None:
        return
    half = stats.t.ppf(0.975, n - 1) * c.effect.answers_error
    for interval in (c.effect.interval, c.effect.simultaneous_interval, fixed(c).flip_interval):
        if interval is not None:
            assert interval[0] <= c.effect.mean_difference - half * (1 - 1e-9)
            assert interval[1] >= c.effect.mean_difference + half * (1 - 1e-9)
    for name in ("p_t", "adjusted_p", "p_equivalence"):
        assert c.to_json()[name] >= plain.to_json()[name] - 1e-12
    assert (fixed(c).p_flip, fixed(c).p_wilcoxon) == (fixed(plain).p_flip, fixed(plain).p_wilcoxon)


def test_from_eight_seeds_on_a_difference_is_one_by_the_answers_too() -> None:
    d = np.linspace(0.010, 0.012, 8)  # one sign: p = 2 / 2^8 by sign flips
    scores = {"base": dict.fromkeys(range(8), 0.5), "arm": {s: 0.5 + float(x) for s, x in enumerate(d)}}
    few = analyze(scores, baseline="base", answers=100).comparisons[0]
    many = analyze(scores, baseline="base", answers=10**6).comparisons[0]
    assert (fixed(few).adjusted_p_flip, few.verdict, few.test, few.label) == (
        2 / 2**8,
        "inconclusive",
        ANSWERS_TEST,
        "model-based",
    )
    assert few.adjusted_p == fixed(few).p_answers
    interval = fixed(few).flip_interval
    assert interval is not None
    assert interval[0] < 0
    assert (many.verdict, many.label, many.adjusted_p) == ("better", "distribution-free", 2 / 2**8)


def test_no_equivalence_below_the_answers() -> None:
    scores = {"base": {0: 0.5, 1: 0.52, 2: 0.51}, "arm": {0: 0.5001, 1: 0.5201, 2: 0.5102}}
    assert analyze(scores, baseline="base", margin=0.01).comparisons[0].verdict == "equivalent"
    few = analyze(scores, baseline="base", margin=0.01, answers=500).comparisons[0]
    assert few.verdict == "inconclusive"
    assert fixed(few).p_equivalence == pytest.approx(tost([1e-4, 1e-4, 2e-4], 0.01, few.effect.answers_error or 0.0))


def test_paired_t_with_a_least_error() -> None:
    p, interval = paired_t([1.0, 2.0, 3.0], least_error=2.0)
    half = stats.t.ppf(0.975, 2) * 2
    assert p == pytest.approx(2 * stats.t.sf(1, 2))
    assert interval == pytest.approx((2 - half, 2 + half))
    assert paired_t([1.0, 2.0, 3.0], least_error=0.5) == paired_t([1.0, 2.0, 3.0])
    assert tost([1.0, 2.0, 3.0], 4.0, 2.0) == pytest.approx(stats.t.sf(1, 2))


def test_a_race_waits_for_the_answers() -> None:
    scores = {"base": dict.fromkeys(range(10), 0.5), "arm": {s: 0.51 + 1e-4 * (s % 2) for s in range(10)}}
    free = race(scores, seeds=range(10), baseline="base")
    assert (free.stop, free.comparisons[0].verdict, free.row) == ("decided", "better", 6)
    held = race(scores, seeds=range(10), baseline="base", answers=100)
    (c,) = held.comparisons
    assert (held.stop, c.verdict, held.row) == ("budget", "inconclusive", 10)
    assert c.p_anytime < 0.05 < c.adjusted_p_anytime
    assert c.interval is not None
    assert c.interval[0] < 0
    verdicts = [
        race(scores, seeds=range(10), baseline="base", margin=0.1, answers=n).comparisons[0].verdict for n in (20, 100)
    ]
    assert verdicts == ["inconclusive", "equivalent"]


# runs


def run(arm: str, seed: int, right: Array, status: Any = "finished") -> Trajectory:
    """A run whose evaluations after training have answers [N, Q, K]."""
    answers = np.concatenate([np.full_like(right[:1], 0.25), right])
    values = answers.mean(axis=(1, 2)).tolist()
    curve = Curve({"steps": list(range(len(values)))}, values, samples=answers)
    return Trajectory(arm, seed, status, {"accuracy": curve})


def judged(runs: list[Trajectory], **plan: Any) -> Judgement:
    seeds = tuple(dict.fromkeys(each.seed for each in runs))
    settings: dict[str, Any] = {"metric": "accuracy", "baseline": "base", "seeds": seeds, "budget": 4.0} | plan
    judgement = judge(Plan(**settings), runs)
    assert judgement is not None
    return judgement


def drawn(n: int, evaluations: int = 4, Q: int = 16, K: int = 2) -> list[Trajectory]:
    rng = np.random.default_rng(n)
    return [
        run(arm, seed, (rng.random((evaluations, Q, K)) < 0.6).astype(float))
        for arm in ("base", "arm")
        for seed in range(n)
    ]


def test_answers_are_averaged_as_the_scores_are() -> None:
    runs = drawn(3)
    right = np.array([each.curves["accuracy"].samples for each in runs])  # [6, 5, 16, 2]
    last = right[:, 2:].mean(axis=1)  # final: three evaluations
    expected = math.sqrt(noise(last[3:] - last[:3]) / (3 * 16))
    judgement = judged(runs)
    assert judgement.analysis.comparisons[0].effect.answers_error == pytest.approx(expected)
    whole = np.tensordot([1 / 8, 1 / 4, 1 / 4, 1 / 4, 1 / 8], right, axes=(0, 1))  # auc: trapezoids
    area = judged(runs, scalar="auc").analysis.comparisons[0]
    assert area.effect.answers_error == pytest.approx(math.sqrt(noise(whole[3:] - whole[:3]) / (3 * 16)))


def test_evaluations_may_differ_in_samples() -> None:
    """Three scored evaluations of 4, 8 and 8 samples are means of 4: single ones, and pairs in order."""
    rng = np.random.default_rng(0)
    runs = []
    for arm in ("base", "arm"):
        for seed in range(3):
            tables = [(rng.random((16, K)) < 0.6).astype(float) for K in (2, 2, 4, 8, 8)]
            values = [float(table.mean()) for table in tables]
            curve = Curve({"steps": list(range(5))}, values, samples=tables)
            runs.append(Trajectory(arm, seed, "finished", {"accuracy": curve}))

    def by_four(each: Trajectory) -> Array:
        single, *pairs = each.curves["accuracy"].samples[2:]  # type: ignore[index]
        return np.asarray(np.mean([single, *((table[:, ::2] + table[:, 1::2]) / 2 for table in pairs)], axis=0))

    cells = np.array([by_four(each) for each in runs])
    judgement = judged(runs)
    (comparison,) = judgement.analysis.comparisons
    error = math.sqrt(noise(cells[3:] - cells[:3]) / (3 * 16))
    assert comparison.effect.answers_error == pytest.approx(error)
    assert comparison.effect.mean_difference == pytest.approx(cells[3:].mean() - cells[:3].mean())
    v = (cells[3:] - cells[:3]).var(axis=2, ddof=1).mean()
    assert judgement.variances["arm", "base"].sampling == pytest.approx(v / (3 * 16 * 4))
    assert judged(runs, scalar="auc").variances["arm", "base"].sampling > 0  # evaluations of 2 samples are among them


def test_what_is_estimated_of_averaged_samples_has_no_bias() -> None:
    """Means of 2, 6 and 6 answers, right with p = 0.3: Var of their mean is 0.21 (1/2 + 1/6 + 1/6) / 9."""
    rng = np.random.default_rng(1)
    tables = [(rng.random((40_000, K)) < 0.3).astype(float) for K in (2, 6, 6)]
    curve = Curve({"steps": [1, 2, 3]}, [float(table.mean()) for table in tables], samples=tables)
    plan = Plan("accuracy", "base", (0,), budget=3.0)
    found = answers_of(plan, [Trajectory("base", 0, "finished", {"accuracy": curve})], "steps", 3.0)["base"][0]
    assert found.shape == (40_000, 2)
    assert found.var(axis=1, ddof=1).mean() / 2 == pytest.approx(0.21 * (1 / 2 + 1 / 6 + 1 / 6) / 9, rel=0.03)


def test_samples_that_are_no_evaluations_are_refused() -> None:
    tables = [np.ones((2, 2)), np.ones((3, 2))]
    curve = Curve({"steps": [0, 1]}, [1.0, 1.0], samples=tables)
    with pytest.raises(ValueError, match=r"samples of shape \(2, 2\) and \(3, 2\) at 2 evaluations, for 2 of"):
        judged([Trajectory("base", 0, "finished", {"accuracy": curve})])


def test_one_standard_error_whatever_the_claim() -> None:
    for questions in ("fixed", "population"):
        judgement = judged(drawn(4), questions=questions)
        split = judgement.variances["arm", "base"]
        claimed = split.on_these_questions if questions == "fixed" else split
        assert judgement.analysis.comparisons[0].effect.standard_error == pytest.approx(claimed.standard_error)


def test_numbers_of_answers_add_up_over_evaluations() -> None:
    runs = [
        Trajectory(
            arm, seed, "finished", {"accuracy": Curve({"steps": [0, 1, 2, 3]}, [0.2, *[score] * 3], [200.0] * 4)}
        )
        for arm, row in {"base": [0.5, 0.52, 0.51], "arm": [0.55, 0.57, 0.5601]}.items()
        for seed, score in enumerate(row)
    ]
    c = judged(runs, budget=3.0).analysis.comparisons[0]
    scores = {"base": {0: 0.5, 1: 0.52, 2: 0.51}, "arm": {0: 0.55, 1: 0.57, 2: 0.5601}}
    assert c.effect.answers_error == pytest.approx(
        analyze(scores, baseline="base", answers=600).comparisons[0].effect.answers_error
    )


def test_a_failed_run_has_no_answers_and_the_others_give_the_error() -> None:
    runs = drawn(5)
    runs[7] = dataclasses.replace(runs[7], status="failed")
    judgement = judged(runs)
    assert judgement.analysis.comparisons[0].effect.n == 5
    last = np.array([np.mean(each.curves["accuracy"].samples[2:], axis=0) for each in runs])  # type: ignore[index]
    kept = [0, 1, 3, 4]
    expected = math.sqrt(noise((last[5:] - last[:5])[kept]) / (5 * 16))
    assert judgement.analysis.comparisons[0].effect.answers_error == pytest.approx(expected)
    assert judgement.policies["intersect"] is not None


def test_looks_are_no_finer_either() -> None:
    base = [run("base", s, np.tile([0.0, 1.0], (4, 16, 1))) for s in range(4)]
    arm = []
    for s in range(4):
        right = np.tile([0.0, 1.0], (4, 16, 1))
        right[:, s % 16, 0] = 1.0
        right[:, 8 + s % 2, 0] = s % 2
        arm.append(run("arm", s, right))
    judgement = judged([*base, *arm], looks=((3, 0.02), (4, 0.03)))
    for c in judgement.analysis.comparisons:
        assert c.effect.standard_error is not None
        assert c.effect.standard_error >= (c.effect.answers_error or 0.0) > 0


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            {"base": {0: [1.0, 0.0], 1: [1.0, 0.0]}, "arm": {0: [1.0, 0.0, 1.0], 1: [1.0, 0.0, 0.0]}},
            "2 and 3 questions",
        ),
        (0.5, "0.5 answers behind a score"),
        (math.nan, "nan answers"),
    ],
)
def test_answers_that_cannot_be_are_refused(answers: Any, message: str) -> None:
    scores = {"base": {0: 0.5, 1: 0.5}, "arm": {0: 0.5, 1: 0.6}}
    with pytest.raises(ValueError, match=message):
        analyze(scores, baseline="base", answers=answers)


def test_percentages_have_no_number_of_answers() -> None:
    with pytest.raises(ValueError, match="scores from 50 to 61 are no shares"):
        analyze({"base": {0: 50, 1: 51}, "arm": {0: 60, 1: 61}}, baseline="base", answers=100)


def test_answers_that_are_not_those_of_the_scores_are_refused() -> None:
    runs = drawn(3)
    curve = runs[0].curves["accuracy"]
    broken = dataclasses.replace(curve, values=[*curve.values[:-1], 0.123])
    with pytest.raises(ValueError, match=r"evaluation 4 have mean .* but its 'accuracy' is 0.123"):
        judged([dataclasses.replace(runs[0], curves={"accuracy": broken}), *runs[1:]])
