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
from transformers.loss.loss_utils import ForCausalLMLoss
from trl import DPOTrainer, GRPOTrainer, KTOTrainer, RewardTrainer, RLOOTrainer
from trl.experimental.gmpo import GMPOTrainer
from trl.experimental.online_dpo import OnlineDPOTrainer
from trl.rewards import get_soft_overlong_punishment

from core import Batch
from experiments.maintenance.conformance.cases import pairs
from experiments.maintenance.conformance.stand_ins import bare_object

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
    batch: Batch,
    *,
    of_args: dict[str, Any] | None = None,
    correction: dict[str, Any] | None = None,
    knows_sampler: bool = False,
    of: type = GRPOTrainer,
    **settings: Any,
) -> Any:
    """A `GRPOTrainer`, or a trainer `of` a class made from it, whose next rollout is this batch.

    `settings` are its attributes, `of_args` those of its configuration, `correction` the vLLM importance-sampling mode
    and bounds. Without it the sampler's log-probabilities are handed on only if it `knows_sampler`.
    """
    args: dict[str, Any] = {
        "delta": None,
        "use_bias_correction_kl": True,
        "sapo_temperature_pos": 1.0,
        "sapo_temperature_neg": 1.05,
        "vespo_k_pos": 2.0,
        "vespo_lambda_pos": 3.0,
        "vespo_k_neg": 3.0,
        "vespo_lambda_neg": 2.0,
    }
    state: dict[str, Any] = {
        "scale_rewards": "group",
        "multi_objective_aggregation": "sum_then_normalize",
        "loss_type": "dapo",
        "importance_sampling_level": "token",
        "off_policy_mask_threshold": None,
        "top_entropy_quantile": 1.0,
        "max_completion_length": batch.max_tokens,
        "use_vllm": correction is not None,
        "environment_factories": None,
        "environments": None,
        "tools": [],
        "_is_vlm": False,
        "_entropy_bonus_enabled": False,
        "vllm_importance_sampling_correction": correction is not None,
    }
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


def dpo(batch: Batch, logps: Tensor, sides: Tensor, loss_type: str = "sigmoid", **settings: Any) -> Tensor:
    """Mean over groups of a `DPOTrainer`'s loss of all pairs of the group; `sides` [B] says which are preferred.

    `settings` are its attributes. It is called group by group: on more it would take the mean over their pairs.
    """
    state: dict[str, Any] = {
        "loss_types": [loss_type],
        "loss_weights": [1.0],
        "f_divergence_type": "reverse_kl",
        "ld_alpha": None,
        "use_weighting": False,
        "label_smoothing": 0.0,
    }
    trainer = _preference_trainer(DPOTrainer, batch, logps, state | settings)
    losses = [
        trainer._compute_loss(trainer.model, _texts(batch, torch.cat(pair)), False) for pair in pairs(batch, sides)
    ]
    return sum(losses, start=torch.zeros((), dtype=torch.float64)) / batch.groups


def kto(batch: Batch, logps: Tensor, sides: Tensor, **settings: Any) -> Tensor:
    """A `KTOTrainer`'s loss of the responses with a side, [B], as a share of all; its reference point is of all rows.

    By itself it takes for that the step's responses beside prompts that are not theirs.
    """
    state: dict[str, Any] = {
        "loss_type": "kto",
        "calculate_KL": True,
        "desirable_weight": 1.0,
        "undesirable_weight": 1.0,
    }
    trainer = _preference_trainer(KTOTrainer, batch, logps, state | settings)
    labelled = ((sides != 0) & batch.rows("mask").any(-1)).nonzero()[:, 0]
    for_kl = {f"KL_{name}": x for name, x in _texts(batch, torch.arange(len(sides))).items()}
    inputs = {**_texts(batch, labelled), **for_kl, "label": sides[labelled] > 0}
    result: Tensor = trainer._compute_loss(trainer.model, inputs, False)
    return result * len(labelled) / len(sides)


def online_dpo(batch: Batch, logps: Tensor, loss_type: str = "sigmoid", **settings: Any) -> Tensor:
    """Mean over groups of the loss of an `OnlineDPOTrainer`'s training step; groups of two, those that tie left out."""
    losses: list[Tensor] = []
    kept = batch.rewards.diff(dim=1)[:, 0].ne(0).nonzero()[:, 0]
    # the first response to every prompt, then the second
    rows = torch.cat([2 * kept, 2 * kept + 1])
    mask, rewards = batch.rows("mask")[rows].long(), batch.rewards.flatten()[rows]
    args = {
        "use_vllm": False,
        "missing_eos_penalty": None,
        "loss_type": loss_type,
        "torch_empty_cache_steps": None,
        "optim": "adamw",
        "n_gpu": 1,
        "gradient_accumulation_steps": 1,
    }
    state: dict[str, Any] = {
        "args": SimpleNamespace(**args),
        "_beta": 0.1,
        "eos_token_ids": [END],
        "reward_funcs": [None],
        "stats": defaultdict(list),
        "processing_class": SimpleNamespace(batch_decode=lambda ids, **_: ["!"] * len(ids)),
        "accelerator": _accelerator(backward=lambda loss, **_: losses.append(loss)),
        "_generate": lambda *_: (None, None, torch.full_like(mask, TOKEN), mask, None),
        "_forward": lambda model, *_: model.logps[rows],
        "_calculate_rewards_from_functions": lambda **_: rewards,
        "ref_model": SimpleNamespace(logps=batch.rows("ref_logps")),
    }
    trainer = bare_object(OnlineDPOTrainer, **{**state, **settings})
    trainer.training_step(SimpleNamespace(logps=logps, train=lambda: None), {"prompt": ["?"] * len(kept)})
    return losses[0] * len(kept) / batch.groups


