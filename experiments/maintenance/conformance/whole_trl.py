"""Whole variants beside TRL: from rewards to the gradient of the loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from core import ADVANTAGES, CORRECTIONS, CREDITS, SHAPINGS, Batch
from experiments.maintenance.conformance import trl_reference as trl
from experiments.maintenance.conformance.calls import preferring
from experiments.maintenance.conformance.cases import ALL, EMPTY, PLAIN, SEVERAL, TWO
from experiments.maintenance.conformance.comparison import FLOAT32, Comparison, Settings
from experiments.maintenance.conformance.rows import KL, PENALTY, whole


def with_trl() -> list[Comparison]:
    """Variants and dialects that TRL has."""
    return [*_grpo_family(), *_corrected(), *_other_ratios(), *_preferences()]


def _grpo_family() -> list[Comparison]:
    """GRPO, and Dr. GRPO."""
    std: Settings = {"advantage": ADVANTAGES["group_mean_std"].using(eps=1e-4)}
    plain_k3: Settings = {"use_bias_correction_kl": False}
    return [
        whole(
            "grpo",
            "TRL",
            "loss_type='grpo', beta, use_bias_correction_kl=False",
            _grpo("grpo", beta=KL, of_args=plain_k3),
            **std,
            kl_coef=KL,
            flavours=ALL,
        ),
        whole("grpo_trl", "TRL", "GRPOTrainer, beta", _grpo("dapo", beta=KL), kl_coef=KL),
        whole(
            "grpo_trl",
            "TRL",
            "GRPOTrainer, mask_truncated_completions",
            _grpo("dapo", mask_truncated_completions=True),
            fields={"truncated": "mask"},
        ),
        whole(
            "grpo_r1",
            "TRL",
            "epsilon=10, loss_type='grpo', beta, use_bias_correction_kl=False",
            _grpo("grpo", beta=KL, epsilon_low=10.0, epsilon_high=10.0, of_args=plain_k3),
            **std,
            kl_coef=KL,
        ),
        whole(
            "dr_grpo",
            "TRL",
            "scale_rewards='none', loss_type='dr_grpo'",
            _grpo("dr_grpo", scale_rewards="none"),
            flavours=ALL,
        ),
        whole("dr_grpo_trl", "TRL", "loss_type='dr_grpo'", _grpo("dr_grpo"), flavours=ALL),
    ]


def _corrected() -> list[Comparison]:
    """With its corrections of the sampler's mismatch, and with the tokens of the highest entropy alone."""
    return [
        whole(
            "grpo_trl",
            "TRL",
            "GRPOTrainer, vLLM sequence_mask",
            _grpo("dapo", beta=KL, correction={"mode": "sequence_mask", "clip_min": None, "clip_max": 3.0}),
            kl_coef=KL,
            fields={"correction": CORRECTIONS["sequence_masked"]},
        ),
        whole(
            "grpo_trl",
            "TRL",
            "GRPOTrainer, beta, vLLM token_truncate, top_entropy_quantile=0.2",
            _grpo(
                "dapo",
                beta=KL,
                correction={"mode": "token_truncate", "clip_min": 0.5, "clip_max": 2.0},
                top_entropy_quantile=0.2,
            ),
            kl_coef=KL,
            fields={
                "correction": CORRECTIONS["token_truncated"].using(floor=0.5, cap=2.0),
                "credit": CREDITS["top_entropy"].using(share=0.2),
            },
            note="With one entropy for the sampler and every policy.",
        ),
    ]


