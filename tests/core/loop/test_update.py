"""The update: what parts are handed and when, KL in the reward, minibatches, and metrics that are always numbers."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

import core.loop.train  # noqa: F401 - registers settings, tasks and the generator
from core import SETTINGS, Batch, GrpoLabError, TokenLoss, Variant, advantage, objective
from core.loop.loss import compute_advantages, kl_in_reward
from core.loop.recipe import Recipe
from core.loop.run_state import RunState
from core.loop.update import UpdateMetrics, accumulate_gradients, compute_logps, update
from core.model.optimizer import Optimizer
from core.model.policy import Policy
from core.parts.registry import config
from estimators.advantages.group import group_mean, group_mean_std, leave_one_out
from estimators.aggregators import seq_mean_token_mean, token_mean
from estimators.kl import k1, k3
from estimators.objectives.token import clip, policy_gradient

MakeBatch: TypeAlias = Callable[..., Batch]


def variant_of(**more: Any) -> Variant:
    return Variant(**({"advantage": group_mean, "objective": clip, "aggregator": token_mean} | more))


def step(
    policy: Policy, variant: Variant, batch: Batch, advantages: Tensor, micro: int = 17
) -> tuple[float | None, Tensor]:
    """Loss and the gradient of all weights in one row."""
    policy.model.zero_grad()
    loss = accumulate_gradients(
        policy,
        variant,
        batch,
        advantages,
        torch.Generator().manual_seed(0),
        UpdateMetrics({}),
        temperature=1.0,
        micro_tokens=micro,
        backward=torch.autograd.backward,
    )
    return loss, torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])


def with_logps(policy: Policy, make_batch: MakeBatch, **more: Any) -> tuple[Batch, Tensor]:
    batch = make_batch(**more)
    batch = batch.having(old_logps=compute_logps(policy, batch, temperature=1.0, micro_tokens=10**9) - 0.1)
    return batch, group_mean(batch)[..., None].expand(batch.mask.shape)


# what an objective is handed


def test_an_objective_is_handed_what_it_names(tiny: Policy, make_batch: MakeBatch) -> None:
    batch, advantages = with_logps(tiny, make_batch)
    handed: dict[str, Tensor] = {}

    @objective
    def collector_in_a_test(
        logps: Tensor,
        behaviour_logps: Tensor,
        values: Tensor,
        lengths: Tensor,
        truncated: Tensor,
        rewards: Tensor,
        entropy: Tensor,
        mask: Tensor,
    ) -> Tensor:
        """Takes note."""
        handed.update(
            behaviour=behaviour_logps,
            values=values,
            lengths=lengths,
            truncated=truncated,
            rewards=rewards,
            entropy=entropy,
            mask=mask,
        )
        return logps * 0

    step(tiny, variant_of(objective=collector_in_a_test), batch, advantages, 10**9)
    assert torch.equal(
        handed["behaviour"], batch.rows("behaviour_logps").where(batch.rows("mask"), handed["behaviour"])
    )
    assert handed["lengths"].tolist() == batch.lengths.flatten().tolist()
    assert handed["rewards"].tolist() == batch.rewards.flatten().tolist()
    assert handed["truncated"].shape == (12,)
    assert handed["entropy"].shape == handed["mask"].shape == handed["values"].shape == (12, 8)
    assert handed["entropy"][handed["mask"]].min() > 0


def test_a_group_objective_sees_whole_groups(tiny: Policy, make_batch: MakeBatch) -> None:
    """Written group-wise, the clipped surrogate is what it is row-wise, however small the micro-batches."""

    @objective(level="group")
    def clip_by_group_in_a_test(
        logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, rewards: Tensor
    ) -> TokenLoss:
        """The same formula on [P, G, T]."""
        assert logps.shape[1:] == (4, 8)
        assert rewards.shape == logps.shape[:2]
        centred = (rewards - rewards.mean(1, keepdim=True))[..., None]
        torch.testing.assert_close(advantages[mask], centred.expand_as(advantages)[mask])
        ratio = torch.exp(logps - old_logps)
        return TokenLoss(-torch.minimum(ratio * centred, ratio.clamp(0.8, 1.2) * centred), {"ratio": ratio})

    batch, advantages = with_logps(tiny, make_batch)
    expected = step(tiny, variant_of(), batch, advantages)
    for micro in (1, 40, 10**9):
        actual = step(tiny, variant_of(objective=clip_by_group_in_a_test), batch, advantages, micro)
        assert actual[0] == pytest.approx(expected[0], rel=1e-5)
        torch.testing.assert_close(actual[1], expected[1], rtol=1e-4, atol=1e-6)


def test_preparation_sees_all_rows_once_and_comes_back_by_row(tiny: Policy, make_batch: MakeBatch) -> None:
    """The longest-shot tokens of the whole step get no loss: which they are depends on no split."""
    shapes = []

    def rarest(logps: Tensor, advantages: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        shapes.append(tuple(logps.shape))
        assert not logps.requires_grad
        threshold = logps[mask].quantile(0.3) + 0 * torch.rand(1, generator=generator)
        return (logps > threshold).float()

    @objective(prepare=rarest)
    def without_the_rarest_in_a_test(logps: Tensor, advantages: Tensor, prepared: Tensor) -> Tensor:
        """Weighted log-probabilities of the others."""
        return -advantages * logps * prepared

    batch, advantages = with_logps(tiny, make_batch)
    steps = [
        step(tiny, variant_of(objective=without_the_rarest_in_a_test), batch, advantages, m) for m in (1, 30, 10**9)
    ]
    assert shapes == [(12, 8)] * 3
    for loss, gradient in steps[:-1]:
        assert loss == pytest.approx(steps[-1][0], rel=1e-5)
        torch.testing.assert_close(gradient, steps[-1][1], rtol=1e-4, atol=1e-6)
    plain = step(tiny, variant_of(objective=policy_gradient), batch, advantages)
    assert steps[0][0] != pytest.approx(plain[0], rel=1e-2)


# advantages


def returning(value: Any) -> Callable[[Batch], Any]:
    def misbehaving_in_a_test(batch: Batch) -> Any:
        """Whatever it is given."""
        return value

    return misbehaving_in_a_test


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(3), r"returned \[3\]: must be \[P, G\] or \[P, G, T\] = \[1, 2, 1\]"),
        (torch.zeros(2, 1), r"returned \[2, 1\]"),
        (None, "returned NoneType"),
        (torch.tensor([[math.nan, 0.0]]), "returned NaN or infinite values"),
        (torch.tensor([[math.inf, 0.0]]), "returned NaN or infinite values"),
    ],
)
def test_what_an_estimator_returns_is_checked(value: Any, message: str) -> None:
    part = advantage(returning(value))
    with pytest.raises(GrpoLabError, match=message) as refused:
        compute_advantages(variant_of(advantage=part), Batch.of([[1.0, 0.0]]), None)
    assert "'misbehaving_in_a_test'" in str(refused.value)
    assert __file__ in str(refused.value)


def test_advantages_carry_no_gradient_even_from_an_estimator_that_keeps_one() -> None:
    batch = Batch.of([[1.0, 0.0]], lengths=[[2, 3]])
    part = advantage(returning(torch.ones(1, 2).double().requires_grad_() * 2))
    advantages, _ = compute_advantages(variant_of(advantage=part), batch, None)
    assert not advantages.requires_grad
    assert advantages.dtype == torch.float32
    assert advantages.tolist() == [[[2, 2, 2], [2, 2, 2]]]


def test_a_running_estimator_hands_its_state_on() -> None:
    @advantage(state=lambda: 0.0, min_group=1)
    def running_mean_in_a_test(batch: Batch, state: float, *, keep: float = 0.5) -> tuple[Tensor, float]:
        """Reward minus a running mean."""
        return batch.rewards - state, keep * state + (1 - keep) * float(batch.rewards.mean())

    variant, state, seen = variant_of(advantage=running_mean_in_a_test), 0.0, []
    for reward in (1.0, 1.0, 1.0):
        advantages, state = compute_advantages(variant, Batch.of([[reward]]), state)
        seen.append(advantages.item())
    assert seen == [1, 0.5, 0.25]


# KL in the reward


def kl_batch() -> Batch:
    mask = torch.tensor([[[True, True], [True, False]]])
    old = torch.tensor([[[-1.0, -2.0], [-3.0, math.nan]]])
    ref = torch.tensor([[[-1.5, -1.0], [-2.0, math.nan]]])
    return Batch.of([[1.0, 0.0]], mask, old_logps=old, ref_logps=ref)


def test_kl_in_the_reward_by_hand() -> None:
    """k1 is 0.5 and -1 in the first response, -1 in the second; a tenth of it comes off the reward."""
    batch = kl_in_reward(variant_of(kl=k1, kl_coef=0.1, kl_place="reward"), kl_batch())
    assert batch.require("kl_rewards").flatten().tolist() == pytest.approx([-0.05, 0.1, 0.1, 0])
    assert batch.rewards[0].tolist() == pytest.approx([1.05, 0.1])


def test_kl_is_charged_for_counted_tokens_only() -> None:
    """What stands in a hole is not the policy's, and a response taken out of the loss is taken out whole."""
    batch = kl_batch()
    mask = torch.tensor([[[True, False], [False, False]]])
    paid = kl_in_reward(variant_of(kl=k1, kl_coef=0.1, kl_place="reward"), batch.having(mask=mask))
    assert paid.require("kl_rewards").flatten().tolist() == pytest.approx([-0.05, 0, 0, 0])
    assert paid.rewards[0].tolist() == pytest.approx([0.95, 0])


