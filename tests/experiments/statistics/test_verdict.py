import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from experiments.statistics import Analysis, Comparison, analyze, hedges_j, holm, max_t, sign_flip_interval
from tests.experiments.statistics.studies import fixed

Scores = dict[str, dict[int, float]]


def draw(arms: int, n: int, shift: float = 0.0, seed: int = 0) -> Scores:
    """Arms a0 (the baseline), a1, ... that share a seed effect; arm k lies k shifts higher."""
    rng = np.random.default_rng(seed)
    level = 0.5 + 0.05 * rng.normal(size=n)
    return {
        f"a{k}": {s: float(level[s] + k * shift + 0.02 * e) for s, e in enumerate(rng.normal(size=n))}
        for k in range(arms)
    }


def pair(differences: list[float], baseline: float = 0.5) -> Scores:
    return {
        "base": dict.fromkeys(range(len(differences)), baseline),
        "arm": {seed: baseline + d for seed, d in enumerate(differences)},
    }


def only(analysis: Analysis) -> Comparison:
    (comparison,) = analysis.comparisons
    return comparison


def test_a_mean_that_is_rounding_reads_zero() -> None:
    c = only(analyze(pair([0.1, 0.2, -0.3], baseline=0.0), baseline="base"))  # .1 + .2 - .3 is 5.6e-17 in floats
    assert c.effect.mean_difference == 0
    assert "mean difference +0, " in c.sentence


def test_one_comparison_by_hand() -> None:
    scores = {"base": {1: 0.1, 2: 0.2, 3: 0.3}, "arm": {1: 0.2, 2: 0.4, 3: 0.6}}
    c = only(analyze(scores, baseline="base", margin=0.05))
    assert c.effect.mean_difference == pytest.approx(0.2)
    assert c.effect.sd_difference == pytest.approx(0.1)
    assert c.effect.correlation == pytest.approx(1.0)
    assert fixed(c).p_t == pytest.approx(1 - math.sqrt(12 / 14))  # t = 2√3 on 2 df
    assert c.adjusted_p == fixed(c).adjusted_p_t == fixed(c).p_t
    assert fixed(c).p_flip == fixed(c).p_wilcoxon == fixed(c).adjusted_p_flip == 2 / 8
    assert c.effect.interval == pytest.approx((0.2 - 0.248414, 0.2 + 0.248414), abs=1e-6)
    assert c.effect.simultaneous_interval == c.effect.interval
    assert fixed(c).flip_interval is None
    assert c.effect.d_z == pytest.approx(2)
    assert c.effect.g_z == pytest.approx(2 * hedges_j(3))
    assert c.effect.d_av == pytest.approx(0.2 / math.sqrt((0.01 + 0.04) / 2))
    assert c.effect.win_rate == 1
    assert c.effect.probability_of_improvement == pytest.approx((1.5 + 3 + 3) / 9)  # 0.2 ties one of three
    assert fixed(c).detectable == pytest.approx(0.326, abs=5e-4)
    assert fixed(c).seeds_for_margin == 34  # margin / sd = 0.5
    assert (c.verdict, c.label) == ("inconclusive", "model-based")


def test_arm_summaries_by_hand() -> None:
    analysis = analyze(pair([0.1, 0.2, 0.3, 0.4, 1.5], baseline=0.0), baseline="base")
    arm = analysis.arms[1]
    assert (arm.arm, arm.n, arm.minimum, arm.maximum) == ("arm", 5, 0.1, 1.5)
    assert arm.mean == pytest.approx(0.5)
    assert arm.interquartile_mean == pytest.approx(0.3)
    assert arm.sd == pytest.approx(np.std([0.1, 0.2, 0.3, 0.4, 1.5], ddof=1))
    assert arm.scores == (0.1, 0.2, 0.3, 0.4, 1.5)


@pytest.mark.parametrize(
    ("n", "label"), [(3, "model-based"), (7, "model-based"), (8, "distribution-free"), (22, "distribution-free")]
)
def test_the_number_of_seeds_alone_chooses_the_test(n: int, label: str) -> None:
    scores = draw(3, n, shift=0.003)
    analysis = analyze(scores, baseline="a0", seed=4)
    columns = np.array([[scores[arm][s] - scores["a0"][s] for arm in ("a1", "a2")] for s in range(n)])
    by_t = holm(stats.ttest_1samp(columns, 0.0).pvalue)
    by_flips = max_t(columns, np.random.default_rng(4))
    assert [fixed(c).adjusted_p_t for c in analysis.comparisons] == pytest.approx(list(by_t))
    assert [fixed(c).adjusted_p_flip for c in analysis.comparisons] == pytest.approx(list(by_flips), abs=1e-12)
    assert [c.adjusted_p for c in analysis.comparisons] == pytest.approx(list(by_t if n < 8 else by_flips))
    assert {c.label for c in analysis.comparisons} == {label}
    for c, d in zip(analysis.comparisons, columns.T, strict=True):
        bonferroni = stats.ttest_1samp(d, 0.0).confidence_interval(1 - 0.05 / 2)
        assert c.effect.simultaneous_interval == pytest.approx(tuple(bonferroni))
        flips = sign_flip_interval(d, 0.95, np.random.default_rng(4)) if n >= 8 else None
        assert fixed(c).flip_interval == (None if flips is None else pytest.approx(flips))


