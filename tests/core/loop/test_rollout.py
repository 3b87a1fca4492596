"""A step's rollout: rounds, filtering and discarding, and what the arms of one seed have in common."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import core.loop.train  # noqa: F401 - registers generator, settings, providers and tasks
from core import REWARDS, SETTINGS, TASKS, VARIANTS, Batch, GrpoLabError, Part, Variant, filter, reward
from core.errors import TrainingError
from core.generation.base import Generation, Request
from core.generation.vllm import vllm
from core.loop.learn import fill
from core.loop.metrics import step_record
from core.loop.recipe import Recipe
from core.loop.rewards import shape, shape_rewards
from core.loop.rollout import draw_problems, roll_out
from core.loop.run_state import RunState, make_providers
from core.loop.update import UpdateMetrics
from core.model.policy import Policy
from core.parts.problems import Problem, Score
from core.parts.registry import config
from core.randomness import key
from estimators.advantages.group import group_mean
from estimators.aggregators import token_mean
from estimators.filters import nonuniform
from estimators.objectives.token import clip
from estimators.shaping import soft_overlong

P, G = 4, 3
SETTING = f"""
train.task = @chain_sums()
train.generator = @native()
train.prompts = {P}
train.group_size = {G}
train.max_tokens = 24
"""


def recipe_of(variant: str, **changes: Any) -> Recipe:
    with config(text=SETTING + f"train.variant = @{variant}()\n"):
        recipe: Recipe = SETTINGS["train"]()
    return replace(recipe, **changes)


def run_of(policy: Policy, recipe: Recipe, seed: int = 0) -> RunState:
    return RunState(recipe, seed, policy)


@dataclass
class Parrot:
    """Sample g of every prompt is the digit g, g + 1 times, and the end token; the last is cut at three tokens."""

    calls: list[tuple[int | None, tuple[str, ...]]] = field(default_factory=list)

    def generate(self, policy: Policy, requests: Sequence[Request]) -> list[Generation]:
        """Takes note of the call."""
        return [self._answer(policy, request) for request in requests]

    def _answer(self, policy: Policy, request: Request) -> Generation:
        samples = request.samples
        self.calls.append((request.noise_key, tuple(policy.texts(request.prompts))))
        shape = (len(request.prompts), samples, 3)
        digits = policy.tokenizer("012")["input_ids"]
        tokens, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.bool)
        for g in range(samples):
            tokens[:, g, : g + 1] = digits[g]
            mask[:, g, : g + 2] = True
        truncated = torch.zeros(shape[:2], dtype=torch.bool)
        truncated[:, 2:] = True
        return Generation(tokens, mask, torch.zeros(shape), torch.ones(shape), truncated)


TOKENS = 2 + 3 + 3
"""Of a group of the parrot's."""


def is_odd(problem: Problem) -> bool:
    return int(problem.answer) % 2 == 1


@pytest.fixture
def zero_if_odd() -> Part:
    @reward
    def zero_if_odd(problem: Problem, response: str) -> Score:
        """The response 0 is correct for problems with an odd answer; to the others every response is wrong."""
        right = is_odd(problem) and response == "0"
        return Score(float(right), right, cause=None if right else "wrong")

    return zero_if_odd


def usable(problems: Sequence[Problem]) -> list[str]:
    return [str(problem.prompt) for problem in problems if is_odd(problem)]


# dynamic sampling


def test_rounds_go_on_until_the_batch_is_full(embedded: Policy, zero_if_odd: Part) -> None:
    parrot = Parrot()
    run = run_of(embedded, recipe_of("dapo", generator=parrot, rewards=(zero_if_odd,)))
    for step in (1, 2, 3):
        parrot.calls.clear()
        rollout = roll_out(run, step)
        drawn = [draw_problems(run, step, round) for round in range(rollout.rounds)]
        assert rollout.batch is not None
        kept = [str(problem.prompt) for problem in rollout.batch.problems]
        assert kept == [prompt for problems in drawn for prompt in usable(problems)][:P]
        assert sum(len(usable(problems)) for problems in drawn[:-1]) < P
        assert rollout.batch.groups == P
        # each round has a key and prompts of its own
        assert parrot.calls == [
            (key(0, "sampling", step, round), tuple(str(problem.prompt) for problem in problems))
            for round, problems in enumerate(drawn)
        ]
        # surplus groups are discarded: every token is either trained on or counted as such
        assert rollout.discarded_tokens == (rollout.rounds * P - P) * TOKENS
        assert rollout.causes == {"wrong": rollout.rounds * P * G - sum(len(usable(problems)) for problems in drawn)}
        # what arms are compared on is the first round, whole
        assert [problem.prompt for problem in rollout.first_round.problems] == [p.prompt for p in drawn[0]]


