"""The critic: its values, its update beside the policy's, what it logs, and that it goes on where it was stopped."""

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from core import SETTINGS, VARIANTS, Batch, GrpoLabError, Variant, advantage
from core.loop.learn import fill
from core.loop.loss import adapted_coefficient, compute_advantages, next_kl_coef, value_targets
from core.loop.metrics import value_record
from core.loop.providers.critic import Critic, critic
from core.loop.recipe import Recipe
from core.loop.run_state import RunState, make_providers
from core.loop.train import Interrupted, run
from core.loop.update import compute_logps, update
from core.model.optimizer import Optimizer
from core.model.policy import Policy, PolicySettings, load_policy
from core.parts.options import ProviderOptions
from core.parts.registry import config
from core.store.run_folder import RunStore
from estimators.advantages.critic import gae
from estimators.aggregators import token_mean
from estimators.kl import k1
from estimators.objectives.token import clip
from estimators.values import clipped_squared_error, squared_error
from experiments.study.configs import CONFIGS

MakeBatch: TypeAlias = Callable[..., Batch]


def run_with(policy: Policy, *bindings: str) -> RunState:
    own = ["train.variant = @ppo()", "train.prompts = 3", "train.group_size = 4", *bindings]
    with config([CONFIGS / "embedded.gin"], own):
        recipe: Recipe = SETTINGS["train"]()
    return RunState(recipe, 0, Policy(copy.deepcopy(policy.model), policy.tokenizer))


def critic_of(current: RunState) -> Critic:
    critic = make_providers(current)["values"]
    assert isinstance(critic, Critic)
    return critic


def with_head(critic: Critic) -> Critic:
    """The critic with a head that is not 0 any more."""
    with torch.no_grad():
        draw = torch.Generator().manual_seed(3)
        critic._head.weight.copy_(torch.randn(critic._head.weight.shape, generator=draw))
        critic._head.bias.fill_(0.25)
    return critic


def naive_values(model: nn.Module, critic: Critic, batch: Batch) -> Tensor:
    """Values one response at a time, by transformers' own pass: the state before each token, through the head."""
    out = torch.zeros(batch.response_mask.shape)
    for p in range(batch.groups):
        for g in range(batch.group_size):
            response = batch.require("response_tokens")[p, g][batch.response_mask[p, g]]
            sequence = torch.cat([batch.prompt_tokens[p], response])
            states = model(input_ids=sequence[None], use_cache=False, output_hidden_states=True).hidden_states[-1][0]
            before = states[len(batch.prompt_tokens[p]) - 1 : -1]
            out[p, g, : len(response)] = critic._head(before)[:, 0]
    return out


def ready(current: RunState, batch: Batch, critic: Critic) -> tuple[Batch, Tensor]:
    """The batch with old log-probs, values, advantages and returns."""
    logps = compute_logps(current.policy, batch, temperature=1.0, micro_tokens=10**9)
    batch = fill(batch.having(old_logps=logps, step=1), {"values": critic})
    advantages, _ = compute_advantages(current.recipe.variant, batch, None)
    return value_targets(current.recipe.variant, batch), advantages


