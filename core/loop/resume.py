"""A training is saved and taken up: trained weights and their optimizer, whole or a part a rank, with all the rest."""

from collections.abc import Mapping
from typing import Any, Final

from core.errors import GrpoLabError
from core.loop.recipe import Recipe
from core.model.trainable import TrainedModel
from core.store.run_folder import RunStore

SMALL_MODEL: Final = 1 << 26
"""Bytes of trained weights up to which models are kept without being asked for."""


def save_training(store: RunStore, model: TrainedModel, optimizer: Any, state: Mapping[str, Any]) -> None:
    """Write the checkpoint of `state["step"]`: `state`, the model's trained weights and their optimizer."""
    if model.sharding:
        store.save_checkpoint(state, model.sharding.save)
    else:
        store.save_checkpoint({**state, "weights": model.state_dict(), "optimizer": optimizer.state_dict()})


def keep_model(store: RunStore, model: TrainedModel, recipe: Recipe, step: int) -> None:
    """Keep the trained weights, as of this step, where they are small or asked for; spread over ranks they are not."""
    if model.sharding is None:
        weights = model.state_dict()
        if recipe.evaluation.keep_models or sum(each.nbytes for each in weights.values()) <= SMALL_MODEL:
            store.keep_model(step, weights)


def load_training(store: RunStore, model: TrainedModel, optimizer: Any) -> dict[str, Any] | None:
    """Set model and optimizer to the last checkpoint; returns all that it kept, or None where there is none.

    Who has taken over the rest calls `store.rewind` with it. Raises `GrpoLabError` where weights were sharded and are
    not, or the other way round.
    """
    state = store.load_checkpoint()
    if state is None:
        return None
    if ("shards" in state) != (model.sharding is not None):
        was = "not sharded" if model.sharding else "sharded"
        raise GrpoLabError(
            f"{store.folder} was started with weights {was}: resume it with the accelerate configuration it had"
        )
    if model.sharding:
        model.sharding.load(store.folder / "checkpoint" / state["shards"])
    else:
        model.load_state_dict(state["weights"])
        optimizer.load_state_dict(state["optimizer"])
    return state
