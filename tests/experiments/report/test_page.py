"""The page: what it says, in which order, that it holds everything it needs, and the same bytes twice."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from experiments.report import render, write_report
from experiments.report.formatting import p_text
from experiments.results.stored_run import StoredRun, StudyError
from experiments.results.stored_study import StoredStudy, load_study
from experiments.statistics import Judgement
from tests.experiments.report.pages import Page, read
from tests.experiments.report.studies import FINALS, STEPS, judge, write_study


@dataclass(frozen=True)
class RenderedStudy:
    study: StoredStudy
    judgement: Judgement
    path: Path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> RenderedStudy:
    """The study of two arms and its report, in a folder that `write_report` had to make."""
    folder = tmp_path_factory.mktemp("report")
    study = write_study(folder / "pair")
    return RenderedStudy(study, judge(study), write_report(study, judge(study), folder / "deep" / "report.html"))


def test_the_tables_hold_the_numbers_redone_by_hand(pair: RenderedStudy) -> None:
    page = read(pair.path)
    _, dapo = page.table("Verdicts")
    assert dapo == [
        *("dapo", "grpo", "3", "56.0 % vs 52.0 %", "+4.0", " −0.97 to +8.97", "0.0742 paired t, Holm"),
        *("+1.13", "1.00", "? inconclusivemodel-based"),
    ]
    _, grpo, dapo = page.table("The arms")
    assert grpo == ["grpo baseline", "3", "52.0 %", "2.0", "52.0 %", "6.00 k", "10.0", "9.0"]
    assert dapo == ["dapo", "3", "56.0 %", "2.0", "56.0 %", "12.0 k", "10.0", "9.0"]


def test_sections_come_in_order_and_say_what_they_rest_on(pair: RenderedStudy) -> None:
    text = pair.path.read_text("utf-8")
    assert read(pair.path).headings == [
        "Verdicts",
        "Does it hold?",
        "Declared before the first run",
        "Learning curves",
        "Paired differences, seed by seed",
        "Beyond the mean",
        "What identical seeds bought",
        "Runs",
        "What the models wrote",
        "Exploratory",
        "Every number",
        "What the arms are",
        "How to run it again",
    ]
    assert f'<p class="eyebrow">Study {pair.study.name}</p>' in text
    assert "Does dapo change held-out accuracy compared with grpo?" in text
    assert "every verdict here is conditional on this base" in text
    assert "95\u00a0% t interval of that mean over seeds" in text
    assert "grpolab compare grpo dapo --seeds 3" in text
    assert "The first rollouts are the same in all arms, seed by seed." in text
    assert "torch 2.9.0, on a processor" in text
    plain = re.sub(r"&#x27;", "'", text).replace("&gt;", ">").replace("&lt;", "<")
    for sentence in [*(each.sentence for each in pair.judgement.analysis.comparisons), *pair.judgement.analysis.notes]:
        assert sentence in plain


def test_a_verdict_that_turns_is_marked_at_the_head_and_in_the_table(tmp_path: Path) -> None:
    """Better by 4 points; but at grpo's 2,000, 4,000 and 6,000 tokens dapo is at steps 1, 2, 3: .493, .511 and .527."""
    study = write_study(tmp_path / "clear", {"grpo": [0.50, 0.52, 0.54], "dapo": [0.54, 0.561, 0.58]})
    judgement = judge(study)
    text = render(study, judgement)
    head, row = Page(text).table("Verdicts by failure policy and axis")
    assert head == [
        *("comparison", "failures: worst", "failures: intersect declared"),
        *("equal rollout steps declared", "equal sampled tokens", "equal seconds of training"),
    ]
    analysis = judgement.axes["sampled_tokens"]
    assert analysis is not None
    scores = [0.49 + 0.01 / 3, 0.51 + 0.0025 / 3, 0.52 + 0.02 / 3]
    assert analysis.comparisons[0].effect.mean_difference == pytest.approx(sum(scores) / 3 - 0.52)
    assert row[4].endswith(f"−1.0, n = 3, p = {p_text(analysis.comparisons[0].adjusted_p, 0.05)}")
    assert "Turns out otherwise: equal sampled tokens." in text
    assert all(warning in text for warning in judgement.warnings)
    assert judgement.warnings


