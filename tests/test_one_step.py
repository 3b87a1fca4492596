"""The loop by hand (docs/one_step.py) ends with the weights of the real one, and uses nothing of it."""

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from core.loop.train import run
from core.model.policy import Policy, PolicySettings, load_policy
from core.parts.registry import config
from core.store.run_folder import RunStore
from experiments.study.configs import CONFIGS, build

PAGE = Path(__file__).parents[1] / "docs" / "one_step.py"


@pytest.fixture
def page() -> Any:
    spec = importlib.util.spec_from_file_location("one_step", PAGE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in policy.model.named_parameters()}


def test_three_steps_by_hand_are_three_steps_of_the_loop_to_the_last_bit(page: Any, tmp_path: Path) -> None:
    bindings = (
        "train.variant = @grpo()",
        f"train.steps = {page.STEPS}",
        f"train.prompts = {page.P}",
        f"train.group_size = {page.G}",
        f"train.max_tokens = {page.MAX_TOKENS}",
        f"adamw.learning_rate = {page.LEARNING_RATE}",
        "evaluation.questions = 1",
        "evaluation.every = 100",
    )
    with config([CONFIGS / "embedded.gin"], bindings):
        recipe = build("train")
    run(recipe, page.SEED, RunStore(tmp_path), facts={"identity": {}}, watch=lambda _: None)
    ours, theirs = weights(page.train()), weights(load_policy(PolicySettings(str(tmp_path / "checkpoint"))))
    first = weights(load_policy(PolicySettings("embedded")))
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert torch.equal(weight, theirs[name]), name
        assert not torch.equal(weight, first[name]), name


def test_the_page_is_one_page_and_uses_nothing_of_the_loop() -> None:
    text = PAGE.read_text()
    assert len(text.splitlines()) <= 120
    imported = [
        name
        for node in ast.walk(ast.parse(text))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    ]
    assert imported
    assert not [name for name in imported if name.startswith(("core.loop", "estimators", "variants"))]
    named = {word.strip("`.,:()") for word in text.split() if "/" in word and word.strip("`.,:()").endswith(".py")}
    assert len(named) >= 8
    assert not [name for name in named if not (PAGE.parents[1] / name).is_file()]