def test_values_are_those_of_the_states_before_each_token(tiny: Policy, make_batch: MakeBatch) -> None:
    current, batch = run_with(tiny, "train.micro_tokens = 20"), make_batch(holes=True)
    critic = critic_of(current)
    assert critic(batch).eq(0).all()  # before anything was learned
    values = with_head(critic)(batch)
    tiny.model.set_attn_implementation("eager")
    expected = naive_values(tiny.model, critic, batch)
    tiny.model.set_attn_implementation("grpo_lab_packed")
    torch.testing.assert_close(values, expected.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("micro", [12, 10**9])
def test_the_update_is_a_step_along_the_gradient_of_the_weighted_loss(
    tiny: Policy, make_batch: MakeBatch, micro: int
) -> None:
    """Against autograd on the naive values: head, trunk, and no change of the policy."""
    current = run_with(tiny, f"train.micro_tokens = {micro}", "critic.max_grad_norm = 1e9")
    critic = with_head(critic_of(current))
    batch, _ = ready(current, make_batch(holes=True), critic)
    model = copy.deepcopy(critic._trunk.model)
    model.set_attn_implementation("eager")
    head = copy.deepcopy(critic._head)
    reference = copy.copy(critic)
    reference._head = head
    losses = squared_error.function(naive_values(model, reference, batch), batch.require("returns"))
    (losses[batch.mask].mean()).backward()
    gathered: dict[str, Tensor] = {}
    step = critic._optimizer.step

    def spy(rate: float) -> float:
        gathered.update({name: p.grad.clone() for name, p in critic._trained.items() if p.grad is not None})
        return step(rate)

    critic._optimizer.step = spy  # type: ignore[method-assign]
    before = [p.detach().clone() for p in current.policy.model.parameters()]
    # where the values are still the old ones, the clipped loss is the plain one
    logged = critic.learn(batch, torch.autograd.backward)
    assert logged["value_loss"] == pytest.approx(float(losses[batch.mask].mean().detach()), rel=1e-4)
    torch.testing.assert_close(gathered["head.weight"], head.weight.grad, rtol=1e-3, atol=1e-4)
    expected = dict(model.base_model.named_parameters(prefix="trunk"))
    assert gathered.keys() == expected.keys() | {"head.weight", "head.bias"}
    for name, parameter in expected.items():
        assert parameter.grad is not None
        torch.testing.assert_close(gathered[name], parameter.grad, rtol=1e-3, atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(before, current.policy.model.parameters(), strict=True))


def test_a_shared_trunk_gets_both_gradients_and_a_frozen_one_none_of_the_critics(
    tiny: Policy, make_batch: MakeBatch
) -> None:
    """Without a policy gradient (learning rate of the head 0), what arrives at the policy is the value loss's alone."""
    gradients: dict[str, Tensor] = {}
    for name, more in {
        "frozen": ["critic.trunk = 'frozen'"],
        "tenth": ["critic.trunk = 'shared'", "critic.coefficient = 0.1"],
        "whole": ["critic.trunk = 'shared'", "critic.coefficient = 1.0"],
    }.items():
        current = run_with(tiny, *more, "critic.learning_rate = 0.0")
        critic = with_head(critic_of(current))
        batch, _ = ready(current, make_batch(), critic)
        critic.learn(batch, torch.autograd.backward)
        weights = list(current.policy.model.base_model.parameters())
        gradients[name] = torch.cat(
            [torch.zeros_like(w).flatten() if w.grad is None else w.grad.flatten() for w in weights]
        )
    assert gradients["frozen"].eq(0).all()
    assert gradients["whole"].ne(0).any()
    torch.testing.assert_close(gradients["tenth"], 0.1 * gradients["whole"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("trunk", ["own", "shared", "frozen"])
def test_every_update_of_the_policy_is_one_of_the_critic(tiny: Policy, make_batch: MakeBatch, trunk: str) -> None:
    current = run_with(
        tiny, f"critic.trunk = '{trunk}'", "train.epochs = 2", "train.minibatches = 3", "critic.learning_rate = 0.05"
    )
    critic = critic_of(current)
    batch, advantages = ready(current, make_batch(), critic)
    optimizer = Optimizer(current.policy.model.parameters(), current.recipe.optimizer)
    error = float((batch.require("returns") - critic(batch))[batch.mask].square().mean())
    metrics = update(current, optimizer, batch, advantages, 0.0)
    assert metrics.steps == 6
    assert all(state["step"] == 6 for state in critic._optimizer.adam.state.values())
    assert metrics.averages()["value_loss"] is not None
    assert float((batch.require("returns") - critic(batch))[batch.mask].square().mean()) < error


def test_what_a_critic_logs_is_a_mean_over_its_own_updates(tiny: Policy, make_batch: MakeBatch) -> None:
    """Where no advantage differs from 0 the policy takes no step; the critic does, at a learning rate of 0."""
    current = run_with(tiny, "train.minibatches = 3", "critic.learning_rate = 0.0")
    critic = critic_of(current)
    batch, advantages = ready(current, make_batch(), critic)
    optimizer = Optimizer(current.policy.model.parameters(), current.recipe.optimizer)
    whole = update(current, optimizer, batch, advantages, 0.0).averages()["value_loss"]
    advantages = advantages.clone()
    advantages[0] = 0.0
    some = update(current, optimizer, batch, advantages, 0.0)
    assert (some.steps, some.skipped) == (3, 1)
    assert some.averages()["value_loss"] == pytest.approx(whole)
    none = update(current, optimizer, batch, torch.zeros_like(advantages), 0.0)
    assert none.averages()["value_loss"] == pytest.approx(whole)
    assert none.averages()["loss"] is None


def test_a_second_update_is_held_near_the_values_before_the_first(tiny: Policy, make_batch: MakeBatch) -> None:
    current = run_with(tiny, "critic.learning_rate = 0.05", "clipped_squared_error.clip = 0.01")
    critic = critic_of(current)
    batch, _ = ready(current, make_batch(), critic)
    critic.learn(batch, torch.autograd.backward)
    values, returns, old = critic(batch), batch.require("returns"), batch.require("values")
    held = clipped_squared_error.function(values, returns, old, clip=0.01)[batch.mask].mean()
    assert held > squared_error.function(values, returns)[batch.mask].mean()
    assert critic.learn(batch, torch.autograd.backward)["value_loss"] == pytest.approx(float(held), rel=1e-5)


def test_the_critic_warms_up_by_rollout_steps(tiny: Policy, make_batch: MakeBatch) -> None:
    current = run_with(tiny, "critic.learning_rate = 0.5", "critic.warmup_steps = 10")
    critic = critic_of(current)
    critic.learn(ready(current, make_batch(), critic)[0], torch.autograd.backward)
    assert critic._optimizer.adam.param_groups[0]["lr"] == pytest.approx(0.05)


def test_the_policy_takes_no_step_on_a_value_alone(tiny: Policy, make_batch: MakeBatch) -> None:
    """Where no advantage differs from 0, what a shared trunk got from the critic is discarded."""
    current = run_with(tiny, "critic.trunk = 'shared'")
    batch, advantages = ready(current, make_batch(), with_head(critic_of(current)))
    optimizer = Optimizer(current.policy.model.parameters(), current.recipe.optimizer)
    before = [p.detach().clone() for p in current.policy.model.parameters()]
    metrics = update(current, optimizer, batch, torch.zeros_like(advantages), 1.0)
    assert metrics.averages()["value_grad_norm"]
    weights = list(current.policy.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, weights, strict=True))
    assert all(weight.grad is None for weight in weights)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("model", [None, "embedded"])
def test_a_critic_of_its_own_saves_memory_as_the_policy_does(model: str | None) -> None:
    policy = load_policy(PolicySettings("embedded", gradient_checkpointing=True))
    bindings = ["policy.gradient_checkpointing = True", *([f"critic.model = {model!r}"] if model else [])]
    trunk = critic_of(run_with(policy, *bindings))._trunk.model
    layers = [layer for layer in trunk.modules() if isinstance(layer, GradientCheckpointingLayer)]
    assert layers
    assert all(layer.training and layer.gradient_checkpointing for layer in layers)


def test_what_is_logged_by_hand() -> None:
    """Two tokens each of values 0 and 1, whose returns are 0, 1 and 1, 2."""
    values, returns = torch.tensor([[[0.0, 0.0, 1.0, 1.0, 7.0]]]), torch.tensor([[[0.0, 1.0, 1.0, 2.0, -7.0]]])
    mask = torch.tensor([[[True, True, True, True, False]]])
    record = value_record(Batch.of([[0.0]], mask=mask, values=values, returns=returns))
    assert record["value_explained_variance"] == pytest.approx(0.5)  # 1 - 0.25 / 0.5
    assert record["value_bias"] == pytest.approx(-0.5)
    assert record["value_slope"] == pytest.approx(1.0)  # 0.25 / 0.25
    assert record["value_calibration_error"] == pytest.approx(0.5)
    # of eleven tokens two are in the first of ten bins, and only they are off, by 1
    eleven = torch.arange(11.0)[None, None]
    off = eleven + torch.tensor([1.0, 1.0, *[0.0] * 9])
    record = value_record(Batch.of([[0.0]], mask=torch.ones(1, 1, 11), values=eleven, returns=off))
    assert record["value_calibration_error"] == pytest.approx(2 / 11)
    # values that are all equal are right where the returns' mean is, in whatever order these come
    halves = torch.tensor([[[0.0, 0.0, 1.0, 1.0, -7.0]]])
    record = value_record(Batch.of([[0.0]], mask=mask, values=torch.full((1, 1, 5), 0.5), returns=halves))
    assert record["value_calibration_error"] == pytest.approx(0.0)
    constant = value_record(Batch.of([[1.0]], mask=mask, values=torch.ones(1, 1, 5), returns=torch.ones(1, 1, 5)))
    assert constant["value_explained_variance"] is constant["value_slope"] is None
    assert constant["value_bias"] == constant["value_calibration_error"] == 0.0


# whole runs

SMALL = (
    "train.steps = 4",
    "train.prompts = 4",
    "train.group_size = 4",
    "train.max_tokens = 20",
    "train.checkpoint_every = 2",
    "evaluation.every = 4",
    "evaluation.questions = 2",
    "ppo.kl_coef = 0.05",
    "train.minibatches = 2",
)


def trained(folder: Path, *bindings: str, stop_at: int = 0) -> Path:
    with config([CONFIGS / "embedded.gin"], [*SMALL, *bindings]):
        recipe: Recipe = SETTINGS["train"]()

    def watch(record: Mapping[str, Any]) -> None:
        if record["step"] == stop_at:
            raise Interrupted

    run(recipe, 1, RunStore(folder), facts={"identity": {}}, watch=watch)
    return folder


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) | {"seconds": 0} for line in (folder / "metrics.jsonl").read_text().splitlines()]


