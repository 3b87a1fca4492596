"""The training loop: one run of one recipe under one seed, read from top to bottom.

    sample -> score -> make_batch -> shape -> filter -> log-probs -> KL in reward -> advantages -> update -> metrics ->
    store

No phase knows a variant, a part, a task or a paradigm by name.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from accelerate import Accelerator
from torch import Tensor

from core.distributed import gather, init, is_main, ranks
from core.errors import GrpoLabError, TrainingError, cause_of, describe_error
from core.loop.evaluation import evaluate
from core.loop.loss import compute_advantages, kl_in_reward, next_kl_coef, value_targets
from core.loop.metrics import rollout_record, step_record
from core.loop.providers.shipped import Fill, fill, make_providers
from core.loop.recipe import Recipe
from core.loop.rollout import roll_out
from core.loop.run_state import RunState
from core.loop.update import UpdateMetrics, compute_logps, needs_old_logps, update
from core.model.loading import DTYPES
from core.model.optimizer import Stepper
from core.model.policy import Policy, load_policy
from core.model.sharding import configured_sharding, hash_weights
from core.parts.batch import Batch
from core.parts.options import AdvantageOptions
from core.randomness import key
from core.store.integrity import hash_tensors
from core.store.run_folder import (
    NonMainStore,
    RunStore,
)

Watch: TypeAlias = Callable[[Mapping[str, Any]], None]
"""Told of every step; raises `Interrupted` to stop the run at that point."""


class Interrupted(Exception):  # noqa: N818 - an event, not a mistake
    """The run was asked to stop; it can be resumed."""


def run(recipe: Recipe, seed: int, store: RunStore, *, facts: Mapping[str, Any], watch: Watch) -> None:
    """Train `recipe` under `seed`, from the last checkpoint in `store` if there is one.

    `facts` go into the manifest; `facts["identity"]` is what a resumed run must share with the one before. A run that
    fails or is interrupted says so in its manifest, and what it has written stays. Started in several processes, by
    torchrun or accelerate, each does its part of the same run, and the main one writes.
    """
    accelerator = init()
    if not is_main():
        store = NonMainStore(store.folder)
    with store.locked():
        store.recover()
        store.discard_broken(facts["identity"])
        store.sync_ranks()
        if store.is_finished:
            return
        store.check_identity(facts["identity"])
        said = recipe.preflight()
        store.check_data_identity({name: said[name] for name in recipe.data_identities if name in said})
        store.update_manifest(status="running", seed=seed, error=None, failure=None, **facts, rewards=said)
        try:
            _train(recipe, seed, store, watch, accelerator)
        except Interrupted:
            store.update_manifest(status="interrupted")
            raise
        except BaseException as error:
            with suppress(GrpoLabError):  # a full disk, say: the first error is the one to show
                store.update_manifest(status="failed", error=describe_error(error), failure=cause_of(error))
            raise


def _train(recipe: Recipe, seed: int, store: RunStore, watch: Watch, accelerator: Accelerator) -> None:
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(key(seed, "init"))
    sharding, settings = configured_sharding(), recipe.policy
    # shards are the float32 masters
    loaded = replace(settings, dtype="float32") if sharding else settings
    policy = load_policy(loaded, accelerator.device)
    current = RunState(recipe, seed, policy)
    providers = make_providers(current)
    if sharding:
        holders: list[Any] = [policy, *(p for p in providers.values() if hasattr(p, "shard"))]
        for holder in holders:
            holder.shard(sharding, DTYPES[settings.dtype])
    optimizer, spread = policy.optimizer(recipe.optimizer), policy.sharding
    advantage_state = AdvantageOptions.of(recipe.variant.advantage).first_state()
    initial_weights = hash_weights(policy.model)
    hashes: dict[str, Any] = {"initial_weights": initial_weights, "prompts": "", "first_rollout": ""}
    seconds_before = 0.0
    first_step = 1

    state = store.load_checkpoint()
    if state is not None:
        if ("shards" in state) != (spread is not None):
            was = "not sharded" if spread else "sharded"
            raise GrpoLabError(
                f"{store.folder} was started with weights {was}: resume it with the accelerate configuration it had"
            )
        if spread:
            spread.load(store.folder / "checkpoint" / state["shards"])
        else:
            policy.load(state["weights"])
            optimizer.load_state_dict(state["optimizer"])
        for field, provider in providers.items():
            if hasattr(provider, "load_state_dict"):
                provider.load_state_dict(state["providers"][field])
        current.load_state_dict(state["run"])
        advantage_state, hashes = state["advantage_state"], state["hashes"]
        seconds_before, first_step = state["seconds"], state["step"] + 1
        if hashes["initial_weights"] != initial_weights:
            raise GrpoLabError(f"{store.folder} was started from other weights than {recipe.policy.model!r} has now")
    store.rewind(state)
    started = time.perf_counter()

    if state is None:
        for evaluation in evaluate(current, 0):
            store.write_evaluation(evaluation)

    with blaming_divergence(current):
        for step in range(first_step, recipe.steps + 1):
            clock = Clock()
            with clock("sample"):
                sampled_before, passed_before = current.sampled_tokens, passed_tokens(policy, providers)
                skipped_before = current.skipped_prompts
                rollout = roll_out(current, step)
            if recipe.token_budget is not None and current.sampled_tokens > recipe.token_budget:
                # beyond the budget: thrown away untrained, so that no arm learns from more than was declared
                current.sampled_tokens, step = sampled_before, step - 1
                if step == 0:
                    raise GrpoLabError(
                        f"train.token_budget = {recipe.token_budget} is less than the first step samples; raise it"
                    )
                for evaluation in evaluate(current, step, last=True):
                    store.write_evaluation(evaluation)
                break
            batch, metrics, ungraded = rollout.batch, UpdateMetrics({}), 0
            rate = recipe.optimizer.rate(step, recipe.steps)
            hashes["prompts"] = hash_tensors([torch.tensor(list(hashes["prompts"].encode())), *rollout.sampled.prompts])
            hashes["first_rollout"] = hashes["first_rollout"] or hash_tensors(
                [rollout.first_round.require("response_tokens")]
            )

            learned = None
            if rollout.batch is not None:
                learned = learn(current, optimizer, providers, rollout.batch, advantage_state, rate, clock)
                batch, metrics, advantage_state = learned.batch, learned.metrics, learned.advantage_state
                ungraded = rollout.batch.groups - batch.groups

            record = step_record(step, rollout, batch, metrics)
            forward, backward = (
                sum(gather([now - then]))
                for now, then in zip(passed_tokens(policy, providers), passed_before, strict=True)
            )
            record |= {
                "forward_tokens": forward,
                "backward_tokens": backward,
                "sampled_tokens": current.sampled_tokens - sampled_before,
                "total_sampled_tokens": current.sampled_tokens,
                "learning_rate": rate,
                "dropped_groups": rollout.dropped_groups + ungraded,
                "skipped_prompts": current.skipped_prompts - skipped_before,
                "old_logps_from": "forward pass" if batch is not None and batch.old_logps is not None else "update",
                "prompts_hash": hashes["prompts"],
            }
            if learned is not None and learned.advantages is not None and recipe.stored_groups:
                store.write_rollout(step, rollout_record(current, learned.batch, learned.advantages))
            current.seconds = gather([current.seconds + sum(clock.seconds.values())])[0]  # all ranks go by one clock
            out_of_time = recipe.seconds_budget is not None and current.seconds >= recipe.seconds_budget
            is_last = out_of_time or step == recipe.steps
            with clock("evaluate"):
                evaluations = evaluate(current, step, last=is_last)
            for evaluation in evaluations:
                store.write_evaluation(evaluation)
            record["budget_share"] = current.budget_share(step)  # for whoever follows the run by its lines
            record["evaluation"] = {e["split"]: e["summary"]["accuracy"] for e in evaluations}
            store.append_metrics(record | {"seconds": clock.seconds})

            interrupted = None
            try:
                if is_main():
                    watch(record)
            except Interrupted as stop:
                interrupted = stop
            if any(gather([interrupted is not None])):
                interrupted = interrupted or Interrupted()
            if is_last:
                break  # done: asked to stop or not
            if interrupted or step % recipe.checkpoint_every == 0:
                saved = {
                    "step": step,
                    "advantage_state": advantage_state,
                    "hashes": hashes,
                    "run": current.state_dict(),
                    "seconds": seconds_before + time.perf_counter() - started,
                    "providers": {f: p.state_dict() for f, p in providers.items() if hasattr(p, "state_dict")},
                }
                if spread:
                    store.save_checkpoint(saved, spread.save)
                else:
                    weights = {name: parameter.detach() for name, parameter in policy.trained()}
                    store.save_checkpoint(saved | {"weights": weights, "optimizer": optimizer.state_dict()})
            if interrupted:
                raise interrupted

    seconds = seconds_before + time.perf_counter() - started
    final_weights = hash_weights(policy.model)
    store.finish(policy, steps=step, seconds=seconds, hashes={**hashes, "final_weights": final_weights})


@dataclass(frozen=True, eq=False)
class Learned:
    """What came of the batch of one rollout."""

    batch: Batch
    """With every field filled; groups that a provider could not grade are gone."""
    advantages: Tensor | None
    """[P, G, T]; None where no group was left."""
    metrics: UpdateMetrics
    advantage_state: Any


def learn(
    run: RunState,
    optimizer: Stepper,
    providers: Mapping[str, Fill],
    batch: Batch,
    advantage_state: Any,
    rate: float,
    clock: "Clock",
) -> Learned:
    """From the groups of a rollout to new weights: log-probabilities, KL in the reward, advantages, update."""
    recipe, variant = run.recipe, run.recipe.variant
    with clock("fill"):
        if needs_old_logps(variant, recipe.updates):
            logps = compute_logps(run.policy, batch, temperature=recipe.temperature, micro_tokens=recipe.micro_tokens)
            batch = batch.having(old_logps=logps)
        batch = fill(batch, providers)
        batch = kl_in_reward(variant, batch)
        run.kl_coef = next_kl_coef(variant, batch)
    if not batch.groups:
        return Learned(batch, None, UpdateMetrics({}), advantage_state)
    advantages, advantage_state = compute_advantages(variant, batch, advantage_state)
    batch = value_targets(variant, batch)
    with clock("update"):
        metrics = update(run, optimizer, batch, advantages, rate)
    return Learned(batch, advantages, metrics, advantage_state)


@contextmanager
def blaming_divergence(run: RunState) -> Iterator[None]:
    """What fails once the policy is no longer finite fails for that: `TrainingError`, whatever it stumbled over."""
    try:
        yield
    except Exception as error:
        if cause_of(error) == "code" and has_diverged(run):
            raise TrainingError(
                f"training diverged: the policy is no longer finite. What failed then: {describe_error(error)}"
            ) from error
        raise


@torch.no_grad()
def has_diverged(run: RunState) -> bool:
    """Whether a weight of the policy, or a probability that it gives, is not finite."""
    weights = (getattr(p, "to_local", lambda p=p: p)() for p in run.policy.model.parameters())
    if not all(bool(torch.isfinite(weight).all()) for weight in weights):
        return True
    if ranks() > 1:  # a pass would need all of them
        return False
    with suppress(Exception):  # what failed may fail again
        prompt = run.policy.tokens(run.recipe.task.problem("train", key(run.seed, "prompts"), 0))
        logps, _ = run.policy.logps([prompt], [prompt], [0], width=len(prompt))
        return not bool(torch.isfinite(logps).all())
    return False


def passed_tokens(policy: Policy, providers: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens that went forward, and backward, through the policy and its providers' models; sampling is apart."""
    models = (policy, *providers.values())
    forward, backward = (sum(getattr(m, f"{way}_tokens", 0) for m in models) for way in ("forward", "backward"))
    return forward, backward


class Clock:
    """Seconds of wall-clock by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time what runs inside."""
        start = time.perf_counter()
        yield
        self.seconds[phase] = round(time.perf_counter() - start, 4)
