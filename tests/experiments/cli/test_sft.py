"""Supervised fine-tuning and offline pairs as whole runs: the command, resuming, and RL from what was learnt."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core import GrpoLabError
from core.loop.train import Interrupted, run
from core.parts.registry import config, config_text
from core.store.run_folder import RunStore
from experiments.cli.main import main
from experiments.results.stored_study import load_study
from experiments.study.configs import (
    CONFIGS,
    build,
)

SMALL = (
    "train.steps = 4",
    "train.prompts = 4",
    "train.checkpoint_every = 3",
    "evaluation.every = 4",
    "evaluation.questions = 4",
)
PAIRS = [{"prompt": f"{n}+1+2=", "chosen": f"{n}+1={n + 1};>{n + 3}", "rejected": f">{n}"} for n in range(6)]


def bound(*bindings: str) -> list[str]:
    return [argument for binding in (*SMALL, *bindings) for argument in ("-b", binding)]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def manifest(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return record


def pairs_file(folder: Path) -> str:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    return str(path)


@pytest.mark.slow
def test_the_command_fine_tunes_and_rl_starts_from_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sft", *bound("train.steps = 8"), "--out", str(tmp_path)]) == 0
    assert "worked solutions: the task's own" in capsys.readouterr().out
    folder = tmp_path / "sft" / "sft" / "seed=0"
    steps = lines(folder)
    assert steps[-1]["loss"] < steps[0]["loss"] / 2
    assert {(s["accuracy"], s["reward"], s["sampled_tokens"], s["entropy"], s["sampler_mismatch"]) for s in steps} == {
        (1.0, 1.0, 0, None, None)
    }
    # all tokens of all solutions, the prompts' left out
    assert [s["trained_tokens"] for s in steps] == [round(s["length"] * 4) for s in steps]
    start = f"policy.model = '{folder / 'checkpoint'}'"
    assert main(["train", *bound(start, "train.steps = 1"), "--out", str(tmp_path)]) == 0
    continued = tmp_path / "train" / "grpo" / "seed=0"
    assert manifest(continued)["hashes"]["initial_weights"] == manifest(folder)["hashes"]["final_weights"]


def test_the_command_refuses_a_config_that_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sft", "-c", "embedded", "--out", str(tmp_path)]) == 2
    assert "embedded binds no train.source: begin the file with include 'sft.gin'" in capsys.readouterr().err
    assert main(["sft", *bound("train.group_size = 8"), "--out", str(tmp_path)]) == 2
    assert "bind train.group_size = 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["solutions", "pairs"])
def test_a_run_on_data_goes_on_to_the_last_bit(tmp_path: Path, kind: str) -> None:
    """Stopped after step 2, and killed in step 4 after the checkpoint of step 3, it ends as if it had not been."""
    bindings = [*SMALL, "worked_solutions.limit = 7"]
    if kind == "pairs":
        bindings = [
            *SMALL,
            "train.source = @preference_pairs()",
            f"preference_pairs.path = '{pairs_file(tmp_path)}'",
            "train.variant = @grpo()",
            "train.group_size = 2",
        ]
    with config([CONFIGS / "sft.gin"], bindings):
        recipe = build("train")

    def stop_at(step: int, error: type[BaseException]) -> Callable[[Mapping[str, Any]], None]:
        def watch(record: Mapping[str, Any]) -> None:
            if record["step"] == step:
                raise error

        return watch

    def go(folder: Path, watch: Callable[[Mapping[str, Any]], None] = lambda _: None) -> None:
        run(recipe, 0, RunStore(folder), facts={"identity": {}}, watch=watch)

    class KilledError(BaseException):
        pass

    go(tmp_path / "whole")
    with pytest.raises(Interrupted):
        go(tmp_path / "cut", stop_at(1, Interrupted))
    with pytest.raises(KilledError):
        go(tmp_path / "cut", stop_at(3, KilledError))
    go(tmp_path / "cut")
    one, other = tmp_path / "whole", tmp_path / "cut"
    assert manifest(one)["hashes"] == manifest(other)["hashes"]
    assert [s | {"seconds": 0} for s in lines(one)] == [s | {"seconds": 0} for s in lines(other)]
    ours, theirs = (load_file(f / "checkpoint" / "model.safetensors") for f in (one, other))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert manifest(one)["hashes"]["final_weights"] != manifest(one)["hashes"]["initial_weights"]


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path) -> None:
    """The same path and the same number of rows, but another response in one of them."""
    path = pairs_file(tmp_path)
    bindings = bound(
        "train.source = @preference_pairs()",
        f"preference_pairs.path = '{path}'",
        "train.group_size = 2",
        "train.prompts = 2",
        "train.steps = 4",
    )

    def go(watch: Callable[[Mapping[str, Any]], None]) -> None:
        with config([CONFIGS / "embedded.gin"], [b for b in bindings if b != "-b"]):
            recipe = build("train")
        run(recipe, 0, RunStore(tmp_path / "run"), facts={"identity": {}}, watch=watch)

    def stop(record: Mapping[str, Any]) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        go(stop)
    whole = Path(path).read_text()
    Path(path).write_text(whole.replace(">", ">1", 1))
    with pytest.raises(GrpoLabError, match=r"cannot be resumed: its source changed since it was started"):
        go(lambda _: None)
    Path(path).write_text(whole)
    go(lambda _: None)
    assert manifest(tmp_path / "run")["status"] == "finished"


@pytest.mark.slow
def test_pairs_make_the_chosen_response_likelier(tmp_path: Path) -> None:
    bindings = (
        "train.source = @preference_pairs()",
        f"preference_pairs.path = '{pairs_file(tmp_path)}'",
        "train.group_size = 2",
        "train.prompts = 6",
        "train.steps = 8",
    )
    assert main(["train", *bound(*bindings), "--out", str(tmp_path)]) == 0
    steps = lines(tmp_path / "train" / "grpo" / "seed=0")
    assert {(s["accuracy"], s["reward"], s["groups"]) for s in steps} == {(None, 0.5, 6)}
    from core.model.policy import PolicySettings, load_policy

    def margin(model: str) -> float:
        policy = load_policy(PolicySettings(model))
        ids = [[torch.tensor(policy.tokenizer(r[n] + ".")["input_ids"]) for r in PAIRS] for n in ("chosen", "rejected")]
        prompts = [torch.tensor(policy.tokenizer(str(r["prompt"]))["input_ids"]) for r in PAIRS]
        with torch.no_grad():
            won, lost = (policy.logps(prompts, each, range(6), width=12)[0].sum() for each in ids)
        return float(won - lost)

    assert margin(str(tmp_path / "train" / "grpo" / "seed=0" / "checkpoint")) > margin("embedded") + math.log(2)


@pytest.mark.slow
def test_arms_on_data_and_arms_that_sample_stand_in_one_study(tmp_path: Path) -> None:
    """Judged, reported, and none is blamed for other prompts where it binds them."""
    arms = {"grpo": [], "sft": ["train.variant = @sft()", "train.source = @worked_solutions()", "train.group_size = 1"]}
    with config([CONFIGS / "embedded.gin"]):
        text = config_text()
    (tmp_path / "study.gin").write_text(f"{text}\ncompare.arms = {arms}\ncompare.name = 'both'\n")
    small = bound("train.group_size = 2", "evaluation.every = 1", "train.prompts = 3")
    command = ["compare", "-c", str(tmp_path / "study.gin"), *small, "--seeds", "2", "--workers", "1"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    study = load_study(tmp_path / "both")
    judgement = study.judge()
    assert judgement is not None
    assert not any("prompts" in warning for warning in judgement.warnings)
    assert "NaN" not in (tmp_path / "both" / "report.html").read_text()