def final(folder: Path) -> str:
    digest: str = json.loads((folder / "manifest.json").read_text())["hashes"]["final_weights"]
    return digest


def test_a_critic_that_learns_nothing_makes_it_reinforce_pp(tmp_path: Path) -> None:
    """GAE with V = 0 and lambda = 1, whitened, is the whitened reward to go: bit for bit, over a whole run."""
    ours = trained(tmp_path / "ppo", "train.variant = @ppo()", "critic.learning_rate = 0.0")
    shared = tuple(binding for binding in SMALL if not binding.startswith("ppo."))
    with config(
        [CONFIGS / "embedded.gin"], [*shared, "train.variant = @reinforce_pp()", "reinforce_pp.kl_coef = 0.05"]
    ):
        recipe: Recipe = SETTINGS["train"]()
    run(recipe, 1, RunStore(tmp_path / "rpp"), facts={"identity": {}}, watch=lambda _: None)
    assert final(ours) == final(tmp_path / "rpp")
    learning = trained(tmp_path / "learning", "train.variant = @ppo()", "critic.learning_rate = 1e-3")
    assert final(learning) != final(ours)


@pytest.mark.parametrize("trunk", ["own", "shared", "frozen"])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, trunk: str) -> None:
    """Critic, its optimizer and the adapted KL coefficient included; stopped off a checkpoint's step as well."""
    own = (
        "train.variant = @ppo()",
        f"critic.trunk = '{trunk}'",
        "critic.learning_rate = 1e-3",
        "ppo.kl_target = 0.1",
        "ppo.kl_horizon = 100",
    )
    whole = trained(tmp_path / "whole", *own)
    with pytest.raises(Interrupted):
        trained(tmp_path / "stopped", *own, stop_at=3)
    stopped = trained(tmp_path / "stopped", *own)
    assert lines(stopped) == lines(whole)
    assert final(stopped) == final(whole)
    assert len({line["kl_coef"] for line in lines(whole)}) == 4
    assert lines(whole)[-1]["value_loss"] > 0