def test_extra_rounds_shift_nothing_in_later_steps(embedded: Policy, zero_if_odd: Part) -> None:
    """The arm that samples three rounds in step 1 sees in step 2 what the arm sees that sampled one."""
    calls = {}
    for name in ("grpo", "dapo"):
        parrot = Parrot()
        run = run_of(embedded, recipe_of(name, generator=parrot, rewards=(zero_if_odd,)))
        rounds = roll_out(run, 1).rounds
        parrot.calls.clear()
        roll_out(run, 2)
        calls[name] = rounds, parrot.calls[0]
    assert calls["grpo"][0] == 1 < calls["dapo"][0]
    assert calls["grpo"][1] == calls["dapo"][1]


def test_the_cap_is_respected_and_fewer_groups_are_trained_on(embedded: Policy, zero_if_odd: Part) -> None:
    recipe = recipe_of("dapo", rewards=(zero_if_odd,))
    variant = replace(recipe.variant, filter_rounds=1)
    for step in range(1, 6):
        parrot = Parrot()
        run = run_of(embedded, replace(recipe, generator=parrot, variant=variant))
        rollout = roll_out(run, step)
        odd = usable(draw_problems(run, step, 0))
        assert rollout.rounds == len(parrot.calls) == 1
        assert (rollout.batch.groups if rollout.batch else 0) == len(odd)
        assert rollout.discarded_tokens == (P - len(odd)) * TOKENS


def test_no_group_left_is_no_batch(embedded: Policy) -> None:
    @filter
    def nothing_in_a_rollout_test(batch: Batch) -> Tensor:
        """Never satisfied."""
        return torch.zeros(batch.groups, dtype=torch.bool)

    recipe = recipe_of("dapo")
    variant = replace(recipe.variant, filter=nothing_in_a_rollout_test, filter_rounds=3)
    run = run_of(embedded, replace(recipe, generator=Parrot(), variant=variant))
    rollout = roll_out(run, 1)
    assert rollout.batch is None
    assert rollout.rounds == 3
    assert rollout.discarded_tokens == run.sampled_tokens == 3 * P * TOKENS
    assert rollout.first_round.groups == P


def test_without_a_filter_there_is_one_round(embedded: Policy) -> None:
    run = run_of(embedded, recipe_of("grpo", generator=Parrot()))
    rollout = roll_out(run, 1)
    assert rollout.rounds == 1
    assert rollout.batch is not None
    assert rollout.batch.groups == P
    assert rollout.discarded_tokens == 0
    assert run.sampled_tokens == P * TOKENS


def test_prompts_are_a_stream_without_gaps_or_repetitions_by_design(embedded: Policy) -> None:
    run = run_of(embedded, recipe_of("grpo"))
    indices = [problem.index for step in (1, 2, 3) for problem in draw_problems(run, step, 0)]
    assert indices == list(range(3 * P))
    extra = [problem.prompt for step in (1, 2) for round in (1, 2) for problem in draw_problems(run, step, round)]
    assert len(set(extra)) > 3 * P
    other = [p.prompt for p in draw_problems(run_of(embedded, recipe_of("grpo"), seed=1), 1, 0)]
    assert other != [p.prompt for p in draw_problems(run, 1, 0)]


# what the arms of a seed share


@pytest.fixture(scope="module")
def first_rollouts(embedded: Policy) -> dict[str, Any]:
    return {name: roll_out(run_of(embedded, recipe_of(name)), 1) for name in VARIANTS if name != "grpo_process"}


