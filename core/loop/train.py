"""The training loop: one run of one recipe under one seed, read from top to bottom.

    roll out (for this step, or ahead of it: sample -> score -> make_batch -> shape -> filter)
    -> learn (log-probs -> KL in reward -> advantages -> update) -> evaluate -> metrics -> store

No phase knows a variant, a part, a task or a paradigm by name. `core.loop.recipe.train` builds the recipe, this trains.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import torch

import core.loop.providers  # noqa: F401 - registers them
from core.distributed import gather, init, is_main
from core.errors import GrpoLabError, cause_of, describe_error
from core.loop.before_training import Known, evaluate_untrained
from core.loop.clock import Clock
from core.loop.divergence import blaming_divergence
from core.loop.evaluation import evaluate
from core.loop.learn import learn
from core.loop.metrics import line_of, rollout_record
from core.loop.recipe import Recipe
from core.loop.resume import keep_model
from core.loop.rollout_queue import RolloutQueue
from core.loop.run_state import RunState
from core.model.sharding import hash_weights
from core.store.run_folder import NonMainStore, RunStore

Watch: TypeAlias = Callable[[Mapping[str, Any]], None]
"""Called with every step's line of metrics; raises `Interrupted` to stop the run at that point."""


class Interrupted(Exception):  # noqa: N818 - an event, not a mistake
    """The run was asked to stop; it can be resumed."""


def run(
    recipe: Recipe,
    seed: int,
    store: RunStore,
    *,
    facts: Mapping[str, Any],
    watch: Watch,
    known: Known | None = None,
) -> None:
    """Train `recipe` under `seed`, from the last checkpoint in `store` if there is one.

    `facts` go into the manifest; `facts["identity"]` is what a resumed run must share with the one before. A run that
    fails or is interrupted has that in its manifest, and what it has written stays. Started in several processes, by
    torchrun or accelerate, each does its part of the same run, and the main one writes. `known`: evaluations before
    training of runs that begin alike, see `evaluate_untrained`.
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
        store.check_device(accelerator.device.type)
        descriptions = recipe.preflight()
        store.check_data_identity({name: descriptions[name] for name in recipe.data_identities if name in descriptions})
        facts = {**facts, "device": accelerator.device.type, "preflight": descriptions}
        store.update_manifest(status="running", seed=seed, error=None, failure=None, **facts)
        try:
            train(recipe, seed, store, watch, accelerator.device, known)
        except Interrupted:
            store.update_manifest(status="interrupted")
            raise
        except BaseException as error:
            with suppress(GrpoLabError):  # such as a full disk: the first error is the one to show
                store.update_manifest(status="failed", error=describe_error(error), failure=cause_of(error))
            raise


def train(
    recipe: Recipe,
    seed: int,
    store: RunStore,
    watch: Watch,
    device: torch.device,
    known: Known | None = None,
) -> None:
    """From the last checkpoint, or the first weights, to the end of the recipe's steps or budget."""
    state = RunState.start(recipe, seed, device)
    state.queue = queue = RolloutQueue(state)
    state.resume(store)
    if state.step == 0:
        store.write_evaluations(evaluate_untrained(state, known))

    with blaming_divergence(state):
        for step in range(state.step + 1, recipe.steps + 1):
            clock, before = Clock(), state.spent
            rollout, clock.seconds["sample"] = queue.roll_out(step)
            if state.exceeds_token_budget:
                # thrown away untrained, so that no arm learns from more than was declared
                state.give_back(before)
                store.write_evaluations(evaluate(state, state.step, last=True))
                break
            state.note_prompts(rollout.sampled.prompts, rollout.first_round.require("response_tokens"))
            learned = learn(state, rollout.batch, clock)
            state.count_step(step, sum(clock.seconds.values()))

            if groups := rollout_record(state, learned):
                store.write_rollout(step, groups)
            with clock("evaluate"):
                evaluations = evaluate(state, step, last=state.is_over)
            store.write_evaluations(evaluations)
            if step in recipe.kept_steps:
                with state.averaged():
                    keep_model(store, state.policy, recipe, step)
            line = line_of(state, before, rollout, learned, evaluations)
            store.append_metrics(line | {"seconds": clock.seconds})

            stop = asks_to_stop(watch, line)
            if state.is_over:
                break  # done: asked to stop or not
            if stop or step % recipe.checkpoint_every == 0:
                state.save(store)
            if stop:
                raise stop

    hashes = {**state.hashes, "final_weights": hash_weights(state.policy.model)}
    spent = {"seconds": state.wall_seconds, "cpu_seconds": state.cpu_seconds}
    store.finish(state.policy, steps=state.step, **spent, hashes=hashes)


def asks_to_stop(watch: Watch, line: Mapping[str, Any]) -> Interrupted | None:
    """Call the watch with a step's line; what it raised to stop the run, on all ranks alike."""
    stop = None
    try:
        if is_main():
            watch(line)
    except Interrupted as raised:
        stop = raised
    return (stop or Interrupted()) if any(gather([stop is not None])) else None
