"""Runs of TRL's trainer as it is used: it samples chains of sums, grades them and learns."""

from pathlib import Path
from typing import Any, Final

import torch

from core import Variant
from core.environments.tasks.chain_sums import chain_sums
from core.model.loading import EMBEDDED

SETTINGS: Final = {
    "per_device_train_batch_size": 16,
    "num_generations": 8,
    "max_completion_length": 40,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "report_to": [],
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "logging_steps": 1,
    "save_strategy": "no",
}
TASK: Final = chain_sums()


def right(prompts: list[str], completions: list[str], answer: list[str], **_: Any) -> list[float]:
    """1 for the right last digit."""
    return [float(text.rstrip(".")[-1:] == wanted) for text, wanted in zip(completions, answer, strict=True)]


def questions(split: str, number: int) -> Any:
    from datasets import Dataset

    problems = [TASK.problem(split, 0, index) for index in range(number)]
    return Dataset.from_list([{"prompt": each.prompt, "answer": str(each.answer)} for each in problems])


def make_trainer(folder: Path, variant: Variant, trainer_class: Any = None, **settings: Any) -> Any:
    """A bridged trainer on the embedded model; settings of TRL's, and arguments of the trainer's by name."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig

    from experiments.bridges.trl.trainer import BridgedGRPOTrainer

    names = ("reward_funcs", "rollout_func", "eval_dataset", "correct")
    given = {name: settings.pop(name) for name in names if name in settings}
    return (trainer_class or BridgedGRPOTrainer)(
        AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32),
        given.pop("reward_funcs", right),
        GRPOConfig(output_dir=str(folder), **(SETTINGS | settings)),
        variant=variant,
        train_dataset=questions("train", 512),
        processing_class=AutoTokenizer.from_pretrained(EMBEDDED),
        **given,
    )
