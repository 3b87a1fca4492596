"""The recipe of the embedded task of several turns: ways fit its budgets, and a step trains on episodes with calls."""

import json
from pathlib import Path

import pytest

from core.environments.episodes.lookup_table import lookup_table
from core.loop.recipe import Recipe
from core.parts.registry import config
from experiments.cli.main import main
from experiments.study.configs import CONFIGS, build

SMALL = (
    "train.steps = 1",
    "train.prompts = 4",
    "train.group_size = 4",
    "evaluation.questions = 8",
    "evaluation.samples = 2",
)


def test_every_way_fits_the_budgets_with_two_calls_to_spare() -> None:
    with config([CONFIGS / "lookups.gin"], include_from=[CONFIGS]):
        recipe: Recipe = build("train")
    assert recipe.environment == lookup_table.resolved()
    hops = max(recipe.task.problem("test_long", 0, index).data["hops"] for index in range(20))
    calls = hops + 2
    assert calls + 1 <= recipe.max_turns
    assert calls * len("?k.m;") + len(">m.") <= recipe.max_tokens


@pytest.mark.slow
def test_a_step_learns_from_episodes_and_pays_what_is_bound(tmp_path: Path) -> None:
    bindings = [word for line in (*SMALL, "lookup_table.call_cost = 0.125") for word in ("-b", line)]
    assert main(["train", "-c", "lookups.gin", *bindings, "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.rglob("metrics.jsonl")
    step = next(line for line in map(json.loads, file.read_text().splitlines()) if "turns" in line)
    assert 1 < step["turns"] < 8
    assert step["tool_calls"] > 0
    assert step["observation_tokens"] == 2 * (step["tool_calls"] + step["tool_failures"])
    calls = step["tool_calls"] + step["tool_failures"]
    assert step["reward"] == pytest.approx(step["reward_parts"]["last_key"] - 0.125 * calls)
