"""Whatever library wrote the numbers: they are judged as a tidy table of them is."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from experiments.cli.main import main
from experiments.results.tables.sheets import TableError
from experiments.results.tables.tables import Question, Table, judge_table, read_rows, read_tables
from tests.experiments.results.tables.engines import recorded
from tests.experiments.results.tables.engines.recorded import CURVES, STEPS, TIDY


def write_wide(folder: Path) -> None:
    """A run's history as a data frame saves it; an empty cell was not measured."""
    folder.mkdir(parents=True, exist_ok=True)
    for arm, seed, points in recorded.runs():
        rows = "".join(f"{k},{step},{value},\n{k},{step + 1},,0.5\n" for k, (step, value) in enumerate(points))
        (folder / f"{arm}-seed{seed}.csv").write_text(f"Unnamed: 0,step,eval/accuracy,train/reward\n{rows}")


def write_wide_table(folder: Path) -> None:
    """All runs in one table."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(
        f"{arm},{seed}.0,{step},{value},0.5\n" for arm, seed, points in recorded.runs() for step, value in points
    )
    (folder / "all.csv").write_text(f"arm,seed,step,eval/accuracy,eval/loss\n{rows}")


def write_history(folder: Path) -> None:
    """What clients of W&B before 0.11 left in a run's folder."""
    for arm, seed, points in recorded.runs():
        files = folder / f"{arm}-s{seed}" / "files"
        files.mkdir(parents=True)
        lines = [f'{{"_step": {k}, "global_step": {step}, "acc": {v}}}\n' for k, (step, v) in enumerate(points)]
        (files / "wandb-history.jsonl").write_text("".join(lines))
        (files / "wandb-summary.json").write_text('{"_step": 9, "acc": 1.0}')


def write_trackio(folder: Path) -> None:
    folder.mkdir()
    recorded.write_trackio(folder / "project.db")


def write_old_trackio(folder: Path) -> None:
    folder.mkdir()
    recorded.write_trackio(folder / "project.db", run_id=False)


@pytest.mark.parametrize(
    ("write", "metric", "name"),
    [
        (recorded.write_trl, "eval_rewards/*/mean", "eval_rewards/accuracy_reward/mean"),
        (recorded.write_verl, "val-core/*", "val-core/gsm8k/acc/mean@1"),
        (recorded.write_prime, "eval/math500/avg@[1-4]", "eval/math500/avg@1"),
        (recorded.write_events, "eval/*", "eval/default_pass1"),
        (write_trackio, "eval/accuracy", "eval/accuracy"),
        (write_old_trackio, "eval/accuracy", "eval/accuracy"),
        (write_wide, "eval/*", "eval/accuracy"),
        (write_wide_table, "*accuracy", "eval/accuracy"),
        (write_history, "acc", "acc"),
    ],
)
def test_logs_give_the_verdicts_of_the_same_numbers_as_a_tidy_table(
    write: Callable[[Path], None], metric: str, name: str, tmp_path: Path
) -> None:
    write(tmp_path / "out")
    table = read_tables([tmp_path / "out"], metric=metric)
    assert table.metrics == (name,)
    as_written = np.float32 if write is recorded.write_events else float  # TensorBoard's numbers have 24 bits
    curves = {run: tuple(float(as_written(value)) for value in curve) for run, curve in CURVES.items()}
    assert {(run.arm, run.seed): tuple(run.curves[name].values) for run in table.runs} == curves
    assert all(run.curves[name].spent["steps"] == list(STEPS) for run in table.runs)
    judged = judge_table(table, Question("grpo", metric, margin=0.02))
    rows = [{**row, "value": float(as_written(row["value"]))} for row in TIDY]
    tidy = judge_table(read_rows(rows), Question("grpo", name, margin=0.02))
    assert judged.analysis.comparisons == tidy.analysis.comparisons
    assert judged.analysis.arms == tidy.analysis.arms
    assert not any("not from" in note for note in table.notes)
    matched = f"--metric {metric!r} is {name}." in judged.analysis.notes
    assert matched == (metric != name)


def test_paths_may_be_runs_or_files_and_a_table_may_lie_beside(tmp_path: Path) -> None:
    recorded.write_trl(tmp_path / "out")
    whole = read_tables([tmp_path / "out"], metric="eval_rewards/*")
    by_run = read_tables(sorted((tmp_path / "out").iterdir()), metric="eval_rewards/*")
    assert by_run.runs == whole.runs
    states = sorted((tmp_path / "out").glob("*/checkpoint-100/trainer_state.json"))
    assert read_tables(states, metric="eval_rewards/*").runs == whole.runs
    metric = "eval_rewards/accuracy_reward/mean"
    (tmp_path / "out" / "more.csv").write_text(
        f"arm,seed,step,metric,value\ndapo,0,100,{metric},0.5\ndapo,1,100,{metric},0.6\ndapo,2,100,{metric},0.6\n"
    )
    assert set(read_tables([tmp_path / "out"], metric="eval_rewards/*").arms) == {"grpo", "rloo", "dapo"}


