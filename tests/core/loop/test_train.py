"""The training loop is a page, and a provider with a state goes on where the run goes on."""

import ast
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import core.loop.train
from core.loop.run_state import RunState
from core.loop.train import Interrupted, run
from core.model.trainable import Stateful, Trainable
from core.parts.batch import Batch
from core.parts.contracts import provider
from core.parts.registry import config
from core.store.run_folder import RunStore
from experiments.study.configs import CONFIGS, build

BRANCHES = (ast.If, ast.For, ast.While, ast.Try, ast.BoolOp, ast.IfExp)


def test_the_loop_is_read_in_ten_minutes() -> None:
    lines, tree = inspect.getsource(core.loop.train.train), ast.parse(inspect.getsource(core.loop.train.train))
    assert len(lines.splitlines()) <= 80
    assert sum(isinstance(node, BRANCHES) for node in ast.walk(tree)) <= 15
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.comprehension) and node.ifs]


class Counting:
    """Fills a field with how often it has done so before; that is its state, and it holds no weights."""

    def __init__(self) -> None:
        self.filled: list[int] = []

    def __call__(self, batch: Batch) -> Tensor:
        self.filled.append(len(self.filled))
        return batch.rewards.new_full(batch.response_mask.shape, -1.0 - self.filled[-1])

    def state_dict(self) -> dict[str, Any]:
        return {"filled": self.filled}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.filled = list(state["filled"])


@pytest.fixture
def counting() -> list[Counting]:
    """A provider of reference log-probabilities, and those of its kind that runs have made."""
    made: list[Counting] = []

    @provider(fills="ref_logps", cost="nothing")
    def counting_reference(run: RunState) -> Counting:
        """Numbers that show how often it was called."""
        made.append(Counting())
        return made[-1]

    return made


def test_a_provider_that_remembers_something_goes_on_with_the_run(
    tmp_path: Path, tiny_folder: Path, counting: list[Counting]
) -> None:
    bindings = (
        f"policy.model = '{tiny_folder}'",
        "train.providers = [@counting_reference]",
        "grpo.kl_coef = 0.1",
        "train.steps = 3",
        "train.prompts = 2",
        "train.group_size = 2",
        "train.max_tokens = 6",
        "evaluation.questions = 1",
    )
    with config([CONFIGS / "embedded.gin"], bindings):
        recipe = build("train")

    def stop_after_one(line: Mapping[str, Any]) -> None:
        if line["step"] == 1:
            raise Interrupted

    def go(folder: Path, watch: Any = lambda _: None) -> Any:
        run(recipe, 0, RunStore(folder), facts={"identity": {}}, watch=watch)
        return RunStore(folder).manifest["hashes"]

    whole = go(tmp_path / "whole")
    with pytest.raises(Interrupted):
        go(tmp_path / "cut", stop_after_one)
    assert go(tmp_path / "cut") == whole
    assert [each.filled for each in counting] == [[0, 1, 2], [0], [0, 1, 2]]
    assert isinstance(counting[0], Stateful)
    assert not isinstance(counting[0], Trainable)
