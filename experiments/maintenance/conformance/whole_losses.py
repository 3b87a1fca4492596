"""The table of variants: a whole step, from rewards to the gradient of the loss, by each reference and by ours.

A reference may coincide with a method when it is set to, and compute something else by default: its default is then a
dialect, a variant of its own, which is compared as well.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core import ADVANTAGES, AGGREGATORS, CORRECTIONS, KLS, OBJECTIVES, SHAPINGS, Batch
from experiments.maintenance.conformance import openrlhf_reference as openrlhf
from experiments.maintenance.conformance import trl_reference as trl
from experiments.maintenance.conformance import verl_reference as verl
from experiments.maintenance.conformance.cases import EMPTY, EXTREME, HOLES, PLAIN, SEVERAL, TWO, best_and_worst
from experiments.maintenance.conformance.comparison import FLOAT32, Comparison, Reference, Settings, whole
from experiments.maintenance.conformance.parts import verdicts

ALL = (PLAIN, HOLES, EXTREME)
KL = 0.04
"""Coefficient of every KL term, in the loss or in the reward."""

PENALTY = 0.7
"""Of responses that reach the limit; it starts at half the limit."""


@dataclass(frozen=True)
class Dialect:
    """What a reference computes by default under a method's name, and how it differs from the method."""

    name: str
    reference: Reference
    dialect: str
    difference: str


DIALECTS = (
    Dialect("grpo", "TRL", "grpo_trl", "One mean over all tokens, eps of 1e-4, k3 times the ratio if KL is on."),
    Dialect("gspo", "TRL", "gspo_trl", "The default aggregation weighs responses by their length."),
    Dialect("cispo", "TRL", "cispo_trl", "Eps of 1e-4; dynamic sampling is not there, the length punishment is apart."),
    Dialect("dr_grpo", "TRL", "dr_grpo_trl", "The loss type alone still divides by the std."),
    Dialect("rloo", "TRL", "rloo_trl", "PPO's clip on the ratio of whole responses in place of the log-probability."),
    Dialect("ipo", "TRL", "ipo_trl", "`DPOTrainer` takes means over tokens; its online trainer sums, as here."),
    Dialect("grpo", "verl", "grpo_verl", "Dual clip with a cap of 3, one mean over all tokens, k3 bounded."),
    Dialect("dapo", "verl", "dapo_verl", "Dual clip with a cap of 10."),
    Dialect("rloo", "verl", "rloo_verl", "Dual clip by token and a mean over tokens in place of the log-probability."),
    Dialect("remax", "verl", "remax_verl", "Dual clip by token in place of the log-probability."),
    Dialect("gspo", "verl", "gspo_verl", "The token form, which has the same gradient for one advantage a response."),
    Dialect("cispo", "verl", "cispo_verl", "The example bounds the weight at 1.2; no filter, no length punishment."),
    Dialect("gpg", "verl", "gpg_verl", "Scaled by the number of rewards that are not 0, not by groups without spread."),
    Dialect("gdpo", "verl", "gdpo_verl", "Whitened over tokens, not over responses; dual clip."),
    Dialect("kl_cov", "verl", "kl_cov_verl", "A tenth of the penalty; no filter."),
    Dialect(
        "grpo", "OpenRLHF", "grpo_openrlhf", "One mean over all tokens; KL by token, outside the group's statistics."
    ),
    Dialect("dr_grpo", "OpenRLHF", "dr_grpo_openrlhf", "Rewards are centred, but the loss is a mean over tokens."),
    Dialect("rloo", "OpenRLHF", "rloo_openrlhf", "PPO's clip by token; KL to go, which no baseline touches."),
    Dialect("reinforce_pp", "OpenRLHF", "reinforce_pp_openrlhf", "Population variance, bounded below."),
    Dialect(
        "reinforce_pp_baseline",
        "OpenRLHF",
        "reinforce_pp_baseline_openrlhf",
        "KL by token, outside the baseline; population variance, bounded below.",
    ),
    Dialect("group_mean_spread_scaled", "verl", "group_mean_nonzero_scaled", "Another scale: see gpg."),
    Dialect("k3", "verl", "k3_bounded", "The log-ratio is bounded at 20 and the value at 10."),
    Dialect("k3", "OpenRLHF", "k3_bounded", "The value is bounded at 10."),
    Dialect("per_reward_std", "verl", "per_reward_std_whitened", "Whitened over tokens: see gdpo."),
)


