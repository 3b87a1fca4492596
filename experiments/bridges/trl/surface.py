"""What the bridge stands on in TRL: versions that were tried, and signatures of methods that TRL does not publish."""

import inspect
from collections.abc import Mapping
from typing import Any, Final

from core.errors import GrpoLabError

TRIED: Final = ("1.16.0",)
"""Versions of TRL with which the weights were compared."""
SURFACE: Final[Mapping[str, tuple[str, ...]]] = {
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    "_compute_loss": ("self", "model", "inputs"),
    "_generate": ("self", "prompts"),
    "_generate_and_score_completions": ("self", "inputs"),
    "_generate_single_turn": (
        "self",
        "prompt_ids",
        "images",
        "multimodal_fields",
        "num_generations",
        "has_tool_images",
    ),
    "_load_optimizer_and_scheduler": ("self", "checkpoint"),
    "_prepare_inputs": ("self", "generation_batch"),
    "_save_checkpoint": ("self", "model", "trial"),
}
"""Methods that the trainer overrides or calls, by their parameters."""
LOGPS: Final = "_get_per_token_logps_and_entropies"
LOGPS_TAKES: Final = (
    "self",
    "model",
    "input_ids",
    "attention_mask",
    "logits_to_keep",
    "batch_size",
    "compute_entropy",
    "compute_aux_loss",
)
"""The first parameters of the method that it calls; those that follow are of images."""


def check_surface(trainer: type[Any], version: str) -> None:
    """Refuse a TRL that was not tried, and one whose methods are not those that were."""
    tried = ", ".join(TRIED)
    if version not in TRIED:
        raise GrpoLabError(f"TRL {version} was not tried with grpo-lab; tried: {tried} (pip install trl=={TRIED[-1]})")
    for name, expected in {**SURFACE, LOGPS: LOGPS_TAKES}.items():
        method = getattr(trainer, name, None)
        actual = tuple(inspect.signature(method).parameters) if method else None
        compared = actual[: len(expected)] if actual and name == LOGPS else actual
        if compared != expected:
            raise GrpoLabError(
                f"{trainer.__name__}.{name} of TRL {version} takes {actual}, not {expected}: this is not the TRL that "
                f"was tried ({tried}); install that one, without changes"
            )


def image_fields(trainer: type[Any]) -> tuple[str, ...]:
    """What a chunk may hold of images, for the method that computes log-probabilities."""
    return tuple(inspect.signature(getattr(trainer, LOGPS)).parameters)[len(LOGPS_TAKES) :]
