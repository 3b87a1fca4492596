"""The report and the terminal's table: numbers redone by hand, nothing loaded from outside, the same bytes twice."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from experiments.report import write_report
from experiments.report.figures import arm_styles, mean_and_band
from experiments.report.tables import number_text, p_text, thousands, unit, verdict_table
from experiments.results import Study, StudyError, load_study
from experiments.statistics import Analysis

# d = .04, .06, .02: mean .04, sd .02, t = 2 √3, p = 1 - t / √(2 + t²) = .0742 at 2 degrees of freedom;
# half-width 4.3027 × .02 / √3 = .0497; g_z = 2 × Γ(1) / Γ(1/2) = 1.128
FINALS = {"grpo": [0.50, 0.52, 0.54], "dapo": [0.54, 0.58, 0.56]}
STEPS = (0, 2, 4, 6)


def write_study(
    path: Path,
    finals: Mapping[str, Sequence[float]] = FINALS,
    *,
    entropy: bool = True,
    response: str = "1+2=3;3",
    unfinished: Sequence[tuple[str, int, str]] = (),
    **declared: Any,
) -> Study:
    """A study whose `final` scores are `finals`, by seed; `unfinished` names runs with the status they are left in."""
    seeds = list(range(max(map(len, finals.values()))))
    declaration = {
        "metric": "test/accuracy",
        "scalar": "final",
        "axis": "steps",
        "budget": 6,
        "baseline": next(iter(finals)),
        "family": "baseline",
        "alpha": 0.05,
        "margin": 0.01,
        "margin_declared": True,
        "failures": "intersect",
        "seeds": seeds,
        **declared,
    }
    cards = {
        arm: {"baseline": "group mean", "clip": "[0.2, 0.28]" if place else "[0.2, 0.2]"}
        for place, arm in enumerate(finals)
    }
    record = {
        "name": path.name,
        "hash": "0123456789abcdef0123",
        "declaration": declaration,
        "command": "grpolab compare grpo dapo --seeds 3",
        "arms": {arm: {"bindings": [f"train.variant = @{arm}()"], "card": card} for arm, card in cards.items()},
        "base": {"description": "a small model"},
    }
    path.mkdir(parents=True)
    (path / "study.json").write_text(json.dumps(record))
    left = {(arm, seed): status for arm, seed, status in unfinished}
    for arm, scores in finals.items():
        for seed, final in enumerate(scores):
            folder = path / arm / f"seed={seed}"
            (folder / "eval").mkdir(parents=True)
            status = left.get((arm, seed), "finished")
            manifest = {
                "status": status,
                "arm": arm,
                "seed": seed,
                "error": "the loss was nan" if status == "failed" else None,
                "versions": {"torch": "2.9.0"},
                "hashes": {
                    "prompts": f"{seed}aaaaaaaaaaaa",
                    "initial_weights": "bbbb",
                    "first_rollout": f"rollout{seed}",
                },
                "gin": "train.steps = 6",
                "seconds": 12.0,
            }
            (folder / "manifest.json").write_text(json.dumps(manifest))
            last = 6 if status == "finished" else 4
            rows: list[dict[str, Any]] = []
            for step in range(1, last + 1):
                rows.append({"step": step, "no_spread": 0.1 * step, "total_sampled_tokens": 1000 * step})
                rows[-1] |= {"entropy": 1 / step} if entropy else {}
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            for place, step in enumerate(STEPS):
                if step > last:
                    continue
                accuracy = 0.3 if step == 0 else final + 0.01 * (place - 2)
                sample = {"text": response, "correct": arm != "grpo", "length": 7}
                question = {"index": 0, "prompt": "1+2=", "answer": "3", "samples": [sample, sample]}
                evaluation = {
                    "step": step,
                    "split": "test",
                    "total_sampled_tokens": 1000 * step,
                    "summary": {
                        "accuracy": accuracy,
                        "length": 8.0 + place,
                        "length_correct": 9.0,
                        "length_incorrect": None,
                    },
                    "questions": [question],
                }
                (folder / "eval" / f"step={step:06d}.json").write_text(json.dumps(evaluation))
    return load_study(path)


def judge(study: Study) -> Analysis:
    analysis = study.analyze()
    assert analysis is not None
    return analysis


@dataclass(frozen=True)
class Made:
    study: Study
    analysis: Analysis
    path: Path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The study of two arms and its report, in a folder that `write_report` had to make."""
    folder = tmp_path_factory.mktemp("report")
    study = write_study(folder / "pair")
    return Made(study, judge(study), write_report(study, judge(study), folder / "deep" / "report.html"))


