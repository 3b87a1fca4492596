"""A run whose responses are episodes: what it learns from, stores and counts, and that it goes on where it stopped."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import core.loop.train
from core import Batch, GrpoLabError, Problem, Score, Step, Turn, environment, reward
from core.loop.episodes import episode_seed
from core.loop.learn import learn
from core.loop.recipe import Recipe
from core.loop.run_state import RunState
from core.loop.train import Interrupted, run
from core.parts.registry import config
from core.store.run_folder import RunStore
from experiments.study.configs import CONFIGS, build

P, G, STEPS = 4, 3, 4
TINY = (
    "train.variant = @grpo()",
    f"train.steps = {STEPS}",
    f"train.prompts = {P}",
    f"train.group_size = {G}",
    "train.max_tokens = 30",
    "train.checkpoint_every = 100",
    "adamw.learning_rate = 0.003",
    "evaluation.every = 2",
    "evaluation.questions = 2",
    "evaluation.split = 'test'",
    "train.rewards = [@patient]",
    "train.environment = @sums",
)


class Sums:
    """Answers by the number of characters so far, until there are many; what it says first is drawn by its seed."""

    def reset(self, problem: Problem, seed: int) -> str:
        self.said = 0
        return str(seed % 10)

    def step(self, action: str) -> Step:
        self.said += len(action)
        if "#" in action:
            raise ValueError("unheard of")
        return Step(f"{self.said % 10}=", len(action) / 100, self.said > 9, ("said", self.said), len(action) % 2 == 0)


@pytest.fixture
def made(tiny_folder: Path) -> Callable[..., Recipe]:
    """Bindings to a recipe; what is rewarded is the number of turns."""

    @reward
    def patient(problem: Problem, response: str, transcript: tuple[Turn, ...]) -> Score:
        """A third for each turn; right is an even length of the last."""
        assert transcript[-1].action == response
        return Score(len(transcript) / 3, len(response) % 2 == 0)

    @reward
    def last(problem: Problem, response: str) -> float:
        """Whether the last turn has an even length."""
        return float(len(response) % 2 == 0)

    @environment
    def sums() -> Sums:
        """See `Sums`."""
        return Sums()

    def make(*bindings: str) -> Recipe:
        with config([CONFIGS / "embedded.gin"], [*TINY, f"policy.model = '{tiny_folder}'", *bindings]):
            recipe: Recipe = build("train")
        return recipe

    return make


def go(recipe: Recipe, folder: Path, *, stop_at: int = 0) -> Mapping[str, Any]:
    def watch(line: Mapping[str, Any]) -> None:
        if line["step"] == stop_at:
            raise Interrupted

    try:
        run(recipe, 0, RunStore(folder), facts={"identity": {}, "arm": "a"}, watch=watch)
    except Interrupted:
        assert stop_at
    hashes: Mapping[str, Any] = RunStore(folder).manifest.get("hashes", {})
    return hashes


def lines(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """What every step of a run learned from."""
    seen: list[Batch] = []

    def recorded(state: RunState, batch: Batch | None, clock: Any) -> Any:
        assert batch is not None
        seen.append(batch)
        return learn(state, batch, clock)

    monkeypatch.setattr(core.loop.train, "learn", recorded)
    return seen


def test_a_batch_of_episodes(made: Callable[..., Recipe], tmp_path: Path, batches: list[Batch]) -> None:
    recipe = made("train.reward_weights = [3.0]")
    go(recipe, tmp_path)
    read = 0
    for batch in batches:
        turns, rewards = batch.require("turns"), batch.require("turn_rewards")
        assert torch.equal(batch.mask, batch.require("sampled_mask"))
        assert torch.equal(turns > 0, batch.response_mask)
        read += int((batch.response_mask & ~batch.mask).sum())
        for p in range(batch.groups):
            begun = str(episode_seed(0, batch.problems[p]) % 10)
            ids = RunState.start(recipe, 0, "cpu").policy.tokenizer(f"{batch.problems[p].prompt}{begun}")["input_ids"]
            assert batch.prompt_tokens[p].tolist() == ids
            for g in range(batch.group_size):
                transcript = batch.transcripts[p][g]
                assert len(transcript) == int(turns[p, g].max())
                # the outcome, 3 times a third for each turn, and what the environment gave
                expected = len(transcript) + sum(turn.reward for turn in transcript)
                assert float(batch.rewards[p, g]) == pytest.approx(expected, abs=1e-5)
                assert float(rewards[p, g].sum()) == pytest.approx(sum(turn.reward for turn in transcript), abs=1e-5)
    assert read > 50


def test_what_is_logged_and_stored(made: Callable[..., Recipe], tmp_path: Path, batches: list[Batch]) -> None:
    go(made(), tmp_path)
    for line, batch in zip(lines(tmp_path), batches, strict=True):
        written = batch.require("sampled_mask")
        counts = batch.require("turns").amax(-1).float()
        assert line["turns"] == pytest.approx(float(counts.mean()))
        assert line["sampled_tokens"] == int(written.sum())
        assert line["trained_tokens"] <= int(written.sum())
        assert line["length"] == pytest.approx(float(written.sum(-1).float().mean()))
        assert line["observation_tokens"] == pytest.approx(
            float((batch.response_mask & ~written).sum(-1).float().mean())
        )
        flat = [turn for group in batch.transcripts for row in group for turn in row]
        assert line["tool_calls"] * P * G == pytest.approx(sum(turn.call is True for turn in flat))
        assert line["tool_failures"] * P * G == pytest.approx(sum(turn.call is False for turn in flat))
        first = [row[0].reward for group in batch.transcripts for row in group]
        assert line["turn_reward"]["1"] == pytest.approx(sum(first) / len(first), abs=1e-5)
        assert len(line["turn_reward"]) == int(counts.max())
    groups = json.loads(next(iter(sorted((tmp_path / "rollouts").iterdir()))).read_text())
    (turn, *_) = groups[0]["responses"][0]["turns"]
    assert set(turn) == {"action", "observation", "reward", "call"}
    assert turn["action"] == batches[0].transcripts[0][0][0].action
    record = json.loads(next(iter(sorted((tmp_path / "eval" / "test").iterdir()))).read_text())
    assert record["summary"]["turns"] >= 1
    answer = record["questions"][0]["samples"][0]
    assert answer["turns"][-1]["action"] == answer["text"]


STALE = ("train.staleness = 2",)


@pytest.mark.parametrize("bindings", [(), STALE], ids=["present weights", "older weights"])
def test_a_run_that_goes_on_ends_as_one_that_was_not_stopped(
    bindings: tuple[str, ...], made: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = made(*bindings)
    whole = go(recipe, tmp_path / "whole")
    go(recipe, tmp_path / "cut", stop_at=2)
    assert go(recipe, tmp_path / "cut") == whole
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    assert go(recipe, tmp_path / "again") == whole


def test_a_failing_environment_drops_its_group_and_is_counted(
    made: Callable[..., Recipe], tmp_path: Path, batches: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = made("train.prompts = 24", "train.steps = 1", "train.group_size = 2")
    step = Sums.step
    broken: list[str] = []

    def faulty(self: Sums, action: str) -> Step:
        if not broken:
            broken.append(action)
            raise ValueError("out of order")
        return step(self, action)

    monkeypatch.setattr(core.loop.train, "evaluate_untrained", lambda *_: [])
    monkeypatch.setattr(core.loop.train, "evaluate", lambda *_, **__: [])
    monkeypatch.setattr(Sums, "step", faulty)
    go(recipe, tmp_path)
    assert batches[0].groups == 23
    assert [line["dropped_groups"] for line in lines(tmp_path)] == [1]


def test_an_environment_that_keeps_failing_ends_the_run(
    made: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(self: Sums, action: str) -> Step:
        raise ValueError("out of order")

    recipe = made()
    monkeypatch.setattr(core.loop.train, "evaluate_untrained", lambda *_: [])
    monkeypatch.setattr(Sums, "step", faulty)
    with pytest.raises(GrpoLabError, match=r"(?s)the run stops.*environment 'sums' .* at turn 1, .*out of order"):
        go(recipe, tmp_path)


def test_questions_that_cannot_be_asked_end_the_run(
    made: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(self: Sums, problem: Problem, seed: int) -> str:
        raise KeyError("nothing here")

    monkeypatch.setattr(Sums, "reset", faulty)
    with pytest.raises(GrpoLabError, match=r"(?s)test questions cannot be graded.*environment 'sums'"):
        go(made(), tmp_path)


def test_a_greedy_baseline_is_an_episode(made: Callable[..., Recipe], tmp_path: Path, batches: list[Batch]) -> None:
    go(made("train.variant = @remax()", "train.steps = 1"), tmp_path)
    (line,) = lines(tmp_path)
    assert line["sampled_tokens"] > int(batches[0].require("sampled_mask").sum())


def test_a_reward_may_do_without_the_transcript(made: Callable[..., Recipe], tmp_path: Path) -> None:
    assert go(made("train.rewards = [@last, @patient]", "train.steps = 1"), tmp_path)


def test_a_response_of_one_turn_has_a_transcript_of_one(made: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = made("train.environment = None", "train.steps = 1")
    assert recipe.environment is None
    go(recipe, tmp_path)
    (line,) = lines(tmp_path)
    assert "turns" not in line


def test_what_is_no_environment_is_refused(made: Callable[..., Recipe]) -> None:
    with pytest.raises(GrpoLabError, match=r"train.environment"):
        made("train.environment = @patient")
    with pytest.raises(GrpoLabError, match=r"train.max_turns"):
        made("train.max_turns = 0")
