"""Whole variants beside OpenRLHF: from rewards to the gradient of the loss."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from core import ADVANTAGES, AGGREGATORS, CORRECTIONS, KLS, SHAPINGS, Batch
from experiments.maintenance.conformance import openrlhf_reference as openrlhf
from experiments.maintenance.conformance.calls import (
    preferring,
)
from experiments.maintenance.conformance.cases import (
    ALL,
    EMPTY,
    PLAIN,
    verdicts,
)
from experiments.maintenance.conformance.comparison import (
    FLOAT32,
    Comparison,
    Settings,
)
from experiments.maintenance.conformance.rows import (
    KL,
    PENALTY,
    whole,
)

FLOAT_KL: Settings = {"tolerance": FLOAT32, "note": "Its KL is in float32."}


def with_openrlhf() -> list[Comparison]:
    """Variants and dialects that OpenRLHF has."""
    return [*_grpo_family(), *_corrected(), *_others()]


def _grpo_family() -> list[Comparison]:
    """GRPO and its relatives by the group, and imitation."""
    std: Settings = {"advantage": ADVANTAGES["group_mean_std"].using(eps=1e-9)}
    rows: Settings = {"aggregator": AGGREGATORS["seq_mean_token_mean"].using(count_empty=False)}
    k3: Settings = {"kl": KLS["k3_bounded"].using(max_log_ratio=math.inf), "kl_coef": KL}
    in_loss: Settings = {"kl_coef": KL, "kl_estimator": "k3"}
    by_token = dict(aggregator=AGGREGATORS["token_mean"], **k3)
    no_kl = "Without KL: in the loss it is a mean over tokens there, whatever the policy's term is."
    penalised = dict(kl_coef=KL, flavours=[PLAIN], **FLOAT_KL)
    return [
        whole("sft", "OpenRLHF", "SFTLoss", openrlhf.imitation),
        whole(
            "grpo",
            "OpenRLHF",
            "group_norm, seq-mean-token-mean",
            _openrlhf("group_norm", token_level_loss=False),
            **std,
            **rows,
            note=no_kl,
        ),
        whole(
            "grpo",
            "OpenRLHF",
            "group_norm, k3 in the loss",
            _openrlhf("group_norm", **in_loss),
            **std,
            **by_token,
            **FLOAT_KL,
        ),
        whole(
            "grpo_openrlhf",
            "OpenRLHF",
            "group_norm, k1 in the reward",
            _openrlhf("group_norm", reward_kl=KL),
            **penalised,
        ),
        whole(
            "grpo_r1",
            "OpenRLHF",
            "group_norm, eps_clip=10, seq-mean-token-mean",
            _openrlhf("group_norm", clip_eps_low=10.0, clip_eps_high=10.0, token_level_loss=False),
            **std,
            **rows,
            kl_coef=0.0,
            note=no_kl,
        ),
        whole(
            "dr_grpo_openrlhf", "OpenRLHF", "dr_grpo, k1 in the reward", _openrlhf("dr_grpo", reward_kl=KL), **penalised
        ),
    ]


def _corrected() -> list[Comparison]:
    """With its corrections of the sampler's mismatch."""
    std: Settings = {"advantage": ADVANTAGES["group_mean_std"].using(eps=1e-9)}
    rows: Settings = {"aggregator": AGGREGATORS["seq_mean_token_mean"].using(count_empty=False)}
    return [
        whole(
            "grpo_openrlhf",
            "OpenRLHF",
            "group_norm, token-level TIS",
            _openrlhf("group_norm", is_correction_level="token", is_correction_mode="clip"),
            kl_coef=0.0,
            fields={"correction": CORRECTIONS["token_truncated"].using(floor=0.5, cap=5.0)},
        ),
        whole(
            "grpo_openrlhf",
            "OpenRLHF",
            "group_norm, is_correction_level='seq', is_correction_mode='mask'",
            _openrlhf("group_norm", is_correction_level="seq", is_correction_threshold=(0.9, 1.1)),
            kl_coef=0.0,
            fields={"correction": CORRECTIONS["geometric_mean_masked"].using(low=0.9, high=1.1)},
        ),
        whole(
            "gspo",
            "OpenRLHF",
            "group_norm, gspo, is_correction_level='seq'",
            _openrlhf(
                "group_norm",
                policy_loss_type="gspo",
                clip_eps_low=3e-4,
                clip_eps_high=4e-4,
                is_correction_level="seq",
            ),
            **std,
            **rows,
            fields={"anchor": "sampler"},
            note="With any correction its ratio is against the sampler, and nothing else is corrected.",
        ),
    ]


