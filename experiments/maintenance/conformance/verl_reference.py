"""verl's own code, called on our tensors.

Its training losses are reached through the function that its workers call (`ppo_loss`), which adds the KL term and
hands the mini-batch's totals down; advantages through its registry of estimators.
"""

import asyncio
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor
from verl import DataProto
from verl.experimental.reward_loop.reward_manager.dapo import DAPORewardManager
from verl.trainer.config import AlgoConfig, RolloutCorrectionConfig
from verl.trainer.ppo.core_algos import (
    AdaptiveKLController,
    agg_loss,
    compute_gae_advantage_return,
    compute_value_loss,
    get_adv_estimator_fn,
    kl_penalty,
)
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_add_to_batch
from verl.utils import tensordict_utils
from verl.utils.dataset.dataset_utils import DatasetPadMode
from verl.workers.config import ActorConfig
from verl.workers.config.actor import PolicyLossConfig
from verl.workers.utils.losses import ppo_loss, sft_loss

from core import Batch
from experiments.maintenance.conformance.cases import token_rewards
from experiments.maintenance.conformance.stand_ins import bare_object, bare_package, without

# the replay buffer connects to a data store, which its choice of groups does not need
with without("transfer_queue", KVBatchMeta=object):
    bare_package("verl.trainer.ppo.v1")
    from verl.trainer.ppo.v1 import replay_buffer

PROMPT: Final = 2
"""Tokens of each made-up prompt."""


def advantages(
    estimator: str, batch: Batch, *, gamma: float = 1.0, lam: float = 1.0, group_size: int | None = None, **options: Any
) -> Tensor:
    """[B, T]: an estimator of its registry. Options by name of its configuration, or of the function itself.

    `group_size` overrides the batch's, to look at every response by itself.
    """
    mask = batch.rows("mask").double()
    rows = np.arange(len(mask))
    given: dict[str, Any] = {
        "token_level_rewards": token_rewards(batch),
        "response_mask": mask,
        "index": rows // (group_size or batch.group_size),
    }
    known = AlgoConfig.__dataclass_fields__
    config = AlgoConfig(gamma=gamma, lam=lam, **{name: value for name, value in options.items() if name in known})
    given["config"] = config
    given |= {name: value for name, value in options.items() if name not in known}
    if estimator == "gae":
        given = {name: given[name] for name in ("token_level_rewards", "response_mask")}
        given |= {"values": batch.rows("values"), "gamma": gamma, "lam": lam}
    elif estimator in ("grpo", "grpo_vectorized"):
        given["norm_adv_by_std_in_grpo"] = config.norm_adv_by_std_in_grpo
    elif estimator == "remax":
        given["reward_baselines"] = batch.require("greedy_rewards").repeat_interleave(batch.group_size)
    elif estimator.endswith("optimal_token_baseline"):
        given |= {"old_log_probs": batch.rows("old_logps"), "sum_pi_squared": batch.rows("sum_squared_probs")}
    elif estimator == "gdpo":
        given |= _several_rewards(batch)
        given["config"] = AlgoConfig(
            gdpo_reward_keys=list(batch.reward_names), gdpo_reward_weights=list(batch.reward_weights)
        )
    result: Tensor = get_adv_estimator_fn(estimator)(**given)[0]
    return result


def unwhitened_gae(batch: Batch, gamma: float, lam: float) -> Tensor:
    """[B, T]: its generalised advantage estimates before whitening, which it returns as part of the returns."""
    _, returns = compute_gae_advantage_return(
        token_rewards(batch), batch.rows("values"), batch.rows("mask").double(), gamma, lam
    )
    result: Tensor = returns - batch.rows("values")
    return result