def _other_ratios() -> list[Comparison]:
    """Other clips, weights and ratios of whole responses."""
    std: Settings = {"advantage": ADVANTAGES["group_mean_std"].using(eps=1e-4)}
    overlong = [SHAPINGS["soft_overlong"].using(buffer=0.5, penalty=PENALTY)]
    higher: Settings = {"epsilon_low": 0.2, "epsilon_high": 0.28}
    by_row: Settings = {"importance_sampling_level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4}
    no_filter = "It has no dynamic sampling."
    return [
        whole(
            "dapo",
            "TRL",
            "epsilon_high=0.28, get_soft_overlong_punishment",
            _with_overlong(_grpo("dapo", **higher)),
            **std,
            filter=None,
            shaping=overlong,
            note=no_filter,
        ),
        whole("rloo_trl", "TRL", "RLOOTrainer", _rloo, kl_coef=KL, flavours=[PLAIN]),
        whole("gspo", "TRL", "importance_sampling_level='sequence', loss_type='grpo'", _grpo("grpo", **by_row), **std),
        whole("gspo_trl", "TRL", "importance_sampling_level='sequence'", _grpo("dapo", **by_row)),
        whole(
            "luspo", "TRL", "importance_sampling_level='sequence', loss_type='luspo'", _grpo("luspo", **by_row), **std
        ),
        whole(
            "cispo",
            "TRL",
            "loss_type='cispo', epsilon_high=5, get_soft_overlong_punishment",
            _with_overlong(_grpo("cispo", epsilon_high=5.0)),
            **std,
            filter=None,
            shaping=overlong,
            note=no_filter,
        ),
        whole("cispo_trl", "TRL", "loss_type='cispo', epsilon_high=5", _grpo("cispo", epsilon_high=5.0), flavours=ALL),
        whole("gmpo", "TRL", "experimental GMPOTrainer", _gmpo, **std, flavours=ALL),
        whole("sapo", "TRL", "loss_type='sapo'", _grpo("sapo"), **std, flavours=ALL),
        whole(
            "vespo",
            "TRL",
            "loss_type='vespo'",
            _grpo("vespo"),
            **std,
            flavours=ALL,
            note="A correction of the sampler's mismatch enters its weight; ours multiplies the loss.",
        ),
    ]


def _preferences() -> list[Comparison]:
    """Imitation, several rewards, and preferences."""
    given = "Of given pairs, group by group."
    ties = "Of a tie it prefers the first; compared on the groups that have none."
    return [
        whole("sft", "TRL", "SFTTrainer", trl.imitation, tolerance=FLOAT32, note="Its model's own loss, in float32."),
        whole(
            "gdpo",
            "TRL",
            "multi_objective_aggregation='normalize_then_sum'",
            _grpo("dapo", multi_objective_aggregation="normalize_then_sum"),
            flavours=[SEVERAL],
        ),
        whole("dpo", "TRL", "DPOTrainer", preferring(trl.dpo), flavours=(*ALL, EMPTY), note=given),
        whole("dpo", "TRL", "experimental OnlineDPOTrainer", trl.online_dpo, flavours=[TWO], note=ties),
        whole(
            "ipo",
            "TRL",
            "experimental OnlineDPOTrainer, loss_type='ipo'",
            lambda batch, logps: trl.online_dpo(batch, logps, "ipo"),
            flavours=[TWO],
            note=ties,
        ),
        whole(
            "ipo_trl",
            "TRL",
            "DPOTrainer, loss_type='ipo'",
            preferring(trl.dpo, "ipo"),
            flavours=(*ALL, EMPTY),
            note=given,
        ),
        whole(
            "kto",
            "TRL",
            "KTOTrainer",
            preferring(trl.kto),
            flavours=(*ALL, EMPTY),
            note="Of given preferences, with a reference point of the step's own responses.",
        ),
    ]


def _grpo(loss_type: str, **settings: Any) -> Callable[[Batch, Tensor], Tensor]:
    """Its GRPO trainer, end to end."""

    def call(batch: Batch, logps: Tensor) -> Tensor:
        trainer = trl.grpo(batch, loss_type=loss_type, **settings)
        return trl.loss(trainer, trl.rollout(trainer, batch), logps)

    return call


def _rloo(batch: Batch, logps: Tensor) -> Tensor:
    trainer = trl.rloo(batch, beta=KL)
    return trl.loss(trainer, trl.rollout(trainer, batch), logps)


def _gmpo(batch: Batch, logps: Tensor) -> Tensor:
    trainer = trl.gmpo(batch)
    return trl.loss(trainer, trl.rollout(trainer, batch), logps)


def _with_overlong(call: Callable[[Batch, Tensor], Tensor]) -> Callable[[Batch, Tensor], Tensor]:
    """With its length punishment as one more reward function."""

    def punished(batch: Batch, logps: Tensor) -> Tensor:
        more = trl.overlong(batch, batch.max_tokens, batch.max_tokens // 2)
        return call(
            batch.having(
                reward_parts=torch.cat([batch.require("reward_parts"), more[..., None]], -1),
                reward_names=(*batch.reward_names, "overlong"),
                reward_weights=(*batch.reward_weights, PENALTY),
            ),
            logps,
        )

    return punished
