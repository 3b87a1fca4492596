"""What configurations say of arms and seeds, where runs ended, and what a log that is broken becomes."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import TrainingArguments

from experiments.results.tables.engines import configs
from experiments.results.tables.sheets import TableError
from experiments.results.tables.tables import Question, Table, judge_table, read_tables
from tests.experiments.results.tables.engines import recorded

METRIC = "eval_rewards/accuracy_reward/mean"
CORE = "val-core/gsm8k/acc/mean@1"


def read(folder: Path, metric: str = "eval_rewards/*") -> Table:
    return read_tables([folder], metric=metric)


def save_arguments(folder: Path, seed: int) -> None:
    """As the Trainer does beside every checkpoint."""
    arguments = TrainingArguments(output_dir=str(folder), seed=seed, report_to=[], use_cpu=True)
    torch.save(arguments, folder / "training_args.bin")


def hydra(experiment: str, **levels: Mapping[str, Any]) -> str:
    config: dict[str, Any] = {
        "trainer": {"project_name": "gsm8k", "experiment_name": experiment},
        "actor_rollout_ref": {},
    } | levels
    return str(yaml.safe_dump(config))


def test_where_the_name_is_silent_the_configuration_says_the_seed(tmp_path: Path) -> None:
    for arm, seed, points in recorded.runs():
        run = tmp_path / arm / f"try-{'abc'[seed]}"
        recorded.write_state(run / "checkpoint-100" / "trainer_state.json", points)
        (run / "grpolab.json").write_text(json.dumps({"variant": arm, "seed": seed, "keyed_noise": False}))
    table = read(tmp_path)
    assert {(run.arm, run.seed): tuple(run.curves[METRIC].values) for run in table.runs} == recorded.CURVES
    source = tmp_path / "grpo" / "try-a" / "grpolab.json"
    assert f"grpo, seed 0: read from {source}, since the name does not say it." in table.notes
    assert not any(note.startswith("Read from names") for note in table.notes)


def test_the_arguments_of_transformers_say_the_seed_and_the_folder_the_arm(tmp_path: Path) -> None:
    for arm, seed in (("grpo", 3), ("rloo", 3)):
        recorded.write_state(tmp_path / arm / "checkpoint-100" / "trainer_state.json", [(0, 0.3), (100, 0.4)])
        save_arguments(tmp_path / arm / "checkpoint-100", seed)
    assert [(run.arm, run.seed) for run in read(tmp_path).runs] == [("grpo", 3), ("rloo", 3)]


def test_neither_name_nor_configuration(tmp_path: Path) -> None:
    recorded.write_state(tmp_path / "grpo" / "trainer_state.json", [(0, 0.3)])
    with pytest.raises(TableError, match=r"grpo/trainer_state\.json: the name 'grpo' does not say which arm and seed"):
        read(tmp_path)


def test_a_pickle_is_read_without_running_anything(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    for name, value in (("alone", Runs()), ("within", {"seed": 3, "more": Runs()})):
        torch.save(value, tmp_path / name)
        configs.read_arguments(tmp_path / name)
        assert not (tmp_path / "ran").exists()
    (tmp_path / "torn").write_bytes((tmp_path / "within").read_bytes()[:200])
    assert configs.read_arguments(tmp_path / "torn") == {}


def test_seeds_that_differ_in_name_only_are_warned_of(tmp_path: Path) -> None:
    recorded.write_trl(tmp_path)
    for run in tmp_path.iterdir():
        save_arguments(run, 42)
    (warning,) = read(tmp_path).warnings
    assert warning.startswith(
        "By their names the runs of grpo, rloo have seeds 0, 1, 2, but all their configurations have seed 42: whatever"
    )
    one_each = [tmp_path / "grpo-s1", tmp_path / "rloo-s1"]
    assert read_tables(one_each, metric="eval_rewards/*").warnings == (), "one seed an arm has none to differ from"
    for run in tmp_path.iterdir():
        save_arguments(run, int(run.name[-1]))
    table = read(tmp_path)
    assert table.warnings == ()
    assert any(note.startswith("Runs of one seed share the order of prompts at most") for note in table.notes)


def test_verls_configuration_is_found_by_the_name_of_the_experiment(tmp_path: Path) -> None:
    recorded.write_verl(tmp_path / "logs" / "gsm8k")
    for arm, seed, _ in recorded.runs():
        folder = tmp_path / "outputs" / f"{arm}{seed}" / ".hydra"
        folder.mkdir(parents=True)
        data = {"seed": None, "train_files": "x.parquet"}
        (folder / "config.yaml").write_text(hydra(f"{arm}_seed{seed}", data=data))
    (warning,) = read(tmp_path, "val-core/*").warnings
    assert warning.startswith("data.seed is null in runs of grpo, rloo: verl then gives every run the same order")
    for file in tmp_path.glob("outputs/*/.hydra/config.yaml"):
        file.write_text(file.read_text().replace("project_name: gsm8k", "project_name: math"))
    assert read(tmp_path, "val-core/*").warnings == (), "of another project"


def test_pairing_holds_where_a_bridge_keyed_the_noise(tmp_path: Path) -> None:
    recorded.write_verl(tmp_path / "gsm8k")
    for arm, seed, _ in recorded.runs():
        folder = tmp_path / f"{arm}{seed}" / ".hydra"
        folder.mkdir(parents=True)
        bridge = {"grpolab": {"variant": arm, "seed": seed, "keyed_noise": True}}
        (folder / "config.yaml").write_text(hydra(f"{arm}_seed{seed}", data={"seed": seed}, actor_rollout_ref=bridge))
    table = read(tmp_path, "val-core/*")
    assert table.warnings == ()
    assert any(
        note.startswith("All runs were started by a bridge of the bench with keyed noise") for note in table.notes
    )
    (tmp_path / "rloo2" / ".hydra" / "config.yaml").unlink()
    notes = read(tmp_path, "val-core/*").notes
    assert any(
        "(5 of 6 logs are of runs with keyed noise): pairing by seed then takes little" in note for note in notes
    )


def test_a_run_that_broke_off_is_warned_of_and_lowers_the_budget(tmp_path: Path) -> None:
    recorded.write_trl(tmp_path)
    run = tmp_path / "rloo-s1"
    (run / "checkpoint-100" / "trainer_state.json").unlink()
    table = read(tmp_path)
    state = run / "checkpoint-50" / "trainer_state.json"
    assert len(table.warnings) == 1
    assert table.warnings[0].startswith(f"rloo, seed 1 broke off at step 50 of 100 ({state}): what the others did")
    judged = judge_table(table, Question("grpo"))
    assert table.warnings[0] in judged.warnings
    # at 50 steps: grpo .335, .36, .315; rloo .365, .39, .35
    assert judged.analysis.comparisons[0].effect.mean_difference == pytest.approx((0.03 + 0.03 + 0.035) / 3)
    (tmp_path / "ends.csv").write_text("arm,seed,step,value,status\nrloo,1,,,failed\n")
    table = read(tmp_path)
    assert table.warnings == ()
    judged = judge_table(table, Question("grpo", floor=0.0))
    assert {each.arm: each.scores[1] for each in judged.analysis.arms}["rloo"] == 0.0


def test_a_snapshot_of_the_whole_run_counts_where_it_is_later(tmp_path: Path) -> None:
    recorded.write_trl(tmp_path)
    own = tmp_path / "grpo-s0" / "trainer_state.json"
    recorded.write_state(own, [(0, 0.30), (100, 0.41), (150, 0.6)], planned=150)
    assert read(tmp_path).runs[0].curves[METRIC].values == [0.30, 0.41, 0.6]
    recorded.write_state(own, [(0, 0.9)])
    assert read(tmp_path).runs[0].curves[METRIC].values == [0.30, 0.37, 0.41]


def test_a_run_without_the_metric_has_no_place_until_it_is_said_what_became_of_it(tmp_path: Path) -> None:
    recorded.write_verl(tmp_path)
    file = tmp_path / "rloo_seed1.jsonl"
    file.write_text('{"step":1,"data":{"critic/score/mean":0.1}}\n')
    with pytest.raises(
        TableError, match=r"rloo_seed1\.jsonl: arm 'rloo', seed 1 has no 'val-core.*the line rloo,1,,,fail"
    ):
        read(tmp_path, "val-core/*")
    (tmp_path / "ends.csv").write_text("arm,seed,step,value,status\nrloo,1,,,failed\n")
    assert {(run.arm, run.seed): run.status for run in read(tmp_path, "val-core/*").runs}["rloo", 1] == "failed"


@pytest.mark.parametrize("logged", ["null", "NaN", "Infinity", "1e999", "1" + "0" * 400])
def test_a_number_that_is_not_finite_is_a_failed_run(logged: str, tmp_path: Path) -> None:
    """verl's log has null for nan."""
    recorded.write_verl(tmp_path)
    file = tmp_path / "rloo_seed1.jsonl"
    file.write_text(file.read_text().replace("0.53", logged))
    table = read(tmp_path, "val-core/*")
    last = table.runs[4].curves[CORE].values[-1]
    assert math.isnan(last) if logged in ("null", "NaN") else last == math.inf
    judged = judge_table(table, Question("grpo"))
    assert any("rloo, seed 1 counts as failed: val-core/gsm8k/acc/mean@1 is" in warning for warning in judged.warnings)
    file.write_text(file.read_text().replace('"critic/score/mean":0.3', f'"critic/score/mean":{logged}'))
    assert read(tmp_path, "val-core/*").runs[:4] == table.runs[:4], "of another metric it says nothing"


