"""Anybody's tables: three layouts, one verdict; assumptions are noted, and what cannot be read is refused by line."""

import json
import math
import random
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.cli.main import main
from experiments.results.tables.sheets import TableError
from experiments.results.tables.tables import Question, Table, judge_table, read_rows, read_tables
from experiments.statistics import Judgement, analyze
from tests.experiments.results.tables.engines import recorded, test_regrading

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "tables.md"
ROOT = DOCUMENT.parents[1]

# finals: grpo .36, .39, .34; rloo .41, .43667, .39; d = .05, .04667, .05
CURVES, STEPS = recorded.CURVES, recorded.STEPS
TIDY = "arm,seed,step,value\n" + "".join(
    f"{arm},{seed},{step},{value}\n"
    for (arm, seed), curve in CURVES.items()
    for step, value in zip(STEPS, curve, strict=True)
)


def records(**more: object) -> list[dict[str, object]]:
    return [
        {"arm": arm, "seed": seed, "step": step, "value": value, **more}
        for (arm, seed), curve in CURVES.items()
        for step, value in zip(STEPS, curve, strict=True)
    ]


def judged(table: Table, **options: Any) -> Judgement:
    return judge_table(table, Question("grpo", **({"margin": 0.02} | options)))


def read(folder: Path, text: str | bytes, name: str = "results.csv") -> Table:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_tables([file])


def write_tensorboard(folder: Path, name: str) -> None:
    """A file for each run; `name` has places for arm and seed."""
    for (arm, seed), curve in CURVES.items():
        file = folder / name.format(arm=arm, seed=seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        points = zip(STEPS, curve, strict=True)
        file.write_text("Wall time,Step,Value\n" + "".join(f"{1.7e9 + s},{s},{v}\n" for s, v in points))


def wandb(name: str = "{arm}-seed{seed}") -> str:
    columns = [f"{name.format(arm=arm, seed=seed)} - eval/accuracy" for arm, seed in CURVES]
    header = ["Step", *(column + companion for column in columns for companion in ("", "__MIN", "__MAX"))]
    rows = [
        [str(step), *(str(value) for curve in CURVES.values() for value in (curve[k], -1, 9))]
        for k, step in enumerate(STEPS)
    ]
    return "\n".join(",".join(f'"{cell}"' for cell in row) for row in [header, *rows])


def test_a_tidy_table_gives_the_verdict_that_a_reader_can_redo() -> None:
    judgement = judged(read_rows(records()))
    (comparison,) = judgement.analysis.comparisons
    sd = 0.01 / 3 / math.sqrt(3)
    t = 0.44 / 9 / (sd / math.sqrt(3))
    assert comparison.effect.mean_difference == pytest.approx(0.44 / 9)
    assert comparison.effect.sd_difference == pytest.approx(sd)
    assert comparison.adjusted_p == pytest.approx(1 - t / math.sqrt(2 + t**2))  # at 2 degrees of freedom
    assert comparison.verdict == "better"
    assert judgement.analysis.metric == "value"
    assert [each.mean for each in judgement.analysis.arms] == pytest.approx([1.09 / 3, 3.71 / 9])


@given(order=st.randoms(use_true_random=False), shuffled=st.permutations(["arm", "seed", "step", "value"]))
def test_the_order_of_rows_and_columns_does_not_matter(order: random.Random, shuffled: list[str]) -> None:
    rows = [{column: row[column] for column in shuffled} for row in records()]
    order.shuffle(rows)
    mixed, usual = (judged(read_rows(each)).analysis for each in (rows, records()))
    # arms other than the baseline come in order of appearance
    assert {each.arm: each.scores for each in mixed.arms} == {each.arm: each.scores for each in usual.arms}
    assert mixed.comparisons == usual.comparisons


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + TIDY,
        TIDY.replace(",", ";"),
        TIDY.replace(",", "\t"),
        TIDY.replace("\n", "\r\n") + "\r\n,,,\r\n",
        TIDY.replace("arm,seed", " Arm,SEED").replace("grpo,0", "grpo, 0.0"),
        '"arm","seed","step","value"\n' + TIDY.partition("\n")[2],
    ],
)
def test_spreadsheets_write_the_same_table_in_many_ways(text: str, tmp_path: Path) -> None:
    exported, usual = judged(read(tmp_path, text)), judged(read(tmp_path, TIDY))
    assert exported.to_json() == usual.to_json()


