"""Tables that the bench wrote can be read back, with the verdicts of the study that they are of."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from experiments.cli.main import main
from experiments.report.export import write_tables
from experiments.results.stored_study import StoredStudy
from experiments.results.tables.sheets import TableError
from experiments.results.tables.tables import Question, judge_table, read_tables
from experiments.statistics import Comparison
from experiments.statistics.records import to_plain
from tests.experiments.report.studies import FINALS, LOOKS, judge, write_study

# one bad seed of rloo at the floor, which a failed run keeps
THREE = {"grpo": [0.50, 0.52, 0.54, 0.51], "dapo": [0.54, 0.58, 0.56, 0.57], "rloo": [0.49, 0.55, 0.52, 0.50]}
WORST: dict[str, Any] = {"failures": "worst", "floor": 0.1}


def without_sentence(comparison: Comparison) -> dict[str, Any]:
    """A comparison but for its words, which name the metric and what was equal."""
    return {k: v for k, v in comparison.to_json().items() if k != "sentence"}


def tables_of(study: StoredStudy) -> Path:
    folder = study.path / "tables"
    write_tables(study, judge(study), folder)
    return folder


@pytest.mark.parametrize(
    ("finals", "declared", "unfinished"),
    [
        (FINALS, {}, []),
        (THREE, {"family": "all", "alpha": 0.1, "margin": 0.02}, []),
        (THREE, WORST, [("rloo", 1, "failed")]),
        (THREE, {**WORST, "floor": 0.6}, [("rloo", 1, "failed"), ("dapo", 2, "failed")]),
        (THREE, {"failures": "intersect"}, [("rloo", 1, "failed")]),
        (THREE, WORST, [("rloo", 1, "lost"), ("rloo", 2, "failed")]),
        (THREE, WORST, [("rloo", 3, "running"), ("dapo", 3, "interrupted")]),
    ],
)
def test_scores_read_back_give_the_verdicts_of_their_study(
    tmp_path: Path, finals: dict[str, list[float]], declared: dict[str, Any], unfinished: list[tuple[str, int, str]]
) -> None:
    study = write_study(tmp_path / "study", finals, unfinished=unfinished, **declared)
    ours, plan = judge(study).analysis, study.plan
    shutil.copy(tables_of(study) / "scores.csv", tmp_path / "elsewhere.csv")
    question = Question(
        plan.baseline,
        metric=plan.metric,
        margin=plan.margin,
        alpha=plan.alpha,
        family=plan.family,
        failures=plan.failures,
    )
    analysis = judge_table(read_tables([tmp_path / "elsewhere.csv"]), question).analysis
    assert analysis.seeds == ours.seeds
    assert [without_sentence(c) for c in analysis.comparisons] == [without_sentence(c) for c in ours.comparisons]
    assert "Scores are as the table has them: the budget at which they were taken is not known." in analysis.notes


@pytest.mark.parametrize("path", ["tables/scores.csv", "tables"])
def test_where_they_were_written_they_need_no_options(
    tmp_path: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study(tmp_path / "study", THREE, margin=0.03)
    tables_of(study)
    assert main(["analyze", str(study.path / path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    (ours,) = [c for c in judge(study).analysis.comparisons if c.arm == "dapo"]
    (theirs,) = [c for c in printed["comparisons"] if c["arm"] == "dapo"]
    assert theirs == to_plain(ours)
    assert (printed["metric"], printed["margin"]) == ("test/accuracy", 0.03)
    assert printed["notes"][-1].startswith(f"Judged as the study {study.path}, whose tables are as it wrote them")
    assert main(["analyze", str(study.path / path), "--baseline", "dapo", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["baseline"], printed["margin"]) == ("dapo", 0.03)
    assert any("study.json: metric test/accuracy, margin 0.03, alpha 0.05" in note for note in printed["notes"])


def test_scores_that_were_edited_are_judged_as_they_stand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tables_of(write_study(tmp_path / "study")) / "scores.csv"
    file.write_text(file.read_text().replace("dapo,0,0.54", "dapo,0,0.94"))
    assert main(["analyze", str(file), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["comparisons"][0]["mean_difference"] == pytest.approx((0.44 + 0.06 + 0.02) / 3)
    assert any("study.json: baseline grpo, metric test/accuracy" in note for note in printed["notes"])


def test_scores_elsewhere_are_no_finer_than_their_number_of_answers(tmp_path: Path) -> None:
    """Differences of .05, .05, .06 of 300 answers each: seeds agree to .003, two shares of 300 answers do not."""
    rows = [(arm, seed, base + seed / 100) for arm, base in (("grpo", 0.5), ("dapo", 0.55)) for seed in range(3)]
    rows[-1] = ("dapo", 2, 0.58)
    text = "".join(f"{arm},{seed},{score},300\n" for arm, seed, score in rows)
    (tmp_path / "scores.csv").write_text(f"arm,seed,score,answers\n{text}")
    (known,) = judge_table(read_tables([tmp_path / "scores.csv"]), Question("grpo")).analysis.comparisons
    error = sum(p * (1 - p) / 302 for p in (0.5, 0.55)) ** 0.5 / 3**0.5
    assert known.effect.standard_error == pytest.approx(error, rel=0.02)
    assert known.verdict == "inconclusive"
    (tmp_path / "scores.csv").write_text(f"arm,seed,score\n{text.replace(',300', '')}")
    (unknown,) = judge_table(read_tables([tmp_path / "scores.csv"]), Question("grpo")).analysis.comparisons
    assert unknown.verdict == "better"


@pytest.mark.parametrize("name", ["verdicts.csv", "outcomes.csv"])
def test_tables_of_results_point_to_the_runs(tmp_path: Path, name: str) -> None:
    folder = tables_of(write_study(tmp_path / "study"))
    with pytest.raises(TableError, match=rf"{name}: these are results, not runs; give the scores.csv"):
        read_tables([folder / name])


def test_what_scores_do_not_hold_is_read_from_the_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_looks = tables_of(write_study(tmp_path / "looked", {k: v * 2 for k, v in FINALS.items()}, **LOOKS))
    assert main(["analyze", str(with_looks / "scores.csv"), "--baseline", "grpo"]) == 2
    assert f"grpolab analyze {with_looks.parent}" in " ".join(capsys.readouterr().err.split())
    folder = tables_of(write_study(tmp_path / "study"))
    for settings in ({"budget": 3.0}, {"scalar": "auc"}, {"axis": "seconds"}):
        with pytest.raises(TableError, match=r"one score a run.*leave out --axis, --budget, --scalar"):
            judge_table(read_tables([folder / "scores.csv"]), Question("grpo", **settings))


@pytest.mark.parametrize("axis", ["train/global_step", "Relative Time (Process)", "epoch"])
def test_a_wandb_export_may_have_a_step_metric_of_its_own(tmp_path: Path, axis: str) -> None:
    runs = [f"{arm}-seed{seed}" for arm in FINALS for seed in range(3)]
    header = [axis, *(f"{run} - {key}" for run in runs for key in ("_step", "_step__MIN", "acc", "acc__MAX"))]
    rows = [
        [str(step), *(str(x) for _ in runs for x in (7, 7, 0.1 * step + k / 97, 9))]
        for k, step in enumerate((0.5, 1, 1.5))
    ]
    file = tmp_path / "wandb.csv"
    file.write_text("\n".join(",".join(f'"{cell}"' for cell in row) for row in [header, *rows]))
    table = read_tables([file])
    assert (table.arms, table.seeds, table.metrics) == (tuple(FINALS), (0, 1, 2), ("acc",))
    assert table.runs[0].curves["acc"].spent == {"steps": [0.5, 1.0, 1.5]}
    assert f"{file}: the horizontal axis is {axis!r}, taken for the steps." in table.notes