def test_a_last_line_that_is_torn_is_left_out_and_noted(tmp_path: Path) -> None:
    recorded.write_verl(tmp_path)
    file = tmp_path / "grpo_seed0.jsonl"
    text = file.read_text()
    file.write_text(text + '{"step":101,"data":{"val-core/gsm8k/acc')
    table = read(tmp_path, "val-core/*")
    assert table.runs[0].curves[CORE].values == [0.30, 0.37, 0.41]
    assert f"{file}, line 102: the last line is torn, as of a run that was killed; not read." in table.notes
    file.write_text(text.replace('{"step":7,', '{"step":7'))
    with pytest.raises(
        TableError, match=r"grpo_seed0\.jsonl, line 8: not JSON \(Expecting.*take the line out, or copy"
    ):
        read(tmp_path, "val-core/*")


def test_a_last_event_that_is_torn_is_noted_and_one_that_is_damaged_refused(tmp_path: Path) -> None:
    recorded.write_events(tmp_path)
    file = next((tmp_path / "grpo_s0").iterdir())
    data = file.read_bytes()
    file.write_bytes(data[:-3])
    assert f"{file}: the last event is torn, as of a run that was killed; not read." in read(tmp_path, "eval/*").notes
    file.write_bytes(data[:150] + bytes(255 - byte for byte in data[150:160]) + data[160:])
    with pytest.raises(TableError, match=r"not an event file after event \d; copy it anew"):
        read(tmp_path, "eval/*")


