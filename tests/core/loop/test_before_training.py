"""The evaluation before training is made once for runs that begin alike, and each has it whole in its folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from core import reward
from core.environments.tasks.chain_sums import ChainSums
from core.loop.before_training import Known, digest_of, evaluate_untrained
from core.loop.evaluation import evaluate
from core.loop.recipe import Recipe
from core.loop.run_state import RunState
from core.loop.train import Interrupted, run
from core.parts.problems import Problem
from core.parts.registry import config
from core.store.run_folder import RunStore
from experiments.study.configs import CONFIGS, build

TINY = (
    "train.steps = 4",
    "train.prompts = 2",
    "train.group_size = 2",
    "train.max_tokens = 6",
    "train.checkpoint_every = 2",
    "evaluation.every = 2",
    "evaluation.questions = 3",
)


@pytest.fixture
def made(tiny_folder: Path) -> Any:
    """Bindings to a recipe."""

    def make(*bindings: str) -> Recipe:
        with config([CONFIGS / "embedded.gin"], [*TINY, f"policy.model = '{tiny_folder}'", *bindings]):
            built: Recipe = build("train")
        return built

    return make


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps of the evaluations that were made before training."""
    steps = list[int]()

    def counted(state: RunState, step: int) -> list[dict[str, Any]]:
        steps.append(step)
        return evaluate(state, step)

    monkeypatch.setattr("core.loop.before_training.evaluate", counted)
    return steps


def go(recipe: Recipe, folder: Path, known: Known | None = None, stop_at: int | None = None) -> Path:
    def watch(line: Mapping[str, Any]) -> None:
        if line["step"] == stop_at:
            raise Interrupted

    run(recipe, 0, RunStore(folder), facts={"identity": {}, "arm": "a"}, watch=watch, known=known)
    return folder


def contents(folder: Path) -> dict[str, Any]:
    """All that is in a run's folder, clocks left out."""
    names = [file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file() and file.name != ".lock"]
    found: dict[str, Any] = {str(name): (folder / name).read_bytes() for name in names}
    rows = [json.loads(line) for line in found.pop("metrics.jsonl").splitlines()]
    found["metrics.jsonl"] = [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
    manifest = json.loads(found.pop("manifest.json"))
    files = {name: size for name, size in manifest.pop("files").items() if name != "metrics.jsonl"}
    found["manifest.json"] = {k: v for k, v in manifest.items() if k not in ("seal", "seconds", "cpu_seconds")}
    return found | {"files": files}


def test_a_run_with_anothers_evaluation_is_the_run_with_its_own(
    made: Any, tmp_path: Path, evaluated: list[int]
) -> None:
    known: Known = {}
    first = go(made("train.variant = @grpo()"), tmp_path / "first", known)
    assert evaluated == [0]
    assert len(known) == 1
    other = made("train.variant = @rloo()")
    taken = go(other, tmp_path / "taken", known)
    assert evaluated == [0], "the second run evaluated as well"
    own = go(other, tmp_path / "own")
    assert evaluated == [0, 0]
    assert contents(taken) == contents(own)
    name = "eval/test/step=000000.json"
    assert (taken / name).read_bytes() == (first / name).read_bytes()
    assert contents(first) == contents(go(made("train.variant = @grpo()"), tmp_path / "again"))


def test_one_that_goes_on_has_been_evaluated_and_one_that_begins_anew_takes_what_is_known(
    made: Any, tmp_path: Path, evaluated: list[int]
) -> None:
    recipe = made("train.variant = @grpo()")
    known: Known = {}
    whole = go(recipe, tmp_path / "whole", known)
    with pytest.raises(Interrupted):
        go(recipe, tmp_path / "stopped", known, stop_at=3)
    assert contents(go(recipe, tmp_path / "stopped", {})) == contents(whole)
    with pytest.raises(Interrupted):
        go(recipe, tmp_path / "killed", known, stop_at=1)
    (tmp_path / "killed" / "checkpoint" / "state.pt").unlink()  # which a kill would not have left
    assert contents(go(recipe, tmp_path / "killed", known)) == contents(whole)
    assert evaluated == [0]


def test_the_digest_tells_weights_and_questions_apart(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(*bindings: str) -> str:
        return digest_of(RunState.start(made("train.variant = @grpo()", *bindings), 0, "cpu"))

    one = digest()
    assert digest("adamw.learning_rate = 0.1", "train.steps = 9") == one
    others = [
        digest("policy.model = 'embedded'"),
        digest("policy.dtype = 'bfloat16'"),
        digest("policy.lora_rank = 2"),
        digest("evaluation.seed = 1"),
        digest("evaluation.questions = 4"),
        digest("evaluation.split = 'test'"),
        digest("chain_sums.max_terms = 7"),
    ]
    assert len({one, *others}) == 8
    problem = ChainSums.problem
    monkeypatch.setattr(ChainSums, "problem", lambda task, split, seed, i: problem(task, split, seed, i + 1))
    assert digest() != one, "what a task asks, whatever its settings say"


def test_what_may_come_out_otherwise_is_not_shared(made: Any, evaluated: list[int]) -> None:
    @reward
    def fails_on_one(problem: Problem, response: str) -> float:
        """Cannot grade one question of a hundred."""
        if problem.index == 7:
            raise ValueError("no")
        return 0.0

    @reward(together=True)
    def graded_together(problems: Any, responses: Any) -> list[list[float]]:
        """As models grade."""
        return [[0.0] * len(row) for row in responses]

    class Inexact:
        """Samples as the native one, and does not promise to do so again."""

        def __init__(self, generator: Any) -> None:
            self.generate = generator.generate

    def shared(recipe: Recipe) -> Known:
        known: Known = {}
        state = RunState.start(recipe, 0, "cpu")
        assert evaluate_untrained(state, known) == evaluate_untrained(state, known)
        return known

    variant = "train.variant = @grpo()"
    assert len(shared(made(variant))) == 1
    assert evaluated == [0]
    many = ("evaluation.questions = 100", "evaluation.split = 'test'", "train.max_tokens = 2")
    assert shared(made(variant, *many, "train.rewards = [@fails_on_one]")) == {}
    assert shared(made(variant, "train.rewards = [@graded_together]")) == {}
    recipe = made(variant)
    object.__setattr__(recipe, "generator", Inexact(recipe.generator))
    assert shared(recipe) == {}
    assert evaluated == [0] * 7