class Page(HTMLParser):
    """Tables as rows of cell texts, headings, ids and outgoing attributes; a tag closed out of order is an error."""

    VOID = ("meta", "br", "wbr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.headings: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._attributes(attrs)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._attributes(attrs)
        self.tags.append(tag)
        if tag in self.VOID:
            return
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "h2" in self.open:
            self.headings[-1] += data
        elif "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += f" {data.strip()}" if "small" in self.open[-1:] else data.strip()

    def _attributes(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name.split(":")[-1] in ("src", "href", "srcset", "action", "data"):
                self.links.append(value or "")


def read(path: Path) -> Page:
    return Page(path.read_text("utf-8"))


def test_the_verdict_table_holds_the_numbers_redone_by_hand(pair: Made) -> None:
    head, grpo, dapo = read(pair.path).tables[0]
    assert head[0] == "arm"
    assert grpo == ["grpo 3 seeds", "52.0 %", "", "", "", "", "", "6.00 k", "10.0", "baseline"]
    assert dapo[:3] == ["dapo 3 seeds", "56.0 %", "+4.0 −1.0 to +9.0"]
    assert dapo[4:] == ["0.0742 paired t, Holm", "+1.13", "1.00", "6.00 k", "10.0", "? inconclusivemodel-based"]


def test_sections_come_in_order_and_say_what_they_rest_on(pair: Made) -> None:
    text = pair.path.read_text("utf-8")
    assert read(pair.path).headings == [
        "Verdicts",
        "Declared before the first run",
        "Learning curves",
        "Paired differences, seed by seed",
        "Every number",
        "What the arms are",
        "What they write",
        "Runs",
        "To do it again",
    ]
    assert "Does dapo change held-out accuracy compared with grpo?" in text
    assert "every verdict here is conditional on this base" in text
    assert "95\u00a0% t interval of that mean over seeds" in text
    assert "grpolab compare grpo dapo --seeds 3" in text
    assert "The first rollouts are the same in all arms, seed by seed." in text
    plain = re.sub(r"&#x27;", "'", text).replace("&gt;", ">").replace("&lt;", "<")
    for sentence in [*(each.sentence for each in pair.analysis.comparisons), *pair.analysis.notes]:
        assert sentence in plain


def test_cards_mark_the_axes_on_which_an_arm_differs(pair: Made) -> None:
    text = pair.path.read_text("utf-8")
    assert re.search(r'<tr class=differs><th scope="row">clip</th><td>\[0.2, 0.2\]</td><td class="other"', text)
    assert '<tr><th scope="row">baseline</th><td>group mean</td><td>group mean</td></tr>' in text


def test_nothing_is_loaded_from_elsewhere(pair: Made) -> None:
    page, text = read(pair.path), pair.path.read_text("utf-8")
    assert page.links
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert len(page.ids) == len(set(page.ids))


def test_what_a_model_wrote_is_text_never_markup_and_is_cut_where_it_is_long(tmp_path: Path) -> None:
    response = '<script>alert("1")</script>\ud800 & <b>'
    study = write_study(tmp_path / "pair", response=response + "7" * 1500)
    text = write_report(study, judge(study), tmp_path / "report.html").read_text("utf-8")
    assert "<script" not in text
    left = 1200 - len(response)
    shown = f"&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;? &amp; &lt;b&gt;{'7' * left}"
    assert f'{shown}<span class="cut"> … {1500 - left} more characters</span>' in text


def test_two_calls_give_the_same_bytes(pair: Made, tmp_path: Path) -> None:
    again = load_study(pair.study.path)
    assert write_report(again, judge(again), tmp_path / "again.html").read_bytes() == pair.path.read_bytes()


def test_a_report_appears_whole_or_not_at_all(pair: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("an earlier report")

    def fail(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(StudyError, match=r"cannot write .*disk full"):
        write_report(pair.study, None, path)
    assert path.read_text() == "an earlier report"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_no_report(pair: Made, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"report\.html"):
        write_report(pair.study, None, tmp_path)


LONG = ("grpo_with_a_rather_long_name_and_eps_high_0.28", "dapo_without_dynamic_sampling_but_with_$5_and_$6<&>")
CASES: dict[str, tuple[dict[str, Any], Sequence[str], Sequence[str]]] = {
    "one arm": ({"finals": {"grpo": [0.5, 0.6]}}, ["no verdict", "What held-out accuracy does grpo reach?"], []),
    "one seed": (
        {"finals": {"grpo": [0.5], "dapo": [0.6]}, "margin_declared": False},
        ["untestable", "There is no band", "nobody chose it for this study"],
        ["The band is"],
    ),
    "no entropy, tokens": (
        {"entropy": False, "axis": "sampled_tokens", "budget": 6000},
        ["Learning curves", "6\u202f000 sampled tokens per run"],
        ["Entropy"],
    ),
    "long names": ({"finals": dict(zip(LONG, FINALS.values(), strict=True))}, ["$5_<wbr>and"], ["<&>"]),
    "no finished run": (
        {
            "finals": FINALS | {"rloo": [0.5, 0.5, 0.5]},
            "unfinished": [("rloo", seed, "failed") for seed in range(3)],
        },
        ["rloo 0 of 3 (3 failed)", "no finished run", "the loss was nan", "Dotted lines"],
        [],
    ),
    "runs missing": (
        {"finals": {"grpo": [0.5, 0.5, 0.6], "dapo": [0.6]}, "metric": "test/length"},
        ["dapo 1 of 3 (2 not started)", "not started</td>", "held-out response length"],
        [],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_studies_that_are_not_the_common_case(tmp_path: Path, case: str) -> None:
    made, told, untold = CASES[case]
    study = write_study(tmp_path / "study", **made)
    path = write_report(study, study.analyze(), tmp_path / "report.html")
    text = path.read_text("utf-8")
    read(path)
    assert [words for words in told if words not in text] == []
    assert [words for words in untold if words in text] == []
    assert "nan" not in re.sub("the loss was nan", "", "".join(re.findall(r">([^<]*)<", text))).split()


def test_all_pairs_get_a_table_of_their_own(tmp_path: Path) -> None:
    study = write_study(tmp_path / "three", FINALS | {"rloo": [0.51, 0.5, 0.55]}, family="all")
    page = read(write_report(study, judge(study), tmp_path / "report.html"))
    assert [len(row) for row in page.tables[0]] == [10] * 4
    assert page.tables[1][1][0] == "rloo − dapo"
    assert page.tables[1][1][1].startswith("−4.0 ")


@pytest.mark.parametrize("names", [("grpo", "dapo"), LONG])
def test_the_terminal_table_fits_100_columns(tmp_path: Path, names: tuple[str, str]) -> None:
    study = write_study(tmp_path / "pair", dict(zip(names, FINALS.values(), strict=True)))
    console = Console(width=80, record=True, file=(tmp_path / "out").open("w"))
    console.print(verdict_table(judge(study), study))
    console.file.close()
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "inconclusive" in text
    assert "+4.0 [−1.0," in text.replace("\n", " ")
    assert "0.0742" in text
    assert "paired t, Holm" in text


def test_the_terminal_table_works_without_an_analysis(tmp_path: Path) -> None:
    study = write_study(tmp_path / "pair", {"grpo": [0.5, 0.6]})
    console = Console(width=80, record=True, file=(tmp_path / "out").open("w"))
    console.print(verdict_table(None, study))
    console.file.close()
    assert re.search(r"grpo +2 +55\.0 +6\.00 k", console.export_text())


def test_the_band_is_the_t_interval_of_the_mean() -> None:
    x = np.array([0.0, 1.0])
    runs = [(x, np.array([1.0, np.nan])), (x, np.array([2.0, 5.0])), (x, np.array([3.0, 7.0]))]
    grid, mean, half = mean_and_band(runs)
    np.testing.assert_array_equal(grid, x)
    np.testing.assert_allclose(mean, [2.0, 6.0])
    np.testing.assert_allclose(half, [4.302653 / np.sqrt(3), np.nan], rtol=1e-6)  # two runs are too few for a band


def test_runs_at_other_points_are_interpolated_never_extrapolated() -> None:
    runs = [(np.array([0.0, 2.0, 4.0]), np.array([0.0, 2.0, 4.0])), (np.array([1.0, 3.0]), np.array([3.0, 5.0]))]
    grid, mean, half = mean_and_band(runs)
    np.testing.assert_array_equal(grid, [1, 2, 3])
    np.testing.assert_allclose(mean, [2.0, 3.0, 4.0])
    assert np.isnan(half).all()
    assert [len(part) for part in mean_and_band([])] == [0, 0, 0]


def test_every_arm_has_a_style_of_its_own() -> None:
    arms = [f"arm{place}" for place in range(20)]
    styles = arm_styles(arms, "arm3")
    assert len(set(styles.values())) == len(arms)
    assert arm_styles(arms, "arm3") == styles


@pytest.mark.parametrize(
    ("got", "text"),
    [
        (number_text(-0.01, 1, signed=True), "0.0"),
        (number_text(-1.25, 1, signed=True), "−1.2"),
        (number_text(None, 2), "–"),
        (number_text(float("inf"), 2), "∞"),
        (p_text(0.0), "< 0.0001"),
        (p_text(0.01189), "0.0119"),
        (p_text(0.3516), "0.35"),
        (p_text(None), "–"),
        (thousands(999), "999"),
        (thousands(50_433), "50.4 k"),
        (thousands(1_204_000), "1.20 M"),
        (unit("test/accuracy").difference, "points"),
        (unit("test/length").difference, ""),
    ],
)
def test_numbers_are_written_for_readers(got: str, text: str) -> None:
    assert got == text


def test_every_number_is_in_the_details(pair: Made) -> None:
    """Two seeds short of a test would show dashes; here all of a comparison's fields are read back from the table."""
    text = pair.path.read_text()
    details = text[text.index("Every number") : text.index("What the arms are")]
    assert pair.analysis is not None
    (each,) = pair.analysis.comparisons
    for size in (each.d_z, each.g_z, each.d_av, each.correlation):
        assert size is not None
        assert f"{size:.2f}".replace("-", "−") in details
    for name in ("max-T flip", "p Wilcoxon", "Holm t", "P(improvement)", "interquartile mean"):
        assert name in details