@pytest.mark.parametrize(
    "name",
    [
        "{arm}-seed{seed}.csv",
        "{arm}_seed{seed}.csv",
        "{arm}_seed_{seed}.csv",
        "{arm}/seed={seed}.csv",
        "{arm}-s{seed}.csv",
        "{arm}_{seed}.csv",
        "lr-3/{arm}/seed{seed}.csv",
        "run-{arm}_{seed}-tag-pass_8.csv",
        "{arm}/seed={seed}/eval_8.csv",
        "run-lr_3_{arm}-s{seed}-tag-a_seed_7.csv",
    ],
)
def test_a_run_is_read_from_the_name_of_a_tensorboard_file(name: str, tmp_path: Path) -> None:
    write_tensorboard(tmp_path, name)
    table = read_tables([tmp_path])
    before = name.replace("run-", "").partition("{arm}")[0]
    assert table.arms == (f"{before}grpo", f"{before}rloo")
    assert table.seeds == (0, 1, 2)
    metric = re.search(r"(?:-tag-|\}/)(?!seed)([a-z_0-9]+)\.csv", name)
    assert table.metrics == (metric[1] if metric else "value",)
    assert f"Read from names: arms {before}grpo, {before}rloo; seeds 0, 1, 2." in table.notes


def test_the_three_layouts_agree(tmp_path: Path) -> None:
    write_tensorboard(tmp_path / "tensorboard", "{arm}-seed{seed}.csv")
    (tmp_path / "wandb.csv").write_text(wandb())
    usual = judged(read_rows(records()), metric="eval/accuracy").analysis
    for path in ("tensorboard", "wandb.csv"):
        analysis = judged(read_tables([tmp_path / path]), metric="eval/accuracy").analysis
        assert analysis.comparisons == usual.comparisons
        assert analysis.arms == usual.arms


def test_files_can_be_named_one_by_one_and_in_several_layouts(tmp_path: Path) -> None:
    write_tensorboard(tmp_path / "logs", "{arm}/seed={seed}.csv")
    for seed in range(3):
        (tmp_path / "logs" / "rloo" / f"seed={seed}.csv").unlink()
    tidy = tmp_path / "logs" / "tidy.csv"
    tidy.write_text("".join(line for line in TIDY.splitlines(keepends=True) if not line.startswith("grpo")))
    files = sorted((tmp_path / "logs" / "grpo").glob("*.csv"))
    assert judged(read_tables([*files, tidy])).analysis.comparisons == judged(read_rows(records())).analysis.comparisons


def test_empty_cells_and_companions_of_a_wandb_export_are_no_measurements(tmp_path: Path) -> None:
    text = wandb().replace('"100"', '"75"' + ',""' * 18 + '\n"100"')
    exported, usual = judged(read(tmp_path, text)).analysis, judged(read(tmp_path, wandb())).analysis
    assert exported.comparisons == usual.comparisons


def test_a_pattern_of_ones_own(tmp_path: Path) -> None:
    write_tensorboard(tmp_path, "2026-{arm}-try{seed}.csv")
    table = read_tables([tmp_path], r"\d+-(?P<arm>\w+)-try(?P<seed>\d+)")
    assert (table.arms, table.seeds) == (("grpo", "rloo"), (0, 1, 2))
    table = read_tables([tmp_path], r"(?P<metric>\d+)-(?P<arm>\w+)-try(?P<seed>\d+)")
    assert table.metrics == ("2026",)


def test_what_was_not_given_is_noted() -> None:
    notes = judge_table(read_rows(records()), Question("grpo")).analysis.notes
    assert "Assumed: the smallest difference of interest is 0.01, in the metric's unit (--margin)." in notes
    assert "Assumed: the budget is 100 steps, the least that a finished run has spent (--budget)." in notes
    assert "the table: no column 'metric', so all values are of one." in notes
    notes = judged(read_rows(records(metric="accuracy", lr=1)), budget=100.0).analysis.notes
    assert "the table: not used: 'lr'." in notes
    assert not [note for note in notes if "Assumed" in note or "no column" in note]


