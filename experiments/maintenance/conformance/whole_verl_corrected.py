"""Whole variants beside verl's rollout correction: weights and rejection, in decoupled and in bypass mode.

Its configurations are verl's own presets, by their names there.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from verl.trainer.config import RolloutCorrectionConfig

from core import CORRECTIONS, KLS, OBJECTIVES, Part
from experiments.maintenance.conformance.calls import verl_step
from experiments.maintenance.conformance.comparison import Comparison, Settings
from experiments.maintenance.conformance.rows import KL, whole

GEO_RS: Final = CORRECTIONS["rejection"].using(estimator="k1", over="mean", high=1.001, low=0.999)
K3_RS: Final = CORRECTIONS["rejection"].using(estimator="k3", over="mean", high=0.01)
SEQ_RS: Final = CORRECTIONS["rejection"].using(estimator="k1", over="sum", high=2.0, low=0.5)
TOKEN_RS: Final = CORRECTIONS["rejection"].using(estimator="k2", over="token", high=0.02)
TOKEN_TIS: Final = CORRECTIONS["token_truncated"].using(cap=2.0)
SEQ_TIS: Final = CORRECTIONS["sequence_truncated"].using(cap=2.0)
ICEPOP: Final = CORRECTIONS["token_masked"].using(low=0.5, high=5.0)

PRESETS: Final[Mapping[str, tuple[Part, ...]]] = {
    "token_is": (TOKEN_TIS,),
    "seq_is": (SEQ_TIS,),
    "token_icepop": (ICEPOP,),
    "seq_is_rs": (SEQ_TIS, SEQ_RS),
    "geo_rs": (GEO_RS,),
    "geo_rs_seq_tis": (SEQ_TIS, GEO_RS),
    "geo_rs_token_tis": (TOKEN_TIS, GEO_RS),
    "k3_rs": (K3_RS,),
    "k3_rs_seq_tis": (SEQ_TIS, K3_RS),
    "k3_rs_token_tis": (TOKEN_TIS, K3_RS),
}
"""What each of its presets is here."""

Counted = Literal["all", "kept"]


def with_verl_corrected() -> list[Comparison]:
    """Every preset of verl's rollout correction, and what it can be set to beside."""
    return [*_decoupled(), *_bypass_clip(), *_bypass_reinforce()]


def _decoupled() -> list[Comparison]:
    """Ratios against the trainer's probabilities, and a correction from the sampler's to these, once a rollout."""
    seen: Settings = {"kl": "k3", "kl_coef": KL}
    rules = RolloutCorrectionConfig(
        rollout_is="token",
        rollout_is_batch_normalize=True,
        rollout_rs="token_k2,seq_mean_k3",
        rollout_rs_threshold="0.02,0.01",
    )
    several = (CORRECTIONS["normalized"].using(level="token", cap=2.0), TOKEN_RS, K3_RS)
    token_rule = RolloutCorrectionConfig(rollout_is=None, rollout_rs="token_k2", rollout_rs_threshold="0.02")
    return [
        *(
            whole(
                "grpo_verl",
                "verl",
                f"grpo, vanilla, k3 in the loss, decoupled_{preset}()",
                verl_step(
                    "grpo", "vanilla", **seen, corrected=getattr(RolloutCorrectionConfig, f"decoupled_{preset}")()
                ),
                kl_coef=KL,
                fields=_fields(chain, "kept"),
            )
            for preset, chain in PRESETS.items()
        ),
        whole(
            "grpo_verl",
            "verl",
            "grpo, vanilla, k3 in the loss, token weights normalised, rollout_rs='token_k2,seq_mean_k3'",
            verl_step("grpo", "vanilla", **seen, corrected=rules),
            kl_coef=KL,
            fields=_fields(several, "kept"),
        ),
        whole(
            "grpo_verl",
            "verl",
            "grpo, vanilla, k3 in the loss, decoupled_geo_rs_token_tis(), batch_num_tokens of all tokens",
            verl_step(
                "grpo",
                "vanilla",
                **seen,
                corrected=RolloutCorrectionConfig.decoupled_geo_rs_token_tis(),
                counts_rejected=True,
            ),
            kl_coef=KL,
            fields=_fields(PRESETS["geo_rs_token_tis"], "all"),
            note="So its trainer of ppo/v1 hands it over: from a loss mask that rejection leaves alone.",
        ),
        whole(
            "grpo",
            "verl",
            "grpo, vanilla, seq-mean-token-mean, k3 in the loss, rollout_rs='token_k2'",
            verl_step("grpo", "vanilla", "seq-mean-token-mean", **seen, clip_ratio_c=1e30, corrected=token_rule),
            kl=KLS["k3_bounded"],
            kl_coef=KL,
            fields=_fields((TOKEN_RS,), "kept"),
            note="Its dual clip is put out of reach with clip_ratio_c=1e30.",
        ),
    ]


def _bypass_clip() -> list[Comparison]:
    """PPO's clip with ratios against the sampler."""
    rejecting = "Without KL: there it stays at tokens that are rejected. Of the first update: see below."
    token_rule = RolloutCorrectionConfig(
        rollout_is=None, rollout_rs="token_k2", rollout_rs_threshold="0.02", bypass_mode=True
    )
    return [
        whole(
            "grpo_verl",
            "verl",
            "grpo, k3 in the loss, bypass_ppo_clip()",
            verl_step("grpo", "", kl="k3", kl_coef=KL, corrected=RolloutCorrectionConfig.bypass_ppo_clip()),
            kl_coef=KL,
            fields={"anchor": "sampler"},
        ),
        *(
            whole(
                "grpo_verl",
                "verl",
                f"grpo, bypass_ppo_clip_{preset}()",
                verl_step("grpo", "", corrected=getattr(RolloutCorrectionConfig, f"bypass_ppo_clip_{preset}")()),
                fields={"anchor": "sampler", **_fields(PRESETS[preset], "all")},
                first=True,
                note=rejecting,
            )
            for preset in ("geo_rs", "k3_rs")
        ),
        whole(
            "grpo",
            "verl",
            "grpo, seq-mean-token-mean, bypass_mode, rollout_rs='token_k2'",
            verl_step("grpo", "", "seq-mean-token-mean", clip_ratio_c=1e30, corrected=token_rule),
            fields={"anchor": "sampler", **_fields((TOKEN_RS,), "kept")},
            first=True,
            note=f"{rejecting} Within a response it divides by what is kept, unlike its token mean.",
        ),
    ]


def _bypass_reinforce() -> list[Comparison]:
    """The log-probability weighed by its importance against the sampler."""
    return [
        whole(
            "grpo_verl",
            "verl",
            f"grpo, bypass_pg_{preset}()",
            verl_step("grpo", "", corrected=getattr(RolloutCorrectionConfig, f"bypass_pg_{preset}")()),
            objective=OBJECTIVES["policy_gradient"],
            fields=_fields(chain, "all"),
            first=True,
            note="Of the first update: it weighs by the present policy at every one, ours by that before them.",
        )
        for preset, chain in (
            ("is", (SEQ_TIS,)),
            *((name, PRESETS[name]) for name in ("token_icepop", "geo_rs", "geo_rs_seq_tis", "geo_rs_token_tis")),
        )
    ]


def _fields(chain: Sequence[Part], counted: Counted) -> Settings:
    """A chain of corrections; what a mean counts matters only where one rejects."""
    rejects = any(part.name == "rejection" for part in chain)
    return {"correction": list(chain)} | ({"denominator": counted} if rejects else {})