@pytest.mark.parametrize("more", [{}, {"kl": k1, "kl_place": "reward"}, {"kl": k3, "kl_coef": 0.1}])
def test_elsewhere_rewards_are_left_alone(more: dict[str, Any]) -> None:
    batch = Batch.of([[1.0, 0.0]])
    assert kl_in_reward(variant_of(**more), batch) is batch


def test_equal_policies_pay_nothing() -> None:
    batch = kl_batch()
    batch = kl_in_reward(variant_of(kl=k1, kl_coef=0.1, kl_place="reward"), batch.having(ref_logps=batch.old_logps))
    assert batch.rewards.tolist() == [[1, 0]]


def test_kl_in_the_reward_enters_a_linear_baseline_linearly() -> None:
    """A(r - b KL) = A(r) - b A(KL) for leave-one-out and the centred reward, not once divided by the std."""
    batch = kl_batch()
    paid = kl_in_reward(variant_of(kl=k1, kl_coef=0.1, kl_place="reward"), batch)
    divergence = batch.having(rewards=torch.tensor([[-0.5, -1.0]]))
    for part in (leave_one_out, group_mean):
        torch.testing.assert_close(part(paid), part(batch) - 0.1 * part(divergence))
    broken = group_mean_std(batch) - 0.1 * group_mean_std(divergence)
    assert not torch.allclose(group_mean_std(paid), broken, atol=1e-2)


