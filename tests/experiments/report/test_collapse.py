"""A run that collapses is reported wherever its arm is shown; one that dipped and came back did not collapse."""

import csv
import json
from pathlib import Path

import pytest

from experiments.cli.main import main
from experiments.report import render
from tests.experiments.report.pages import Page
from tests.experiments.report.studies import write_curves

CURVES = {
    "grpo": [[90, 150, 190, 215], [88, 148, 192, 210], [92, 155, 185, 214]],
    "rlaif": [
        [90, 204, 52, 56],
        [90, 150, 60, 224],
        [92, 200, 206, 210],
    ],  # .352 .797 .203 .219; a dip that ends at .875
}
COLLAPSE_NOTE = "rlaif: 1 of 3 finished runs collapsed (seed 0)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("collapse") / "pair"
    write_curves(path, CURVES)
    return path


def test_the_terminal_the_tables_and_the_page_tell_of_a_collapse(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", str(folder), "--verbose"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert COLLAPSE_NOTE in output
    assert "Seed 0 went from 0.352 to 0.797 at 2 steps and ended at 0.211." in output
    assert "rlaif: of 3 finished runs 1 dipped below half of its gain and came back (seed 1)." in output
    assert "rlaif: 0 of 3 runs failed and 1 collapsed" in output
    assert "No failure in grpo: 3 seeds" in output
    tables = folder / "tables"
    (row,) = csv.DictReader((tables / "verdicts.csv").read_text().splitlines())
    assert (row["collapsed"], row["baseline_collapsed"]) == ("1", "0")
    counts = {row["arm"]: row for row in csv.DictReader((tables / "outcomes.csv").read_text().splitlines())}
    assert [counts["rlaif"][key] for key in ("collapsed", "declined", "dipped")] == ["1", "0", "1"]
    assert [counts["grpo"][key] for key in ("collapsed", "declined", "dipped")] == ["0", "0", "0"]
    courses = [row["course"] for row in csv.DictReader((tables / "scores.csv").read_text().splitlines())]
    assert courses == ["steady", "steady", "steady", "collapsed", "dipped", "steady"]
    for name in ("verdicts.md", "verdicts.tex"):
        assert "rlaif: 1 of 3 collapsed" in (tables / name).read_text("utf-8")
    page = Page((folder / "report.html").read_text("utf-8"))
    assert COLLAPSE_NOTE in (folder / "report.html").read_text("utf-8").split("<ul")[0], "beside the headline"
    assert [row[5] for row in page.table("Every run")[4:]] == [
        *(
            "collapsed from 35.2 % to 79.7 % at 2, ends at 21.1 %",
            "dipped from 35.2 % to 23.4 % at 4, ends at 87.5 %",
            "steady",
        )
    ]


def test_a_table_without_numbers_of_answers_tells_of_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = [[90 + 10 * k + seed for k in range(8)] for seed in range(3)]
    curves = {"grpo": slow, "mine": [*slow[:2], [90, 120, 204, 200, 52, 56, 50, 54]]}
    rows = [
        f"{arm},{seed},{step},{right / 256}"
        for arm, runs in curves.items()
        for seed, run in enumerate(runs)
        for step, right in enumerate(run)
    ]
    (tmp_path / "table.csv").write_text("\n".join(["arm,seed,step,value", *rows]))
    assert main(["analyze", str(tmp_path / "table.csv"), "--baseline", "grpo", "--verbose"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "mine: 1 of 3 finished runs collapsed (seed 2)" in output
    assert "spread of successive evaluations" in output


def test_an_arm_alone_is_reported_too(tmp_path: Path) -> None:
    study = write_curves(tmp_path / "one", {"rlaif": CURVES["rlaif"]})
    assert COLLAPSE_NOTE in render(study, None)


def test_json_has_the_course_of_every_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", str(folder), "--json"]) == 0
    rlaif = json.loads(capsys.readouterr().out)["outcomes"][1]
    assert [rlaif["courses"][seed]["kind"] for seed in ("0", "1", "2")] == ["collapsed", "dipped", "steady"]