def test_two_runs_of_one_arm_and_seed_are_refused(tmp_path: Path) -> None:
    recorded.write_verl(tmp_path / "a")
    recorded.write_verl(tmp_path / "b" / "gsm8k")
    own = r"(?:.*/)?(?P<arm>\w+)_seed(?P<seed>\d)"
    with pytest.raises(
        TableError, match=r"b/gsm8k/grpo_seed0\.jsonl: arm 'grpo', seed 0 again, as in .*a/grpo_seed0\.j"
    ):
        read_tables([tmp_path], own, CORE)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    recorded.write_verl(tmp_path)
    (tmp_path / "rloo_seed2.jsonl").write_text("")
    table = read(tmp_path, "val-core/*")
    assert (
        f"{tmp_path / 'rloo_seed2.jsonl'} is empty: if it is the log of a run, that run is in no" in table.warnings[0]
    )
    judged = judge_table(table, Question("grpo"))
    assert any("rloo has no run for seed 2" in warning for warning in judged.warnings)
    with pytest.raises(TableError, match=r"rloo_seed2\.jsonl: empty"):
        read_tables([tmp_path / "rloo_seed2.jsonl"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a-s0/trainer_state.json", "{", r"trainer_state\.json: not JSON \(Expecting property name"),
        ("a-s0/trainer_state.json", "", r"trainer_state\.json: empty; the run that should have written it"),
        ("a-s0/trainer_state.json", "[1]", "not a JSON object"),
        ("a-s0/trainer_state.json", "[" * 10_000, "not JSON"),
        ("a-s0/trainer_state.json", "{}", "no list 'log_history', in which transformers logs"),
        ("a-s0/trainer_state.json", '{"log_history": [{"loss": 1}]}', "log_history 1: no number 'step'"),
        ("a-s0.jsonl", '{"step": 1, "data": {}}\n{"step": 2}\n', r"a-s0\.jsonl, line 2: not a line of verl's log"),
        ("a-s0.jsonl", '{"step": 1, "data": {}}\n5\n', "line 2: not a JSON object"),
        ("a-s0.jsonl", '{"step": 1, "x": 1}\n{"loss": 2}\n', "line 2: no number 'step'; give every line"),
        ("a-s0.db", "SQLite format 3\0 and no more", "no CSV file and no trainer's log here"),
        ("notes.txt", "some words", "no CSV file and no trainer's log here"),
        (
            "a-s0/1.jsonl",
            '{"input": "", "output": "", "score": "high", "step": 1}\n',
            "no number that every answer has",
        ),
    ],
)
def test_what_cannot_be_read_is_one_clear_message(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    with pytest.raises(TableError, match=message):
        read(tmp_path, "x")


def test_answers_of_verl_are_means_that_know_their_number(tmp_path: Path) -> None:
    right = {("grpo", 0): 5, ("grpo", 1): 6, ("grpo", 2): 4, ("rloo", 0): 7, ("rloo", 1): 8, ("rloo", 2): 6}
    for (arm, seed), count in right.items():
        for step, more in ((0, 0), (10, count)):
            answers = [1] * more + [0] * (20 - more)
            recorded.write_answers(tmp_path / f"{arm}_s{seed}" / "validation", step, answers)
        recorded.write_answers(tmp_path / f"{arm}_s{seed}" / "rollouts", 10, [1, 0])
    table = read(tmp_path, "validation/acc")
    curve = table.runs[0].curves["validation/acc"]
    assert (curve.values, curve.answers, curve.spent) == ([0.0, 0.25], [20, 20], {"steps": [0, 10]})
    with pytest.raises(
        TableError, match="there are validation/score, validation/reward, validation/acc, rollouts/score"
    ):
        read_tables([tmp_path])
    lone = tmp_path / "grpo_s0" / "validation"
    assert read_tables(
        [lone / "0.jsonl", lone / "10.jsonl", *(tmp_path / "rloo_s0").rglob("*.jsonl")], None, "*n/acc"
    ).seeds


def test_answers_of_nemo_rl_are_mean_rewards(tmp_path: Path) -> None:
    for arm, rewards in (("grpo", [1.0, 0.0]), ("rloo", [1.0, 1.0])):
        folder = tmp_path / f"{arm}-s0" / "exp_001"
        folder.mkdir(parents=True)
        rows = [{"content": [["..."]], "rewards": [reward], "idx": n} for n, reward in enumerate(rewards)]
        for name in ("val_data_step10", "train_data_step10"):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = read(tmp_path, "val*")
    assert {run.arm: run.curves["validation/reward"].values for run in table.runs} == {"grpo": [0.5], "rloo": [1.0]}
    assert table.runs[0].curves["validation/reward"].answers == [2]


def test_a_study_of_the_bench_below_a_folder_is_not_taken_for_a_trainers_log(tmp_path: Path) -> None:
    recorded.write_verl(tmp_path)
    run = tmp_path / "study" / "grpo" / "seed=0"
    run.mkdir(parents=True)
    (run / "manifest.json").write_text("{}")
    (run / "metrics.jsonl").write_text('{"step": 1, "val-core/gsm8k/acc/mean@1": 0.1}\n')
    assert len(read(tmp_path, "val-core/*").runs) == 6
