"""Responses of older weights, by plan: which weights sampled what, what the arms of a seed share, and going on."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import core.loop.train
import core.loop.update
from core import GrpoLabError, filter, reward
from core.generation.base import Generation, Request
from core.loop.clock import Clock
from core.loop.learn import learn
from core.loop.loss import kl_in_reward
from core.loop.recipe import Recipe
from core.loop.rollout import roll_out
from core.loop.rollout_queue import RolloutQueue
from core.loop.run_state import RunState
from core.loop.staleness import UniformAge, planned_ages
from core.loop.train import Interrupted, run
from core.loop.update import compute_logps
from core.model.policy import Policy
from core.model.sharding import hash_weights
from core.parts.batch import Batch
from core.parts.problems import Problem
from core.parts.registry import config
from core.randomness import key
from core.store.run_folder import RunStore
from experiments.study.configs import CONFIGS, build

P, G, STEPS = 4, 3, 6
TINY = (
    "train.variant = @grpo()",
    f"train.steps = {STEPS}",
    f"train.prompts = {P}",
    f"train.group_size = {G}",
    "train.max_tokens = 6",
    "train.checkpoint_every = 100",
    "adamw.learning_rate = 0.003",
    "evaluation.every = 100",
    "evaluation.questions = 2",
    "evaluation.split = 'test'",
    "train.rewards = [@even]",
)
UNIFORM = ("train.staleness = @uniform_age()", "uniform_age.most = 2")
TWO_UPDATES = ("train.minibatches = 2",)


@pytest.fixture
def made(tiny_folder: Path) -> Callable[..., Recipe]:
    """Bindings to a recipe; what is rewarded is an even number of characters."""

    @reward
    def even(problem: Problem, response: str) -> float:
        """Whether the response has an even length."""
        return float(len(response) % 2 == 0)

    def make(*bindings: str) -> Recipe:
        with config([CONFIGS / "embedded.gin"], [*TINY, f"policy.model = '{tiny_folder}'", *bindings]):
            recipe: Recipe = build("train")
        return recipe

    return make


def go(recipe: Recipe, folder: Path, *, stop_at: int = 0, seed: int = 0) -> Mapping[str, Any]:
    """Train, perhaps up to a step; the digests of the run."""

    def watch(line: Mapping[str, Any]) -> None:
        if line["step"] == stop_at:
            raise Interrupted

    try:
        run(recipe, seed, RunStore(folder), facts={"identity": {}, "arm": "a"}, watch=watch)
    except Interrupted:
        assert stop_at
    hashes: Mapping[str, Any] = RunStore(folder).manifest.get("hashes", {})
    return hashes


def lines(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def mark(version: int) -> int:
    """A token for the weights of a version; the vocabulary has few."""
    return 1 + version % 13


@dataclass
class Marked:
    """Every response is the mark of the weights that gave it, over and over.

    Of sample g in slot p, 1 + p % 2 + g times: 6 tokens a group, or 9, and every group has even and odd lengths.
    """

    asked: list[tuple[int | None, int]] = field(default_factory=list)
    """Noise key and slot of every group that was sampled for training."""

    def generate(self, policy: Policy, requests: Sequence[Request]) -> list[Generation]:
        """See `Generator`."""
        return [self._answer(policy, request) for request in requests]

    def _answer(self, policy: Policy, request: Request) -> Generation:
        if request.samples == G:
            self.asked += [(request.noise_key, slot) for slot in request.slot_numbers]
        slots, samples = torch.tensor(request.slot_numbers), torch.arange(request.samples)
        lengths = 1 + slots[:, None] % 2 + samples
        mask = torch.arange(4) < lengths[..., None]
        zeros = torch.zeros(mask.shape)
        return Generation(
            torch.where(mask, mark(policy.version), 0), mask, zeros, zeros, torch.zeros_like(lengths).bool()
        )


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


# the plan


def test_the_plan_by_hand() -> None:
    """Four updates old, two updates a rollout: two steps before, and never before the first."""
    assert [planned_ages(4, 2, 0, step, 3) for step in (1, 2, 3, 4)] == [[0, 0, 0], [1, 1, 1], [2, 2, 2], [2, 2, 2]]
    assert planned_ages(0, 2, 0, 5, 2) == [0, 0]
    assert planned_ages(UniformAge(4), 2, 0, 1, 8) == [0] * 8
    assert max(planned_ages(UniformAge(4), 2, 0, 2, 64)) == 1


@given(st.integers(0, 9), st.integers(1, 4), st.integers(0, 5), st.integers(100, 200))
def test_drawn_ages_are_keyed_and_within_bounds(most: int, updates: int, seed: int, step: int) -> None:
    ages = planned_ages(UniformAge(most * updates), updates, seed, step, 400)
    assert ages == planned_ages(UniformAge(most * updates), updates, seed, step, 400)
    assert list(ages[:7]) == planned_ages(UniformAge(most * updates), updates, seed, step, 7)
    assert set(ages) == set(range(most + 1))
    counts = torch.bincount(torch.tensor(ages)).double()
    assert float(((counts - 400 / (most + 1)) ** 2 / (400 / (most + 1))).sum()) < 45  # chi-squared, 9 degrees at most
    older = planned_ages(UniformAge((most + 3) * updates), updates, seed, step, 400)
    assert all(one <= other for one, other in zip(ages, older, strict=True))
    if most:
        assert ages != planned_ages(UniformAge(most * updates), updates, seed + 1, step, 400)
        assert ages != planned_ages(UniformAge(most * updates), updates, seed, step + 1, 400)


# which weights sampled what


@pytest.mark.parametrize(
    ("bindings", "versions"),
    [
        ((), [0, 1, 2, 3, 4, 5]),
        (("train.staleness = 1",), [0, 0, 1, 2, 3, 4]),
        (("train.staleness = 2",), [0, 0, 0, 1, 2, 3]),
        (("train.staleness = 8",), [0, 0, 0, 0, 0, 0]),
        (TWO_UPDATES, [0, 2, 4, 6, 8, 10]),
        ((*TWO_UPDATES, "train.staleness = 4"), [0, 0, 0, 2, 4, 6]),
        (("train.epochs = 2", *TWO_UPDATES, "train.staleness = 4"), [0, 0, 4, 8, 12, 16]),
    ],
)
def test_versions_are_those_of_the_plan(
    bindings: tuple[str, ...], versions: list[int], made: Callable[..., Recipe], tmp_path: Path, batches: list[Batch]
) -> None:
    """The tokens themselves tell which weights sampled them."""
    recipe = replace(made(*bindings), generator=Marked())
    go(recipe, tmp_path)
    for batch, version in zip(batches, versions, strict=True):
        mask = batch.response_mask
        assert set(batch.require("token_version")[mask].tolist()) == {version}
        assert set(batch.require("response_tokens")[mask].tolist()) == {mark(version)}
        assert not batch.require("token_version")[~mask].any()
    now = [recipe.updates * step for step in range(STEPS)]
    ages = [taken - version for taken, version in zip(now, versions, strict=True)]
    assert [(line["age"], line["age_max"]) for line in lines(tmp_path)] == [(age, age) for age in ages]


def test_a_rollout_may_mix_ages(made: Callable[..., Recipe], tmp_path: Path, batches: list[Batch]) -> None:
    recipe = replace(made(*UNIFORM), generator=Marked())
    go(recipe, tmp_path)
    mixed = 0
    for step, batch in enumerate(batches, start=1):
        expected = [step - 1 - age for age in planned_ages(UniformAge(2), 1, 0, step, P)]
        assert [int(group[0, 0]) for group in batch.require("token_version")] == expected
        assert [int(group[0, 0]) for group in batch.require("response_tokens")] == [
            mark(version) for version in expected
        ]
        assert batch.lengths[:, 0].tolist() == [1, 2, 1, 2]  # every group in its own slot
        mixed += len(set(expected)) > 1
        ages = [(step - 1 - version, 9 if slot % 2 else 6) for slot, version in enumerate(expected)]
        line = lines(tmp_path)[step - 1]
        assert line["age"] == pytest.approx(sum(age * tokens for age, tokens in ages) / 30)
        assert line["age_max"] == max(age for age, _ in ages)
    assert mixed >= 3
    # nothing is sampled twice, or for steps beyond the last
    assert isinstance(recipe.generator, Marked)
    expected_groups = [(key(0, "sampling", step, 0), slot) for step in range(1, STEPS + 1) for slot in range(P)]
    assert sorted(recipe.generator.asked) == sorted(expected_groups)


def test_the_weights_of_its_version_gave_every_probability(
    made: Callable[..., Recipe], tmp_path: Path, batches: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-probabilities that came with the samples, computed again with the weights that the version names."""
    weights: dict[int, Any] = {}

    class Remembering(RolloutQueue):
        def roll_out(self, step: int) -> Any:
            policy = self._run.policy
            weights[policy.version] = {name: x.clone() for name, x in policy.state_dict().items()}
            return super().roll_out(step)

    monkeypatch.setattr(core.loop.train, "RolloutQueue", Remembering)
    recipe = made(*UNIFORM)
    go(recipe, tmp_path)
    policy = RunState.start(recipe, 0, "cpu").policy
    told_apart = 0
    for batch in batches:
        versions = batch.require("token_version")
        for version in set(versions[:, 0, 0].tolist()):
            groups = batch.select((versions[:, 0, 0] == version).nonzero()[:, 0])
            for other, state in weights.items():
                policy.load_state_dict(state)
                logps = compute_logps(policy, groups, temperature=1.0, micro_tokens=1000)
                gap = float((logps - groups.require("behaviour_logps")).abs().max())
                assert other != version or gap < 1e-5
                told_apart += other != version and gap > 1e-3
    assert told_apart > 20