@pytest.mark.slow
def test_first_rollouts_are_equal_for_every_variant(first_rollouts: dict[str, Any]) -> None:
    expected = first_rollouts["grpo"]
    assert expected.first_round.response_tokens.unique().numel() > 5
    for rollout in first_rollouts.values():
        assert torch.equal(rollout.first_round.response_tokens, expected.first_round.response_tokens)
        assert torch.equal(rollout.first_round.behaviour_logps, expected.first_round.behaviour_logps)
        assert torch.equal(rollout.first_round.rewards, expected.first_round.rewards)
        assert rollout.sampled.texts == expected.sampled.texts


def test_every_token_knows_the_version_that_drew_it(embedded: Policy) -> None:
    run = run_of(embedded, recipe_of("grpo", generator=Parrot()))
    state = {**run.state_dict(), "version": 5}
    run.load_state_dict(state)
    first = roll_out(run, 1).first_round
    assert first.require("token_version")[0].tolist() == [[5, 5, 0], [5, 5, 5], [5, 5, 5]]
    assert run.state_dict()["version"] == 5
    del state["version"]  # a checkpoint of before
    run.load_state_dict(state)
    assert run.policy.version == 0


def test_seeds_differ(embedded: Policy) -> None:
    one, other = (roll_out(run_of(embedded, recipe_of("grpo"), seed=seed), 1) for seed in (0, 1))
    assert one.sampled.texts != other.sampled.texts


def test_the_greedy_baseline_does_not_change_the_samples(embedded: Policy) -> None:
    """It is a call of its own, counted as sampled; the next step's samples are what they were without it."""
    runs = {name: run_of(embedded, recipe_of(name)) for name in ("reinforce", "remax")}
    providers = make_providers(runs["remax"])
    assert list(providers) == ["greedy_rewards"]
    assert make_providers(runs["reinforce"]) == {}
    for step in (1, 2):
        rollouts = {name: roll_out(run, step) for name, run in runs.items()}
        batch = rollouts["remax"].batch
        assert batch is not None
        before = runs["remax"].sampled_tokens
        filled = fill(batch, providers)
        assert runs["remax"].sampled_tokens > before
        assert torch.equal(
            filled.require("response_tokens"), rollouts["reinforce"].first_round.require("response_tokens")
        )
        assert filled.require("greedy_rewards").shape == (P,)
        assert set(filled.require("greedy_rewards").tolist()) <= {0.0, 1.0}


# scores, shaping and masks


def test_reward_parts_are_weighted_and_added_up(embedded: Policy, zero_if_odd: Part) -> None:
    @reward
    def length_in_a_rollout_test(problem: Problem, response: str) -> float:
        """Characters."""
        return len(response)

    both = (zero_if_odd, length_in_a_rollout_test)
    recipe = recipe_of("grpo", generator=Parrot(), rewards=both, reward_weights=(2.0, 0.1))
    batch = roll_out(run_of(embedded, recipe), 1).batch
    assert batch is not None
    for p, problem in enumerate(batch.problems):
        assert batch.rewards[p].tolist() == pytest.approx([2 * is_odd(problem) + 0.1, 0.2, 0.3])
        assert batch.correct is not None
        assert batch.correct[p].tolist() == [is_odd(problem), False, False]
    assert batch.require("reward_parts").shape == (P, G, 2)
    assert batch.reward_names == ("zero_if_odd", "length_in_a_rollout_test")


def failing_on(index: int) -> Callable[..., float]:
    def grader_failing_in_a_rollout_test(problem: Problem, response: str) -> float:
        """Raises on the second response to one problem."""
        if problem.index == index and response == "11":
            raise ValueError("boom")
        return 1.0

    return grader_failing_in_a_rollout_test


def test_a_group_whose_grader_failed_is_dropped_and_counted(embedded: Policy) -> None:
    part = reward(failing_on(2))
    run = run_of(embedded, recipe_of("grpo", generator=Parrot(), rewards=(part,)))
    rollout = roll_out(run, 1)
    assert rollout.batch is not None
    assert [problem.index for problem in rollout.batch.problems] == [0, 1, 3]
    assert rollout.batch.rewards.eq(1).all()
    assert rollout.first_round.groups == rollout.lenient.shape[0] == 3
    assert rollout.dropped_groups == 1
    assert rollout.discarded_tokens == TOKENS
    assert run.grader_log.recent[-1] == (1, P)
    assert run.grader_log.first is not None
    assert "ValueError: boom" in run.grader_log.first