def test_where_nothing_is_decided_nothing_turns(tmp_path: Path) -> None:
    """Inconclusive at equal steps and, with the other sign, at equal tokens: that is no news."""
    study = write_study(tmp_path / "wide", {"grpo": [0.50, 0.52, 0.54], "dapo": [0.40, 0.70, 0.56]})
    judgement = judge(study)
    tokens = judgement.axes["sampled_tokens"]
    assert tokens is not None
    (ours,), (other,) = judgement.analysis.comparisons, tokens.comparisons
    assert (ours.verdict, other.verdict) == ("inconclusive", "inconclusive")
    assert ours.effect.mean_difference * other.effect.mean_difference < 0
    assert judgement.warnings == ()
    assert "Turns out otherwise" not in render(study, judgement)


def test_seconds_make_no_headline(tmp_path: Path) -> None:
    """The same runs on a machine that was busy with the other arm: only the table knows."""
    study = write_study(tmp_path / "clear", {"grpo": [0.50, 0.52, 0.54], "dapo": [0.54, 0.561, 0.58]})
    for file in (study.path / "dapo").glob("*/metrics.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        slow = [
            row | {"seconds": {"sample": 3 * row["seconds"]["sample"]}, "total_sampled_tokens": 1000 * row["step"]}
            for row in rows
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in slow))
        for evaluation in file.parent.glob("eval/*.json"):
            record = json.loads(evaluation.read_text())
            evaluation.write_text(json.dumps(record | {"total_sampled_tokens": 1000 * record["step"]}))
    study = load_study(study.path)
    judgement = judge(study)
    seconds = judgement.axes["seconds"]
    assert seconds is not None
    assert judgement.analysis.comparisons[0].verdict == "better"
    assert seconds.comparisons[0].verdict == "worse"
    assert judgement.warnings == ()
    text = render(study, judgement)
    assert "Turns out otherwise" not in text
    assert "▼ worse" in Page(text).table("Verdicts by failure policy and axis")[1][5]


def test_cards_mark_the_axes_on_which_an_arm_differs(pair: RenderedStudy) -> None:
    text = pair.path.read_text("utf-8")
    assert re.search(r'<tr class=differs><th scope="row">clip</th><td>\[0.2, 0.2\]</td><td class="other t1"', text)
    assert '<tr><th scope="row">baseline</th><td>group mean</td><td>group mean</td></tr>' in text


def test_the_same_group_shows_what_each_arm_made_of_it(pair: RenderedStudy) -> None:
    """At the first step all wrote the same; the second arm's advantages are twice the first's."""
    first, last = [table for table in read(pair.path).tables if table[0][0] == "response"]
    assert first[1:] == [
        [">3", "+0.50 reward 1.00, 2×", "+1.00 reward 1.00, 2×"],
        [">4", "−1.00 reward 0.00, 1×", "−2.00 reward 0.00, 1×"],
    ]
    assert last[2] == ["grpo wrote", "−1.00 reward 0.00, 1×", "–"]


def test_groups_that_cannot_be_read_are_an_error_with_a_remedy(tmp_path: Path) -> None:
    study = write_study(tmp_path / "pair")
    (tmp_path / "pair" / "dapo" / "seed=0" / "rollouts" / "step=000006.json").write_text('[{"prompt": "1"}]')
    with pytest.raises(StudyError, match=r"step=000006\.json.*remove the file"):
        render(study, None)


def test_nothing_is_loaded_from_elsewhere(pair: RenderedStudy) -> None:
    page, text = read(pair.path), pair.path.read_text("utf-8")
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not re.search(r"https?://|@import|url\(", text)
    assert not {"img", "link", "iframe", "object"} & set(page.tags)
    assert page.tags.count("script") == 1
    assert len(page.ids) == len(set(page.ids))


def test_every_figure_says_in_words_what_it_shows(pair: RenderedStudy) -> None:
    figures = re.findall(r'<svg class="figure"[^>]*aria-label="([^"]*)"', pair.path.read_text("utf-8"))
    assert len(figures) == pair.path.read_text("utf-8").count('class="figure"')
    assert "Held-out accuracy by rollout steps: grpo ends at 53.0 %; dapo ends at 57.0 %." in figures
    assert "Paired differences: dapo minus grpo +4.0, interval −0.97 to +8.97, inconclusive." in figures