@pytest.mark.parametrize(
    "name", ["gsm8k/{arm}_seed{seed}", "{arm}/seed={seed}", "a/b/{arm}-s{seed}", "{arm}/s{seed}/logs", "{arm}_{seed}"]
)
def test_arms_and_seeds_are_read_from_paths_below_what_all_share(name: str, tmp_path: Path) -> None:
    for arm, seed, points in recorded.runs():
        recorded.write_state(tmp_path / name.format(arm=arm, seed=seed) / "trainer_state.json", points)
    table = read_tables([tmp_path], metric="eval_loss")
    assert (table.arms, table.seeds) == (("grpo", "rloo"), (0, 1, 2))
    assert "Read from names: arms grpo, rloo; seeds 0, 1, 2." in table.notes


def test_a_pattern_of_ones_own_reads_the_path_of_a_run(tmp_path: Path) -> None:
    recorded.write_verl(tmp_path, "2026-{arm}-try{seed}")
    table = read_tables([tmp_path], r"\d+-(?P<arm>\w+)-try(?P<seed>\d+)", "val-core/*")
    assert (table.arms, table.seeds) == (("grpo", "rloo"), (0, 1, 2))


def test_the_metrics_are_listed_evaluations_first(tmp_path: Path) -> None:
    recorded.write_verl(tmp_path)
    with pytest.raises(TableError, match="choose a metric with --metric; there are val-core/gsm8k/acc/mean@1, critic/"):
        read_tables([tmp_path])
    with pytest.raises(TableError, match="--metric 't\\*' matches 2; name one of timing_s/step, training/epoch"):
        read_tables([tmp_path], metric="t*")
    with pytest.raises(
        TableError, match=r"no metric 'critic/score'; did you mean critic/score/mean\? known: val-core/gsm8k/acc"
    ):
        read_tables([tmp_path], metric="critic/score")


def test_tensorboards_absence_is_an_error_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded.write_events(tmp_path)
    for name in [*sys.modules]:
        if name.partition(".")[0] == "tensorboard":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert main(["analyze", str(tmp_path), "--baseline", "grpo", "--metric", "eval/*"]) == 2
    assert "event files, pip install 'grpo-lab[tensorboard]'" in " ".join(capsys.readouterr().err.split())


def table_of(folder: Path, metric: str) -> Table:
    return read_tables([folder], metric=metric)


def test_what_was_spent_is_taken_or_added_up_and_lies_between_two_steps(tmp_path: Path) -> None:
    recorded.write_trl(tmp_path / "trl")
    table = table_of(tmp_path / "trl", "eval_rewards/*")
    curve = table.runs[0].curves["eval_rewards/accuracy_reward/mean"]
    assert curve.spent == {"steps": [0, 50, 100], "tokens": [0, 50_000, 100_000], "seconds": [0, 100, 200]}
    assert "The axis tokens is 'num_tokens', as logged, since the start; prompts are counted in." in table.notes
    recorded.write_verl(tmp_path / "verl")
    table = table_of(tmp_path / "verl", "val-core/*")
    curve = table.runs[0].curves["val-core/gsm8k/acc/mean@1"]
    assert curve.spent == {"steps": [0, 50, 100], "tokens": [0, 35_000, 70_000], "seconds": [0, 75, 150]}
    assert "The axis seconds is 'timing_s/step', added up over the steps." in table.notes
    judged = judge_table(table, Question("grpo", axis="tokens", budget=70_000))
    assert judged.analysis.comparisons[0].verdict == "better"


def test_a_resumed_run_that_erased_its_past_has_no_totals(tmp_path: Path) -> None:
    recorded.write_verl(tmp_path)
    file = tmp_path / "grpo_seed1.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[40:]))  # from step 40 on
    table = table_of(tmp_path, "val-core/*")
    spent = {(run.arm, run.seed): [*run.curves["val-core/gsm8k/acc/mean@1"].spent] for run in table.runs}
    assert spent["grpo", 1] == ["steps"]
    assert spent["grpo", 0] == ["steps", "tokens", "seconds"]
    assert f"{file}: tokens are not known, since 'perf/total_num_tokens' of step 1 is not in the log." in table.notes
    with pytest.raises(TableError, match="arm 'grpo', seed 1 has no column 'tokens' for --axis"):
        judge_table(table, Question("grpo", axis="tokens"))
    file = tmp_path / "rloo_seed2.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[40:]))
    (note,) = (
        note for note in table_of(tmp_path, "val-core/*").notes if note.startswith(str(tmp_path)) and "tokens" in note
    )
    assert "grpo_seed1.jsonl and 1 more: tokens are not known" in note