def test_a_grader_that_always_fails_stops_the_run(embedded: Policy) -> None:
    @reward
    def broken_in_a_rollout_test(problem: Problem, response: str) -> float:
        """Divides by zero."""
        return 1 / 0

    run = run_of(embedded, recipe_of("grpo", generator=Parrot(), rewards=(broken_in_a_rollout_test,)))
    # four of four groups are lost: just what twenty steps of four groups may lose
    assert roll_out(run, 1).batch is None
    with pytest.raises(GrpoLabError, match="ZeroDivisionError"):
        roll_out(run, 2)


def test_a_failing_grader_of_the_greedy_response_drops_its_group(embedded: Policy) -> None:
    @reward
    def greedy_trap_in_a_rollout_test(problem: Problem, response: str) -> float:
        """Fails on what the first call of a batch says to problem 1, once the samples are through."""
        if problem.index == 1 and len(seen) >= P * G:
            raise ValueError("boom")
        seen.append(response)
        return 1.0

    seen: list[str] = []
    run = run_of(embedded, recipe_of("remax", generator=Parrot(), rewards=(greedy_trap_in_a_rollout_test,)))
    batch = roll_out(run, 1).batch
    assert batch is not None
    assert batch.groups == P
    filled = fill(batch, make_providers(run))
    assert [problem.index for problem in filled.problems] == [0, 2, 3]
    assert filled.require("greedy_rewards").isfinite().all()


def variant_of(**more: Any) -> Variant:
    return Variant(advantage=group_mean, objective=clip, aggregator=token_mean, **more)


def test_rewards_are_clipped_before_they_are_shaped() -> None:
    rewards, lengths = torch.tensor([[9.0, -9.0, 0.5]]), torch.tensor([[20, 20, 1]])
    variant = variant_of(reward_clip=1.0, shaping=[soft_overlong.using(penalty=0.5)])
    shaped = shape_rewards(variant, rewards, lengths, lengths == 20, 20)
    assert shaped.tolist() == [[0.5, -1.5, 0.5]]


def test_shapings_are_applied_in_order() -> None:
    rewards, lengths = torch.zeros(1, 1), torch.tensor([[20]])
    variant = variant_of(shaping=[soft_overlong.using(penalty=1.0), soft_overlong.using(penalty=0.25)])
    assert shape_rewards(variant, rewards, lengths, lengths == 20, 20).item() == -1.25


@pytest.mark.parametrize("truncated", ["keep", "mask"])
def test_truncated_responses_leave_the_loss_and_stay_in_the_statistics(truncated: str) -> None:
    batch = Batch.of([[1.0, 0.0]], lengths=[[2, 3]], truncated=torch.tensor([[False, True]]))
    shaped = shape(variant_of(truncated=truncated), batch)
    assert shaped.mask.sum(-1).tolist() == [[2, 3 if truncated == "keep" else 0]]
    assert shaped.lengths.tolist() == [[2, 3]]
    assert shaped.rewards.tolist() == [[1, 0]]
    assert group_mean(shaped).tolist() == [[0.5, -0.5]]


def test_filters_read_the_verdict_after_shaping(embedded: Policy, zero_if_odd: Part) -> None:
    """A length penalty gives every group spread; groups without a correct response are dropped all the same."""
    shaping = (soft_overlong.using(buffer=1.0, penalty=5.0),)
    recipe = recipe_of("dapo", generator=Parrot(), rewards=(zero_if_odd,), max_tokens=3)
    variant = replace(recipe.variant, shaping=shaping, filter=nonuniform, filter_rounds=1)
    run = run_of(embedded, replace(recipe, variant=variant))
    rollout = roll_out(run, 1)
    assert rollout.batch is not None
    assert all(is_odd(problem) for problem in rollout.batch.problems)
    assert not rollout.batch.no_spread.any()
    assert rollout.first_round.no_spread.sum() == P - rollout.batch.groups