def test_better_worse_and_their_mirror() -> None:
    scores = draw(2, 8, shift=0.1)
    assert only(analyze(scores, baseline="a0")).verdict == "better"
    assert only(analyze(scores, baseline="a1")).verdict == "worse"
    lower = only(analyze(scores, baseline="a0", higher_is_better=False))
    assert lower.verdict == "worse"
    assert lower.effect.mean_difference > 0
    assert lower.effect.win_rate == 0
    assert lower.effect.probability_of_improvement < 0.5


def test_better_but_smaller_than_the_margin() -> None:
    c = only(analyze(pair([0.010, 0.011, 0.012, 0.009, 0.010]), baseline="base", margin=0.02))
    assert (c.verdict, c.smaller_than_margin) == ("better", True)
    assert "better, but smaller than 0.02" in c.sentence
    large = only(analyze(pair([0.010, 0.011, 0.012, 0.009, 0.010]), baseline="base", margin=0.01))
    assert (large.verdict, large.smaller_than_margin) == ("better", False)
    assert "smaller" not in large.sentence


def test_equivalent_rests_on_a_model_at_any_n() -> None:
    c = only(analyze(pair([0.001, -0.001] * 5), baseline="base", margin=0.01))
    assert (c.verdict, c.label) == ("equivalent", "model-based")
    assert "equivalent within ±0.01 (model-based)" in c.sentence
    assert not c.smaller_than_margin


def test_equivalence_is_adjusted_over_the_family() -> None:
    scores = draw(4, 6)
    singles = [only(analyze({"a0": scores["a0"], arm: scores[arm]}, baseline="a0")) for arm in ("a1", "a2", "a3")]
    joint = analyze(scores, baseline="a0").comparisons
    raw = [fixed(c).p_equivalence or 0.0 for c in singles]
    assert [fixed(c).p_equivalence for c in joint] == pytest.approx(list(holm(raw)))


def test_families() -> None:
    scores = draw(4, 5)
    baseline = analyze(scores, baseline="a2")
    assert [(c.arm, c.baseline) for c in baseline.comparisons] == [("a0", "a2"), ("a1", "a2"), ("a3", "a2")]
    everyone = analyze(scores, baseline="a2", family="all")
    assert len({frozenset((c.arm, c.baseline)) for c in everyone.comparisons}) == 6
    # planning is at α / m, so the larger family detects less
    assert (fixed(everyone.comparisons[0]).detectable or 0) > (fixed(baseline.comparisons[0]).detectable or 0)


def test_seeds_for_margin_high_uses_the_upper_limit_of_the_sd() -> None:
    scores = pair([0.0, 0.1, 0.2])  # sd 0.1
    c = only(analyze(scores, baseline="base", margin=0.1))
    upper = 0.1 * math.sqrt(2 / stats.chi2.ppf(0.2, 2))
    same_ratio = only(analyze(pair([0.0, upper, 2 * upper]), baseline="base", margin=0.1))
    assert fixed(c).seeds_for_margin == 10  # d_z = 1
    assert fixed(c).seeds_for_margin_high == fixed(same_ratio).seeds_for_margin
    assert fixed(only(analyze(scores, baseline="base", margin=10.0))).seeds_for_margin == 3  # a test takes three


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_seeds_are_described_and_not_tested(n: int) -> None:
    c = only(analyze(pair([0.1, 0.3][:n]), baseline="base"))
    assert (c.verdict, c.label) == ("untestable", "descriptive")
    assert fixed(c).p_t is fixed(c).p_flip is fixed(c).p_wilcoxon is c.adjusted_p is fixed(c).p_equivalence is None
    assert c.effect.interval is None
    assert c.effect.mean_difference == pytest.approx([0.1, 0.2][n - 1])
    assert fixed(c).seeds_for_margin == (None if n == 1 else 1572)  # (2.8016 / 0.0707)² + 1.96² / 2
    assert "untestable" in c.sentence


