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
    "train.prompts = 8",
    "train.group_size = 8",
    "train.max_tokens = 20",
    "train.checkpoint_every = 3",
    "adamw.learning_rate = 0.003",
    "evaluation.every = 2",
    "evaluation.questions = 8",
    "evaluation.split = 'test'",
)
EMA = "evaluation.ema_lag = 0.25"


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
    average = WeightAverage(tiny, 0.25)  # decays (1 - 1 / t)^3: 0, 1/8, 8/27
    for step, added in enumerate((1.0, 3.0, 5.0), start=1):  # weights w + 1, w + 4, w + 9
        with torch.no_grad():
            weight.add_(added)
        average.update(step)
    own = weight.detach().clone()
    with average.in_place():
        # after the second step w + 1/8 * 1 + 7/8 * 4 = w + 29/8; after the third w + 8/27 * 29/8 + 19/27 * 9
        torch.testing.assert_close(weight.detach(), begun + 200 / 27)
    assert torch.equal(weight, own)
    with pytest.raises(ZeroDivisionError), average.in_place():
        _ = 1 / 0
    assert torch.equal(weight, own)


@pytest.mark.parametrize("lag", [0.1, 0.2, 0.4])
def test_it_lags_so_large_a_share_of_the_steps_behind(tiny: Policy, lag: float) -> None:
    """Where weights grow by 1 a step, what the average lacks is its lag."""
    weight = next(p for _, p in tiny.trained())
    with torch.no_grad():
        weight.zero_()
    average = WeightAverage(tiny, lag)
    for step in range(1, 401):
        with torch.no_grad():
            weight.add_(1.0)
        average.update(step)
        if step in (40, 400):
            with average.in_place():
                assert (step - weight.mean().item()) / step == pytest.approx(lag, abs=1 / step)


def test_weights_in_bfloat16_are_averaged_in_float32(tiny: Policy) -> None:
    tiny.model.bfloat16()
    weight = next(p for _, p in tiny.trained())
    with torch.no_grad():
        weight.fill_(1.0)
    average = WeightAverage(tiny, 0.49)
    average.update(1)
    with torch.no_grad():
        weight.fill_(2.0)
    expected = 1.0
    for step in range(1000, 1100):  # each adds less than bfloat16 resolves beside 1
        average.update(step)
        expected += (2 - expected) * (1 - (1 - 1 / step) ** (1 / 0.49 - 1))
    with average.in_place():
        assert weight.float().mean().item() == pytest.approx(expected, abs=1 / 256)


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
        decay = (1 - 1 / steps) ** 3
        average = {name: decay * average[name] + (1 - decay) * weights[name] for name in average}
        for name, expected in kept.get(f"step={steps:06d}", {}).items():
            torch.testing.assert_close(expected, average[name], rtol=1e-5, atol=1e-6)
    assert any((kept["step=000004"][name] - weights[name]).abs().max() > 1e-4 for name in weights)

    # and the average is what has answered
    state = RunState.start(recipe(), 0, "cpu")
    state.policy.load_state_dict(kept["step=000004"])
    (again,) = evaluate(state, 4, last=True)
    stored = json.loads((tmp_path / "whole/eval/test/step=000004.json").read_text())
    assert again["questions"] == stored["questions"]


def test_where_it_makes_no_sense(tiny: Policy) -> None:
    for lag in ("0.9", "0.5", "0", "-0.5"):
        with pytest.raises(GrpoLabError, match=r"evaluation\.ema_lag = .*must be .*above 0 and below 0\.5"):
            recipe(f"evaluation.ema_lag = {lag}")
    tiny.sharding = cast(Sharding, object())
    with pytest.raises(GrpoLabError, match=r"evaluation\.ema_lag = 0\.2: weights that are spread over processes"):
        WeightAverage(tiny, 0.2)