# recipes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train.group_size = 1", r"train\.group_size = 1, but advantage 'group_mean_std' of variant 'grpo'.*from 2"),
        ("train.variant = @grpo", r"train\.variant = @grpo: must be a variant, with brackets: @grpo\(\)"),
        ("train.steps = 0", r"train\.steps = 0: must be a whole number from 1 up"),
        ("train.temperature = 0.0", r"train\.temperature = 0\.0: must be a number above 0"),
        ("train.minibatches = 5", r"train\.minibatches = 5 is more than the 4 groups"),
        ("train.reward_weights = [1.0, 2.0]", "1 functions, train.reward_weights 2 weights"),
        (
            "train.rewards = [@clip]",
            r"train\.rewards = \[@clip\]: must be a list of registered rewards, one of @code",
        ),
        ("chain_sums.min_terms = 9", "chain_sums.min_terms = 9 is more than chain_sums.max_terms = 6"),
        (
            "train.variant = @ppo()\nppo.kl_coef = 0.1\nppo.kl_target = 1.0\nppo.kl_horizon = 2",
            r"'ppo'.*kl_horizon=2 and 12 responses.*could fall to 0",
        ),
        (
            "train.variant = @sft()\ntrain.source = @worked_solutions()\ntrain.group_size = 4",
            r"train\.group_size = 4, but train\.source has 1 responses.*bind train\.group_size = 1",
        ),
        (
            "train.variant = @sft()\ntrain.source = @worked_solutions()\ntrain.group_size = 1\ntrain.token_budget = 9",
            r"train\.token_budget = 9, but with train\.source.*train\.seconds_budget",
        ),
    ],
)
def test_recipes_that_cannot_work_are_refused(line: str, message: str) -> None:
    with pytest.raises(GrpoLabError, match=message), config(text=SETTING + "train.variant = @grpo()\n" + line + "\n"):
        SETTINGS["train"]()


def test_a_recipe_fixes_every_value_that_was_bound() -> None:
    with config(
        text=SETTING + "train.variant = @dapo()\ndapo.eps_high = 0.5\nclip.eps_low = 9\nsoft_overlong.buffer = 0.5\n"
    ):
        recipe: Recipe = SETTINGS["train"]()
    card = recipe.variant.card()
    assert card["clip"] == "1 - 0.2 to 1 + 0.5"
    assert card["shaping"] == "soft_overlong(buffer=0.5, penalty=0.5)"
    assert recipe.rewards == (REWARDS["final_digit"].resolved(),)
    assert recipe.updates == 1


def test_problems_are_a_pure_function_and_splits_are_disjoint() -> None:
    task = TASKS["chain_sums"]()
    assert task.problem("train", 3, 7) == task.problem("train", 3, 7)
    questions = {s: {task.problem(s, 0, i).prompt for i in range(300)} for s in ("train", "tune", *task.suites)}
    names = list(questions)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert not questions[one] & questions[other], (one, other)
    for i in range(50):
        problem = task.problem("test", 0, i)
        assert int(problem.answer) == sum(map(int, str(problem.prompt).rstrip("=").split("+"))) % 10
    with pytest.raises(GrpoLabError, match="no split 'dev'; it has: train, tune, test, test_long"):
        task.problem("dev", 0, 0)


# what does not fit, and what teaches nothing


def test_a_problem_that_does_not_fit_is_passed_over_alike_in_all_arms(tiny: Policy) -> None:
    """For the first of its slot's own stream that does; those that fit are what they were."""
    recipes = [recipe_of(name, generator=Parrot(), prompts=12) for name in ("grpo", "dapo")]
    roomy = [p.prompt for p in draw_problems(run_of(tiny, recipes[0]), 1, 0)]
    lengths = [len(tiny.tokens(p)) for p in draw_problems(run_of(tiny, recipes[0]), 1, 0)]
    assert min(lengths) < max(lengths)
    tiny.context = max(lengths) - 1 + recipes[0].max_tokens
    runs = [run_of(tiny, recipe) for recipe in recipes]
    first, second = ([p.prompt for p in draw_problems(run, 1, 0)] for run in runs)
    assert first == second
    assert all(len(tiny.tokens(p)) < max(lengths) for p in draw_problems(run_of(tiny, recipes[0]), 1, 0))
    kept = [mine == before for mine, before in zip(first, roomy, strict=True)]
    assert kept == [length < max(lengths) for length in lengths]
    assert runs[0].skipped_prompts == runs[1].skipped_prompts >= kept.count(False) > 0


def test_where_no_problem_fits_an_error_is_raised(tiny: Policy) -> None:
    tiny.context = 25
    with pytest.raises(GrpoLabError, match=r"100 training problems in a row do not fit .* between 1 and 1 to fit the"):
        draw_problems(run_of(tiny, recipe_of("grpo")), 1, 0)


