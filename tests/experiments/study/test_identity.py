"""What a run is: the parts that its arm uses, and the questions and answers that its task has read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from core import SETTINGS, GrpoLabError
from core.parts.registry import REGISTRIES, config, config_text
from core.store.files import write_json
from experiments.launchers.job import Job, run_and_report
from experiments.results.stored_run import StudyError
from experiments.results.stored_study import load_study
from experiments.study import identity
from experiments.study.configs import (
    CONFIGS,
    DECLARING,
    build,
)
from experiments.study.declare import declare
from experiments.study.identity import (
    CODE,
    DATA,
    FILES,
    TRAINING_KINDS,
    TRAINING_SETTINGS,
    _revision,
    before_training,
    facts,
    hardware,
)
from experiments.study.settings import Arm
from experiments.study.study import (
    Study,
    prepare_study,
)
from tests.experiments.report.studies import write_study

EMBEDDED = str(CONFIGS / "embedded.gin")


def write_questions(path: Path, change: Mapping[int, int] | None = None) -> list[str]:
    """Sums as a task of files, with other answers to some; returns the bindings."""
    answers = {n: n + 1 for n in range(99)} | dict(change or {})
    path.write_text("".join(json.dumps({"question": f"{n}+1=", "answer": a}) + "\n" for n, a in answers.items()))
    return ["train.task = @files()", f"files.path = '{path}'", "files.template = 'plain'"]


def job(folder: Path, bindings: list[str]) -> Job:
    with config([EMBEDDED], bindings):
        return Job(Arm("a", ()), 0, config_text(), str(folder))


@pytest.mark.parametrize("missing", ["git", "checkout"])
def test_without_git_or_a_checkout_a_run_has_no_revision(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed in a folder of a user's project, the bench does not take the project's revision for its own."""
    if missing == "git":
        monkeypatch.setenv("PATH", "/nowhere")
    else:
        monkeypatch.setattr("experiments.study.identity.__file__", __file__)
    assert _revision.__wrapped__() is None


def test_a_run_does_not_go_on_with_other_questions_or_answers(tmp_path: Path) -> None:
    bindings = write_questions(tmp_path / "sums.jsonl")
    made = job(tmp_path / "run", bindings)
    identity = made.facts()["identity"]
    made.store.update_manifest(status="interrupted", identity=identity)
    made.store.check_identity(made.facts()["identity"])
    write_questions(tmp_path / "sums.jsonl", {7: 9})
    with pytest.raises(GrpoLabError, match="its questions and answers changed since it was started"):
        made.store.check_identity(made.facts()["identity"])
    # nor does one begin with others than its study was prepared with
    outcome, message = run_and_report(job(tmp_path / "next", bindings), lambda _: None, identity)
    assert outcome == "failed"
    assert message is not None
    assert "has another questions and answers than the driver" in message


