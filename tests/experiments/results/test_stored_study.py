"""Reading a study's folder: the numbers that come out, and the errors that name file, line and remedy."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import GrpoLabError
from experiments.report import render
from experiments.results.stored_run import DamagedRunError, StudyError
from experiments.results.stored_study import Counts, load_study

SEEDS = [0, 1]


def write_study(path: Path, *, budget: float = 6, axis: str = "steps") -> Path:
    """Two arms, two seeds, six steps, evaluations at 0, 2, 4, 6; `final` is grpo .50 and .52, dapo .54 and .58."""
    declaration = {"metric": "test/accuracy", "axis": axis, "budget": budget, "baseline": "grpo", "seeds": SEEDS}
    record = {"name": "pair", "declaration": declaration, "arms": {"grpo": {"bindings": []}, "dapo": {"bindings": []}}}
    path.mkdir(parents=True)
    (path / "study.json").write_text(json.dumps(record))
    finals = {("grpo", 0): 0.50, ("grpo", 1): 0.52, ("dapo", 0): 0.54, ("dapo", 1): 0.58}
    for (arm, seed), final in finals.items():
        folder = path / arm / f"seed={seed}"
        (folder / "eval").mkdir(parents=True)
        write_manifest(folder, arm=arm, seed=seed, status="finished", steps=6)
        rows = [
            {"step": step, "reward": step / 10, "total_sampled_tokens": 1000 * step, "seconds": {"sample": 0.5}}
            for step in range(1, 7)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for step, accuracy in ((0, 0.3), (2, final - 0.01), (4, final), (6, final + 0.01)):
            summary = {"accuracy": accuracy, "length": 8.0 + step, "length_correct": None if step == 0 else 9.0}
            evaluation = {
                "step": step,
                "split": "test",
                "total_sampled_tokens": 1000 * step,
                "summary": summary,
                "questions": [{"index": 0, "prompt": "1+1=", "answer": "2", "samples": []}],
            }
            (folder / "eval" / f"step={step:06d}.json").write_text(json.dumps(evaluation))
    return path


def write_manifest(folder: Path, **entries: Any) -> None:
    (folder / "manifest.json").write_text(json.dumps(entries))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_study(tmp_path / "pair")


def test_scores_are_the_mean_of_the_last_three_evaluations(folder: Path) -> None:
    study = load_study(folder)
    assert list(study.scores()) == ["grpo", "dapo"]
    assert study.scores()["grpo"] == pytest.approx({0: 0.50, 1: 0.52})
    assert study.scores()["dapo"] == pytest.approx({0: 0.54, 1: 0.58})


def test_evaluations_beyond_the_budget_do_not_count(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path / "early", budget=4))
    assert study.scores()["grpo"][0] == pytest.approx((0.3 + 0.49 + 0.50) / 3)


def test_the_budget_is_on_the_declared_axis(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path / "tokens", budget=4000, axis="sampled_tokens"))
    assert study.scores()["grpo"][0] == pytest.approx((0.3 + 0.49 + 0.50) / 3)


def test_curves_read_evaluations_and_metrics_on_both_axes(folder: Path) -> None:
    study = load_study(folder)
    x, y = study.curve("grpo", 0, "test/accuracy")
    np.testing.assert_array_equal(x, [0, 2, 4, 6])
    np.testing.assert_allclose(y, [0.3, 0.49, 0.5, 0.51])
    x, y = study.curve("grpo", 0, "reward", axis="sampled_tokens")
    np.testing.assert_array_equal(x, [1000, 2000, 3000, 4000, 5000, 6000])
    np.testing.assert_allclose(y, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert study.curve("grpo", 0, "seconds/sample")[1].tolist() == [0.5] * 6


def test_what_was_not_measured_is_nan(folder: Path) -> None:
    _, y = load_study(folder).curve("grpo", 0, "test/length_correct")
    np.testing.assert_array_equal(y, [np.nan, 9, 9, 9])


def test_only_the_last_evaluation_keeps_its_questions(folder: Path) -> None:
    run = load_study(folder).run("grpo", 0)
    assert run is not None
    assert ["questions" in evaluation for evaluation in run.evals] == [False, False, False, True]
    assert run.questions("test")[0]["prompt"] == "1+1="


def test_every_suite_of_an_evaluation_is_read(folder: Path) -> None:
    file = folder / "grpo" / "seed=0" / "eval" / "step=000006.json"
    evaluation = json.loads(file.read_text())
    (file.parent / "test_long").mkdir()
    (file.parent / "test_long" / file.name).write_text(
        json.dumps(
            evaluation | {"split": "test_long", "summary": {"accuracy": 0.1}, "questions": [{"prompt": "1+2+3="}]}
        )
    )
    study = load_study(folder)
    run = study.run("grpo", 0)
    assert run is not None
    assert run.questions("test")[0]["prompt"] == "1+1="
    assert run.questions("test_long")[0]["prompt"] == "1+2+3="
    assert run.questions("tune") == []
    assert study.curve("grpo", 0, "test_long/accuracy")[1].tolist() == [0.1]
    assert study.scores()["grpo"][0] == pytest.approx(0.50)


def test_the_analysis_follows_the_declaration(folder: Path) -> None:
    analysis = load_study(folder).analyze()
    assert analysis is not None
    assert (analysis.metric, analysis.baseline, analysis.alpha, analysis.margin) == (
        "test/accuracy",
        "grpo",
        0.05,
        0.01,
    )
    assert analysis.seeds == (0, 1)
    assert analysis.comparisons[0].effect.mean_difference == pytest.approx(0.05)


def test_the_analysis_names_arms_it_left_out_and_refuses_pairs_that_are_none(folder: Path) -> None:
    for seed in SEEDS:
        hashes = {"prompts": "a", "initial_weights": "b"}
        write_manifest(folder / "grpo" / f"seed={seed}", arm="grpo", seed=seed, status="finished", hashes=hashes)
        hashes = {"prompts": "a" if seed == 0 else "other", "initial_weights": "b"}
        write_manifest(folder / "dapo" / f"seed={seed}", arm="dapo", seed=seed, status="finished", hashes=hashes)
    record = json.loads((folder / "study.json").read_text())
    record["arms"]["rloo"] = {}
    (folder / "study.json").write_text(json.dumps(record))
    study = load_study(folder)
    assert study.unlike("prompts") == {"dapo": [1]}
    assert study.unlike("initial_weights") == {}
    with pytest.raises(StudyError, match=r"dapo and grpo are no pair at seed 1: their prompts differ.*dapo/seed=1"):
        study.analyze()

    record["arms"]["dapo"]["varies"] = ["prompts"]
    (folder / "study.json").write_text(json.dumps(record))
    analysis = load_study(folder).analyze()
    assert analysis is not None
    assert analysis.notes[1] == "rloo has no finished run: it is compared with nothing."
    assert analysis.notes[0].startswith("dapo varies what its prompts come from, so at seed 1")


@pytest.mark.parametrize(
    "unfinished", [[("grpo", 0), ("grpo", 1)], [("dapo", 0), ("dapo", 1)], [("grpo", 0), ("dapo", 1)]]
)
def test_without_a_pair_there_is_no_analysis(folder: Path, unfinished: list[tuple[str, int]]) -> None:
    for arm, seed in unfinished:
        write_manifest(folder / arm / f"seed={seed}", arm=arm, seed=seed, status="running")
    assert load_study(folder).analyze() is None


def test_counts_are_of_every_planned_run_by_status(folder: Path) -> None:
    write_manifest(folder / "dapo" / "seed=0", arm="dapo", seed=0, status="failed", error="loss is nan")
    for file in sorted((folder / "dapo" / "seed=1").rglob("*.json*")):
        file.unlink()
    study = load_study(folder)
    assert study.counts()["grpo"] == Counts(planned=2, finished=2, failed=0, running=0, interrupted=0, missing=0)
    assert study.counts()["dapo"] == Counts(planned=2, finished=0, failed=1, running=0, interrupted=0, missing=1)
    assert study.scores()["dapo"] == {}


def test_runs_outside_the_declaration_enter_nothing(folder: Path) -> None:
    (folder / "grpo" / "seed=7").mkdir()
    write_manifest(folder / "grpo" / "seed=7", arm="grpo", seed=7, status="finished")
    study = load_study(folder)
    assert study.ignored == ("grpo/seed=7",)
    assert list(study.scores()["grpo"]) == SEEDS


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_a_torn_last_line_of_an_unfinished_run_is_left_out(folder: Path, status: str) -> None:
    run_folder = folder / "dapo" / "seed=1"
    write_manifest(run_folder, arm="dapo", seed=1, status=status)
    with (run_folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "rewa')
    run = load_study(folder).run("dapo", 1)
    assert run is not None
    assert run.steps == 6


def test_a_torn_last_line_of_a_finished_run_is_an_error(folder: Path) -> None:
    with (folder / "dapo" / "seed=1" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "rewa')
    with pytest.raises(StudyError, match=r"seed=1/metrics\.jsonl, line 7: .*remove .*run this seed again"):
        load_study(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [('{"step": 3, "rew', "Unterminated"), ("[3]", "list"), ('{"step": 3}', "total_sampled_tokens"), ("", "Expecting")],
)
def test_a_corrupt_line_is_named_even_in_an_unfinished_run(folder: Path, line: str, message: str) -> None:
    run_folder = folder / "grpo" / "seed=0"
    write_manifest(run_folder, arm="grpo", seed=0, status="running")
    lines = (run_folder / "metrics.jsonl").read_text().splitlines()
    lines[2] = line
    (run_folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(StudyError, match=rf"grpo/seed=0/metrics\.jsonl, line 3: .*{message}"):
        load_study(folder)


def test_replayed_steps_stand_in_for_those_before_the_kill(folder: Path) -> None:
    run_folder = folder / "grpo" / "seed=0"
    with (run_folder / "metrics.jsonl").open("a") as file:
        for step in (5, 6):
            file.write(json.dumps({"step": step, "reward": 9.0, "total_sampled_tokens": 1000 * step}) + "\n")
    x, y = load_study(folder).curve("grpo", 0, "reward")
    assert x.tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(y, [0.1, 0.2, 0.3, 0.4, 9.0, 9.0])


def test_an_unknown_study_names_those_there_are(folder: Path) -> None:
    with pytest.raises(StudyError, match=r"pear: no such folder; studies in .*: pair"):
        load_study(folder.parent / "pear")
    with pytest.raises(StudyError, match=r"no study\.json here.*: pair"):
        load_study(folder.parent)


def test_unknown_names_get_the_near_ones(folder: Path) -> None:
    study = load_study(folder)
    with pytest.raises(StudyError, match="did you mean test/accuracy"):
        study.curve("grpo", 0, "test/acuracy")
    with pytest.raises(StudyError, match="did you mean dapo"):
        study.curve("dap", 0, "reward")
    with pytest.raises(StudyError, match="steps, sampled_tokens or seconds"):
        study.curve("grpo", 0, "reward", axis="hours")


def test_broken_json_is_named_with_its_line(folder: Path) -> None:
    (folder / "study.json").write_text('{"name": "pair",\n"declaration": }')
    with pytest.raises(StudyError, match=r"study\.json, line 2: not valid JSON"):
        load_study(folder)


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("name", ["study.json", "manifest.json", "metrics.jsonl", "eval/step=000002.json"])
@pytest.mark.parametrize("what", ["folder", "broken link", "deep", "not allowed"])
def test_what_stands_where_a_record_was_is_named(
    folder: Path, name: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / ("" if name == "study.json" else "grpo/seed=0") / name
    text = file.read_bytes()
    file.unlink()
    if what == "folder":
        file.mkdir()
    elif what == "broken link":
        file.symlink_to(folder / "gone")
    elif what == "deep":
        file.write_text(DEEP)
    else:  # whoever runs the tests may be allowed everything
        file.write_bytes(text)
        read = Path.read_bytes

        def refuse(path: Path) -> bytes:
            if path == file:
                raise PermissionError(13, "Permission denied", str(path))
            return read(path)

        monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(StudyError) as caught:
        load_study(folder)
    assert (str(folder) if name == "study.json" else str(file)) in str(caught.value)
    # nothing is made again for want of a permission
    assert isinstance(caught.value, DamagedRunError) == (name != "study.json" and what != "not allowed")


@pytest.mark.parametrize("name", ["grpo/seed=0", "grpo/seed=0/eval"])
def test_a_file_where_a_folder_was_is_named(folder: Path, name: str) -> None:
    shutil.rmtree(folder / name)
    (folder / name).write_text("")
    with pytest.raises(DamagedRunError, match=rf"{name}: no folder"):
        load_study(folder)


def test_a_folder_that_may_not_be_listed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for evaluations in it would find none, without a word."""
    listed = os.listdir

    def refuse(path: Any) -> list[str]:
        if Path(path) == folder / "dapo" / "seed=1" / "eval":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(StudyError, match=r"dapo/seed=1/eval: may not be read \(Permission denied\)"):
        load_study(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": "gpro"}, "did you mean grpo"),
        ({"axis": "hours"}, "'hours' is not one of steps, sampled_tokens, seconds"),
        ({"scalar": "best"}, "'best' is not one of final"),
        ({"metric": None}, "no 'metric'"),
        ({"metric": 3}, "metric cannot be 3"),
        ({"budget": "six"}, "budget cannot be 'six'"),
        ({"budget": 10**400}, "budget cannot be 1000"),
        ({"alpha": True}, "alpha cannot be True"),
        ({"threshold": [0.5]}, "threshold cannot be"),
        ({"seeds": "01"}, "seeds cannot be '01'"),
        ({"seeds": [0, 1.5]}, r"seeds cannot be \[0, 1.5\]"),
        ({"looks": [3, 5]}, "what it declares cannot be"),
        ({"claim": {"predictions": ["grpo"]}}, "what it declares cannot be: .*grpo"),
        ({"data": 3}, "data cannot be 3"),
    ],
)
def test_an_impossible_declaration_is_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    record = json.loads((folder / "study.json").read_text())
    record["declaration"].update(change)
    record["declaration"] = {key: value for key, value in record["declaration"].items() if value is not None}
    (folder / "study.json").write_text(json.dumps(record))
    with pytest.raises(StudyError, match=message):
        load_study(folder)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"arm": "grpo", "seed": 0, "status": "done"}, r"'done' is not one of finished, running"),
        ({"arm": "dapo", "seed": 0, "status": "finished"}, r"manifest of arm 'dapo', seed 0"),
    ],
)
def test_a_manifest_that_cannot_be_right_is_refused(folder: Path, manifest: dict[str, Any], message: str) -> None:
    write_manifest(folder / "grpo" / "seed=0", **manifest)
    with pytest.raises(StudyError, match=message):
        load_study(folder)


