"""Evaluations may ask a moving average of the weights; what a run samples and learns is the same with it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

from core import GrpoLabError
from core.loop.evaluation import evaluate
from core.loop.recipe import Recipe
from core.loop.run_state import RunState
from core.loop.train import Interrupted, run
from core.loop.weight_average import WeightAverage
from core.model.loading import EMBEDDED
from core.model.policy import Policy
from core.model.sharding import Sharding
from core.parts.registry import config
from core.store.run_folder import RunStore
from experiments.study.configs import CONFIGS, build

TINY = (
    "train.variant = @grpo()",
    "train.steps = 4",
    "train.prompts = 4",
    "train.group_size = 4",
    "train.max_tokens = 40",
    "train.checkpoint_every = 3",
    "adamw.learning_rate = 0.003",
    "evaluation.every = 2",
    "evaluation.questions = 16",
    "evaluation.split = 'test'",
)
EMA = "evaluation.ema = 0.75"


def recipe(*bindings: str) -> Recipe:
    with config([CONFIGS / "embedded.gin"], [*TINY, *bindings]):
        built: Recipe = build("train")
    return built


def go(made: Recipe, folder: Path, watch: Any = lambda _: None) -> Mapping[str, Any]:
    run(made, 0, RunStore(folder), facts={"identity": {}, "arm": "grpo"}, watch=watch)
    hashes: Mapping[str, Any] = RunStore(folder).manifest["hashes"]
    return hashes


def test_the_average_by_hand(tiny: Policy) -> None:
    weight = next(p for _, p in tiny.trained())
    begun = weight.detach().clone()
    average = WeightAverage(tiny, 0.75)
    for added in (1.0, 3.0):  # weights w + 1, then w + 4
        with torch.no_grad():
            weight.add_(added)
        average.update()
    own = weight.detach().clone()
    with average.in_place():
        # 0.75 (0.75 w + 0.25 (w + 1)) + 0.25 (w + 4) = w + 1.1875
        torch.testing.assert_close(weight.detach(), begun + 1.1875)
    assert torch.equal(weight, own)
    with pytest.raises(ZeroDivisionError), average.in_place():
        _ = 1 / 0
    assert torch.equal(weight, own)


def test_weights_in_bfloat16_are_averaged_in_float32(tiny: Policy) -> None:
    tiny.model.bfloat16()
    weight = next(p for _, p in tiny.trained())
    with torch.no_grad():
        weight.fill_(1.0)
    average = WeightAverage(tiny, 0.999)
    with torch.no_grad():
        weight.fill_(2.0)
    for _ in range(100):  # each adds less than bfloat16 resolves beside 1
        average.update()
    with average.in_place():
        assert weight.float().mean().item() == pytest.approx(2 - 0.999**100, abs=1 / 256)


def test_what_a_run_learns_does_not_depend_on_it(tmp_path: Path) -> None:
    without, averaged = recipe(), recipe(EMA)
    hashes = go(without, tmp_path / "without")
    assert go(averaged, tmp_path / "with") == hashes

    def files(folder: str, pattern: str) -> dict[Path, bytes]:
        found = sorted((tmp_path / folder).glob(pattern))
        return {file.relative_to(tmp_path / folder): file.read_bytes() for file in found}

    assert files("with", "rollouts/*") == files("without", "rollouts/*") != {}
    evaluations = files("with", "eval/**/*.json")
    assert [a == b for a, b in zip(evaluations.values(), files("without", "eval/**/*.json").values(), strict=True)] == [
        True,  # before training the average is the weights
        False,
        False,
    ]

    def stop_after_three(line: Mapping[str, Any]) -> None:
        if line["step"] == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        go(averaged, tmp_path / "cut", stop_after_three)
    assert go(averaged, tmp_path / "cut") == hashes
    assert files("cut", "eval/**/*.json") == evaluations
    assert files("cut", "checkpoint/models/*") == files("with", "checkpoint/models/*")


def test_the_models_that_answered_are_kept(tmp_path: Path) -> None:
    go(recipe(EMA), tmp_path / "whole")
    kept = {file.stem: load_file(file) for file in sorted((tmp_path / "whole/checkpoint/models").iterdir())}
    assert list(kept) == ["step=000002", "step=000004"]

    # the weights after every step are those that a shorter run ends with
    average = load_file(EMBEDDED / "model.safetensors")
    for steps in range(1, 5):
        folder = tmp_path / str(steps)
        go(recipe(f"train.steps = {steps}", "evaluation.every = 1"), folder)
        weights = load_file(folder / "checkpoint/model.safetensors")
        average = {name: 0.75 * average[name] + 0.25 * weights[name] for name in average}
        for name, expected in kept.get(f"step={steps:06d}", {}).items():
            torch.testing.assert_close(expected, average[name], rtol=1e-5, atol=1e-6)
    assert any((kept["step=000004"][name] - weights[name]).abs().max() > 1e-3 for name in weights)

    # and the average is what has answered
    state = RunState.start(recipe(), 0, "cpu")
    state.policy.load_state_dict(kept["step=000004"])
    (again,) = evaluate(state, 4, last=True)
    stored = json.loads((tmp_path / "whole/eval/test/step=000004.json").read_text())
    assert again["questions"] == stored["questions"]


def test_where_it_makes_no_sense(tiny: Policy) -> None:
    for decay in ("1", "0", "-0.5"):
        with pytest.raises(GrpoLabError, match=r"evaluation\.ema = .*must be .*above 0 and below 1"):
            recipe(f"evaluation.ema = {decay}")
    tiny.sharding = cast(Sharding, object())
    with pytest.raises(GrpoLabError, match=r"evaluation\.ema = 0\.9: weights that are spread over processes"):
        WeightAverage(tiny, 0.9)