def comparisons() -> list[Comparison]:
    """Every row of the table."""
    return [*with_trl(), *with_verl(), *with_openrlhf()]


# --- TRL ---


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


def _with_trl_overlong(call: Callable[[Batch, Tensor], Tensor]) -> Callable[[Batch, Tensor], Tensor]:
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


def _preferring(call: Callable[..., Tensor], *args: Any, **settings: Any) -> Callable[[Batch, Tensor], Tensor]:
    """A loss on given preferences, here of the best of each group over the worst."""
    return lambda batch, logps: call(batch, logps, best_and_worst(batch), *args, **settings)


def with_trl() -> list[Comparison]:
    """Variants and dialects that TRL has."""
    std: Settings = {"advantage": ADVANTAGES["group_mean_std"].using(eps=1e-4)}
    overlong = [SHAPINGS["soft_overlong"].using(buffer=0.5, penalty=PENALTY)]
    higher: Settings = {"epsilon_low": 0.2, "epsilon_high": 0.28}
    plain_k3: Settings = {"use_bias_correction_kl": False}
    by_row: Settings = {"importance_sampling_level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4}
    no_filter = "It has no dynamic sampling."
    given = "Of given pairs, group by group."
    ties = "Of a tie it prefers the first; compared on the groups that have none."
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
            truncated="mask",
        ),
        whole(
            "grpo_trl",
            "TRL",
            "GRPOTrainer, vLLM sequence_mask",
            _grpo("dapo", beta=KL, correction={"mode": "sequence_mask", "clip_min": None, "clip_max": 3.0}),
            kl_coef=KL,
            correction=CORRECTIONS["sequence_masked"],
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
        whole(
            "dapo",
            "TRL",
            "epsilon_high=0.28, get_soft_overlong_punishment",
            _with_trl_overlong(_grpo("dapo", **higher)),
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
            _with_trl_overlong(_grpo("cispo", epsilon_high=5.0)),
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
        whole("sft", "TRL", "SFTTrainer", trl.imitation, tolerance=FLOAT32, note="Its model's own loss, in float32."),
        whole(
            "gdpo",
            "TRL",
            "multi_objective_aggregation='normalize_then_sum'",
            _grpo("dapo", multi_objective_aggregation="normalize_then_sum"),
            flavours=[SEVERAL],
        ),
        whole("dpo", "TRL", "DPOTrainer", _preferring(trl.dpo), flavours=(*ALL, EMPTY), note=given),
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
            _preferring(trl.dpo, "ipo"),
            flavours=(*ALL, EMPTY),
            note=given,
        ),
        whole(
            "kto",
            "TRL",
            "KTOTrainer",
            _preferring(trl.kto),
            flavours=(*ALL, EMPTY),
            note="Of given preferences, with a reference point of the step's own responses.",
        ),
    ]


# --- verl ---