@pytest.mark.parametrize("n", [3, 5, 8, 21])
@pytest.mark.parametrize("shift", [0.0, 0.01])
def test_differences_that_all_agree_are_untestable(n: int, shift: float) -> None:
    scores = {"base": {s: 0.1 * s for s in range(n)}, "arm": {s: 0.1 * s + shift for s in range(n)}}
    analysis = analyze(scores, baseline="base")
    c = only(analysis)
    assert (c.verdict, c.label, c.effect.equal_shift) == ("untestable", "descriptive", shift != 0)
    f = fixed(c)
    assert f.p_t == f.p_flip == f.p_wilcoxon == f.adjusted_p_t == f.adjusted_p_flip == f.p_equivalence == 1
    assert c.effect.sd_difference == 0
    assert c.effect.interval is c.effect.simultaneous_interval is fixed(c).flip_interval is None
    assert c.effect.d_z is c.effect.g_z is fixed(c).detectable is None
    question = "is the seed really applied?" if shift else "do the two arms really differ?"
    assert any(question in note for note in analysis.notes)


def test_an_untestable_arm_does_not_spoil_the_others() -> None:
    scores = draw(2, 8, shift=0.1)
    scores["copy"] = dict(scores["a0"])
    by_arm = {c.arm: c for c in analyze(scores, baseline="a0").comparisons}
    assert by_arm["copy"].verdict == "untestable"
    assert by_arm["a1"].verdict == "better"
    assert by_arm["a1"].adjusted_p == 2 / 2**8


def test_five_seeds_say_what_they_cannot_show() -> None:
    analysis = analyze(draw(4, 5), baseline="a0")
    (note,) = [note for note in analysis.notes if "0.0625" in note]
    assert "0.0625 > 0.05 — no data could be significant without assuming normality" in note
    assert "(m = 3: 0.0167) 80 % power at this n needs |d_z| ≥ 1.68 (2.29)" in note
    needed = sorted(fixed(c).seeds_for_margin or 0 for c in analysis.comparisons)
    assert f"To detect 0.01 you need {needed[0]} to {needed[-1]} seeds" in note


def test_the_small_n_message_ends_when_the_margin_is_in_reach() -> None:
    scores = draw(2, 8)
    assert any("the smallest two-sided p" in note for note in analyze(scores, baseline="a0", margin=0.01).notes)
    note, of_answers = analyze(scores, baseline="a0", margin=0.01).notes
    assert of_answers.startswith("The answers behind the scores are not known")
    assert "no data could be significant" not in note  # 2 / 2^8 < 0.05
    assert analyze(scores, baseline="a0", margin=0.2).notes == (of_answers,)
    assert analyze(draw(2, 5), baseline="a0", margin=0.2).notes != (of_answers,)


def test_no_note_on_answers_where_there_is_no_interval() -> None:
    assert not any("answers behind the scores" in note for note in analyze(draw(2, 1), baseline="a0").notes)
    assert any("answers behind the scores" in note for note in analyze(draw(2, 3), baseline="a0").notes)


@pytest.mark.parametrize(
    ("scores", "correlation"),
    [((2, 3, 1), -0.5), ((1, 0, 1), 0.0), ((9, 0, 10), 1 / math.sqrt(4 * 91 / 3)), ((1, 3, 2), 0.5)],
)
def test_low_correlation_is_pointed_out(scores: tuple[float, float, float], correlation: float) -> None:
    analysis = analyze({"a": {0: 1.0, 1: 2.0, 2: 3.0}, "b": dict(enumerate(scores))}, baseline="a")
    assert only(analysis).effect.correlation == pytest.approx(correlation, abs=1e-12)
    assert any("correlation over seeds" in note for note in analysis.notes) == (correlation < 0.1)


def test_missing_seeds_leave_every_arm_and_are_named() -> None:
    scores = draw(3, 10)
    del scores["a1"][3], scores["a2"][7]
    analysis = analyze(scores, baseline="a0")
    assert analysis.seeds == (0, 1, 2, 4, 5, 6, 8, 9)
    assert {arm.n for arm in analysis.arms} == {8}
    assert {c.effect.n for c in analysis.comparisons} == {8}
    message = "2 of 10 seeds removed from every arm (seeds 3, 7): a1 lacks seed 3; a2 lacks seed 7."
    assert message in analysis.notes
    complete = {arm: {s: x for s, x in runs.items() if s not in (3, 7)} for arm, runs in scores.items()}
    assert analyze(complete, baseline="a0").comparisons == analysis.comparisons
    assert not any("do not rank" in note for note in analysis.notes)
    del scores["a1"][0]
    assert any("do not rank" in note for note in analyze(scores, baseline="a0").notes)