def _preference_trainer(of: type, batch: Batch, logps: Tensor, settings: dict[str, Any]) -> Any:
    """A trainer on given responses, whose texts are numbers of rows and whose models look these up."""
    common: dict[str, Any] = {
        "accelerator": _accelerator(),
        "args": SimpleNamespace(gradient_checkpointing_kwargs=None),
        "beta": 0.1,
        "model": _Table(logps),
        "ref_model": _Table(batch.rows("ref_logps")),
        "precompute_ref_logps": False,
        "aux_loss_enabled": False,
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    return bare_object(of, **{**common, **settings})


class _Table(torch.nn.Module):
    """A "model" of the log-probabilities [B, T] of all rows: 0 where there is no label, as its fused output layer."""

    is_gradient_checkpointing = False

    def __init__(self, logps: Tensor) -> None:
        super().__init__()
        self.logps = logps

    def forward(self, *, input_ids: Tensor, labels: Tensor, **_: Any) -> SimpleNamespace:
        log_probs = torch.where(labels[:, 1:] != -100, self.logps[input_ids[:, 0]], 0.0)
        logged = dict.fromkeys(("entropy", "mean_logits", "is_top1"), torch.zeros_like(log_probs).bool())
        return SimpleNamespace(log_probs=log_probs, **logged)


def _texts(batch: Batch, rows: Tensor) -> dict[str, Tensor]:
    """Rows as inputs of a loss: a prompt of one token before each, and their own number in place of every token."""
    mask = torch.nn.functional.pad(batch.rows("mask")[rows].long(), (1, 0))
    ids = rows[:, None].expand(mask.shape)
    return {"input_ids": ids, "attention_mask": torch.ones_like(mask), "completion_mask": mask}


def overlong(batch: Batch, limit: int, buffer: int) -> Tensor:
    """[P, G]: its reward function that punishes length, by itself."""
    function = get_soft_overlong_punishment(max_completion_len=limit, soft_punish_cache=buffer)
    lengths = batch.lengths.flatten().tolist()
    return torch.tensor(function([[TOKEN] * n for n in lengths]), dtype=torch.float64).view(batch.rewards.shape)


def _trainer(of: type, batch: Batch, args: dict[str, Any], state: dict[str, Any]) -> Any:
    B = batch.rewards.numel()
    parts, entropies = batch.rows("reward_parts"), batch.rows("behaviour_entropy")
    # several updates on a rollout, so that the old policy's log-probabilities are kept beside the present ones
    base = {
        "gradient_accumulation_steps": 1,
        "steps_per_generation": 1,
        "per_device_train_batch_size": B,
        "gradient_checkpointing_kwargs": None,
    }
    common: dict[str, Any] = {
        "accelerator": _accelerator(),
        "args": SimpleNamespace(**base, **args),
        "num_iterations": 2,
        "beta": 0.0,
        "model": SimpleNamespace(training=True, is_gradient_checkpointing=False, logps=batch.rows("old_logps")),
        "ref_model": SimpleNamespace(logps=batch.rows("ref_logps")),
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
        "_tokenizer": SimpleNamespace(pad_token_id=PAD),
        "eos_token_ids": [END],
        "pad_to_multiple_of": None,
        "mask_truncated_completions": False,
        "num_generations": batch.group_size,
        "aux_loss_enabled": False,
        "reward_weights": torch.tensor(batch.reward_weights, dtype=parts.dtype),
        "current_gradient_accumulation_steps": 1,
        "reward_funcs": list(batch.reward_names),
        "reward_func_names": list(batch.reward_names),
        "log_multimodal": False,
        "_pending_extra_logs": {},
        "_pending_metrics": {},
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_logs": {"prompt": [], "completion": [], "advantages": [], "rewards": defaultdict(list)},
        "_calculate_rewards": lambda *_: parts.clone(),
        # a "model" here is its log-probabilities; every policy has the same entropies
        "_get_per_token_logps_and_entropies": lambda model, *_, **__: (model.logps, entropies, None),
    }
    return bare_object(of, **{**common, **state})


def bradley_terry(chosen: Tensor, rejected: Tensor, margin: Tensor, centering: float) -> Tensor:
    """The loss of its `RewardTrainer`, whose model is what it gives: rewards of the chosen, then of the rejected."""
    trainer = bare_object(
        RewardTrainer,
        model=SimpleNamespace(training=False),
        accelerator=_accelerator(),
        _total_train_tokens=0,
        args=SimpleNamespace(center_rewards_coefficient=centering),
        _metrics=defaultdict(lambda: defaultdict(list)),
    )
    rewards = SimpleNamespace(logits=torch.cat([chosen, rejected])[:, None])
    result: Tensor = trainer.compute_loss(lambda **_: rewards, {"margin": margin})
    return result


def _accelerator(**more: Any) -> SimpleNamespace:
    """One process, from which there is nothing to gather."""
    return SimpleNamespace(
        device=torch.device("cpu"),
        num_processes=1,
        process_index=0,
        sync_gradients=True,
        gather=lambda x: x,
        gather_for_metrics=lambda x: x,
        pad_across_processes=lambda x, **_: x,
        reduce=lambda x, **_: x,
        **more,
    )


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


def imitation(batch: Batch, logps: Tensor) -> Tensor:
    """The loss of its supervised fine-tuning: that of transformers' causal models, from logits over two tokens."""
    mask = batch.rows("mask")
    inside = torch.where(mask, logps, -1.0)
    logits = torch.stack([inside, torch.log(-torch.expm1(inside))], -1)
    labels = torch.where(mask, 0, -100)
    result: Tensor = ForCausalLMLoss(logits, labels, vocab_size=2, shift_labels=labels)
    return result
