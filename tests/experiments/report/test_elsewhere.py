"""The page on runs trained elsewhere: their verdicts, curves and outcomes, and nothing that a study alone knows."""

import re
from html import unescape
from pathlib import Path

import pytest

from experiments.cli.main import main
from experiments.report.elsewhere import render_elsewhere
from experiments.results.tables.tables import Question, judge_runs, read_rows, read_tables
from tests.experiments.report.pages import read
from tests.experiments.report.studies import write_study
from tests.experiments.results.tables.engines import recorded

METRIC = "eval_rewards/accuracy_reward/mean"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    recorded.write_trl(tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    arguments = ["analyze", "out", "--baseline", "grpo", "--metric", "eval_rewards/*", "--margin", "0.02"]
    assert main([*arguments, "--report", "report.html"]) == 0
    assert capsys.readouterr().out.endswith("report: report.html\n")
    return tmp_path / "report.html"


def test_the_page_has_the_verdicts_and_what_they_rest_on(page: Path) -> None:
    text = page.read_text("utf-8")
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles == [
        *("Verdicts", "Does it hold?", "What was asked", "Learning curves", "Paired differences, seed by seed"),
        *("Beyond the mean", "What identical seeds bought", "Runs", "Exploratory", "Every number"),
    ]
    said = unescape(re.sub(r"<[^>]+>", "", text))
    assert f"Does rloo change {METRIC} compared with grpo?" in said
    assert (
        f"rloo is better than grpo: +0.049, between +0.044 and +0.054; 3 seeds; {METRIC} 0.412 against 0.363." in said
    )
    assert "Read from names: arms grpo, rloo; seeds 0, 1, 2." in said
    assert "same sampling noise" not in said.partition("Paired differences, seed by seed")[2].partition("circles")[0]
    figures = re.findall(r'<svg class="figure"[^>]*aria-label="([^"]*)"', text)
    for axis in ("steps", "tokens", "seconds of training"):
        assert f"{METRIC} by {axis}: grpo ends at 0.417; rloo ends at 0.500." in figures
    assert "Declared before" not in said


def test_nothing_is_loaded_and_the_same_runs_give_the_same_bytes(page: Path) -> None:
    parsed, text = read(page), page.read_text("utf-8")
    assert all(link.startswith("#") and link[1:] in parsed.ids for link in parsed.links)
    assert not re.search(r"https?://|@import|url\(", text)
    assert len(parsed.ids) == len(set(parsed.ids))
    table = read_tables([Path("out")], metric="eval_rewards/*")
    assert render_elsewhere(*judge_runs(table, Question("grpo", "eval_rewards/*", margin=0.02)), "out") == text


def test_failed_and_lost_runs_are_named_and_drawn_apart() -> None:
    rows = [dict(row) for row in recorded.TIDY]
    rows[-1]["value"] = float("nan")
    rows += [{"arm": "<b>dapo</b>", "seed": seed, "step": 100, "value": 0.4 + 0.01 * seed**2} for seed in range(4)]
    text = render_elsewhere(*judge_runs(read_rows(rows), Question("grpo", "accuracy", failures="worst")), "rows")
    assert "<b>dapo</b>" not in text
    said = unescape(re.sub(r"<[^>]+>", " ", text))
    assert re.search(r"failed:\s+accuracy is nan at step 100", said)
    assert "lost: not in the table" in said
    assert re.search(r'<path class="[^"]*open-run', text)


@pytest.mark.parametrize("scale", [1, 100])
def test_percentages_stay_what_they_are(scale: int) -> None:
    rows = [{**row, "value": scale * row["value"], "metric": "accuracy"} for row in recorded.TIDY]
    judgement, runs = judge_runs(read_rows(rows), Question("grpo", margin=0.02 * scale))
    said = unescape(re.sub(r"<[^>]+>", " ", render_elsewhere(judgement, runs, "rows")))
    level = "41.2" if scale == 100 else "41.2 %"
    assert f"{level} against" in said
    assert "4122" not in said


def test_scores_have_no_curves() -> None:
    rows = [{"arm": a, "seed": s, "score": 0.4 + 0.1 * (a == "b") + 0.01 * s * s} for a in "ab" for s in range(4)]
    text = render_elsewhere(*judge_runs(read_rows(rows), Question("a")), "rows")
    assert "Learning curves" not in text
    assert "as the table has it" in text
    (table,) = re.findall(r'<table class="[^"]*runs.*?</table>', text, re.DOTALL)
    assert len(re.findall(r"<td[^>]*>–</td></tr>", table)) == 8, "where a run ended is not known"


def test_a_study_has_a_report_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write_study(tmp_path / "study")
    assert main(["analyze", str(study.path), "--report", str(tmp_path / "r.html")]) == 2
    assert (
        "--report and --regrade are for runs trained elsewhere; a study's report is report.html"
        in capsys.readouterr().err
    )
    recorded.write_trl(tmp_path / "out")
    arguments = ["analyze", str(tmp_path / "out"), "--baseline", "grpo", "--metric", "eval_loss", "--report"]
    assert main([*arguments[:1], "nowhere.csv", *arguments[2:], str(tmp_path)]) == 2  # before anything is read
    assert f"--report {tmp_path}: a folder, but the report is one file" in capsys.readouterr().err
    assert main([*arguments[:1], str(tmp_path / "nowhere"), *arguments[2:], "r.html"]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main([*arguments[:1], str(tmp_path / "empty"), *arguments[2:], "r.html"]) == 2
    assert "empty: no CSV file and no trainer's log here" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.html"))
