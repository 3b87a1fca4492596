"""Whole variants beside verl: from rewards to the gradient of the loss."""

from core import KLS, OBJECTIVES, SHAPINGS
from experiments.maintenance.conformance import verl_reference as verl
from experiments.maintenance.conformance.calls import verl_step
from experiments.maintenance.conformance.cases import ALL, PLAIN, SEVERAL, verdicts
from experiments.maintenance.conformance.comparison import FLOAT32, Comparison, Settings
from experiments.maintenance.conformance.rows import KL, PENALTY, whole

SINGLE: Settings = {"clip_ratio_c": 1e30}
RAW: Settings = {"norm_adv_by_std_in_grpo": False}
OFF = "Its dual clip is put out of reach with clip_ratio_c=1e30."


def with_verl() -> list[Comparison]:
    """Variants and dialects that verl has."""
    return [
        *_grpo_family(),
        *_dynamic_sampling(),
        *_covariances(),
        *_reward_kl(),
        *_other_ratios(),
        *_other_advantages(),
    ]


def _grpo_family() -> list[Comparison]:
    """REINFORCE, imitation, GRPO and its relatives by the group."""
    wide: Settings = {"clip_ratio_low": 10.0, "clip_ratio_high": 10.0}
    k3: Settings = {"kl": KLS["k3_bounded"], "kl_coef": KL}
    return [
        whole(
            "reinforce",
            "verl",
            "rloo with every response a group, gpg, seq-mean-token-sum",
            verl_step("rloo", "gpg", "seq-mean-token-sum", of_estimator={"group_size": 1}),
            flavours=ALL,
        ),
        whole("sft", "verl", "sft_loss", verl.imitation),
        whole(
            "grpo",
            "verl",
            "grpo, vanilla, seq-mean-token-mean, k3 in the loss",
            verl_step("grpo", "vanilla", "seq-mean-token-mean", kl="k3", kl_coef=KL, **SINGLE),
            **k3,
            note=OFF,
        ),
        whole(
            "grpo_verl",
            "verl",
            "grpo, vanilla, k3 in the loss",
            verl_step("grpo", "vanilla", kl="k3", kl_coef=KL),
            kl_coef=KL,
            flavours=ALL,
        ),
        whole(
            "grpo_r1",
            "verl",
            "grpo, vanilla, clip_ratio=10, seq-mean-token-mean, k3 in the loss",
            verl_step("grpo", "vanilla", "seq-mean-token-mean", kl="k3", kl_coef=KL, **wide, **SINGLE),
            **k3,
            note=OFF,
        ),
        whole(
            "dr_grpo",
            "verl",
            "grpo without std, vanilla, seq-mean-token-sum-norm",
            verl_step("grpo", "vanilla", "seq-mean-token-sum-norm", of_estimator=RAW, **SINGLE),
            note=OFF,
        ),
    ]


def _dynamic_sampling() -> list[Comparison]:
    """With dynamic sampling: its filter of groups, and its length punishment."""
    higher: Settings = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}
    overlong = [SHAPINGS["soft_overlong"].using(buffer=0.5, penalty=PENALTY)]
    punished: Settings = {"punished": True}
    sampled: Settings = {"groups": lambda batch: verl.kept(verdicts(batch)), "shaping": overlong}
    in_float32: Settings = {"tolerance": FLOAT32}
    float_note = "Its length punishment is in float32."
    clamps = "It clamps log-ratios at 20 in size."
    return [
        whole(
            "dapo",
            "verl",
            "grpo, vanilla, filter_groups, overlong_buffer_cfg",
            verl_step("grpo", "vanilla", **punished, **higher, **SINGLE),
            **sampled,
            **in_float32,
            note=f"{OFF} {float_note}",
        ),
        whole(
            "dapo_verl",
            "verl",
            "grpo, vanilla, clip_ratio_c=10, filter_groups, overlong_buffer_cfg",
            verl_step("grpo", "vanilla", **punished, **higher, clip_ratio_c=10.0),
            **sampled,
            **in_float32,
            flavours=ALL,
            note=float_note,
        ),
        whole(
            "cispo",
            "verl",
            "grpo, cispo, clip_ratio_low=1, clip_ratio_high=4, filter_groups, overlong_buffer_cfg",
            verl_step("grpo", "cispo", **punished, clip_ratio_low=1.0, clip_ratio_high=4.0),
            **sampled,
            **in_float32,
            note=f"{float_note} {clamps}",
        ),
        whole(
            "cispo_verl",
            "verl",
            "grpo, cispo, clip_ratio_low=10",
            verl_step("grpo", "cispo", clip_ratio_low=10.0, clip_ratio_high=0.2),
            note=clamps,
        ),
    ]


def _covariances() -> list[Comparison]:
    """Clips and penalties by covariance."""
    cov = OBJECTIVES["cov_clip"].using(share=1.0, cov_low=0.1, cov_high=2.0)
    verl_cov: Settings = {"clip_cov_ratio": 1.0, "clip_cov_lb": 0.1, "clip_cov_ub": 2.0}
    kept: Settings = {"groups": lambda batch: verl.kept(verdicts(batch))}
    return [
        whole(
            "clip_cov",
            "verl",
            "grpo, clip_cov, filter_groups",
            verl_step("grpo", "clip_cov", policy_loss=verl_cov),
            objective=cov,
            flavours=ALL,
            **kept,
            note="With a share of 1 nothing is drawn: else each draws tokens of its own.",
        ),
        whole(
            "kl_cov",
            "verl",
            "grpo, kl_cov, ppo_kl_coef=1, filter_groups",
            verl_step("grpo", "kl_cov", policy_loss={"ppo_kl_coef": 1.0}),
            flavours=ALL,
            **kept,
        ),
        whole("kl_cov_verl", "verl", "grpo, kl_cov", verl_step("grpo", "kl_cov"), flavours=ALL),
    ]