def test_one_update_behind_by_hand(made: Callable[..., Recipe], tmp_path: Path) -> None:
    """Four steps, written out: the weights after each sample for the step after next."""
    recipe = made("train.staleness = 1", "train.steps = 4")
    state = RunState.start(recipe, 0, "cpu")
    first = roll_out(state, 1)
    second = roll_out(state, 2)
    learn(state, first.batch, Clock())
    third = roll_out(state, 3)
    learn(state, second.batch, Clock())
    fourth = roll_out(state, 4)
    learn(state, third.batch, Clock())
    learn(state, fourth.batch, Clock())
    assert go(recipe, tmp_path)["final_weights"] == hash_weights(state.policy.model)
    assert go(made("train.steps = 4"), tmp_path / "0")["final_weights"] != hash_weights(state.policy.model)


@pytest.mark.parametrize(("staleness", "ages"), [(0, [0, 1, 2, 3]), (4, [4, 5, 6, 7]), (8, [8, 9, 10, 11])])
def test_the_age_of_every_minibatch(
    staleness: int, ages: list[int], made: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Synchronous: j updates for the j-th minibatch from 0; one rollout of u updates ahead: u to 2u - 1; two: 2u up."""
    seen: list[int] = []
    step = core.loop.update.optimizer_step

    def recorded(state: RunState, optimizer: Any, batch: Batch, *rest: Any) -> None:
        seen.extend({int(state.policy.version - version) for version in batch.require("token_version")[:, 0, 0]})
        step(state, optimizer, batch, *rest)

    monkeypatch.setattr(core.loop.update, "optimizer_step", recorded)
    recipe = made("train.epochs = 2", *TWO_UPDATES, f"train.staleness = {staleness}", "train.steps = 4")
    go(replace(recipe, generator=Marked()), tmp_path)
    assert seen[-4:] == ages
    assert seen[:4] == [0, 1, 2, 3]  # the first step has no older weights


# what arms share


def test_without_staleness_the_queue_is_a_plain_rollout(made: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = made("train.staleness = 0")
    plain, queued = (RunState.start(recipe, 0, "cpu") for _ in range(2))
    queued.queue = queue = RolloutQueue(queued)
    for step in (1, 2):
        one, (other, _) = roll_out(plain, step), queue.roll_out(step)
        assert one.batch is not None
        assert other.batch is not None
        for name, tensor in one.batch.tensors().items():
            assert torch.equal(tensor, other.batch.require(name)), name
        assert plain.spent == queued.spent
        assert "queue" not in queued.state_dict()
    go(recipe, tmp_path / "0", stop_at=2)
    assert "queue" not in (RunStore(tmp_path / "0").load_checkpoint() or {})


def test_arms_of_a_seed_share_prompts_noise_and_what_they_spend(made: Callable[..., Recipe], tmp_path: Path) -> None:
    """Responses that do not depend on the weights: then all arms spend alike, and stop alike."""
    arms = {"0": (), "1": ("train.staleness = 1",), "4": ("train.staleness = 4",), "uniform": UNIFORM}
    spent, hashes, noise = [], [], []
    for name, bindings in arms.items():
        generator = Marked()
        recipe = replace(made(*bindings, "train.token_budget = 130"), generator=generator)
        hashes.append(go(recipe, tmp_path / name))
        spent.append([(row["sampled_tokens"], row["total_sampled_tokens"]) for row in lines(tmp_path / name)])
        noise.append(set(generator.asked))
    assert spent == [[(30, 30), (30, 60), (30, 90), (30, 120)]] * 4
    for each in hashes[1:]:
        for name in ("initial_weights", "prompts", "first_rollout"):
            assert each[name] == hashes[0][name]
    assert all(noise[0] <= more for more in noise[1:])  # what is sampled ahead of the end goes unused


def test_the_first_rollouts_are_equal_bit_by_bit(made: Callable[..., Recipe]) -> None:
    rollouts = []
    for bindings in ((), ("train.staleness = 2",), UNIFORM):
        state = RunState.start(made(*bindings), 0, "cpu")
        rollouts.append(RolloutQueue(state).roll_out(1)[0].first_round)
    for other in rollouts[1:]:
        for name, tensor in rollouts[0].tensors().items():
            assert torch.equal(tensor, other.require(name)), name


# going on


CASES = {
    "fixed": ("train.staleness = 2",),
    "mixed": UNIFORM,
    "filtered": (*UNIFORM, "train.variant = @dapo()"),
    "critic": ("train.variant = @ppo()", "train.staleness = 1", "critic.learning_rate = 0.01", "ppo.kl_coef = 0.5"),
    "updates": (*TWO_UPDATES, "train.staleness = 4", "grpo.kl_coef = 0.1"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_goes_on_with_a_full_queue_ends_like_one_that_was_not_cut(
    case: str, made: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = made(*CASES[case])
    whole = go(recipe, tmp_path / "whole")
    assert whole["final_weights"] != whole["initial_weights"]
    if case == "filtered":
        assert {line["rounds"] for line in lines(tmp_path / "whole")} - {1}
    for stop_at in range(1, STEPS):
        go(recipe, tmp_path / "cut", stop_at=stop_at)
        checkpoint = RunStore(tmp_path / "cut").load_checkpoint()
        assert checkpoint is not None
        taken = [recipe.updates - line["skipped_updates"] for line in lines(tmp_path / "cut")]
        assert checkpoint["version"] == sum(taken)
        assert checkpoint["queue"]
    assert go(recipe, tmp_path / "cut") == whole
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")


def test_a_checkpoint_of_before_goes_on(made: Callable[..., Recipe], tmp_path: Path) -> None:
    """It has neither a version nor a queue."""
    whole = go(made(), tmp_path / "whole")
    go(made(), tmp_path / "cut", stop_at=3)
    state = RunStore(tmp_path / "cut").load_checkpoint()
    assert state is not None
    del state["version"]
    torch.save(state, tmp_path / "cut/checkpoint/state.pt")
    assert go(made(), tmp_path / "cut") == whole
    assert [line["age"] for line in lines(tmp_path / "cut")] == [0.0] * STEPS


# with the rest of the loop


def test_further_rounds_are_as_old_as_the_youngest_group(
    made: Callable[..., Recipe], tmp_path: Path, batches: list[Batch]
) -> None:
    """From the second step on a filter passes no group of the first round: their problems are not 0 to P - 1."""

    @filter
    def second_round(batch: Batch) -> torch.Tensor:
        """All groups of the second round."""
        return torch.tensor([batch.step == 1 or problem.index < P for problem in batch.problems])

    recipe = made(*UNIFORM, "train.variant = @dapo()", "dapo.filter = @second_round")
    go(replace(recipe, generator=Marked()), tmp_path)
    assert [line["rounds"] for line in lines(tmp_path)] == [1, 2, 2, 2, 2, 2]
    for step, batch in enumerate(batches, start=1):
        youngest = min(planned_ages(UniformAge(2), 1, 0, step, P))
        assert set(batch.require("token_version")[batch.response_mask].tolist()) == {step - 1 - youngest}
        assert batch.require("response_tokens").max() == mark(step - 1 - youngest)


def test_a_penalty_in_the_reward_is_that_of_the_weights_that_learn(
    made: Callable[..., Recipe], tmp_path: Path, batches: list[Batch]
) -> None:
    """Log-probabilities under policy and reference at the update; what the sampler thought enters neither."""
    bindings = ("train.staleness = 2", "grpo.kl_coef = 0.1", "grpo.kl_place = 'reward'", "grpo.kl = @k1")
    recipe = made(*bindings)
    go(recipe, tmp_path)
    batch = batches[-1].having(
        old_logps=torch.full_like(batches[-1].require("behaviour_logps"), -1.0),
        ref_logps=torch.full_like(batches[-1].require("behaviour_logps"), -3.0),
    )
    penalised = kl_in_reward(recipe.variant, batch)
    assert torch.equal(penalised.require("kl_rewards"), torch.where(batch.mask, -0.2, 0.0))
    assert all(line["kl"] is not None for line in lines(tmp_path))


def test_what_a_run_learns_does_not_depend_on_an_average(made: Callable[..., Recipe], tmp_path: Path) -> None:
    hashes = go(made(*UNIFORM), tmp_path / "without")
    assert go(made(*UNIFORM, "evaluation.ema_lag = 0.2"), tmp_path / "with") == hashes


def test_costs_count_at_the_step_that_uses_the_rollout(made: Callable[..., Recipe]) -> None:
    """The first step samples three rollouts, and has tokens and seconds of its own alone."""
    state = RunState.start(made("train.staleness = 2"), 0, "cpu")
    state.recipe = replace(state.recipe, generator=Marked())
    queue = RolloutQueue(state)
    _, seconds = queue.roll_out(1)
    waiting = queue.state_dict()
    assert list(waiting) == ["2", "3"]
    assert state.sampled_tokens == waiting["2"]["sampled_tokens"] == waiting["3"]["sampled_tokens"] == 30
    assert min(seconds, *(each["seconds"] for each in waiting.values())) > 0
    assert queue.roll_out(2)[1] == round(waiting["2"]["seconds"], 4)
    assert state.sampled_tokens == 60


def test_a_budget_in_seconds_ends_a_run(made: Callable[..., Recipe], tmp_path: Path) -> None:
    go(made("train.staleness = 2", "train.seconds_budget = 1e-6"), tmp_path)
    assert len(lines(tmp_path)) == 1


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (
            ("train.staleness = 3", "train.epochs = 2", "train.minibatches = 2"),
            r"train\.staleness = 3: .*takes 4 \(train\.epochs = 2 times train\.minibatches = 2\).*nearest are 0 and 4",
        ),
        (
            ("train.staleness = @uniform_age()", "uniform_age.most = 5", "train.minibatches = 2"),
            r"uniform_age\.most = 5: .*a multiple of 2, the nearest are 4 and 6",
        ),
        (("train.staleness = -1",), r"train\.staleness = -1: must be a whole number from 0 up or @uniform_age\(\)"),
        (("train.staleness = @uniform_age",), r"train\.staleness = @uniform_age: must be .* or @uniform_age\(\)"),
        (("train.staleness = @token_mean",), r"train\.staleness = @token_mean: must be .* or @uniform_age\(\)"),
        (("train.staleness = 1.5",), r"train\.staleness = 1\.5: must be a whole number"),
        (("train.staleness = @uniform_age()", "uniform_age.most = 0"), r"uniform_age\.most = 0: must be .* from 1 up"),
        (
            ("train.staleness = 1", "train.variant = @remax()"),
            r"train\.staleness: variant 'remax' subtracts the reward of a greedy response .*remax\.advantage = @leave",
        ),
        (
            ("train.staleness = 1", "train.source = @worked_solutions()", "train.group_size = 1"),
            r"train\.staleness with train\.source: .*have no age; remove one",
        ),
    ],
)
def test_what_cannot_be_is_refused(bindings: tuple[str, ...], message: str, made: Callable[..., Recipe]) -> None:
    with pytest.raises(GrpoLabError, match=message):
        made(*bindings)


def test_what_nothing_corrects_is_warned_of(made: Callable[..., Recipe]) -> None:
    assert made().warning is None
    assert made("train.staleness = 1", "train.correction = @token_truncated").warning is None
    for bindings in (("train.staleness = 1",), UNIFORM):
        warning = made(*bindings).warning
        assert warning is not None
        assert "of older weights than those that learn from them (train.staleness)" in warning