def test_a_run_that_ends_early_lowers_the_budget_and_is_named() -> None:
    rows = [row for row in records() if (row["arm"], row["seed"], row["step"]) != ("rloo", 1, 100)]
    judgement = judged(read_rows(rows))
    # at 50 steps: grpo .335, .36, .315; rloo .365, .39, .35
    assert judgement.analysis.comparisons[0].effect.mean_difference == pytest.approx((0.03 + 0.03 + 0.035) / 3)
    assert any("rloo, seed 1 ends at 50 steps and others at up to 100" in note for note in judgement.analysis.notes)
    with pytest.raises(TableError, match=r"arm 'rloo', seed 1 ends at 50 steps, before --budget 100; choose a budget"):
        judged(read_rows(rows), budget=100.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_a_failure_and_not_a_gap(value: float) -> None:
    rows = records()
    rows[-1]["value"] = value
    judgement = judged(read_rows(rows))
    assert [(each.arm, each.failed, each.imputed) for each in judgement.outcomes] == [("grpo", 0, 0), ("rloo", 1, 1)]
    assert judgement.analysis.arms[1].scores[2] == 0.0
    assert judgement.analysis.seeds == (0, 1, 2)
    notes = judgement.analysis.notes
    assert judgement.warnings[0].startswith(f"rloo, seed 2 counts as failed: value is {value} at step 100. --failures")
    assert any(note.startswith("Assumed: a failed run scores 0, or what it had before") for note in notes)
    assert any("Depends on failure handling" in warning for warning in judgement.warnings)
    assert judged(read_rows(rows), failures="intersect").analysis.seeds == (0, 1)
    assert judged(read_rows(rows), floor=-1.0).analysis.arms[1].scores[2] == -1.0


def test_a_loss_has_no_floor_of_zero() -> None:
    rows = records()
    rows[-1]["value"] = math.nan
    with pytest.raises(TableError, match=r"the usual floor of 0 is a better 'value' than the 0\.53 that was measured"):
        judged(read_rows(rows), higher_is_better=False)
    judgement = judged(read_rows(rows), higher_is_better=False, floor=1.0)
    assert judgement.analysis.arms[1].scores[2] == 1.0
    with pytest.raises(TableError, match="say with --floor"):
        judged(read_rows([row | {"value": -float(str(row["value"]))} for row in rows]))


def test_statuses() -> None:
    rows: list[dict[str, object]] = [
        row | {"status": None} for row in records() if (row["arm"], row["seed"]) != ("rloo", 1)
    ]
    lost = judged(read_rows([*rows, {"arm": "rloo", "seed": 1, "status": "lost"}])).analysis
    assert lost.seeds == (0, 2)
    assert "1 of 3 seeds removed from every arm (seed 1): rloo lacks seed 1." in lost.notes
    failed = judged(read_rows([*rows, {"arm": "rloo", "seed": 1, "status": "failed"}]), floor=0.0).analysis
    assert failed.seeds == (0, 1, 2)
    assert failed.arms[1].scores[1] == 0.0
    half = [*rows, *({"arm": "rloo", "seed": 1, "step": s, "value": 0.2, "status": ""} for s in STEPS[:2])]
    half[-1]["status"] = "Failed"
    assert judged(read_rows(half), floor=0.1).analysis.arms[1].scores[1] == 0.1


def test_a_seed_on_one_side_only_leaves_with_a_note() -> None:
    rows = [row for row in records() if (row["arm"], row["seed"]) != ("rloo", 1)]
    judgement = judged(read_rows(rows))
    assert judgement.analysis.seeds == (0, 2)
    notes = judgement.analysis.notes
    assert "1 of 3 seeds removed from every arm (seed 1): rloo lacks seed 1." in notes
    (warning,) = judgement.warnings
    assert warning.startswith("rloo has no run for seed 1, which therefore leaves every arm: arms are compared at the")
    assert not [note for note in notes if "Interim" in note]
    assert judgement.outcomes[1].lost == 1
    assert read_rows(rows).lacking == {"rloo": [1]}


def test_other_axes_and_metrics_are_judged_too() -> None:
    rows = [row | {"metric": "accuracy", "seconds": 2 * int(str(row["step"])) + 1} for row in records()]
    losses = [row | {"metric": "loss", "value": 1 - float(str(row["value"]))} for row in rows]
    judgement = judged(read_rows([*rows, *losses]), metric="accuracy", axis="seconds")
    assert judgement.analysis.axis == "seconds"
    assert set(judgement.axes) == {"steps", "seconds"}
    assert "loss, final" in {each.quantity for each in judgement.exploratory}
    # at 101 seconds: two evaluations, as at 50 steps
    early = judged(read_rows(rows), axis="seconds", budget=101.0).analysis
    assert early.comparisons[0].effect.mean_difference == pytest.approx((0.03 + 0.03 + 0.035) / 3)


def test_the_area_under_the_curve() -> None:
    judgement = judged(read_rows(records()), scalar="auc")
    # 1/100 ∫ d: trapezoids of (0, .06, .09), (0, .06, .08), (0, .07, .08)
    differences = [(0.06 / 2 + 0.15 / 2) / 2, (0.06 / 2 + 0.14 / 2) / 2, (0.07 / 2 + 0.15 / 2) / 2]
    assert judgement.analysis.comparisons[0].effect.mean_difference == pytest.approx(sum(differences) / 3)


@given(values=st.lists(st.floats(-1, 1, width=32), min_size=6, max_size=6))
def test_one_score_a_run_is_what_the_statistics_take_directly(values: list[float]) -> None:
    scores = {"grpo": dict(enumerate(values[:3])), "rloo": dict(enumerate(values[3:]))}
    rows = [{"arm": a, "seed": s, "step": 7, "value": v} for a, row in scores.items() for s, v in row.items()]
    ours = judged(read_rows(rows)).analysis
    theirs = analyze(scores, baseline="grpo", metric="value", axis="steps", margin=0.02)
    assert ours.comparisons == theirs.comparisons
    assert set(theirs.notes) <= set(ours.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "results.csv: empty"),
        (" \n", "results.csv: empty"),
        ("arm,seed,step,value\n", "results.csv, line 1: a header and nothing below"),
        (TIDY.replace("value", "values"), "results.csv, header: no column 'value': did you mean 'values'. then rename"),
        (TIDY.replace("seed", "sead"), "header: no column 'seed': did you mean 'sead'"),
        (TIDY.replace(",", "|"), "header: no column 'arm'"),
        (TIDY.replace("0.45", "high"), "line 7: value is 'high', not a number"),
        (TIDY.replace(",", ";").replace("0.45", "0,45"), "line 7: value is '0,45', .*; write decimals with a point"),
        (TIDY.replace("grpo,1,100", "grpo,one,100"), "line 7: seed is 'one'; give each run the whole number"),
        (TIDY.replace("grpo,1,100", "grpo,1.5,100"), "line 7: seed is '1.5'"),
        (TIDY.replace("grpo,1,100", "grpo,1,inf"), "line 7: step is inf; a budget is a finite number"),
        (TIDY.replace("grpo,1,100", ",1,100"), "line 7: arm is empty"),
        (TIDY.replace("grpo,1,100", "grpo,1"), "line 7: 3 cells for 4 columns"),
        (TIDY + "grpo,0,50.0,0.4\n", r"line 20: arm 'grpo', seed 0 has 'value' at step 50 already, from .*, line 3"),
        (TIDY.replace("step,value", "value,value"), "line 1: column 'value' is there twice"),
        ("arm,seed,step,value,status\na,0,0,1,done\n", "line 2: status is 'done'; .*known: failed, finished, lost"),
        ("arm,seed,step,value,status\na,0,0,1,lost\na,0,1,1,failed\n", "line 3: .* seed 0 is failed, but lost in .*2"),
        ("arm,seed,step,value,seconds\na,0,1,1,5\na,0,0,1,6\n", "line 2: seconds of .* does not grow from step 0 to 1"),
        ("arm,seed,step,value,seconds\na,0,1,1,\n", "line 2: seconds is empty; fill it in every row"),
        ("arm,seed,step,value,metric\na,0,1,1,\n", "line 2: metric is empty"),
        (b"arm,seed,step,value\n\xff\xfe,0,0,1\n", "not UTF-8 text"),
        (f"arm,seed,step,value\na,0,0,{'1' * 200_000}\n", "line 2: not CSV .field larger"),
        ("Wall time,Step,Value\n1,0,1\n", "results.csv: the name 'results' does not say which arm and seed it is"),
        ('Step,"mean - acc"\n0,1\n', r"results.csv, column 'mean - acc': the name 'mean' does not say"),
        ('Step,"a-1 - acc"\n0,x\n', r"line 2: 'a-1 - acc' is 'x', not a number"),
        ('Step,"a-1 - acc"\n,1\n', r"line 2: Step is empty"),
        ('Step,"a-1 - acc"\nnan,1\n', r"line 2: Step is nan"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "acuracy"}, "no metric 'acuracy'; did you mean accuracy"),
        ({}, "choose a metric with --metric; there are accuracy, reward"),
        ({"metric": "accuracy", "axis": "second"}, "no column 'second' for --axis; did you mean seconds"),
        ({"metric": "accuracy", "alpha": 2.0}, "alpha = 2.0: must lie strictly between"),
        ({"metric": "accuracy", "budget": -1.0}, "no evaluation at or before the common budget -1"),
        ({"metric": "reward"}, r"arm 'grpo', seed 0 has no 'reward', only accuracy; choose another"),
    ],
)
def test_questions_that_the_table_cannot_answer(options: dict[str, object], message: str) -> None:
    rows = [row | {"metric": "accuracy", "seconds": row["step"]} for row in records()]
    rows.append(rows[-1] | {"metric": "reward"})
    with pytest.raises(TableError, match=message):
        judged(read_rows(rows), **options)