def _reward_kl() -> list[Comparison]:
    """Baselines with the KL penalty in the reward."""
    reward_kl: Settings = {"reward_kl": KL}
    on_prefix: Settings = {"kl_coef": KL, "flavours": [PLAIN]}
    return [
        whole(
            "rloo",
            "verl",
            "rloo, gpg, seq-mean-token-sum, k1 in the reward",
            verl_step("rloo", "gpg", "seq-mean-token-sum", **reward_kl),
            **on_prefix,
        ),
        whole(
            "rloo_verl",
            "verl",
            "rloo, vanilla, k1 in the reward",
            verl_step("rloo", "vanilla", **reward_kl),
            **on_prefix,
        ),
        whole("remax", "verl", "remax, gpg, k1 in the reward", verl_step("remax", "gpg", **reward_kl), **on_prefix),
        whole(
            "remax_verl",
            "verl",
            "remax, vanilla, k1 in the reward",
            verl_step("remax", "vanilla", **reward_kl),
            **on_prefix,
        ),
        whole(
            "reinforce_pp",
            "verl",
            "reinforce_plus_plus, vanilla, k1 in the reward",
            verl_step("reinforce_plus_plus", "vanilla", **reward_kl, **SINGLE),
            **on_prefix,
            note=OFF,
        ),
        whole(
            "ppo",
            "verl",
            "gae, vanilla, k1 in the reward",
            verl_step("gae", "vanilla", **reward_kl, **SINGLE),
            **on_prefix,
            note=OFF,
        ),
        whole(
            "reinforce_pp_baseline",
            "verl",
            "reinforce_plus_plus_baseline, vanilla, k2 in the loss",
            verl_step("reinforce_plus_plus_baseline", "vanilla", kl="k2", kl_coef=KL, **SINGLE),
            kl_coef=KL,
            note=OFF,
        ),
    ]


def _other_ratios() -> list[Comparison]:
    """Other clips, weights and ratios of whole responses."""
    gspo: Settings = {"clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4}
    cap = "Its configuration sets the cap to 3 unless told otherwise, and it clamps log-ratios at 20 in size."
    return [
        whole(
            "gspo", "verl", "grpo, gspo, seq-mean-token-mean", verl_step("grpo", "gspo", "seq-mean-token-mean", **gspo)
        ),
        whole(
            "gspo_verl",
            "verl",
            "grpo, gspo, seq-mean-token-mean",
            verl_step("grpo", "gspo", "seq-mean-token-mean", **gspo),
        ),
        whole(
            "luspo", "verl", "grpo, gspo, seq-mean-token-sum", verl_step("grpo", "gspo", "seq-mean-token-sum", **gspo)
        ),
        whole(
            "gmpo",
            "verl",
            "grpo, geo_mean",
            verl_step("grpo", "geo_mean", clip_ratio_low=0.4, clip_ratio_high=0.4),
            flavours=ALL,
            note="Of one micro-batch: it sums the row means of several undivided.",
        ),
        whole("sapo", "verl", "grpo, sapo", verl_step("grpo", "sapo"), flavours=ALL),
        whole(
            "dppo_tv",
            "verl",
            "grpo, dppo_tv, clip_ratio_c=20",
            verl_step("grpo", "dppo_tv", clip_ratio_c=20.0),
            note=cap,
        ),
        whole(
            "dppo_kl",
            "verl",
            "grpo, dppo_kl, clip_ratio_c=20",
            verl_step("grpo", "dppo_kl", clip_ratio_c=20.0),
            note=cap,
        ),
        whole(
            "dro",
            "verl",
            "grpo without std, dro, dro_beta=1",
            verl_step("grpo", "dro", of_estimator=RAW, policy_loss={"dro_beta": 1.0}),
            flavours=ALL,
        ),
    ]


def _other_advantages() -> list[Comparison]:
    """Other estimators of the advantage."""
    return [
        whole("opo", "verl", "opo, gpg", verl_step("opo", "gpg"), flavours=ALL),
        whole("gpg_verl", "verl", "gpg, gpg", verl_step("gpg", "gpg"), flavours=ALL),
        whole("grpo_passk", "verl", "grpo_passk, vanilla", verl_step("grpo_passk", "vanilla", **SINGLE), note=OFF),
        whole(
            "gdpo_verl",
            "verl",
            "gdpo, vanilla",
            verl_step("gdpo", "vanilla"),
            flavours=[SEVERAL],
            tolerance=FLOAT32,
            note="Its estimator computes in float32.",
        ),
        whole(
            "optimal_token",
            "verl",
            "optimal_token_baseline, vanilla",
            verl_step("optimal_token_baseline", "vanilla", **SINGLE),
            flavours=[PLAIN],
            note=OFF,
        ),
    ]