@pytest.mark.parametrize("margin", [0.001, 0.01, 0.05])
@pytest.mark.parametrize("n", [3, 5, 8, 12])
def test_inconclusive_never_reads_as_agreement(n: int, margin: float) -> None:
    for seed in range(20):
        for c in analyze(draw(3, n, seed=seed), baseline="a0", margin=margin).comparisons:
            if c.verdict == "inconclusive":
                assert not re.search(r"no (significant )?difference|equal|same|equivalent|identical", c.sentence, re.I)
                needed, at_most = fixed(c).seeds_for_margin, fixed(c).seeds_for_margin_high
                assert needed is not None
                assert at_most is not None
                assert f"needs a true difference of {fixed(c).detectable:.3g}" in c.sentence
                needs = f"{needed} seeds ({at_most if at_most <= 1000 else 'over 1000'} if"
                if needed > 1000:
                    needs = "more than 1000 seeds, which is not reachable."
                assert f"detecting {margin:g} needs {needs}" in c.sentence


def test_no_sentence_asks_for_a_difference_that_cannot_be() -> None:
    """At d = -.6, 0, .6 (sd .6) 80 % power takes 3.26 sd, 1.96, of an accuracy, and .01 takes 28,000 seeds."""
    scores = {"base": {0: 0.8, 1: 0.5, 2: 0.2}, "arm": {0: 0.2, 1: 0.5, 2: 0.8}}
    analysis = analyze(scores, baseline="base", metric="accuracy", largest=1.0)
    c = only(analysis)
    assert fixed(c).detectable == pytest.approx(1.96, abs=0.01)
    message = "needs a larger true difference than accuracy can have, which is not reachable"
    assert message in c.sentence
    assert "detecting 0.01 needs more than 1000 seeds, which is not reachable." in c.sentence
    (note,) = [note for note in analysis.notes if "paired seeds" in note]
    assert "a larger true difference than accuracy can have" in note
    assert "To detect 0.01 you need more than 1000 seeds, which is not reachable." in note
    assert str(fixed(c).seeds_for_margin) not in c.sentence + note
    assert f"needs a true difference of {fixed(c).detectable:.3g}" in only(analyze(scores, baseline="base")).sentence


def test_sentences_carry_the_numbers() -> None:
    c = only(analyze(pair([0.2, 0.4, 0.6], baseline=0.0), baseline="base", metric="accuracy"))
    assert c.sentence.startswith(
        "arm vs base on accuracy: inconclusive; mean difference +0.4, 95 % interval [-0.0968, +0.897], 3 seeds, "
        "adjusted p = 0.07418 (paired t, Holm, m = 1)."
    )


KEYS = {
    *("arm", "baseline", "n", "mean_difference", "sd_difference", "standard_error", "answers_error", "answers"),
    *("correlation", "interval", "simultaneous_interval", "flip_interval", "p_t", "p_flip", "p_wilcoxon", "p_answers"),
    *("adjusted_p_t", "adjusted_p_flip", "adjusted_p", "p_equivalence", "d_z", "g_z", "d_av", "win_rate"),
    *("probability_of_improvement", "detectable", "seeds_for_margin", "seeds_for_margin_high", "equal_shift"),
    *("verdict", "label", "test", "smaller_than_margin", "sentence"),
}


def test_json_is_plain_in_full_precision_and_p_is_never_zero() -> None:
    plain = analyze(draw(3, 9, shift=0.5), baseline="a0").to_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert set(plain) == {field.name for field in dataclasses.fields(Analysis)}
    first = plain["comparisons"][0]
    assert set(first) == KEYS
    for name, value in first.items():
        if name.startswith(("p_", "adjusted_p")):
            assert value is None or value > 0
    assert first["adjusted_p"] == analyze(draw(3, 9, shift=0.5), baseline="a0").comparisons[0].adjusted_p
    assert isinstance(first["interval"], list)
    assert analyze(pair([0.1]), baseline="base").to_json()["comparisons"][0]["p_t"] is None


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        ({"a": {0: 1.0}}, {}, r"1 arm\(s\) given; a comparison needs at least 2"),
        ({"b": {0: 1.0}, "dapo": {0: 1.0}}, {"baseline": "dap"}, "unknown baseline 'dap'; the arms are dapo, b"),
        ({"a": {0: 1.0}, "b": {0: math.nan}}, {}, "arm 'b', seed 0: score nan is not a finite number"),
        ({"a": {0: 1.0}, "b": {0: None}}, {}, "arm 'b', seed 0: score None is not a finite number"),
        ({"a": {0: 1.0}, "b": {}}, {}, "arm 'b' has no seeds"),
        ({"a": {0: 1.0}, "b": {1: 1.0}}, {}, r"no seed is shared by all arms \(a \[0\], b \[1\]\)"),
        ({"a": {0: 1.0}, "b": {"0": 1.0}}, {}, "seed '0'; seeds are integers"),
        ({"a": {0: 1.0}, "b": {0: 1.0}}, {"alpha": 0.0}, "alpha = 0"),
        ({"a": {0: 1.0}, "b": {0: 1.0}}, {"alpha": 0.5}, "alpha = 0"),
        ({"a": {0: 1.0}, "b": {0: 1.0}}, {"margin": 0.0}, "margin = 0"),
        ({"a": {0: 1.0}, "b": {0: 1.0}}, {"margin": math.nan}, "margin = nan"),
        ({"a": {0: 1.0}, "b": {0: 1.0}}, {"family": "some"}, "unknown family 'some'"),
    ],
)
def test_bad_input_is_refused(scores: Scores, options: Mapping[str, object], message: str) -> None:
    arguments: dict[str, object] = {"baseline": "a"} | dict(options)
    with pytest.raises(ValueError, match=message):
        analyze(scores, **arguments)  # type: ignore[arg-type]