def _others() -> list[Comparison]:
    """Other clips and baselines, and preferences."""
    std: Settings = {"advantage": ADVANTAGES["group_mean_std"].using(eps=1e-9)}
    rows: Settings = {"aggregator": AGGREGATORS["seq_mean_token_mean"].using(count_empty=False)}
    given = "Of given pairs, group by group."
    overlong = [SHAPINGS["soft_overlong"].using(buffer=0.5, penalty=PENALTY)]
    sampled: Settings = {"groups": lambda batch: openrlhf.kept(verdicts(batch), 0.0, 1.0), "shaping": overlong}
    penalised = dict(kl_coef=KL, flavours=[PLAIN], **FLOAT_KL)
    population_gae = ADVANTAGES["whitened_gae"].using(correction=0, eps=0.0, floor=1e-8)
    return [
        whole(
            "dapo",
            "OpenRLHF",
            "group_norm, dynamic_filtering, overlong_buffer_len",
            _openrlhf("group_norm", punished=True, clip_eps_low=0.2, clip_eps_high=0.28),
            **std,
            **sampled,
        ),
        whole(
            "gspo",
            "OpenRLHF",
            "group_norm, gspo",
            _openrlhf("group_norm", policy_loss_type="gspo", clip_eps_low=3e-4, clip_eps_high=4e-4),
            **std,
            **rows,
        ),
        whole("rloo_openrlhf", "OpenRLHF", "rloo, k1 in the reward", _openrlhf("rloo", reward_kl=KL), **penalised),
        whole(
            "reinforce_pp_openrlhf",
            "OpenRLHF",
            "reinforce, k1 in the reward",
            _openrlhf("reinforce", reward_kl=KL),
            **penalised,
        ),
        whole(
            "ppo",
            "OpenRLHF",
            "gae, k1 in the reward",
            _openrlhf("gae", reward_kl=KL),
            advantage=population_gae,
            **penalised,
        ),
        whole("dpo", "OpenRLHF", "DPOLoss", preferring(openrlhf.dpo, beta=0.1), flavours=(*ALL, EMPTY), note=given),
        whole(
            "ipo",
            "OpenRLHF",
            "DPOLoss, ipo",
            preferring(openrlhf.dpo, beta=0.1, ipo=True),
            flavours=(*ALL, EMPTY),
            note=given,
        ),
        whole(
            "reinforce_pp_baseline_openrlhf",
            "OpenRLHF",
            "reinforce_baseline, k1 in the reward",
            _openrlhf("reinforce_baseline", reward_kl=KL),
            **penalised,
        ),
    ]


def _openrlhf(
    estimator: str, *, reward_kl: float = 0.0, punished: bool = False, **of_loss: Any
) -> Callable[[Batch, Tensor], Tensor]:
    """An estimator of OpenRLHF and its actor's loss, end to end, with its KL or length punishment in the reward."""

    def call(batch: Batch, logps: Tensor) -> Tensor:
        if punished:
            limit = batch.max_tokens
            batch = batch.having(rewards=openrlhf.overlong(batch, limit, limit // 2, PENALTY))
        advantages = openrlhf.advantages(estimator, batch, kl_coef=reward_kl)
        return openrlhf.loss(batch, logps, advantages, **of_loss)

    return call
