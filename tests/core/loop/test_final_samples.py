"""More samples where the final score is measured: what a run learns and what it answered before stay as they are."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core import GrpoLabError
from core.loop.evaluation import _pass_at, evaluate
from core.loop.evaluation_settings import EvaluationSettings
from core.loop.recipe import Recipe
from core.loop.run_state import RunState
from core.loop.train import Interrupted, run
from core.model.policy import Policy
from core.parts.registry import config
from core.store.run_folder import RunStore
from experiments.results.stored_run import read_run
from experiments.statistics.ability import pass_by_question
from experiments.statistics.scalars import last_evaluations
from experiments.study.configs import CONFIGS, build

TINY = (
    "train.variant = @grpo()",
    "train.steps = 4",
    "train.prompts = 2",
    "train.group_size = 2",
    "train.max_tokens = 6",
    "train.checkpoint_every = 3",
    "evaluation.every = 1",
    "evaluation.questions = 3",
    "evaluation.split = 'test'",
)


def recipe(*bindings: str) -> Recipe:
    with config([CONFIGS / "embedded.gin"], [*TINY, *bindings]):
        built: Recipe = build("train")
    return built


def test_the_scored_evaluations_by_hand() -> None:
    settings = EvaluationSettings(5, 128, 2, 1.0, 0, None, final_samples=48)
    assert settings.final_steps(40) == (30, 35, 40)
    assert settings.final_steps(42) == (35, 40, 42)
    assert settings.final_steps(200) == (180, 185, 190, 195, 200)  # 41 evaluations with the one before training
    assert settings.final_steps(7) == (5, 7)
    assert [settings.samples_at(step, 40) for step in (0, 5, 25, 30, 35, 40)] == [2, 2, 2, 16, 16, 16]
    assert replace(settings, final_samples=50).samples_at(40, 40) == 17  # 51 in all
    assert replace(settings, final_samples=None).samples_at(40, 40) == 2


@pytest.mark.parametrize("every", [1, 3, 5])
def test_they_are_those_of_which_the_score_is_a_mean(every: int) -> None:
    settings = EvaluationSettings(every, 8, 2, 1.0, 0, None)
    for steps in range(3 * every, 150):
        evaluated = [step for step in range(steps + 1) if step % every == 0 or step == steps]
        assert settings.final_steps(steps) == tuple(evaluated[-last_evaluations(len(evaluated)) :])


def test_the_first_answers_are_those_of_an_evaluation_without(tiny: Policy) -> None:
    def answers(step: int, *bindings: str) -> tuple[dict[str, Any], list[Any], list[Any]]:
        state = RunState(recipe(*bindings), 5, tiny, sampled_tokens=77)
        (record,) = evaluate(state, step)
        assert state.sampled_tokens == record["total_sampled_tokens"] == 77
        return record, [q["samples"] for q in record["questions"]], [q["greedy"] for q in record["questions"]]

    plain, samples, greedy = answers(4)
    first: list[Any] = samples
    for number in (12, 15, 30):
        more, further, still = answers(4, f"evaluation.final_samples = {number}")
        assert {len(row) for row in further} == {number // 3}
        assert [row[: len(shorter)] for row, shorter in zip(further, first, strict=True)] == first
        assert still == greedy
        right = [sample["correct"] for row in further for sample in row]
        assert more["summary"]["accuracy"] == pytest.approx(np.mean(right))
        assert more["summary"]["length"] == pytest.approx(np.mean([s["length"] for row in further for s in row]))
        assert more["summary"]["samples"] == number // 3
        first = further
    texts = [sample["text"] for row in first for sample in row]
    assert len(set(texts)) > len(texts) / 2, "no block has the noise of another"
    assert answers(1, "evaluation.final_samples = 30") == answers(1), "it is not scored"
    assert plain["summary"]["samples"] == 2


def test_pass_at_k_keeps_its_k() -> None:
    right = torch.tensor([[True, False, False, False], [False] * 4, [True] * 4])
    assert _pass_at(2, right).tolist() == pytest.approx([1 - 3 / 6, 0.0, 1.0])
    assert _pass_at(4, right).tolist() == [1.0, 0.0, 1.0]
    drawn = torch.rand(64, 8) < 0.3
    for k in (1, 2, 8):
        assert _pass_at(k, drawn).numpy() == pytest.approx(pass_by_question(drawn)[:, k - 1])


def test_surprise_is_stored_where_it_is_asked_for_and_has_mean_0(tiny: Policy) -> None:
    def answered(*bindings: str) -> list[dict[str, Any]]:
        (record,) = evaluate(RunState(recipe(*bindings), 5, tiny), 4)
        return [sample for question in record["questions"] for sample in question["samples"]]

    many = ("evaluation.questions = 24", "evaluation.samples = 32")
    plain, more = answered(*many), answered(*many, "evaluation.surprise = True")
    assert [{k: v for k, v in each.items() if k != "surprise"} for each in more] == plain
    surprise = np.array([each["surprise"] for each in more])
    assert surprise.std() > 0.1
    assert abs(surprise.mean()) < 4 * surprise.std() / np.sqrt(len(surprise))
    with pytest.raises(GrpoLabError, match=r"evaluation\.surprise = True takes the entropies"):
        recipe("train.generator = @vllm()", "evaluation.surprise = True")


def go(made: Recipe, folder: Path, watch: Any = lambda _: None) -> Mapping[str, Any]:
    run(made, 0, RunStore(folder), facts={"identity": {}, "arm": "grpo"}, watch=watch)
    hashes: Mapping[str, Any] = RunStore(folder).manifest["hashes"]
    return hashes


def lines(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in ("seconds", "evaluation")} for row in rows]


def test_what_a_run_learns_does_not_depend_on_it(tmp_path: Path, tiny_folder: Path) -> None:
    model = f"policy.model = '{tiny_folder}'"
    surprised = go(recipe(model, "evaluation.surprise = True"), tmp_path / "surprised")
    without = go(recipe(model), tmp_path / "without")
    more = recipe(model, "evaluation.final_samples = 18")
    assert go(more, tmp_path / "with") == without == surprised
    stored = read_run(tmp_path / "surprised", "grpo", 0)
    assert stored is not None
    values = [row["summary"]["adjusted_accuracy"] for row in stored.evals]
    tables = stored.samples("test", "adjusted_accuracy", values)
    assert tables is not None
    assert [table.shape for table in tables] == [(3, 2)] * 5
    assert stored.answer_counts("test", "adjusted_accuracy", values) == [6] * 5  # as bounds of the noise of a course
    assert lines(tmp_path / "with") == lines(tmp_path / "without")
    files = [file.relative_to(tmp_path / "with") for file in sorted((tmp_path / "with").glob("eval/**/*.json"))]
    assert len(files) == 5
    alike = [(tmp_path / "with" / f).read_bytes() == (tmp_path / "without" / f).read_bytes() for f in files]
    assert alike == [True, True, False, False, False]

    def stop_after_three(line: Mapping[str, Any]) -> None:
        if line["step"] == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        go(more, tmp_path / "cut", stop_after_three)
    assert go(more, tmp_path / "cut") == without
    assert all((tmp_path / "cut" / f).read_bytes() == (tmp_path / "with" / f).read_bytes() for f in files)

    stored = read_run(tmp_path / "with", "grpo", 0)
    assert stored is not None
    for name in ("accuracy", "pass_at_k", "length", "greedy_accuracy"):
        values = [row["summary"][name] for row in stored.evals]
        tables = stored.samples("test", name, values)
        assert tables is not None
        expected = [2, 2, 6, 6, 6] if name in ("accuracy", "length") else [1] * 5
        assert [table.shape for table in tables] == [(3, K) for K in expected]


@pytest.mark.parametrize(
    ("binding", "why"),
    [
        ("train.token_budget = 1000", r"final_samples = 12 and train\.token_budget = 1000: which evaluations are"),
        ("train.seconds_budget = 9.0", r"train\.seconds_budget = 9\.0.*compare\.reevaluate"),
        ("evaluation.samples = 5", r"rests on 15 samples a question already: give as many or more"),
        ("evaluation.final_samples = 0", r"final_samples = 0: must be .*whole number"),
    ],
)
def test_where_it_makes_no_sense(binding: str, why: str) -> None:
    with pytest.raises(GrpoLabError, match=why):
        recipe(*([] if "final" in binding else ["evaluation.final_samples = 12"]), binding)