def _verl(
    estimator: str,
    mode: str,
    aggregation: str = "token-mean",
    *,
    reward_kl: float = 0.0,
    punished: bool = False,
    corrected: bool = False,
    of_estimator: dict[str, Any] | None = None,
    **of_loss: Any,
) -> Callable[[Batch, Tensor], Tensor]:
    """An estimator of verl and a loss of verl, end to end.

    With its KL or its length punishment in the reward, and with its token-level correction of the sampler's mismatch if
    `corrected`.
    """

    def call(batch: Batch, logps: Tensor) -> Tensor:
        if punished:
            batch = batch.having(rewards=verl.overlong(batch, batch.max_tokens, batch.max_tokens // 2, PENALTY))
        if reward_kl:
            batch = verl.with_kl_in_reward(batch, reward_kl, "k1")
        advantages = verl.advantages(estimator, batch, **(of_estimator or {}))
        weights = verl.correction(batch, "token", 2.0) if corrected else None
        return verl.loss(mode, batch, logps, advantages, aggregation=aggregation, weights=weights, **of_loss)

    return call


def with_verl() -> list[Comparison]:
    """Variants and dialects that verl has."""
    single: Settings = {"clip_ratio_c": 1e30}
    higher: Settings = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}
    wide: Settings = {"clip_ratio_low": 10.0, "clip_ratio_high": 10.0}
    gspo: Settings = {"clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4}
    k3: Settings = {"kl": KLS["k3_bounded"], "kl_coef": KL}
    raw: Settings = {"norm_adv_by_std_in_grpo": False}
    overlong = [SHAPINGS["soft_overlong"].using(buffer=0.5, penalty=PENALTY)]
    punished: Settings = {"punished": True}
    sampled: Settings = {"groups": lambda batch: verl.kept(verdicts(batch)), "shaping": overlong}
    in_float32: Settings = {"tolerance": FLOAT32}
    float_note = "Its length punishment is in float32."
    cap = "Its configuration sets the cap to 3 unless told otherwise, and it clamps log-ratios at 20 in size."
    clamps = "It clamps log-ratios at 20 in size."
    cov = OBJECTIVES["cov_clip"].using(share=1.0, cov_low=0.1, cov_high=2.0)
    verl_cov: Settings = {"clip_cov_ratio": 1.0, "clip_cov_lb": 0.1, "clip_cov_ub": 2.0}
    off = "Its dual clip is put out of reach with clip_ratio_c=1e30."
    reward_kl: Settings = {"reward_kl": KL}
    on_prefix: Settings = {"kl_coef": KL, "flavours": [PLAIN]}
    kept: Settings = {"groups": lambda batch: verl.kept(verdicts(batch))}
    return [
        whole(
            "reinforce",
            "verl",
            "rloo with every response a group, gpg, seq-mean-token-sum",
            _verl("rloo", "gpg", "seq-mean-token-sum", of_estimator={"group_size": 1}),
            flavours=ALL,
        ),
        whole("sft", "verl", "sft_loss", verl.imitation),
        whole(
            "grpo",
            "verl",
            "grpo, vanilla, seq-mean-token-mean, k3 in the loss",
            _verl("grpo", "vanilla", "seq-mean-token-mean", kl="k3", kl_coef=KL, **single),
            **k3,
            note=off,
        ),
        whole(
            "grpo_verl",
            "verl",
            "grpo, vanilla, k3 in the loss",
            _verl("grpo", "vanilla", kl="k3", kl_coef=KL),
            kl_coef=KL,
            flavours=ALL,
        ),
        whole(
            "grpo_verl",
            "verl",
            "grpo, vanilla, k3 in the loss, token-level TIS",
            _verl("grpo", "vanilla", kl="k3", kl_coef=KL, corrected=True),
            kl_coef=KL,
            correction=CORRECTIONS["token_truncated"],
        ),
        whole(
            "grpo_r1",
            "verl",
            "grpo, vanilla, clip_ratio=10, seq-mean-token-mean, k3 in the loss",
            _verl("grpo", "vanilla", "seq-mean-token-mean", kl="k3", kl_coef=KL, **wide, **single),
            **k3,
            note=off,
        ),
        whole(
            "dr_grpo",
            "verl",
            "grpo without std, vanilla, seq-mean-token-sum-norm",
            _verl("grpo", "vanilla", "seq-mean-token-sum-norm", of_estimator=raw, **single),
            note=off,
        ),
        whole(
            "dapo",
            "verl",
            "grpo, vanilla, filter_groups, overlong_buffer_cfg",
            _verl("grpo", "vanilla", **punished, **higher, **single),
            **sampled,
            **in_float32,
            note=f"{off} {float_note}",
        ),
        whole(
            "dapo_verl",
            "verl",
            "grpo, vanilla, clip_ratio_c=10, filter_groups, overlong_buffer_cfg",
            _verl("grpo", "vanilla", **punished, **higher, clip_ratio_c=10.0),
            **sampled,
            **in_float32,
            flavours=ALL,
            note=float_note,
        ),
        whole(
            "rloo",
            "verl",
            "rloo, gpg, seq-mean-token-sum, k1 in the reward",
            _verl("rloo", "gpg", "seq-mean-token-sum", **reward_kl),
            **on_prefix,
        ),
        whole(
            "rloo_verl", "verl", "rloo, vanilla, k1 in the reward", _verl("rloo", "vanilla", **reward_kl), **on_prefix
        ),
        whole("remax", "verl", "remax, gpg, k1 in the reward", _verl("remax", "gpg", **reward_kl), **on_prefix),
        whole(
            "remax_verl",
            "verl",
            "remax, vanilla, k1 in the reward",
            _verl("remax", "vanilla", **reward_kl),
            **on_prefix,
        ),
        whole(
            "reinforce_pp",
            "verl",
            "reinforce_plus_plus, vanilla, k1 in the reward",
            _verl("reinforce_plus_plus", "vanilla", **reward_kl, **single),
            **on_prefix,
            note=off,
        ),
        whole(
            "ppo",
            "verl",
            "gae, vanilla, k1 in the reward",
            _verl("gae", "vanilla", **reward_kl, **single),
            **on_prefix,
            note=off,
        ),
        whole(
            "reinforce_pp_baseline",
            "verl",
            "reinforce_plus_plus_baseline, vanilla, k2 in the loss",
            _verl("reinforce_plus_plus_baseline", "vanilla", kl="k2", kl_coef=KL, **single),
            kl_coef=KL,
            note=off,
        ),
        whole("opo", "verl", "opo, gpg", _verl("opo", "gpg"), flavours=ALL),
        whole("gpg_verl", "verl", "gpg, gpg", _verl("gpg", "gpg"), flavours=ALL),
        whole("gspo", "verl", "grpo, gspo, seq-mean-token-mean", _verl("grpo", "gspo", "seq-mean-token-mean", **gspo)),
        whole(
            "gspo_verl", "verl", "grpo, gspo, seq-mean-token-mean", _verl("grpo", "gspo", "seq-mean-token-mean", **gspo)
        ),
        whole("luspo", "verl", "grpo, gspo, seq-mean-token-sum", _verl("grpo", "gspo", "seq-mean-token-sum", **gspo)),
        whole(
            "cispo",
            "verl",
            "grpo, cispo, clip_ratio_low=1, clip_ratio_high=4, filter_groups, overlong_buffer_cfg",
            _verl("grpo", "cispo", **punished, clip_ratio_low=1.0, clip_ratio_high=4.0),
            **sampled,
            **in_float32,
            note=f"{float_note} {clamps}",
        ),
        whole(
            "cispo_verl",
            "verl",
            "grpo, cispo, clip_ratio_low=10",
            _verl("grpo", "cispo", clip_ratio_low=10.0, clip_ratio_high=0.2),
            note=clamps,
        ),
        whole(
            "gmpo",
            "verl",
            "grpo, geo_mean",
            _verl("grpo", "geo_mean", clip_ratio_low=0.4, clip_ratio_high=0.4),
            flavours=ALL,
            note="Of one micro-batch: it sums the row means of several undivided.",
        ),
        whole("sapo", "verl", "grpo, sapo", _verl("grpo", "sapo"), flavours=ALL),
        whole(
            "clip_cov",
            "verl",
            "grpo, clip_cov, filter_groups",
            _verl("grpo", "clip_cov", policy_loss=verl_cov),
            objective=cov,
            flavours=ALL,
            **kept,
            note="With a share of 1 nothing is drawn: else each draws tokens of its own.",
        ),
        whole(
            "kl_cov",
            "verl",
            "grpo, kl_cov, ppo_kl_coef=1, filter_groups",
            _verl("grpo", "kl_cov", policy_loss={"ppo_kl_coef": 1.0}),
            flavours=ALL,
            **kept,
        ),
        whole("kl_cov_verl", "verl", "grpo, kl_cov", _verl("grpo", "kl_cov"), flavours=ALL),
        whole(
            "dppo_tv", "verl", "grpo, dppo_tv, clip_ratio_c=20", _verl("grpo", "dppo_tv", clip_ratio_c=20.0), note=cap
        ),
        whole(
            "dppo_kl", "verl", "grpo, dppo_kl, clip_ratio_c=20", _verl("grpo", "dppo_kl", clip_ratio_c=20.0), note=cap
        ),
        whole(
            "dro",
            "verl",
            "grpo without std, dro, dro_beta=1",
            _verl("grpo", "dro", of_estimator=raw, policy_loss={"dro_beta": 1.0}),
            flavours=ALL,
        ),
        whole("grpo_passk", "verl", "grpo_passk, vanilla", _verl("grpo_passk", "vanilla", **single), note=off),
        whole(
            "gdpo_verl",
            "verl",
            "gdpo, vanilla",
            _verl("gdpo", "vanilla"),
            flavours=[SEVERAL],
            tolerance=FLOAT32,
            note="Its estimator computes in float32.",
        ),
        whole(
            "optimal_token",
            "verl",
            "optimal_token_baseline, vanilla",
            _verl("optimal_token_baseline", "vanilla", **single),
            flavours=[PLAIN],
            note=off,
        ),
    ]


# --- OpenRLHF ---


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


def with_openrlhf() -> list[Comparison]:
    """Variants and dialects that OpenRLHF has."""
    std: Settings = {"advantage": ADVANTAGES["group_mean_std"].using(eps=1e-9)}
    rows: Settings = {"aggregator": AGGREGATORS["seq_mean_token_mean"].using(count_empty=False)}
    k3: Settings = {"kl": KLS["k3_bounded"].using(max_log_ratio=math.inf), "kl_coef": KL}
    in_loss: Settings = {"kl_coef": KL, "kl_estimator": "k3"}
    by_token = dict(aggregator=AGGREGATORS["token_mean"], **k3)
    given = "Of given pairs, group by group."
    no_kl = "Without KL: in the loss it is a mean over tokens there, whatever the policy's term is."
    overlong = [SHAPINGS["soft_overlong"].using(buffer=0.5, penalty=PENALTY)]
    sampled: Settings = {"groups": lambda batch: openrlhf.kept(verdicts(batch), 0.0, 1.0), "shaping": overlong}
    float_kl: Settings = {"tolerance": FLOAT32, "note": "Its KL is in float32."}
    penalised = dict(kl_coef=KL, flavours=[PLAIN], **float_kl)
    population_gae = ADVANTAGES["whitened_gae"].using(correction=0, eps=0.0, floor=1e-8)
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
            **float_kl,
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
            "grpo_openrlhf",
            "OpenRLHF",
            "group_norm, token-level TIS",
            _openrlhf("group_norm", is_correction_level="token", is_correction_mode="clip"),
            kl_coef=0.0,
            correction=CORRECTIONS["token_truncated"].using(floor=0.5, cap=5.0),
        ),
        whole(
            "dr_grpo_openrlhf", "OpenRLHF", "dr_grpo, k1 in the reward", _openrlhf("dr_grpo", reward_kl=KL), **penalised
        ),
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
        whole("dpo", "OpenRLHF", "DPOLoss", _preferring(openrlhf.dpo, beta=0.1), flavours=(*ALL, EMPTY), note=given),
        whole(
            "ipo",
            "OpenRLHF",
            "DPOLoss, ipo",
            _preferring(openrlhf.dpo, beta=0.1, ipo=True),
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
