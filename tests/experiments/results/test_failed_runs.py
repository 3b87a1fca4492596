"""A failed run is one at every door: nan, an empty cell or the status failed; in every layout, and from Python."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from experiments import lab
from experiments.cli.main import main
from experiments.results.tables.tables import Question, judge_table, read_rows

BASE = {0: 0.50, 1: 0.53, 2: 0.49, 3: 0.52, 4: 0.51}
OTHER = {0: 0.51, 1: 0.53, 2: 0.50, 3: 0.52, 4: 0.52}
MINE = {0: 0.58, 1: 0.60, 2: 0.57, 4: 0.59}
RUNS = {"base": BASE, "other": OTHER, "mine": MINE}
SCORES = "".join(f"{arm},{seed},{score}{{}}\n" for arm, row in RUNS.items() for seed, score in row.items())
CURVES = "".join(f"{arm},{seed},100,{score}{{}}\n" for arm, row in RUNS.items() for seed, score in row.items())
UNSAID = [
    ("arm,seed,score\n" + SCORES.format(*[""] * 14) + "mine,3,nan\n"),
    ("arm,seed,score\n" + SCORES.format(*[""] * 14) + "mine,3,\n"),
    ("arm,seed,score\n" + SCORES.format(*[""] * 14) + "mine,3,inf\n"),
    ("arm,seed,score,status\n" + SCORES.format(*[","] * 14) + "mine,3,,\n"),
    ("arm,seed,score,status\n" + SCORES.format(*[",finished"] * 14) + "mine,3,nan,finished\n"),
    ("arm,seed,score,status\n" + SCORES.format(*[",finished"] * 14) + "mine,3,,finished\n"),
    ("arm,seed,step,value\n" + CURVES.format(*[""] * 14) + "mine,3,100,nan\n"),
    ("arm,seed,step,value\n" + CURVES.format(*[""] * 14) + "mine,3,100,\n"),
    ("arm,seed,step,value\n" + CURVES.format(*[""] * 14) + "mine,3,,nan\n"),
    ("arm,seed,step,value\n" + CURVES.format(*[""] * 14) + "mine,3,,\n"),
    ("arm,seed,step,value,status\n" + CURVES.format(*[",finished"] * 14) + "mine,3,,,\n"),
    ("arm,seed,step,value,seconds\n" + CURVES.format(*[",9"] * 14) + "mine,3,100,,\n"),
    ("arm,seed,score,answers\n" + SCORES.format(*[",1e9"] * 14) + "mine,3,,\n"),
    ("arm,seed,step,value,answers\n" + CURVES.format(*[",1e9"] * 14) + "mine,3,100,nan,\n"),
]
"""Tables in which nobody calls the run failed."""
SAID = [
    ("arm,seed,score,status\n" + SCORES.format(*[","] * 14) + "mine,3,,failed\n"),
    ("arm,seed,score,status\n" + SCORES.format(*[","] * 14) + "mine,3,nan,failed\n"),
    ("arm,seed,score,status\n" + SCORES.format(*[",finished"] * 14) + "mine,3,0,Failed\n"),
    ("arm,seed,step,value,status\n" + CURVES.format(*[","] * 14) + "mine,3,,,failed\n"),
    ("arm,seed,step,value,status\n" + CURVES.format(*[","] * 14) + "mine,3,,nan,failed\n"),
    ("arm,seed,step,value,status\n" + CURVES.format(*[","] * 14) + "mine,3,100,,failed\n"),
    ("arm,seed,step,value,status\n" + CURVES.format(*[","] * 14) + "mine,3,100,nan,failed\n"),
]
ABSENT = "arm,seed,score\n" + SCORES.format(*[""] * 14)
OPTIONS: dict[str, Any] = {"baseline": "base", "margin": 0.02}


def by_command(folder: Path, text: str, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    """The judgement that the command line prints."""
    (folder / "results.csv").write_text(text)
    arguments = ["analyze", str(folder / "results.csv"), "--baseline", "base", "--margin", "0.02", "--json", *more]
    assert main(arguments) == 0, capsys.readouterr().err
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


def by_frame(text: str, **more: Any) -> lab.Verdicts:
    pandas = pytest.importorskip("pandas")
    return lab.judge(pandas.read_csv(io.StringIO(text)), **OPTIONS, **more)


def mine(printed: dict[str, Any]) -> tuple[str, int, Any]:
    (found,) = [each for each in printed["comparisons"] if each["arm"] == "mine"]
    return found["verdict"], found["n"], pytest.approx(found["mean_difference"])


def expected(floor: float) -> tuple[str, int, float]:
    """The verdict on mine, its seeds, and the mean difference with the floor at seed 3."""
    mean = (sum(MINE.values()) + floor - sum(BASE.values())) / 5
    verdict = lab.judge({**RUNS, "mine": {**MINE, 3: floor}}, **OPTIONS)["mine"].verdict
    return verdict, 5, mean


@pytest.mark.parametrize("text", [*UNSAID, *SAID])
def test_a_failed_run_is_one_verdict_at_every_door(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for floor, more in ((0.0, ()), (-0.5, ("--floor", "-0.5"))):
        printed = by_command(tmp_path, text, capsys, *more)
        assert mine(printed) == expected(floor)
        framed = by_frame(text, **({"floor": floor} if more else {}))
        assert mine(framed.to_json()) == expected(floor)
        assert any("Depends on failure handling" in each for each in framed.warnings)
        told = "mine, seed 3 counts as failed: "
        assert any(told in each for each in printed["warnings"]) == (text in UNSAID)
        assert any(told in each for each in framed.warnings) == (text in UNSAID)
        assert any("mine: 1 of 5 runs failed" in each for each in printed["notes"])
        assert not any("No run failed in any arm" in each for each in printed["notes"])
    left_out = by_command(tmp_path, text, capsys, "--failures", "intersect")
    assert mine(left_out) == ("better", 4, sum(MINE[seed] - BASE[seed] for seed in MINE) / 4)
    assert mine(by_frame(text, failures="intersect").to_json()) == mine(left_out)


@pytest.mark.parametrize("missing", [math.nan, math.inf, None, [math.nan, math.nan], ([0, 1], [0.0, math.nan])])
def test_a_failed_run_in_a_dict_is_the_same(missing: Any) -> None:
    curves = isinstance(missing, tuple)
    runs: Any = {arm: {s: ([0, 1], [x, x]) if curves else x for s, x in row.items()} for arm, row in RUNS.items()}
    verdicts = lab.judge({**runs, "mine": {**runs["mine"], 3: missing}}, **OPTIONS)
    assert mine(verdicts.to_json()) == expected(0.0)
    (told,) = [each for each in verdicts.warnings if "mine, seed 3 counts as failed: score is " in each]
    assert "failures and floor say how" in told
    assert "--" not in told


def test_frames_that_pandas_pivots_and_writes_are_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(io.StringIO(UNSAID[0]))
    pivoted = frame.pivot(index="seed", columns="arm", values="score").to_dict()
    assert mine(lab.judge(pivoted, **OPTIONS).to_json()) == expected(0.0)
    assert mine(by_command(tmp_path, frame.to_csv(index=False), capsys)) == expected(0.0)
    rows = frame.assign(status=[*[math.nan] * 14, "failed"]).to_dict("records")
    assert mine(judge_table(read_rows(rows), Question(**OPTIONS)).to_json()) == expected(0.0)


@pytest.mark.parametrize("row", ["mine,3,nan\n", "mine,3,,failed\n"])
def test_the_remedies_for_a_run_that_is_not_there_work(
    row: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = by_command(tmp_path, ABSENT, capsys)
    (warning,) = [each for each in printed["warnings"] if each.startswith("mine has no run for seed 3")]
    assert warning.endswith("say so: the score nan, or a row with the status failed.")
    text = ABSENT if row.count(",") == 2 else "arm,seed,score,status\n" + SCORES.format(*[","] * 14)
    assert mine(by_command(tmp_path, text + row, capsys)) == expected(0.0)
    file = tmp_path / "results.csv"
    assert main(["analyze", str(file), "--baseline", "base", "--margin", "0.02"]) == 0
    assert "run mine at seed 3" not in capsys.readouterr().out


@pytest.mark.parametrize("row", [None, "mine,3,,lost\n"])
def test_the_remedies_for_a_run_that_counts_as_failed_work(
    row: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = ABSENT if row is None else "arm,seed,score,status\n" + SCORES.format(*[","] * 14) + row
    printed = by_command(tmp_path, text, capsys)
    assert mine(printed) == ("better", 4, sum(MINE[seed] - BASE[seed] for seed in MINE) / 4)
    assert not any("counts as failed" in each for each in printed["warnings"])


def test_exports_take_a_failed_run_from_a_table_beside_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arm, row in RUNS.items():
        for seed, score in row.items():
            (tmp_path / f"{arm}-seed{seed}.csv").write_text(f"Wall time,Step,Value\n1,100,{score}\n")
    command = ["analyze", str(tmp_path), "--baseline", "base", "--margin", "0.02", "--json"]
    assert main(command) == 0
    assert any("status failed" in each for each in json.loads(capsys.readouterr().out)["warnings"])
    for text in ("arm,seed,step,value,status\nmine,3,,,failed\n", "arm,seed,score,status\nmine,3,,failed\n"):
        (tmp_path / "failed.csv").write_text(text)
        assert main(command) == 0
        assert mine(json.loads(capsys.readouterr().out)) == expected(0.0)


def test_a_failed_run_without_a_score_is_no_better_than_one_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SAID[0].replace("other,2,0.5,", "other,2,0.1,failed")
    (tmp_path / "results.csv").write_text(text)
    assert main(["analyze", str(tmp_path / "results.csv"), "--baseline", "base"]) == 2
    assert "that of arm 'mine', seed 3 has none; write it, or say with --floor" in capsys.readouterr().err
    assert mine(by_command(tmp_path, text, capsys, "--floor", "0.1"))[1:] == expected(0.1)[1:]
    written = text.replace("mine,3,,failed", "mine,3,0.1,failed")
    assert mine(by_command(tmp_path, written, capsys))[1:] == expected(0.1)[1:]
