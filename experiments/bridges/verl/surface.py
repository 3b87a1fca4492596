"""What the bridge stands on in verl: the versions that were tried, and signatures of what verl does not publish."""

import importlib
import inspect
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

from core.errors import GrpoLabError

TRIED: Final = ("0.9.1",)
"""Versions of verl whose steps were compared with ours."""
TRAINER, WORKERS = "verl.trainer.ppo.v1.trainer_base:PPOTrainer", "verl.workers.engine_workers"
SURFACE: Final[Mapping[str, tuple[str, ...]]] = {
    "verl.trainer.main_ppo:run_ppo": ("config", "task_runner_class"),
    "verl.trainer.main_ppo:TaskRunnerV1.run": ("self", "config"),
    "verl.trainer.ppo.v1.trainer_base:get_trainer_cls": ("name",),
    f"{TRAINER}._init_tokenizer": ("self",),
    f"{TRAINER}._init_resource_pool_mgr": ("self",),
    f"{TRAINER}._compute_old_log_prob": ("self", "batch", "metrics"),
    f"{TRAINER}._compute_advantage": ("self", "batch", "metrics"),
    f"{TRAINER}._update_actor": ("self", "batch", "metrics"),
    f"{TRAINER}._save_checkpoint": ("self",),
    f"{TRAINER}._load_checkpoint": ("self",),
    f"{WORKERS}:TrainingWorker.train_batch": ("self", "data"),
    f"{WORKERS}:TrainingWorker.set_loss_fn": ("self", "loss_fn"),
    f"{WORKERS}:ActorRolloutRefWorker.init_model": ("self",),
    "verl.workers.utils.losses:ppo_loss": ("config", "model_output", "data", "dp_group"),
    "verl.workers.utils.padding:no_padding_2_padding": ("tensor", "data"),
    "verl.workers.utils.padding:response_from_nested": ("tensor", "response_mask"),
    "verl.workers.engine.base:BaseEngine.train_batch": ("self", "data", "loss_function"),
    "verl.workers.engine.base:BaseEngine.optimizer_step": ("self",),
    "verl.trainer.ppo.v1.agent_loop_tq:AgentLoopWorkerTQ._run_agent_loop": (
        "self",
        "sampling_params",
        "trajectory",
        "agent_name",
        "trace",
        "kwargs",
    ),
}
"""Functions and methods that are called or replaced, by their parameters."""


def refuse_untried() -> None:
    """Raise `GrpoLabError` for a verl that was not tried, or that is not what it was."""
    installed = version("verl")
    if installed not in TRIED:
        raise GrpoLabError(f"verl {installed} is installed, and the bridge was tried with {', '.join(TRIED)} alone")
    for place, expected in SURFACE.items():
        found = parameters_of(place)
        if found != expected:
            raise GrpoLabError(
                f"verl's {place} takes ({', '.join(found)}), and the bridge was made for ({', '.join(expected)}): this "
                f"is not verl {installed} as published"
            )


def parameters_of(place: str) -> tuple[str, ...]:
    """The parameters of what stands at `module:Name.method`, without that of Ray's."""
    module, _, path = place.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        metadata = getattr(found, "__ray_metadata__", None)
        found = getattr(metadata.modified_class if metadata else found, name)
    return tuple(name for name in inspect.signature(found).parameters if name != "_ray_trace_ctx")