def test_the_coefficient_follows_the_divergence_of_responses() -> None:
    """0.3 and 0.1 nats in the two tokens of one response, 0 in the other's: 0.2 a response, the target is 0.1."""
    variant = Variant(
        advantage=gae,
        objective=clip,
        aggregator=token_mean,
        value_loss=squared_error,
        kl=k1,
        kl_coef=0.5,
        kl_place="reward",
        kl_target=0.1,
        kl_horizon=40,
    )
    penalty = -0.5 * torch.tensor([[[0.3, 0.1], [0.0, 0.0]]])
    batch = Batch.of([[1.0, 0.0]], lengths=[[2, 2]], kl_rewards=penalty, kl_coef=0.5)
    expected = adapted_coefficient(0.5, 0.2, target=0.1, horizon=40, samples=2)
    assert next_kl_coef(variant, batch) == pytest.approx(expected) == pytest.approx(0.505)
    assert next_kl_coef(VARIANTS["grpo"](), batch) == 0.0


# mistakes


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (
            ["grpo.advantage = @gae", "train.variant = @grpo()"],
            "'grpo' asks for a critic.*give the Variant a value_loss",
        ),
        (["critic.trunk = 'borrowed'"], "critic.trunk = 'borrowed': must be 'own', 'shared' or 'frozen'"),
        (["critic.trunk = 'shared'", "critic.model = 'embedded'"], "critic.model = 'embedded', but critic.trunk"),
        (["critic.coefficient = 0.0"], "critic.coefficient = 0.0: must be a number above 0"),
        (["critic.learning_rate = -1.0"], "critic.learning_rate = -1.0: must be a number from 0 up"),
        (["critic.schedule = 'lineal'"], "critic.schedule = 'lineal'"),
        (["critic.model = 'islanders'"], "critic.model = 'islanders' has another tokenizer"),
    ],
)
def test_mistakes_are_named(tiny: Policy, bindings: list[str], message: str) -> None:
    with pytest.raises(GrpoLabError, match=message):
        make_providers(run_with(tiny, *bindings))


def test_a_smaller_critic_reads_the_same_tokens(tiny: Policy, tiny_folder: Path, make_batch: MakeBatch) -> None:
    current = run_with(tiny, f"critic.model = '{tiny_folder}'")
    critic = with_head(critic_of(current))
    assert critic(make_batch()).ne(0).any()
    with pytest.raises(GrpoLabError, match="sharded"):
        critic.shard(torch.float32)


def test_an_estimator_defines_what_its_critic_predicts() -> None:
    def reward_itself(batch: Batch, *, scale: float = 1.0) -> Tensor:
        """The reward on every token."""
        return scale * batch.rewards[..., None].expand(batch.mask.shape)

    with pytest.raises(GrpoLabError, match="`target` has hyper-parameters that the estimator has not: scale"):

        @advantage(needs=("values",), target=reward_itself)
        def td_in_a_test(batch: Batch) -> Tensor:
            """Reward minus value."""
            return batch.rewards[..., None] - batch.require("values")


def test_the_provider_is_chosen_by_its_field() -> None:
    assert ProviderOptions.of(critic).fills == "values"
