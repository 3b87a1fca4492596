"""Selections, credit and corrections in the loop's own steps, on a model."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core import Batch, Problem, credit, objective, reward
from core.loop.clock import Clock
from core.loop.learn import Learned, learn
from core.loop.recipe import Recipe
from core.loop.rollout import roll_out
from core.loop.run_state import RunState
from core.loop.update import compute_entropy, compute_logps
from core.parts.registry import config
from estimators.aggregators import seq_mean_token_mean
from estimators.credit import advantage_clip
from estimators.rejections import rejection
from estimators.selections import gfpo
from experiments.study.configs import CONFIGS, build

P, G = 3, 4


@pytest.fixture
def state(tiny_folder: Path) -> Callable[..., RunState]:
    """A run before its first step, whose variant has these fields; longer responses are worth more."""

    @reward
    def long(problem: Problem, response: str) -> float:
        """Characters."""
        return float(len(response))

    def make(*bindings: str, **more: object) -> RunState:
        tiny = [f"policy.model = '{tiny_folder}'", f"train.prompts = {P}", f"train.group_size = {G}"]
        tiny += ["train.max_tokens = 6", "train.rewards = [@long]", "evaluation.questions = 2"]
        with config([CONFIGS / "embedded.gin"], [*tiny, *bindings]):
            recipe: Recipe = build("train")
        return RunState.start(replace(recipe, variant=replace(recipe.variant, **more)), 0, "cpu")  # type: ignore[arg-type]

    return make


def one_step(run: RunState) -> tuple[Batch, Learned]:
    batch = roll_out(run, 1).batch
    assert batch is not None
    return batch, learn(run, batch, Clock())


@pytest.mark.parametrize("statistics", ["after", "before"])
def test_what_is_chosen_is_what_is_trained_on(state: Callable[..., RunState], statistics: str) -> None:
    sampled, learned = one_step(state(selection=gfpo.using(k=2), statistics=statistics))
    assert learned.batch is not None
    assert learned.advantages is not None
    assert learned.batch.rewards.shape == (P, 2)
    shortest = sampled.lengths.sort(1).values[:, :2]
    assert learned.batch.lengths.sort(1).values.equal(shortest)
    moved = learned.advantages[..., 0].ne(0)
    assert learned.metrics.trained_tokens == int(learned.batch.lengths[moved].sum())
    if statistics == "after":
        assert learned.advantages[..., 0].sum(1).abs().max() < 1e-5


def test_a_group_has_as_many_as_are_to_be_chosen(tiny_folder: Path) -> None:
    """Said when the recipe is built, where the selection has a `k`."""
    from core import VARIANTS, Variant, variant
    from core.errors import GrpoLabError

    @variant
    def chooses_nine() -> Variant:
        """GRPO of nine responses."""
        plain: Variant = VARIANTS["grpo"]()
        return replace(plain, selection=gfpo.using(k=9))

    with (
        config([CONFIGS / "embedded.gin"], ["train.variant = @chooses_nine()", "train.group_size = 8"]),
        pytest.raises(GrpoLabError, match=r"train.group_size = 8, but selection gfpo\(k=9.*is to choose 9 of them"),
    ):
        build("train")


def test_credit_is_given_part_after_part(state: Callable[..., RunState]) -> None:
    @credit(needs=("behaviour_entropy",))
    def tenfold(batch: Batch, advantages: Tensor) -> Tensor:
        """Ten times the advantage where the sampler had a choice at all."""
        return torch.where(batch.require("behaviour_entropy") > 0, 10 * advantages, advantages)

    clipped = advantage_clip.using(low=-2.0, high=2.0)
    for chain, most in (((tenfold, clipped), 2.0), ((clipped, tenfold), 20.0)):
        _, learned = one_step(state(credit=chain))
        assert learned.advantages is not None
        largest = float(learned.advantages.abs().max())
        assert largest <= most
        assert largest > 2 or most == 2


def test_what_is_prepared_may_rest_on_entropies(state: Callable[..., RunState]) -> None:
    def share(entropy: Tensor, mask: Tensor) -> Tensor:
        return entropy / entropy[mask].sum()

    @objective(prepare=share)
    def by_entropy(logps: Tensor, advantages: Tensor, prepared: Tensor) -> Tensor:
        """Tokens weigh what they have of all entropy."""
        return -logps * advantages * prepared

    run = state("train.micro_tokens = 20", objective=by_entropy)
    batch = roll_out(run, 1).batch
    assert batch is not None
    passes = {"temperature": 1.0, "micro_tokens": 10**6}
    logps, entropy = (f(run.policy, batch, **passes) for f in (compute_logps, compute_entropy))  # type: ignore[arg-type]
    torch.testing.assert_close(
        entropy[batch.mask], batch.require("behaviour_entropy")[batch.mask], rtol=1e-4, atol=1e-5
    )
    learned = learn(run, batch, Clock())
    assert learned.advantages is not None
    weights = seq_mean_token_mean(batch.rows("mask")).view(batch.mask.shape)
    by_hand = -weights * logps * learned.advantages * entropy / entropy[batch.mask].sum()
    expected = by_hand[batch.mask].sum()
    assert learned.metrics.sums["loss"] == pytest.approx(float(expected), rel=1e-4)


def test_a_step_of_which_nothing_is_kept_is_skipped(state: Callable[..., RunState]) -> None:
    """The sampler's and the trainer's log-probabilities differ in rounding: a bound of 1 takes most of them out."""
    run = state(correction=rejection)
    batch = roll_out(run, 1).batch
    assert batch is not None
    stale = batch.having(behaviour_logps=batch.require("behaviour_logps") - math.log(3))
    before = {name: x.clone() for name, x in run.policy.model.state_dict().items()}
    learned = learn(run, stale, Clock())
    averages = learned.metrics.averages()
    assert averages["correction_dropped"] == 1
    assert (learned.metrics.trained_tokens, learned.metrics.skipped, run.policy.version) == (0, 1, 0)
    assert all(x.equal(before[name]) for name, x in run.policy.model.state_dict().items())
    # within the bound all stay
    kept = learn(run, batch, Clock()).metrics
    assert kept.averages()["correction_dropped"] == 0
    assert kept.skipped == 0
