"""The table of policy objectives: what each reference has for each of ours, and where the two coincide."""

from experiments.maintenance.conformance import openrlhf_reference as openrlhf
from experiments.maintenance.conformance import trl_reference as trl
from experiments.maintenance.conformance import verl_reference as verl
from experiments.maintenance.conformance.calls import by_response, by_side, imitates, openrlhf_loss, trl_loss, verl_loss
from experiments.maintenance.conformance.cases import ALL, EMPTY, PLAIN
from experiments.maintenance.conformance.comparison import FLOAT32, Comparison, Settings
from experiments.maintenance.conformance.rows import objective

BOUNDS: Settings = {"eps_low": 0.2, "eps_high": 0.28}
TRL_BOUNDS: Settings = {"epsilon_low": 0.2, "epsilon_high": 0.28}
VERL_BOUNDS: Settings = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}
THEIR_BOUNDS: Settings = {"clip_eps_low": 0.2, "clip_eps_high": 0.28}
GSPO: Settings = {"eps_low": 3e-4, "eps_high": 4e-4}
VERL_GSPO: Settings = {"clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4}
TRL_GSPO: Settings = {"epsilon_low": 3e-4, "epsilon_high": 4e-4, "importance_sampling_level": "sequence"}
THEIR_GSPO: Settings = {"clip_eps_low": 3e-4, "clip_eps_high": 4e-4, "policy_loss_type": "gspo"}
BY_ROW: Settings = {"aggregator": "seq_mean_token_mean", "per_token": False}
CLAMPS = "It clamps log-ratios at 20 in size, where ours goes on."
TIE = "The same while the cap is not below 1 + eps_high."
CONSTANT = "For one advantage a response; with several, its gradient is the other form's."


def objectives() -> list[Comparison]:
    """Policy objectives, each under an aggregator that its loss in the reference goes with."""
    return [
        *_likelihoods(),
        *_clips(),
        *_dual_clips(),
        *_capped_clips(),
        *_weights(),
        *_gspo_clips(),
        *_gspo_token_clips(),
        *_response_clips(),
        *_regularised(),
        *_preferences(),
    ]


def _likelihoods() -> list[Comparison]:
    """The policy gradient without a ratio, and imitation."""
    imitates_trl: Settings = {"tolerance": FLOAT32, "note": "Its model's own loss, in float32."}
    return [
        objective("policy_gradient", "verl", "gpg", verl_loss("gpg"), flavours=ALL),
        objective("log_likelihood", "TRL", "SFTTrainer", imitates(trl.imitation), **imitates_trl),
        objective("log_likelihood", "verl", "sft_loss", imitates(verl.imitation)),
        objective("log_likelihood", "OpenRLHF", "SFTLoss", imitates(openrlhf.imitation)),
    ]


def _clips() -> list[Comparison]:
    """PPO's clip, and what is masked beside it."""
    always_dual = "Its dual clip is always on: off for all purposes with clip_ratio_c=1e30. " + CLAMPS
    return [
        objective("clip", "TRL", "loss_type='dapo'", trl_loss(**TRL_BOUNDS), **BOUNDS, flavours=ALL),
        objective(
            "clip",
            "verl",
            "vanilla",
            verl_loss("vanilla", clip_ratio_c=1e30, **VERL_BOUNDS),
            **BOUNDS,
            note=always_dual,
        ),
        objective("clip", "OpenRLHF", "ppo", openrlhf_loss(**THEIR_BOUNDS), **BOUNDS, note=CLAMPS),
        objective(
            "off_policy_masked_clip",
            "TRL",
            "off_policy_mask_threshold",
            trl_loss(**TRL_BOUNDS, off_policy_mask_threshold=0.01, knows_sampler=True),
            **BOUNDS,
            threshold=0.01,
        ),
    ]


def _dual_clips() -> list[Comparison]:
    """Clips with a cap on the ratio where the advantage is negative."""
    return [
        objective(
            "dual_clip",
            "TRL",
            "delta",
            trl_loss(**TRL_BOUNDS, of_args={"delta": 3.0}),
            **BOUNDS,
            ratio_cap=3.0,
            flavours=ALL,
            note=TIE,
        ),
        objective(
            "dual_clip",
            "verl",
            "vanilla",
            verl_loss("vanilla", clip_ratio_c=3.0, **VERL_BOUNDS),
            **BOUNDS,
            ratio_cap=3.0,
            flavours=ALL,
        ),
        objective(
            "dual_clip",
            "OpenRLHF",
            "ppo, dual_clip",
            openrlhf_loss(**THEIR_BOUNDS, dual_clip=3.0),
            **BOUNDS,
            ratio_cap=3.0,
            flavours=ALL,
        ),
    ]


def _capped_clips() -> list[Comparison]:
    """Clips with a cap on every ratio."""
    return [
        objective(
            "capped_clip",
            "TRL",
            "delta",
            trl_loss(**TRL_BOUNDS, of_args={"delta": 1.1}),
            **BOUNDS,
            ratio_cap=1.1,
            flavours=ALL,
        ),
        objective(
            "capped_clip",
            "verl",
            "vanilla",
            verl_loss("vanilla", clip_ratio_c=3.0, **VERL_BOUNDS),
            **BOUNDS,
            ratio_cap=3.0,
            flavours=ALL,
            note=TIE,
        ),
        objective(
            "capped_clip",
            "OpenRLHF",
            "ppo, dual_clip",
            openrlhf_loss(**THEIR_BOUNDS, dual_clip=3.0),
            **BOUNDS,
            ratio_cap=3.0,
            flavours=ALL,
            note=TIE,
        ),
    ]


def _weights() -> list[Comparison]:
    """Ratios as bounded weights."""
    return [
        objective(
            "cispo_clip",
            "TRL",
            "loss_type='cispo', epsilon_high=1.5",
            trl_loss("cispo", epsilon_high=1.5),
            eps_low=1.0,
            eps_high=0.5,
            flavours=ALL,
            note="Its bound is the weight itself: 1 + our eps_high.",
        ),
        objective("cispo_clip", "verl", "cispo", verl_loss("cispo", **VERL_BOUNDS), **BOUNDS, flavours=ALL),
        objective(
            "sapo_gate", "TRL", "loss_type='sapo'", trl_loss("sapo"), aggregator="seq_mean_token_mean", flavours=ALL
        ),
        objective(
            "sapo_gate",
            "verl",
            "sapo",
            verl_loss("sapo"),
            aggregator="seq_mean_token_mean",
            flavours=ALL,
            note="It ignores the aggregation asked for.",
        ),
        objective("vespo_weight", "TRL", "loss_type='vespo'", trl_loss("vespo"), flavours=ALL),
    ]


def _gspo_clips() -> list[Comparison]:
    """The ratio of a response, clipped."""
    return [
        objective(
            "gspo_clip",
            "TRL",
            "importance_sampling_level='sequence'",
            trl_loss("grpo", **TRL_GSPO),
            **GSPO,
            aggregator="seq_mean_token_mean",
        ),
        objective(
            "gspo_clip",
            "verl",
            "gspo",
            verl_loss("gspo", "seq-mean-token-mean", **VERL_GSPO),
            **GSPO,
            **BY_ROW,
            note=CONSTANT,
        ),
        objective(
            "gspo_clip", "OpenRLHF", "gspo", openrlhf_loss(**THEIR_GSPO), **GSPO, aggregator="seq_mean_token_mean"
        ),
    ]


def _gspo_token_clips() -> list[Comparison]:
    """The ratio of a response, clipped, with the gradient of each token."""
    return [
        objective(
            "gspo_token_clip",
            "TRL",
            "importance_sampling_level='sequence'",
            trl_loss("grpo", **TRL_GSPO),
            **GSPO,
            **BY_ROW,
            note=CONSTANT,
        ),
        objective(
            "gspo_token_clip",
            "verl",
            "gspo",
            verl_loss("gspo", **VERL_GSPO),
            **GSPO,
            note="It bounds the log of the ratio at 10, which is not reached here.",
        ),
        objective("gspo_token_clip", "OpenRLHF", "gspo", openrlhf_loss(**THEIR_GSPO), **GSPO, **BY_ROW, note=CONSTANT),
    ]


def _response_clips() -> list[Comparison]:
    """Other ratios of whole responses."""
    return [
        objective(
            "sequence_clip",
            "TRL",
            "RLOOTrainer",
            by_response(trl.rloo),
            aggregator="seq_mean_token_sum",
            per_token=False,
            flavours=[PLAIN],
        ),
        objective("geo_mean_clip", "TRL", "experimental GMPOTrainer", by_response(trl.gmpo), **BY_ROW, flavours=ALL),
        objective(
            "geo_mean_clip",
            "verl",
            "geo_mean",
            verl_loss("geo_mean", clip_ratio_low=0.4, clip_ratio_high=0.4),
            **BY_ROW,
            flavours=(*ALL, EMPTY),
            note="It ignores the aggregation asked for: mean over rows.",
        ),
    ]


def _regularised() -> list[Comparison]:
    """Covariance, divergence and quadratic penalties."""
    dppo: Settings = {"clip_ratio_low": 0.02, "clip_ratio_high": 0.03, "clip_ratio_c": 3.0}
    ours_dppo: Settings = {"threshold_low": 0.02, "threshold_high": 0.03, "ratio_cap": 3.0}
    cov: Settings = {"eps_low": 0.2, "eps_high": 0.28, "cov_low": 0.1, "cov_high": 2.0, "share": 1.0}
    verl_cov: Settings = {"clip_cov_ratio": 1.0, "clip_cov_lb": 0.1, "clip_cov_ub": 2.0}
    return [
        objective(
            "cov_clip",
            "verl",
            "clip_cov",
            verl_loss("clip_cov", **VERL_BOUNDS, policy_loss=verl_cov),
            **cov,
            flavours=ALL,
            note="With a share of 1 nothing is drawn: else each draws tokens of its own.",
        ),
        objective(
            "cov_kl",
            "verl",
            "kl_cov",
            verl_loss("kl_cov", policy_loss={"kl_cov_ratio": 0.2, "ppo_kl_coef": 0.5}),
            share=0.2,
            kl_coef=0.5,
            flavours=ALL,
        ),
        objective("dppo_tv_mask", "verl", "dppo_tv", verl_loss("dppo_tv", **dppo), **ours_dppo, note=CLAMPS),
        objective("dppo_kl_mask", "verl", "dppo_kl", verl_loss("dppo_kl", **dppo), **ours_dppo, note=CLAMPS),
        objective(
            "dro_quadratic", "verl", "dro", verl_loss("dro", policy_loss={"dro_beta": 0.5}), beta=0.5, flavours=ALL
        ),
    ]


def _preferences() -> list[Comparison]:
    """Losses of preferred and rejected responses."""
    preferences: Settings = {**BY_ROW, "flavours": (*ALL, EMPTY)}
    own = "Its reference point is of responses beside prompts that are not theirs; here it is given the step's own."
    return [
        objective(
            "dpo_sigmoid",
            "TRL",
            "DPOTrainer, loss_type='sigmoid'",
            by_side(trl.dpo, beta=0.2),
            beta=0.2,
            **preferences,
            note="Group by group. This loss of its trainer has no label smoothing.",
        ),
        objective(
            "dpo_sigmoid",
            "OpenRLHF",
            "DPOLoss, label_smoothing=0.1",
            by_side(openrlhf.dpo, beta=0.2, label_smoothing=0.1),
            beta=0.2,
            label_smoothing=0.1,
            **preferences,
            note="Group by group.",
        ),
        objective(
            "ipo_square",
            "TRL",
            "DPOTrainer, loss_type='ipo'",
            by_side(trl.dpo, "ipo", beta=0.2),
            beta=0.2,
            length_normalised=True,
            **preferences,
            note="Group by group. For sums see the variant `ipo`.",
        ),
        objective(
            "ipo_square",
            "OpenRLHF",
            "DPOLoss, ipo",
            by_side(openrlhf.dpo, beta=0.2, ipo=True),
            beta=0.2,
            **preferences,
            note="Group by group.",
        ),
        objective("kto_value", "TRL", "KTOTrainer", by_side(trl.kto, beta=0.2), beta=0.2, **preferences, note=own),
    ]