def test_of_a_step_that_is_logged_twice_the_later_line_counts(tmp_path: Path) -> None:
    recorded.write_prime(tmp_path)
    file = tmp_path / "grpo-seed0" / "metrics.jsonl"
    with file.open("a") as lines:
        lines.write('{"step": 100, "time": 1, "eval/math500/avg@1": 0.9}\n')
    table = table_of(tmp_path, "eval/*")
    assert table.runs[0].curves["eval/math500/avg@1"].values == [0.30, 0.37, 0.9]
    assert (
        f"{file}: 1 values of eval/math500/avg@1 are of a step that was logged again, as by a run that was resumed; "
        "the later counts." in table.notes
    )


def test_event_files_of_one_folder_are_one_run(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    recorded.write_events(tmp_path)
    writer = SummaryWriter(str(tmp_path / "grpo_s0"), filename_suffix=".resumed")
    writer.add_scalar("eval/default_pass1", 0.9, 100)
    writer.add_scalar("eval/default_pass1", 0.95, 150)
    writer.close()
    table = table_of(tmp_path, "eval/*")
    assert table.runs[0].curves["eval/default_pass1"].values == pytest.approx([0.30, 0.37, 0.9, 0.95])


def test_a_run_is_read_once_where_several_libraries_logged_it(tmp_path: Path) -> None:
    """transformers writes event files below its run's folder."""
    recorded.write_trl(tmp_path)
    recorded.write_events(tmp_path, "{arm}-s{seed}/runs/Dec01_10-20-30_node-7")
    table = table_of(tmp_path, "eval_rewards/*")
    assert table.metrics == ("eval_rewards/accuracy_reward/mean",)
    assert table.runs == table_of(tmp_path, "eval_rewards/*").runs
    assert table_of(tmp_path, "eval/default_pass1").arms == ("grpo", "rloo")
    state = next(tmp_path.glob("grpo-s0/checkpoint-100/trainer_state.json"))
    recorded.write_verl(tmp_path, "{arm}-s{seed}")
    (tmp_path / "grpo-s0.jsonl").write_text('{"step": 100, "data": {"eval_rewards/accuracy_reward/mean": 0.1}}\n')
    table = table_of(tmp_path, "eval_rewards/*")
    assert f"grpo, seed 0: read from {state}, not from {tmp_path / 'grpo-s0.jsonl'}." in table.notes
    assert table.runs[0].curves["eval_rewards/accuracy_reward/mean"].values == [0.30, 0.37, 0.41]


def test_an_axis_is_left_out_where_it_is_not_known_at_every_evaluation(tmp_path: Path) -> None:
    """After the last step that was logged, and where nothing was spent between two evaluations."""
    rows = "0,,0.3\n50,1000,0.4\n100,{},0.5\n{}"
    for name, tokens, more in (("a-s0", 2000, ""), ("b-s0", 2000, "101,,0.5\n"), ("c-s0", 1000, "")):
        (tmp_path / f"{name}.csv").write_text("step,num_tokens,eval/accuracy\n" + rows.format(tokens, more))
    table = table_of(tmp_path, "eval/accuracy")
    spent = {run.arm: dict(run.curves["eval/accuracy"].spent) for run in table.runs}
    assert spent["a"] == {"steps": [0, 50, 100], "tokens": [0, 1000, 2000]}
    assert [*spent["b"]] == [*spent["c"]] == ["steps"]
    left_out = "tokens are not known at every step of eval/accuracy, so that axis is left out."
    assert {f"{tmp_path / name}.csv: {left_out}" for name in ("b-s0", "c-s0")} <= set(table.notes)


def test_folders_that_libraries_make_by_themselves_are_no_part_of_a_runs_name(tmp_path: Path) -> None:
    """node-7 is no seed 7, nor exp_001 a seed 1."""
    recorded.write_events(tmp_path / "trl", "{arm}_{seed}/runs/Dec01_10-20-30_node-7")
    assert table_of(tmp_path / "trl", "eval/default_pass1").seeds == (0, 1, 2)
    for arm, seed, _ in recorded.runs():
        folder = tmp_path / "nemo" / f"{arm}_{seed}" / "exp_001"
        folder.mkdir(parents=True)
        (folder / "val_data_step5.jsonl").write_text('{"content": "", "rewards": [1.0], "idx": 0}\n')
    assert table_of(tmp_path / "nemo", "validation/reward").seeds == (0, 1, 2)
