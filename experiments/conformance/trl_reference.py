"""TRL's own trainers, called on our tensors.

Scoring a rollout and computing its loss are methods of the trainers. They run here on a trainer that was never
initialised: it has no model, and "generates" and "grades" what it is told to.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Final

import torch
from torch import Tensor
from trl import GRPOTrainer, RLOOTrainer
from trl.experimental.gmpo import GMPOTrainer
from trl.rewards import get_soft_overlong_punishment

from core import Batch
from experiments.conformance.stand_ins import bare_object

PAD: Final = 0
TOKEN: Final = 1
END: Final = 2


def rollout(trainer: Any, batch: Batch) -> dict[str, Tensor]:
    """What the trainer makes of a rollout: advantages, masks and importance ratios, as inputs of its loss."""
    with _float64():
        inputs: dict[str, Tensor] = trainer._generate_and_score_completions([{"prompt": "?"}] * batch.rewards.numel())
    return inputs


def loss(trainer: Any, inputs: dict[str, Tensor], logps: Tensor) -> Tensor:
    """The trainer's loss of these inputs, differentiable in `logps` [B, T]."""
    with _float64():
        result: Tensor = trainer._compute_loss(SimpleNamespace(logps=logps), inputs)
    return result


def grpo(
    batch: Batch, *, of_args: dict[str, Any] | None = None, correction: dict[str, Any] | None = None,
    knows_sampler: bool = False, of: type = GRPOTrainer, **settings: Any,
) -> Any:  # fmt: skip
    """A `GRPOTrainer`, or a trainer `of` a class made from it, whose next rollout is this batch.

    `settings` are its attributes, `of_args` those of its configuration, `correction` the vLLM importance-sampling mode
    and bounds. Without it the sampler's log-probabilities are handed on only if it `knows_sampler`.
    """
    args: dict[str, Any] = {
        "delta": None, "use_bias_correction_kl": True, "sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05,
        "vespo_k_pos": 2.0, "vespo_lambda_pos": 3.0, "vespo_k_neg": 3.0, "vespo_lambda_neg": 2.0,
    }  # fmt: skip
    state: dict[str, Any] = {
        "scale_rewards": "group", "multi_objective_aggregation": "sum_then_normalize", "loss_type": "dapo",
        "importance_sampling_level": "token", "off_policy_mask_threshold": None, "top_entropy_quantile": 1.0,
        "max_completion_length": batch.max_tokens, "use_vllm": correction is not None, "environment_factories": None,
        "environments": None, "tools": [], "_is_vlm": False, "_entropy_bonus_enabled": False,
        "vllm_importance_sampling_correction": correction is not None,
    }  # fmt: skip
    for name, value in (correction or {}).items():
        state[f"vllm_importance_sampling_{name}"] = value
    trainer = _trainer(of, batch, args | (of_args or {}), state | settings)
    trainer._generate = lambda _: _generation(batch, behaviour=knows_sampler or correction is not None)
    return trainer


def gmpo(batch: Batch) -> Any:
    """A `GMPOTrainer` with its own default bounds, whose next rollout is this batch."""
    return grpo(batch, of=GMPOTrainer, epsilon_low=0.4, epsilon_high=0.4)


def rloo(batch: Batch, **settings: Any) -> Any:
    """An `RLOOTrainer` whose next rollout is this batch; `settings` are its attributes."""
    state = {"normalize_advantages": False, "reward_clip_range": None}
    trainer = _trainer(RLOOTrainer, batch, {}, state | settings)
    prompts, responses, _, texts, *_ = _generation(batch, behaviour=False)
    trainer._generate = lambda _: (prompts, responses, texts)
    return trainer


def overlong(batch: Batch, limit: int, buffer: int) -> Tensor:
    """[P, G]: its reward function that punishes length, by itself."""
    function = get_soft_overlong_punishment(max_completion_len=limit, soft_punish_cache=buffer)
    lengths = batch.lengths.flatten().tolist()
    return torch.tensor(function([[TOKEN] * n for n in lengths]), dtype=torch.float64).view(batch.rewards.shape)


def _trainer(of: type, batch: Batch, args: dict[str, Any], state: dict[str, Any]) -> Any:
    B = batch.rewards.numel()
    parts = batch.rows("reward_parts")
    accelerator = SimpleNamespace(
        device=torch.device("cpu"), num_processes=1, process_index=0, sync_gradients=True,
        gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, **_: x,
    )  # fmt: skip
    # several updates on a rollout, so that the old policy's log-probabilities are kept beside the present ones
    base = {"gradient_accumulation_steps": 1, "steps_per_generation": 1, "per_device_train_batch_size": B,
            "gradient_checkpointing_kwargs": None}  # fmt: skip
    common: dict[str, Any] = {
        "accelerator": accelerator, "args": SimpleNamespace(**base, **args), "num_iterations": 2, "beta": 0.0,
        "model": SimpleNamespace(training=True, is_gradient_checkpointing=False, logps=batch.rows("old_logps")),
        "ref_model": SimpleNamespace(logps=batch.rows("ref_logps")), "epsilon_low": 0.2, "epsilon_high": 0.2,
        "_tokenizer": SimpleNamespace(pad_token_id=PAD), "eos_token_ids": [END], "pad_to_multiple_of": None,
        "mask_truncated_completions": False, "num_generations": batch.group_size, "aux_loss_enabled": False,
        "reward_weights": torch.tensor(batch.reward_weights, dtype=parts.dtype),
        "current_gradient_accumulation_steps": 1,
        "reward_funcs": list(batch.reward_names), "reward_func_names": list(batch.reward_names),
        "log_multimodal": False, "_pending_extra_logs": {}, "_pending_metrics": {},
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_logs": {"prompt": [], "completion": [], "advantages": [], "rewards": defaultdict(list)},
        "_calculate_rewards": lambda *_: parts.clone(),
        "_get_per_token_logps_and_entropies": _logps_of,
    }  # fmt: skip
    return bare_object(of, **{**common, **state})


def _logps_of(model: Any, *_: Any, **__: Any) -> tuple[Tensor, Tensor, None]:
    """A forward pass: a "model" here is its log-probabilities; entropies are logged only."""
    return model.logps, torch.zeros_like(model.logps), None


def _generation(batch: Batch, *, behaviour: bool) -> tuple[Any, ...]:
    """The batch as lists of token ids: an end token at the end of what was not cut, 0 in the tool mask at holes."""
    lengths = batch.lengths.flatten().tolist()
    truncated = batch.rows("truncated").tolist()
    responses = [[TOKEN] * (n - 1) + [TOKEN if cut else END] for n, cut in zip(lengths, truncated, strict=True)]
    masks = [row[:n].int().tolist() for row, n in zip(batch.rows("mask"), lengths, strict=True)]
    logps = [row[:n].tolist() for row, n in zip(batch.rows("behaviour_logps"), lengths, strict=True)]
    prompts, texts = [[TOKEN]] * len(lengths), ["!"] * len(lengths)
    return prompts, responses, masks, texts, logps if behaviour else None, None, None, None


@contextmanager
def _float64() -> Iterator[None]:
    """Tensors that the trainers make of Python numbers take the default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