# a policy on another device


@dataclass
class Elsewhere:
    """A policy that takes token ids on its own device alone, and whose answers have to be fetched from there."""

    policy: Policy
    device: torch.device = field(default_factory=lambda: torch.device("meta"))
    version: int = 0

    def logps(self, prompts: list[Tensor], responses: list[Tensor], owner: list[int], **options: Any) -> Any:
        """What the policy says of the batch's own tokens, here in place of those on the device."""
        assert all(ids.device == self.device for ids in [*prompts, *responses])
        near = [torch.zeros(len(ids), dtype=torch.long) for ids in (*prompts, *responses)]
        logps, entropy = self.policy.logps(near[: len(prompts)], near[len(prompts) :], owner, **options)
        return SimpleNamespace(cpu=lambda: logps), None if entropy is None else SimpleNamespace(cpu=lambda: entropy)


def test_token_ids_go_to_the_policys_device_and_log_probs_come_back(tiny: Policy, make_batch: MakeBatch) -> None:
    batch, far = make_batch(), Elsewhere(tiny)
    zeros = batch.having(
        prompt_tokens=tuple(map(torch.zeros_like, batch.prompt_tokens)),
        response_tokens=torch.zeros_like(batch.require("response_tokens")),
    )
    at: dict[str, Any] = {"temperature": 1.0, "micro_tokens": 17}
    near = compute_logps(tiny, zeros, **at)
    assert torch.equal(compute_logps(far, batch, **at), near)  # type: ignore[arg-type]
    # the loss is made of what came back, and its gradient is the policy's
    variant, advantages = variant_of(entropy_coef=0.1), group_mean(batch)[..., None].expand(batch.mask.shape)
    expected = step(tiny, variant, zeros, advantages)
    far.model = tiny.model  # type: ignore[attr-defined]
    actual = step(far, variant, batch, advantages)  # type: ignore[arg-type]
    assert actual[0] == expected[0]
    assert torch.equal(actual[1], expected[1])


# optimizer steps


def run_of(policy: Policy, seed: int = 0, **changes: Any) -> RunState:
    text = (
        "train.variant = @grpo()\ntrain.task = @chain_sums()\ntrain.generator = @native()\nadamw.learning_rate = 0.01\n"
    )
    with config(text=text):
        recipe: Recipe = SETTINGS["train"]()
    return RunState(replace(recipe, **changes), seed, policy)


