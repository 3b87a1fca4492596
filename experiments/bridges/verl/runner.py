"""The process in which verl's controller runs, with the trainer of the bridge."""

from typing import Any

import ray
from verl.trainer.main_ppo import TaskRunnerV1
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

from experiments.bridges.verl.trainer import BridgedTrainer


@ray.remote
class BridgedRunner(TaskRunnerV1.__ray_metadata__.modified_class):  # type: ignore[misc]
    """verl's runner; in its process the synchronous trainer is that of the bridge."""

    def run(self, config: Any) -> None:
        """Train."""
        TRAINER_REGISTRY[config.trainer.v1.trainer_mode] = BridgedTrainer
        super().run(config)