def value_loss(batch: Batch, values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Its critic's loss of values [B, T], a mean over tokens."""
    result: Tensor = compute_value_loss(
        vpreds=values,
        returns=returns,
        values=batch.rows("values"),
        response_mask=batch.rows("mask"),
        cliprange_value=clip,
        loss_agg_mode="token-mean",
    )[0]
    return result


def _several_rewards(batch: Batch) -> dict[str, Any]:
    parts = batch.rows("reward_parts").numpy()
    prompts = torch.ones(len(parts), PROMPT, dtype=torch.long)
    return {
        "non_tensor_batch": {name: parts[:, k] for k, name in enumerate(batch.reward_names)},
        "batch": {"prompts": prompts, "attention_mask": torch.cat([prompts, batch.rows("response_mask")], dim=1)},
    }


def loss(
    mode: str,
    batch: Batch,
    logps: Tensor,
    advantages: Tensor,
    *,
    aggregation: str = "token-mean",
    counts_empty: bool = True,
    kl: str | None = None,
    kl_coef: float = 0.0,
    weights: Tensor | None = None,
    tokens: int | None = None,
    policy_loss: dict[str, Any] | None = None,
    **config: Any,
) -> Tensor:
    """The loss of one mini-batch as its workers compute it; `logps` and `advantages` are [B, T].

    `weights` are rollout-correction weights [B, T], `tokens` what a token mean divides by where that is not the batch's
    number. `counts_empty=False` leaves the number of rows to the loss, which then counts those with a token.
    """
    actor = ActorConfig(
        strategy="fsdp",
        rollout_n=batch.group_size,
        use_dynamic_bsz=True,
        loss_agg_mode=aggregation,
        loss_scale_factor=batch.max_tokens,
        use_kl_loss=kl is not None,
        kl_loss_type=kl or "k3",
        kl_loss_coef=kl_coef,
        policy_loss=PolicyLossConfig(loss_mode=mode, **(policy_loss or {})),
        **config,
    )
    lengths = batch.lengths.flatten().tolist()

    def ragged(rows: Tensor) -> Tensor:
        return torch.nested.as_nested_tensor(
            [row[:n] for row, n in zip(rows, lengths, strict=True)], layout=torch.jagged
        )

    mask = batch.rows("mask")
    fields = {
        "prompts": torch.nested.as_nested_tensor([torch.zeros(PROMPT)] * len(lengths), layout=torch.jagged),
        "responses": ragged(torch.zeros_like(logps)),
        "response_mask": ragged(mask.double()),
        "old_log_probs": ragged(batch.rows("old_logps")),
        "advantages": ragged(advantages),
        "ref_log_prob": ragged(batch.rows("ref_logps")),
    }
    if weights is not None:
        fields["rollout_is_weights"] = ragged(weights)
    data = TensorDict(fields, batch_size=[len(lengths)])
    rows = len(lengths) if counts_empty else None
    tensordict_utils.assign_non_tensor(
        data,
        dp_size=1,
        batch_num_tokens=tokens or int(mask.sum()),
        global_batch_size=rows,
        max_response_len=mask.shape[-1],
    )
    # the model's output is unpadded and shifted by one: the value at a position belongs to the next token
    before, after = logps.new_zeros(PROMPT - 1), logps.new_zeros(1)
    unpadded = torch.cat([torch.cat([before, row[:n], after]) for row, n in zip(logps, lengths, strict=True)])
    result: Tensor = ppo_loss(actor, {"log_probs": unpadded}, data)[0]
    return result


def imitation(batch: Batch, logps: Tensor) -> Tensor:
    """The loss of its supervised fine-tuning, on padded rows."""
    mask = batch.rows("mask")
    data = TensorDict({"response_mask": mask}, batch_size=[len(mask)])
    tensordict_utils.assign_non_tensor(
        data, pad_mode=DatasetPadMode.LEFT_RIGHT, dp_size=1, batch_num_tokens=int(mask.sum())
    )
    result: Tensor = sft_loss(
        ActorConfig(strategy="fsdp", rollout_n=1, use_dynamic_bsz=True), {"log_probs": logps}, data
    )[0]
    return result


def kl(logps: Tensor, ref_logps: Tensor, kind: str) -> Tensor:
    """[B, T]: its estimator of the divergence from the reference policy."""
    result: Tensor = kl_penalty(logps, ref_logps, kind)
    return result


def with_kl_in_reward(batch: Batch, coef: float, kind: str) -> Batch:
    """The batch with its per-token KL penalty, by its own estimator, in the rewards."""
    penalty = -coef * kl_penalty(batch.rows("old_logps"), batch.rows("ref_logps"), kind)
    penalty = torch.where(batch.mask, penalty.view(batch.mask.shape), 0.0)
    return batch.having(kl_rewards=penalty, kl_coef=coef, rewards=batch.rewards + penalty.sum(-1))


def adapted_coefficient(coefficient: float, kl: float, target: float, horizon: float, samples: int) -> float:
    """The next KL coefficient of its adaptive controller."""
    controller = AdaptiveKLController(coefficient, target, horizon)
    controller.update(kl, samples)
    return float(controller.value)


def aggregate(mode: str, losses: Tensor, batch: Batch, *, counts_empty: bool) -> Tensor:
    """Its reduction of a loss matrix [B, T]."""
    mask = batch.rows("mask")
    rows = len(mask) if counts_empty else None
    result: Tensor = agg_loss(losses, mask, mode, global_batch_size=rows, loss_scale_factor=batch.max_tokens)
    return result


def corrected(batch: Batch, config: RolloutCorrectionConfig) -> tuple[Batch, Tensor | None]:
    """What its trainer makes of a rollout: the batch without the tokens it rejects, and any weights [B, T]."""
    rollout = DataProto.from_dict(
        {
            "old_log_probs": batch.rows("old_logps"),
            "rollout_log_probs": batch.rows("behaviour_logps"),
            "response_mask": batch.rows("mask").double(),
        }
    )
    after = compute_rollout_correction_and_add_to_batch(rollout, config)[0].batch
    mask = after["response_mask"].bool().view(batch.mask.shape)
    return batch.having(mask=mask), after.get("rollout_is_weights")


def correction(batch: Batch, level: str | None, threshold: float | str = 2.0, **settings: Any) -> Tensor:
    """[B, T]: the weights of its rollout correction, 0 where it rejects; `settings` are of its configuration."""
    config = RolloutCorrectionConfig(rollout_is=level, rollout_is_threshold=threshold, **settings)
    left, weights = corrected(batch, config)
    return left.rows("mask").double() * (1.0 if weights is None else weights)


def rejected(batch: Batch, rule: str, bounds: str) -> Tensor:
    """[B, T]: 1 at tokens that stay by a rule of its rejection sampling, of which there must be some of both kinds."""
    stays = correction(batch, None, rollout_rs=rule, rollout_rs_threshold=bounds)
    share = float(stays.sum() / batch.mask.sum())
    if not 0 < share < 1:
        raise ValueError(f"{rule} with {bounds} leaves {share:.0%} of a case's tokens, which compares nothing")
    return stays


def overlong(batch: Batch, limit: int, buffer: int, penalty: float) -> Tensor:
    """[P, G]: rewards with its DAPO reward manager's punishment of length."""
    buffer_config = SimpleNamespace(enable=True, len=buffer, penalty_factor=penalty, log=False)
    rewards = []
    with asyncio.Runner() as runner:
        manager = bare_object(
            DAPORewardManager,
            overlong_buffer_cfg=buffer_config,
            max_resp_len=limit,
            is_async_reward_score=False,
            reward_router_address=None,
            loop=runner.get_loop(),
            tokenizer=SimpleNamespace(decode=lambda *_, **__: ""),
        )
        for row, (reward, mask) in enumerate(zip(batch.rewards.flatten(), batch.rows("response_mask"), strict=True)):
            manager.compute_score = lambda reward=reward, **_: float(reward)
            item = DataProto.from_dict(
                tensors={"responses": torch.zeros_like(mask).long()[None], "attention_mask": mask.long()[None]},
                non_tensors={"data_source": np.array([row]), "reward_model": np.array([{"ground_truth": ""}])},
            )
            rewards.append(float(runner.run(manager.run_single(item))["reward_score"]))
    return torch.tensor(rewards, dtype=torch.float64).view(batch.rewards.shape)


def kept(batch: Batch) -> Tensor:
    """[P], bool: groups that its replay buffer does not drop for want of spread."""
    rewards = {f"{p}_{g}": batch.rewards[p, g] for p in range(batch.groups) for g in range(batch.group_size)}
    store = SimpleNamespace(kv_batch_get=lambda keys, **_: {"rm_scores": [rewards[key] for key in keys]})
    every = {str(p) for p in range(batch.groups)}
    buffer = bare_object(
        replay_buffer.ReplayBuffer,
        filter_groups_metric="reward",
        finished_keys={"train": every},
        partitions={"train": dict.fromkeys(rewards)},
        _dapo_classification_cache={"train": {}},
    )
    with patch.object(replay_buffer, "tq", store):
        dropped, _ = buffer._dapo_filtered_keys("train")
    return torch.tensor([str(p) not in dropped for p in range(batch.groups)])