def test_what_a_model_wrote_is_text_never_markup_and_is_cut_where_it_is_long(tmp_path: Path) -> None:
    response = '<script>alert("1")</script>\ud800 & <b>'
    study = write_study(tmp_path / "pair", response=response + "7" * 1500)
    text = write_report(study, judge(study), tmp_path / "report.html").read_text("utf-8")
    assert text.count("<script") == 1
    left = 1200 - len(response)
    shown = f"&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;? &amp; &lt;b&gt;{'7' * left}"
    assert f'{shown}<span class="cut"> … {1500 - left} more characters</span>' in text


def test_two_calls_give_the_same_bytes(pair: RenderedStudy, tmp_path: Path) -> None:
    again = load_study(pair.study.path)
    assert write_report(again, judge(again), tmp_path / "again.html").read_bytes() == pair.path.read_bytes()


def test_a_report_appears_whole_or_not_at_all(
    pair: RenderedStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("an earlier report")

    def fail(draft: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(StudyError, match=r"cannot write .*disk full"):
        write_report(pair.study, None, path)
    assert path.read_text() == "an earlier report"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_no_report(pair: RenderedStudy, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"report\.html"):
        write_report(pair.study, None, tmp_path)


LONG = ("grpo_with_a_rather_long_name_and_eps_high_0.28", "dapo_without_dynamic_sampling_but_with_$5_and_$6<&>")
EIGHT = {"grpo": [0.5 + 0.01 * s for s in range(8)], "dapo": [0.55 + 0.01 * s + 0.002 * (s % 3) for s in range(8)]}
CLAIM = {"question": "Does it help?", "source": "a paper", "predictions": ["dapo > grpo on test/accuracy by 0.01"]}
CASES: dict[str, tuple[dict[str, Any], Sequence[str], Sequence[str]]] = {
    "one arm": (
        {"finals": {"grpo": [0.5, 0.6]}},
        ["no verdict", "What held-out accuracy does grpo reach?"],
        ["Does it hold", "Exploratory", "Ranks"],
    ),
    "one seed": (
        {"finals": {"grpo": [0.5], "dapo": [0.6]}, "margin_declared": False},
        ["untestable", "There is no band", "nobody chose it for this study"],
        ["The band is", "Beyond the mean", "What identical seeds bought"],
    ),
    "no entropy, tokens": (
        {"entropy": False, "axis": "sampled_tokens", "budget": 6000},
        ["Learning curves", "6\u202f000 sampled tokens per run"],
        ["Entropy"],
    ),
    "responses of older weights": (
        {"age": 2.0},
        ["Age of what is learned from, in updates"],
        [],
    ),
    "on-policy": ({"age": 0.0}, ["Learning curves"], ["Age of what"]),
    "no seconds, no groups": (
        {"seconds": False, "rollouts": False},
        ['id="axis-steps"'],
        ['id="axis-seconds"', "In training"],
    ),
    "long names": ({"finals": dict(zip(LONG, FINALS.values(), strict=True))}, ["$5_<wbr>and"], ["<&>"]),
    "no finished run": (
        {
            "finals": FINALS | {"rloo": [0.5, 0.5, 0.5]},
            "unfinished": [("rloo", seed, "failed") for seed in range(3)],
        },
        ["rloo 0 of 3 (3 failed)", "rloo has no finished run", "the loss was nan", "Dotted lines"],
        [],
    ),
    "imputed": (
        {"finals": EIGHT, "unfinished": [("dapo", 2, "failed"), ("dapo", 5, "lost")], "failures": "worst"},
        ["Depends on failure handling", "the disk is full", ">lost<", "with 7 seeds they are too narrow"],
        [],
    ),
    "runs missing": (
        {"finals": {"grpo": [0.5, 0.5, 0.6], "dapo": [0.6]}, "metric": "test/length"},
        ["dapo 1 of 3 (2 not started)", "not started</span>", "held-out response length"],
        [],
    ),
    "claim": (
        {"finals": EIGHT, "claim": CLAIM},
        ["Does it help?", "a paper", '<span class="badge better">supported</span>', "dapo higher than grpo on"],
        ["{&#x27;question"],
    ),
    "race": (
        {"finals": {arm: row + row[:2] for arm, row in EIGHT.items()}, "race": True, "failures": "worst"},
        ["a race: a look after every seed", "sign-flip betting, anytime", "holds whenever one stops"],
        ["Does it hold", "Exploratory", "Beyond the mean"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_studies_that_are_not_the_common_case(tmp_path: Path, case: str) -> None:
    options, present, absent = CASES[case]
    study = write_study(tmp_path / "study", **options)
    path = write_report(study, study.judge(), tmp_path / "report.html")
    text = path.read_text("utf-8")
    read(path)
    assert [words for words in present if words not in text] == []
    assert [words for words in absent if words in text] == []
    shown = "".join(re.findall(r">([^<]*)<", text))
    assert "nan" not in re.sub("the loss was nan", "", shown).split()
    assert not re.search(r'[\s"(]nan[\s")]', "".join(re.findall(r"<(?:path|g|rect|text)[^>]*>", text)))


def test_ranks_join_what_the_declared_pairs_do_not_tell_apart(tmp_path: Path) -> None:
    """grpo and rloo alternate, dapo is ahead on every seed: ranks 1, 2.5 and 2.5, and dapo stands alone."""
    finals = {
        "grpo": [0.50, 0.51] * 5,
        "dapo": [0.60 + 0.001 * seed for seed in range(10)],
        "rloo": [0.51, 0.50] * 5,
    }
    for family, joined in (("all", "Joined by bars: grpo and rloo."), ("baseline", "Joined by bars: rloo and grpo.")):
        study = write_study(tmp_path / family, finals, family=family)
        text = render(study, judge(study))
        assert f"Mean ranks, the best first: dapo 1.00, grpo 2.50, rloo 2.50. {joined}" in text
        assert ("so there are no cliques" in text) == (family == "baseline")


def test_the_matrix_holds_every_declared_pair_both_ways(tmp_path: Path) -> None:
    study = write_study(tmp_path / "three", FINALS | {"rloo": [0.51, 0.5, 0.55]}, family="all")
    text = render(study, judge(study))
    (label,) = re.findall(r'aria-label="Verdict matrix: ([^"]*)"', text)
    assert "dapo against grpo inconclusive (+4.0)" in label
    assert "grpo against dapo inconclusive (−4.0)" in label
    assert label.count(" against ") == 6
    assert [row[:2] for row in Page(text).table("Verdicts")[1:]] == [
        *(["dapo", "grpo"], ["rloo", "grpo"], ["rloo", "dapo"]),
    ]


def test_a_study_without_a_folder_has_a_page_without_holes(tmp_path: Path) -> None:
    """Somebody's table of evaluations: no manifests, cards, prompts, hashes or training metrics."""
    runs = tuple(
        StoredRun(
            arm,
            seed,
            "finished",
            tmp_path / "none",
            {},
            [],
            [
                {
                    "step": step,
                    "split": "test",
                    "total_sampled_tokens": 100 * step,
                    "correct": [],
                    "summary": {"accuracy": score + step / 100},
                }
                for step in STEPS
            ],
        )
        for arm, row in FINALS.items()
        for seed, score in enumerate(row)
    )
    declaration = load_study(write_study(tmp_path / "pair").path).declaration
    study = StoredStudy(tmp_path / "table.csv", "table", declaration, {arm: {} for arm in FINALS}, runs, {})
    page = Page(render(study, judge(study)))
    assert page.headings == [
        *("Verdicts", "Does it hold?", "Declared before the first run", "Learning curves"),
        *("Paired differences, seed by seed", "Beyond the mean", "What identical seeds bought", "Runs"),
        *("Exploratory", "Every number"),
    ]


def test_every_number_is_in_the_details(pair: RenderedStudy) -> None:
    (each,) = pair.judgement.analysis.comparisons
    head, row = read(pair.path).table("Every number of the comparisons")
    cells = dict(zip(head, row, strict=True))
    assert cells["sd of differences"] == "2.0"
    assert cells["correlation of arms"] == f"{each.effect.correlation:.2f}"
    assert cells["95\u00a0% interval"] == "−0.97 to +8.97"  # -1.0 would be the margin
    assert cells["Holm t"] == "0.0742"
    assert cells["d_z"] == "2.00"


def test_coupling_is_the_variance_ratio_redone_by_hand(pair: RenderedStudy) -> None:
    """Both arms have sd .02 and d has sd .02: variances .0004 / 3 paired and .0008 / 3 unpaired, so 6 seeds."""
    _, row = read(pair.path).table("Coupling")
    assert row == ["dapo", "grpo", "3", "0.50", "–", "1.15", "1.63", "0.50", "6.0"]


def test_exploratory_rows_are_marked_and_have_no_verdict(pair: RenderedStudy) -> None:
    head, *rows = read(pair.path).table("Exploratory comparisons")
    assert head[-2:] == ["p", "q"]
    assert len(rows) == len(pair.judgement.exploratory) > 0
    assert not any(word in cell for row in rows for cell in row for word in ("better", "worse", "equivalent"))


TUNED = {
    "parameter": "adamw.learning_rate",
    "metric": "tune/accuracy",
    "rates": [1e-4, 3e-4, 1e-3],
    "seeds": [1000, 1001],
    "best": {"grpo": 3e-4, "dapo": 1e-3, "not in this study": 1e-4},
    "at_the_edge": ["dapo", "not in this study"],
    "table": {
        "grpo": {
            "0.0001": {"mean": 0.4, "scores": {"1000": 0.3, "1001": 0.5}},
            "0.0003": {"mean": 0.6, "scores": {"1000": 0.6, "1001": 0.6}},
            "0.001": {"mean": 0.1, "scores": {"1000": 0.2, "1001": 0.0}},
        },
        "dapo": {
            "0.0001": {"mean": 0.3, "scores": {"1000": 0.3, "1001": 0.3}},
            "0.0003": {"mean": 0.5, "scores": {"1000": 0.5, "1001": 0.5}},
            "0.001": {"mean": 0.7, "scores": {"1000": 0.6, "1001": 0.8}},
        },
    },
}


def test_a_tuned_study_shows_how_much_the_rate_matters(tmp_path: Path) -> None:
    study = write_study(tmp_path / "pair", record={"tuned": TUNED}, tuned="tuned.json")
    text = render(study, judge(study))
    page = Page(text)
    assert page.headings[2:4] == ["Declared before the first run", "Tuning"]
    assert page.table("Tuning") == [
        ["arm", "best rate", "where it lies", "0.0001 mean", "0.0003 mean", "0.001 mean"],
        ["grpo", "0.0003", "inside what was tried", "40.0 %", "60.0 %", "10.0 %"],
        ["dapo", "0.001", "at the edge of what was tried", "30.0 %", "50.0 %", "70.0 %"],
    ]
    assert "other seeds and other questions than the comparison" in text
    assert "a better one beyond it" in text
    assert (
        'aria-label="Mean accuracy on tune by learning rate: grpo is best at 0.0003 (60.0 %); dapo is best at 0.001 '
        '(70.0 %)."' in text
    )
    assert text.count(", seed 1000: ") == 6
    inside = {**TUNED, "at_the_edge": []}
    assert "a better one beyond it" not in render(write_study(tmp_path / "inside", record={"tuned": inside}), None)


def test_what_a_race_has_no_number_for_has_no_column(tmp_path: Path) -> None:
    study = write_study(tmp_path / "race", **CASES["race"][0])
    head, row = Page(render(study, judge(study))).table("Every number of the comparisons")
    assert head == [
        *("comparison", "sd of differences", "correlation of arms", "standard error"),
        *("95\u00a0% interval", "95\u00a0% of the family", "d_z", "d_av", "P(improvement)"),
    ]
    assert "–" not in row


def test_the_declaration_is_shown_whole(tmp_path: Path) -> None:
    study = write_study(tmp_path / "pair", tuned="tuned.json", ablation={"design": "cumulative"})
    text = render(study, judge(study))
    assert "<dt>Tuned</dt><dd>tuned.json</dd>" in text
    assert "<dt>Ablation</dt><dd>design: cumulative</dd>" in text
    assert json.loads((tmp_path / "pair" / "study.json").read_text())["hash"][:16] in text


def test_proxy_and_gold_are_one_picture_an_arm_where_a_reward_is_learnt(tmp_path: Path) -> None:
    """Runs in which the learnt reward rises from 1 to 6 while accuracy falls from 90 % to 40 %."""
    study = write_study(tmp_path / "study")
    assert "Proxy against gold" not in render(study, judge(study))
    for metrics in tmp_path.rglob("metrics.jsonl"):
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
        for row in rows:
            parts = {"reward_model": float(row["step"]), "final_digit": 1 - 0.1 * row["step"]}
            row |= {"accuracy": parts["final_digit"], "reward_parts": parts}
        metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = load_study(tmp_path / "study")
    page = render(study, judge(study))
    for arm in study.arms:
        label = f"Proxy against gold, {arm}, in training: right from 90.00 to 40.00 %, learnt reward from 1.00 to 6.00."
        assert label in page