def scoring(*values: Score | float) -> Callable[[Problem, str], Score | float]:
    def scores_by_length_in_a_rollout_test(problem: Problem, response: str) -> Score | float:
        """The parrot's responses differ by their length."""
        return values[len(response) - 1]

    return scores_by_length_in_a_rollout_test


@pytest.mark.parametrize(
    ("values", "kind", "says"),
    [
        # rewards that differ and never reach 1 are no verdicts
        ((0.5, 0.0, 0.0), GrpoLabError, "highest reward was 0.5, and rewards differ .* counts as correct from 1 up"),
        ((0.0, 0.0, 0.0), TrainingError, "highest reward was 0, and all responses to a question are rewarded alike"),
        ((1.0, 1.0, 1.0), GrpoLabError, "highest reward was 1, and every response was right: .* nothing left to learn"),
    ],
)
def test_a_filter_that_passes_nothing_from_the_first_step_on_ends_the_run(
    embedded: Policy, values: tuple[float, ...], kind: type[Exception], says: str
) -> None:
    part = reward(scoring(*values))
    run = run_of(embedded, recipe_of("dapo", generator=Parrot(), rewards=(part,), steps=3))
    for step in (1, 2):
        rollout = roll_out(run, step)
        record = step_record(step, rollout, None, UpdateMetrics({}))
        assert "the filter passed no group, so nothing is trained on" in record["alarm"]
    # a run that goes on knows of it
    resumed = run_of(embedded, run.recipe)
    resumed.load_state_dict(run.state_dict())
    with pytest.raises(kind, match=rf"filter 'nonuniform' has passed no group in the first 3 steps.*{says}") as caught:
        roll_out(resumed, 3)
    assert type(caught.value) is kind


def test_once_something_was_learnt_a_filter_may_pass_nothing(embedded: Policy) -> None:
    """The policy may have learnt all there is."""
    part = reward(scoring(1.0, 0.0, 0.0))
    run = run_of(embedded, recipe_of("dapo", generator=Parrot(), rewards=(part,), steps=3))
    assert roll_out(run, 1).batch is not None
    run.recipe = replace(run.recipe, variant=replace(run.recipe.variant, filter=none_passes()))
    for step in (2, 3):
        assert roll_out(run, step).batch is None


def none_passes() -> Part:
    @filter
    def passes_none_in_a_rollout_test(batch: Batch) -> torch.Tensor:
        """Nothing."""
        return torch.zeros(batch.groups, dtype=torch.bool)

    return passes_none_in_a_rollout_test


@dataclass(frozen=True, eq=False)
class Far(Generation):
    """Responses on a device: nothing of them can be read before they have come from there."""

    def to(self, device: torch.device | str) -> Generation:
        assert str(device) == "cpu"
        assert self.near is not None
        return self.near

    near: Generation | None = None


def test_responses_come_to_the_cpu_before_anything_reads_them(embedded: Policy) -> None:
    parrot = Parrot()

    class FarParrot:
        def generate(self, policy: Policy, requests: Sequence[Request]) -> list[Generation]:
            return [
                Far(**{name: x.to("meta") for name, x in vars(near).items() if x is not None}, near=near)
                for near in parrot.generate(policy, requests)
            ]

    rollout = roll_out(run_of(embedded, recipe_of("grpo", generator=FarParrot())), 1)
    assert rollout.batch is not None
    assert {x.device.type for x in rollout.batch.tensors().values()} == {"cpu"}
    assert rollout.sampled.texts[0] == ("0", "11", "222")


@pytest.mark.parametrize("holds_weights", [False, True])
def test_weights_are_gathered_while_the_policy_samples_and_not_while_a_copy_does(
    holds_weights: bool, embedded: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered: list[Policy] = []

    @contextmanager
    def unsharded(policy: Policy) -> Iterator[None]:
        gathered.append(policy)
        yield

    monkeypatch.setattr(Policy, "unsharded", unsharded)
    parrot: Any = Parrot()
    parrot.holds_weights = holds_weights
    roll_out(run_of(embedded, recipe_of("grpo", generator=parrot)), 1)
    assert bool(gathered) != holds_weights
    assert vllm().holds_weights