def test_the_words_before_a_question_are_data_too(tmp_path: Path) -> None:
    def digest(system: str) -> str:
        lines = (
            {"prompt": [{"role": "system", "content": system}, {"role": "user", "content": f"{n}+1="}], "answer": n + 1}
            for n in range(99)
        )
        (tmp_path / "sums.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        with config([EMBEDDED], ["train.task = @files()", f"files.path = '{tmp_path / 'sums.jsonl'}'"]):
            data: str = build("train").data
        return data

    assert digest("Add.") == digest("Add.") != digest("Add, and show how.")


def test_what_a_source_reads_is_data_too(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "1+1=", "chosen": ">2.", "rejected": ">3."}\n')
    bindings = [
        "train.source = @preference_pairs()",
        f"preference_pairs.path = '{pairs}'",
        "train.group_size = 2",
        "train.variant = @dpo()",
    ]
    before = job(tmp_path / "run", bindings).facts()["identity"][DATA]
    pairs.write_text('{"prompt": "1+1=", "chosen": ">2.", "rejected": ">4."}\n')
    assert job(tmp_path / "run", bindings).facts()["identity"][DATA] != before


def test_data_is_what_is_in_the_file_and_in_which_order_not_how_it_is_written(tmp_path: Path) -> None:
    """The order of lines decides which question comes when."""
    write_questions(tmp_path / "sums.jsonl")
    lines = (tmp_path / "sums.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "spaced.jsonl").write_text("\n\n".join(line.replace(": ", " :  ") for line in lines))
    (tmp_path / "turned.jsonl").write_text("".join(reversed(lines)))
    here, spaced, turned = (
        job(tmp_path / "run", ["train.task = @files()", f"files.path = '{tmp_path / name}'"]).facts()["identity"][DATA]
        for name in ("sums.jsonl", "spaced.jsonl", "turned.jsonl")
    )
    assert here == spaced != turned


def test_a_study_is_declared_with_its_data(tmp_path: Path) -> None:
    def study() -> Study:
        return prepare_study([EMBEDDED], ["compare.variants = [@grpo, @rloo]", *bindings], [0, 1, 2])

    bindings = write_questions(tmp_path / "sums.jsonl")
    first = study()
    assert set(first.declaration["data"]) == {"grpo", "rloo"}
    declare(first, tmp_path / "study", "command")
    declare(study(), tmp_path / "study", "command")
    write_questions(tmp_path / "sums.jsonl", {7: 9})
    with pytest.raises(GrpoLabError, match=r"declared differently \(different: data\)"):
        declare(study(), tmp_path / "study", "command")


def test_a_study_from_before_data_was_declared_goes_on(tmp_path: Path) -> None:
    bindings = write_questions(tmp_path / "sums.jsonl")
    made = prepare_study([EMBEDDED], ["compare.variants = [@grpo, @rloo]", *bindings], [0, 1, 2])
    declare(made, tmp_path, "command")
    record = json.loads((tmp_path / "study.json").read_text())
    del record["declaration"]["data"]
    write_json(tmp_path / "study.json", record)
    declare(made, tmp_path, "command")


def test_runs_judged_by_different_answers_are_not_compared(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study")
    file = study.path / "dapo" / "seed=1" / "eval" / "step=000006.json"
    evaluation = json.loads(file.read_text())
    evaluation["questions"][0]["answer"] = "4"
    file.write_text(json.dumps(evaluation))
    with pytest.raises(StudyError, match=r"dapo/seed=1: judged question 0 of 'test' by the answer '4'.*seed=0 by '3'"):
        load_study(study.path).judge()


def test_a_run_with_other_data_than_declared_is_not_judged(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", data={"grpo": "one", "dapo": "one"})
    assert study.judge() is not None
    file = study.path / "dapo" / "seed=1" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"identity": {DATA: "other"}}))
    with pytest.raises(StudyError, match=r"dapo/seed=1: this run had other questions or answers than the study was"):
        load_study(study.path).judge()


def test_an_identity_of_an_earlier_version_is_met_in_its_own_terms(tmp_path: Path) -> None:
    made = job(tmp_path, write_questions(tmp_path / "sums.jsonl"))
    now = made.facts()["identity"]
    earlier: dict[str, Any] = {name: value for name, value in now.items() if name not in (CODE, DATA)}
    earlier |= {FILES: {"elsewhere": "a file that no part of this arm is in"}}
    assert facts(made.config, made.arm, made.seed, like=earlier)["identity"] == earlier
    made.store.update_manifest(status="interrupted", identity=earlier)
    made.store.check_identity(made.facts()["identity"])


def test_what_runs_share_before_training_is_all_but_what_only_training_reads(tmp_path: Path) -> None:
    def beginning(*bindings: str, seed: int = 0) -> str:
        with config([EMBEDDED], bindings):
            made = Job(Arm("a", ()), seed, config_text(), str(tmp_path))
        return before_training(made.facts()["identity"])

    one = beginning()
    of_training = [
        ("train.variant = @rloo()",),
        ("grpo.advantage = @leave_one_out",),
        ("clip.eps_low = 0.1",),
        ("train.group_size = 4", "train.prompts = 32", "train.steps = 9", "train.epochs = 2"),
        ("adamw.learning_rate = 0.1",),
        ("train.correction = @token_truncated",),
        ("train.token_budget = 100000",),
        ("train.staleness = 8",),
        ("train.staleness = @uniform_age()", "uniform_age.most = 4"),
    ]
    assert {beginning(*bindings) for bindings in of_training} == {one}
    of_answers = [
        "policy.model = 'islanders'",
        "policy.dtype = 'bfloat16'",
        "policy.lora_rank = 4",
        "train.task = @islanders()",
        "chain_sums.max_terms = 7",
        "train.rewards = [@who_is_who]",
        "train.max_tokens = 40",
        "train.temperature = 0.7",
        "train.threads = 2",
        "native.retire_at = 0.5",
        "evaluation.temperature = 0.7",
        "evaluation.samples = 3",
        "evaluation.final_samples = 12",
        "evaluation.questions = 64",
        "evaluation.seed = 1",
        "evaluation.split = 'test'",
        "evaluation.surprise = True",
    ]
    assert len({one, beginning(seed=1), *map(beginning, of_answers)}) == len(of_answers) + 2


def test_every_kind_of_part_and_every_setting_of_a_run_is_known_to_matter_before_training_or_not() -> None:
    assert set(REGISTRIES) - TRAINING_KINDS == {"task", "reward", "environment", "generator", "setting"}
    of_other_commands = {"reward_model_training"}  # there only once its command is imported
    of_runs = {"adamw", "uniform_age", "policy", "evaluation", "train"}
    assert set(SETTINGS) - set(DECLARING) - of_other_commands == of_runs
    matter = {"task", "generator", "rewards", "max_tokens", "temperature", "threads"}
    matter |= {"environment", "max_turns", "step_seconds"}
    assert set(SETTINGS["train"].defaults) == matter | TRAINING_SETTINGS


def test_the_manifest_names_the_device_its_driver_and_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the processor, which still computes what is not in the model."""
    monkeypatch.setattr(identity, "takes_cpu", lambda: True)
    processor = hardware()
    monkeypatch.setattr(identity, "takes_cpu", lambda: False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release\n")
    monkeypatch.setattr(identity, "DRIVER", tmp_path / "version")
    assert hardware() == f"NVIDIA H200, driver 580.95.05, CUDA 13.0; {processor}"
    monkeypatch.setattr(identity, "DRIVER", tmp_path / "missing")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert hardware() == f"NVIDIA H200; {processor}"