def test_arms_that_cannot_be_compared() -> None:
    table = read_rows(records())
    with pytest.raises(TableError, match="no arm 'grop' for --baseline; did you mean grpo"):
        judge_table(table, Question("grop"))
    with pytest.raises(TableError, match="only one arm, 'grpo'"):
        judged(read_rows(records()[:9]))
    apart = [row | {"seed": f"{row['seed']}{1 if row['arm'] == 'grpo' else 2}"} for row in records()]
    with pytest.raises(TableError, match=r"nothing to compare; .*grpo 1, 11, 21; rloo 2, 12, 22"):
        judged(read_rows(apart))
    with pytest.raises(TableError, match="the table: no rows"):
        read_rows([])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv", "--baseline", "a"], "cannot read nowhere.csv: No such file"),
        (["results.csv"], "results.csv: --baseline is needed; the arms are grpo, rloo"),
        (["results.csv", "--baseline", "grpo", "--runs", "x"], "--runs 'x' has no group 'arm'"),
        (["results.csv", "--baseline", "grpo", "--runs", "(x"], "is no regular expression: missing"),
        (["results.csv", "--baseline", "grpo", "--runs", "(?P<arm>.)(?P<seed>.)"], "has no effect: these tables have"),
        (["logs", "--baseline", "grpo", "--runs", "(?P<arm>.)(?P<seed>.)"], "the name 'grpo-0' is not matched by"),
        (["logs", "--baseline", "grpo", "--runs", "(?P<arm>.+)(?P<seed>-).*"], "arm 'grpo' and seed '-' from 'grpo-0'"),
        (["empty", "results.csv", "empty"], "--baseline is needed"),
        (["empty", "empty"], "empty, empty: no CSV file and no trainer's log here"),
        (["empty"], "empty: no study.json here"),
        (["study", "--baseline", "grpo", "--lower-is-better"], "declares its own baseline, higher is better: leave"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results.csv").write_text(TIDY)
    write_tensorboard(tmp_path / "logs", "{arm}-{seed}.csv")
    (tmp_path / "empty").mkdir()
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text("{}")
    (tmp_path / "study" / "table.csv").write_text(TIDY)
    assert main(["analyze", *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_json_is_the_whole_judgement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    table = read(tmp_path, TIDY)
    assert main(["analyze", "results.csv", "--baseline", "grpo", "--margin", "0.02", "--metric", "acc", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    expected = json.loads(json.dumps(judged(table, metric="acc").to_json()))
    assert printed.keys() == expected.keys()
    assert printed["comparisons"] == expected["comparisons"]


def test_numbers_are_shown_as_they_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table's accuracy may be a share or a percentage; the margin says how many digits matter."""
    monkeypatch.chdir(tmp_path)
    percent = "".join(f"{r['arm']},{r['seed']},{r['step']},{100 * float(str(r['value'])):.0f}\n" for r in records())
    (tmp_path / "results.csv").write_text(f"arm,seed,step,value\n{percent}")
    assert main(["analyze", "results.csv", "--baseline", "grpo", "--metric", "accuracy", "--margin", "1"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"grpo +3 +36\.3 +baseline", out)
    assert re.search(r"rloo +3 +41\.2 +\+4\.9 \[\+4\.4, \+5\.4\] +0\.0005 +▲ better", out)


def test_the_commands_of_the_documentation_do_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = DOCUMENT.read_text()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    tables = re.findall(r"```csv\n(.*?)```", text, re.DOTALL)
    (tmp_path / "results.csv").write_text(tables[0])
    (tmp_path / "wandb_export.csv").write_text(tables[2])
    write_tensorboard(tmp_path / "tensorboard", "run-{arm}_{seed}-tag-eval_accuracy.csv")
    shown = (tmp_path / "tensorboard" / "run-grpo_0-tag-eval_accuracy.csv").read_text()
    assert re.sub(r"\n[\d.]+,", "\n,", tables[1].replace("0.30", "0.3")) == re.sub(r"\n[\d.]+,", "\n,", shown)
    write_tensorboard(tmp_path / "logs", "2026-{arm}-try{seed}.csv")
    recorded.write_trl(tmp_path / "out")
    recorded.write_verl(tmp_path / "verl_runs" / "gsm8k")
    test_regrading.write_verl(tmp_path / "runs")
    commands = [
        command for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for command in block.splitlines()
    ]
    assert len(commands) == 7
    outputs, notes = [], []
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "grpolab"
        assert main(arguments) == 0, command
        outputs.append(capsys.readouterr().out)
        assert main([*arguments, "--verbose"]) == 0, command
        notes.append(" ".join(capsys.readouterr().out.split()))
    (expected,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    lines = [line.rstrip() for line in outputs[3].splitlines() if line.strip()]
    assert "\n".join(lines).startswith(expected.rstrip())
    regraded = outputs.pop(2)
    assert "+0.333" in regraded
    assert all("+0.049 [+0.044, +0.054]" in output and "▲ better" in output for output in outputs)
    named = ["note: Read from names: arms grpo, rloo; seeds 0, 1, 2." in each for each in notes]
    assert named == [True, True, True, False, True, True, True]
    assert not any("note: " in output for output in outputs)
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out == "better\n"


def test_the_documentation_names_every_option() -> None:
    text = DOCUMENT.read_text()
    source = (ROOT / "experiments" / "cli" / "tables.py").read_text()
    options = set(re.findall(r'"(--[a-z-]+)"', source))
    assert len(options) == 15
    assert all(option in text for option in options)


# the answers behind the values


def test_no_interval_is_finer_than_the_answers(tmp_path: Path) -> None:
    few, many, unknown = (judged(read_rows(records()), answers=n) for n in (20, 10**6, None))
    comparisons = [each.analysis.comparisons[0] for each in (few, many, unknown)]
    assert [c.effect.answers for c in comparisons] == ["by number", "by number", "unknown"]
    assert [c.verdict for c in comparisons] == ["inconclusive", "better", "better"]
    scores = {arm: {s: sum(CURVES[arm, s]) / 3 for s in range(3)} for arm in ("grpo", "rloo")}
    by_hand = analyze(scores, baseline="grpo", answers=60).comparisons[0]  # three evaluations of 20
    assert comparisons[0].effect.answers_error == pytest.approx(by_hand.effect.answers_error)
    header, *lines = TIDY.splitlines()
    column = judged(read(tmp_path, "\n".join([f"{header},answers", *(f"{line},20" for line in lines)])))
    assert column.analysis.comparisons == few.analysis.comparisons
    assert any("only the number is known" in note for note in few.analysis.notes)
    assert any("--answers N, or a column 'answers'" in note for note in unknown.analysis.notes)


@pytest.mark.parametrize(
    ("rows", "answers", "message"),
    [
        (records(answers=20), 20, "--answers 20, but the table has a column 'answers'"),
        (records(answers=0), None, "line 1: answers is 0; give how many"),
        (records(answers="many"), None, "line 1: answers is 'many', not a number; fill it in every row"),
        (records(), 0, "--answers 0: give how many"),
        ([row | {"value": 100 * float(str(row["value"]))} for row in records()], 20, "scores from .* are no shares"),
    ],
)
def test_numbers_of_answers_that_cannot_be(rows: list[dict[str, object]], answers: int | None, message: str) -> None:
    with pytest.raises(TableError, match=message):
        judged(read_rows(rows), answers=answers)


# p beside what decides


def test_no_p_is_on_the_wrong_side_of_alpha(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """p is 0.0500002 at alpha 0.05: inconclusive, and nobody reads p = 0.05 beside it."""
    d = (-0.0001838, 0.0048162, 0.0098162, 0.0148162, 0.0198162)
    file = tmp_path / "close.csv"
    lines = [f"{arm},{s},1,{0.5 + x * (arm == 'b')!r}" for arm in "ab" for s, x in enumerate(d)]
    file.write_text("\n".join(["arm,seed,step,value", *lines]))
    assert main(["analyze", str(file), "--baseline", "a", "--verbose"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "adjusted p = 0.0500002 (paired t" in text
    assert " 0.0500 " not in text
    assert "inconclusive" in text
    assert main(["analyze", str(file), "--baseline", "a", "--json"]) == 0
    (c,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert 0.05 < c["adjusted_p"] < 0.050001
    assert c["adjusted_p"] == c["p_t"] != round(c["p_t"], 10)