def optimizer_of(run: RunState) -> Optimizer:
    return Optimizer(run.policy.model.parameters(), run.recipe.optimizer)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The groups of every optimizer step, as `optimizer_step` is handed them."""
    from core.loop import update as module

    taken: list[tuple[int, ...]] = []

    def record(run: RunState, optimizer: Optimizer, batch: Batch, advantages: Tensor, *_: Any) -> None:
        assert torch.equal(advantages[:, 0, 0], batch.prompt_ids.float())
        taken.append(tuple(batch.prompt_ids.tolist()))

    monkeypatch.setattr(module, "optimizer_step", record)
    return taken


def groups(make_batch: MakeBatch, number: int) -> tuple[Batch, Tensor]:
    batch = make_batch(number)
    return batch, batch.prompt_ids.float()[:, None, None].expand(batch.mask.shape)


def test_minibatches_keep_groups_whole_and_take_each_once_an_epoch(
    tiny: Policy, make_batch: MakeBatch, steps: list[tuple[int, ...]]
) -> None:
    batch, advantages = groups(make_batch, 7)
    run = run_of(tiny, epochs=2, minibatches=3)
    update(run, optimizer_of(run), batch, advantages, 0.1)
    assert [len(taken) for taken in steps] == [3, 2, 2] * 2
    for epoch in (steps[:3], steps[3:]):
        assert sorted(g for taken in epoch for g in taken) == list(range(7))
    assert steps[:3] != steps[3:]
    before = list(steps)
    steps.clear()
    update(run, optimizer_of(run), batch, advantages, 0.1)
    assert steps == before
    steps.clear()
    update(run, optimizer_of(run), batch.having(step=1), advantages, 0.1)
    assert steps != before


def test_a_single_minibatch_is_taken_in_order(
    tiny: Policy, make_batch: MakeBatch, steps: list[tuple[int, ...]]
) -> None:
    batch, advantages = groups(make_batch, 4)
    run = run_of(tiny)
    update(run, optimizer_of(run), batch, advantages, 0.1)
    assert steps == [(0, 1, 2, 3)]


def test_fewer_groups_than_minibatches_make_fewer_steps(
    tiny: Policy, make_batch: MakeBatch, steps: list[tuple[int, ...]]
) -> None:
    batch, advantages = groups(make_batch, 2)
    run = run_of(tiny, minibatches=4)
    update(run, optimizer_of(run), batch, advantages, 0.1)
    assert sorted(steps) == [(0,), (1,)]


def weights(policy: Policy) -> Tensor:
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()])


def test_an_update_moves_the_weights_and_reports_it(tiny: Policy, make_batch: MakeBatch) -> None:
    batch, advantages = with_logps(tiny, make_batch)
    run, before = run_of(tiny), weights(tiny)
    metrics = update(run, optimizer_of(run), batch, advantages, 0.01)
    assert not torch.equal(weights(tiny), before)
    assert (metrics.steps, metrics.skipped, metrics.trained_tokens) == (1, 0, int(batch.mask.sum()))
    averages = metrics.averages()
    assert averages["ratio"] == pytest.approx(math.exp(0.1), rel=1e-4)
    assert (averages["grad_norm"] or 0) > 0
    mismatch = (compute_logps_before(batch) - batch.require("behaviour_logps"))[batch.mask].abs().mean()
    assert averages["sampler_mismatch"] == pytest.approx(float(mismatch), rel=1e-4)


def compute_logps_before(batch: Batch) -> Tensor:
    return batch.require("old_logps") + 0.1


def test_a_step_without_a_counted_token_is_skipped_and_counted(tiny: Policy, make_batch: MakeBatch) -> None:
    batch, advantages = with_logps(tiny, make_batch)
    run, before = run_of(tiny), weights(tiny)
    metrics = update(run, optimizer_of(run), batch, torch.zeros_like(advantages), 0.01)
    assert torch.equal(weights(tiny), before)
    assert (metrics.steps, metrics.skipped, metrics.trained_tokens) == (1, 1, 0)
    json.dumps(metrics.averages(), allow_nan=False)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_skipped_and_does_not_end_the_run(
    tiny: Policy, make_batch: MakeBatch, bad: float
) -> None:
    """What is logged must stay valid JSON."""

    @objective
    def explosive_in_a_test(logps: Tensor, advantages: Tensor) -> Tensor:
        """Not finite."""
        return logps * bad

    batch, advantages = with_logps(tiny, make_batch)
    recipe = run_of(tiny).recipe
    variant = replace(recipe.variant, objective=explosive_in_a_test, aggregator=seq_mean_token_mean)
    run, before = run_of(tiny, variant=variant), weights(tiny)
    metrics = update(run, optimizer_of(run), batch, advantages, 0.01)
    assert torch.equal(weights(tiny), before)
    assert (metrics.steps, metrics.skipped) == (1, 1)
    json.dumps(metrics.averages(), allow_nan=False)


def test_per_token_metrics_are_means_over_counted_tokens() -> None:
    metrics = UpdateMetrics({"loss": 3.0, "ratio": 8.0, "ratio/count": 4, "kl": 0.0, "kl/count": 0}, steps=2)
    assert metrics.averages() == {"loss": 1.5, "ratio": 2.0, "kl": None}
