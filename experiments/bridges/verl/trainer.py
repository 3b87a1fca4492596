"""verl's synchronous trainer with a variant's advantages: the controller's half of the bridge."""

import os
from pathlib import Path
from typing import Any, Final

import ray
import torch
import transfer_queue as tq
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.model import get_generation_config

from core.errors import GrpoLabError
from core.parts.options import AdvantageOptions, ObjectiveOptions
from core.parts.variant import Variant
from experiments.bridges.running import RunningVariant
from experiments.bridges.support import reads_verdict
from experiments.bridges.verl.maths import STEP
from experiments.bridges.verl.rollout import READ, Reading, batch_of, fields_of, order_of
from experiments.bridges.verl.settings import Settings
from experiments.bridges.verl.worker import BridgedWorker

ACTORS: Final = (Role.Actor, Role.ActorRollout, Role.ActorRolloutRef)
STATE: Final = "grpolab.pt"
"""In a checkpoint's folder: what a running estimator remembers, and the KL coefficient."""
OF_OBJECTIVE: Final = ("rewards", "truncated", "sum_squared_probs")
"""What only the controller knows and an objective may ask for."""


class BridgedTrainer(PPOTrainerSync):  # type: ignore[misc]
    """verl samples, grades, balances and steps; shaping, filter, KL in the reward and advantages are a variant's."""

    def __init__(self, config: Any) -> None:
        self.settings = Settings.of(config.actor_rollout_ref.grpolab)
        self.running = RunningVariant(self.settings.make())
        super().__init__(config)

    def _init_tokenizer(self) -> None:
        super()._init_tokenizer()
        generation = get_generation_config(self.tokenizer.name_or_path)
        ends = getattr(generation, "eos_token_id", None)  # a chat model may have several
        ends = ends if isinstance(ends, list) else [ends]
        self.stops = {int(token) for token in (*ends, self.tokenizer.eos_token_id) if token is not None}

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in ACTORS:
            if role in self.role_worker_mapping:
                self.role_worker_mapping[role] = ray.remote(BridgedWorker)

    def _compute_old_log_prob(self, batch: Any, metrics: dict[str, Any]) -> Any:
        if "sum_squared_probs" not in self.running.variant.needs:
            return super()._compute_old_log_prob(batch, metrics)
        batch.extra_info["calculate_sum_pi_squared"] = True
        batch = super()._compute_old_log_prob(batch, metrics)
        batch.extra_info.pop("calculate_sum_pi_squared", None)  # not again, with gradient, in the update
        return batch

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        reading = self._reading()
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(READ))
        order = order_of(batch.keys, [tag.get("is_padding", False) for tag in batch.tags], reading.group_size)
        rollout = batch_of(data, order, reading, self.global_steps)
        rows = self.running.learn_from(rollout, torch.ones(rollout.groups, dtype=torch.bool))
        asked = [name for name in OF_OBJECTIVE if name in self._objective_takes() and name in rows]
        metrics["grpolab/groups_trained"] = int(rows["trained"].sum()) // reading.group_size
        metrics["grpolab/kl_coef"] = self.running.variant.kl_coef
        fields = fields_of(rows, order, data["response_mask"], asked)
        return tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        batch.extra_info[STEP] = self.global_steps
        return super()._update_actor(batch, metrics)

    def _save_checkpoint(self) -> None:
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f".{STATE}"
        torch.save(self.running.state_dict(), unfinished)
        unfinished.replace(folder / STATE)  # before verl names the checkpoint as the latest
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if not self.global_steps:
            return
        trainer = self.config.trainer
        named = trainer.resume_from_path if trainer.resume_mode == "resume_path" else None
        folder = Path(named or Path(trainer.default_local_dir) / f"global_step_{self.global_steps}")
        if (folder / STATE).is_file():
            self.running.load_state_dict(torch.load(folder / STATE, weights_only=True))
        elif remembers(self.running.variant):
            raise GrpoLabError(
                f"{os.path.abspath(folder)} has no {STATE}: the checkpoint is of a run without the bridge, and what "
                f"variant '{self.running.variant.name}' remembers from step to step is not in it"
            )

    def _reading(self) -> Reading:
        rollout, variant = self.config.actor_rollout_ref.rollout, self.running.variant
        return Reading(
            group_size=int(rollout.n),
            max_tokens=int(rollout.response_length),
            stops=self.stops,
            reward_parts=self.settings.reward_parts,
            reward_weights=self.settings.reward_weights,
            needs_verdict=any(reads_verdict(part) for part in (variant.advantage, variant.filter) if part is not None),
        )

    def _objective_takes(self) -> set[str]:
        objective = self.running.variant.objective
        return {*objective.parameters, *ObjectiveOptions.of(objective).prepare_takes}


def remembers(variant: Variant) -> bool:
    """Whether something goes on from step to step beside the weights."""
    return AdvantageOptions.of(variant.advantage).state is not None or variant.kl_target is not None