studies = st.tuples(st.integers(2, 4), st.integers(3, 9)).flatmap(
    lambda size: st.lists(
        st.lists(st.integers(0, 30), min_size=size[1], max_size=size[1]), min_size=size[0], max_size=size[0]
    )
)


def from_counts(rows: list[list[int]], scale: float = 1 / 30) -> Scores:
    return {f"a{k}": {s: scale * count for s, count in enumerate(row)} for k, row in enumerate(rows)}


def numbers(analysis: Analysis) -> dict[frozenset[str], tuple[object, ...]]:
    """What must not depend on the order of arms or seeds, or (verdict aside) on the unit."""
    return {
        frozenset((c.arm, c.baseline)): (
            c.verdict if c.baseline == analysis.baseline else None,
            *(pytest.approx(p, rel=1e-6) for p in (fixed(c).p_t, fixed(c).adjusted_p_t, fixed(c).p_equivalence)),
            *(pytest.approx(p, abs=1e-12) for p in (fixed(c).p_flip, fixed(c).adjusted_p_flip, fixed(c).p_wilcoxon)),
        )
        for c in analysis.comparisons
    }


@settings(deadline=None)
@given(studies, st.sampled_from(["baseline", "all"]), st.randoms(use_true_random=False))
def test_order_of_arms_and_seeds_and_unit_do_not_matter(
    rows: list[list[int]], family: Literal["baseline", "all"], random: "np.random.RandomState"
) -> None:
    scores = from_counts(rows)
    expected = numbers(analyze(scores, baseline="a0", family=family, margin=0.05))
    shuffled: Scores = {}
    for arm in sorted(scores, key=lambda _: float(random.random())):
        seeds = sorted(scores[arm], key=lambda _: float(random.random()))
        shuffled[arm] = {seed: scores[arm][seed] for seed in seeds}
    assert numbers(analyze(shuffled, baseline="a0", family=family, margin=0.05)) == expected
    relabelled = {arm: {100 - seed: score for seed, score in runs.items()} for arm, runs in scores.items()}
    assert numbers(analyze(relabelled, baseline="a0", family=family, margin=0.05)) == expected
    percent = from_counts(rows, scale=100 / 30)
    assert numbers(analyze(percent, baseline="a0", family=family, margin=5.0)) == expected


@settings(deadline=None)
@given(studies)
def test_adjusted_p_is_at_least_raw_p_and_a_multiple_of_its_floor(rows: list[list[int]]) -> None:
    for c in analyze(from_counts(rows), baseline="a0", family="all").comparisons:
        f = fixed(c)
        assert f.p_flip is not None
        assert f.adjusted_p_flip is not None
        assert f.adjusted_p_t is not None
        assert f.p_t is not None
        assert f.adjusted_p_flip >= f.p_flip
        assert f.adjusted_p_t >= f.p_t
        assert (f.p_flip * 2 ** (c.effect.n - 1)).is_integer()
        assert (f.adjusted_p_flip * 2 ** (c.effect.n - 1)).is_integer()


def test_random_flips_are_repeatable() -> None:
    scores = draw(3, 24, shift=0.002)
    first, again = analyze(scores, baseline="a0"), analyze(scores, baseline="a0")
    assert first == again
    assert fixed(first.comparisons[0]).p_flip != fixed(analyze(scores, baseline="a0", seed=1).comparisons[0]).p_flip