def test_results_without_a_manifest_are_refused(folder: Path) -> None:
    (folder / "grpo" / "seed=0" / "manifest.json").unlink()
    with pytest.raises(StudyError, match=r"results without a manifest\.json; remove the folder"):
        load_study(folder)


def test_a_finished_run_needs_the_declared_metric_everywhere(folder: Path) -> None:
    file = folder / "grpo" / "seed=0" / "eval" / "step=000004.json"
    evaluation = json.loads(file.read_text())
    del evaluation["summary"]["accuracy"]
    file.write_text(json.dumps(evaluation))
    with pytest.raises(StudyError, match=r"grpo/seed=0: .*'test/accuracy'.* at step 4"):
        load_study(folder).scores()


def test_half_an_evaluation_is_refused(folder: Path) -> None:
    (folder / "grpo" / "seed=0" / "eval" / "step=000004.json").write_text('{"step": 4}')
    with pytest.raises(StudyError, match=r"step=000004\.json: 'split' is missing"):
        load_study(folder)


def test_the_command_line_may_print_these_errors_alone() -> None:
    assert issubclass(StudyError, GrpoLabError)


def test_an_arm_that_was_trained_on_nothing_is_named_beside_the_verdict(tmp_path: Path) -> None:
    path = write_study(tmp_path / "pair")
    for seed, last in enumerate([0, 12]):
        file = path / "dapo" / f"seed={seed}" / "metrics.jsonl"
        *rows, end = [json.loads(line) | {"trained_tokens": 0} for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(row) + "\n" for row in (*rows, end | {"trained_tokens": last})))
    study = load_study(path)
    judgement = study.judge()
    assert judgement is not None
    assert judgement.warnings[0].startswith("dapo was trained on nothing at seed 0: at every step the rewards within")
    assert "finished, trained on nothing" in render(study, judgement)


@pytest.mark.parametrize("arms", [{"grpo": {}, "dapo": 3}, {"grpo": {}, "../elsewhere": {}}, {"grpo": {}, "": {}}])
def test_an_arm_that_is_recorded_as_none_is_named(folder: Path, arms: dict[str, Any]) -> None:
    record = json.loads((folder / "study.json").read_text()) | {"arms": arms}
    (folder / "study.json").write_text(json.dumps(record))
    with pytest.raises(StudyError, match="is not recorded as one"):
        load_study(folder)
