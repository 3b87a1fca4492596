"""What the references do not have: every part and variant that is not compared with one of them is named here.

A part that is added without an entry for each reference makes the run fail.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from experiments.maintenance.conformance.comparison import REFERENCES, Reference

ALL: Final = REFERENCES
ONLY_TRL: Final[tuple[Reference, ...]] = ("verl", "OpenRLHF")
ONLY_VERL: Final[tuple[Reference, ...]] = ("TRL", "OpenRLHF")
ONLY_OPENRLHF: Final[tuple[Reference, ...]] = ("TRL", "verl")

# values are the references that lack it: ONLY_VERL stands for those two that lack what verl alone has
ABSENT: Final[Mapping[str, tuple[Reference, ...]]] = MappingProxyType(
    {
        # advantages
        "no_baseline": ONLY_VERL,
        "group_mean_batch_std": ONLY_TRL,
        "leave_one_out_batch_std": ONLY_TRL,
        "leave_one_out_then_kl": ONLY_OPENRLHF,
        "group_mean_then_kl": ONLY_OPENRLHF,
        "group_mean_std_then_kl": ONLY_OPENRLHF,
        "whitened_group_mean_then_kl": ONLY_OPENRLHF,
        "length_weighted_mean": ONLY_VERL,
        "group_mean_spread_scaled": ONLY_VERL,
        "group_mean_nonzero_scaled": ONLY_VERL,
        "best_minus_second": ONLY_VERL,
        "best_minus_second_std": ONLY_VERL,
        "best_against_worst": ALL,
        "per_reward_std": ("OpenRLHF",),
        "per_reward_std_whitened": ONLY_VERL,
        "process_mean_std": ALL,
        "group_mean_relative": ALL,
        "whitened_return": ("TRL",),
        "whitened_group_mean": ("TRL",),
        "gae": ("TRL",),
        "whitened_gae": ("TRL",),
        "greedy_baseline": ONLY_VERL,
        "discounted_greedy_baseline": ALL,
        "optimal_token_baseline": ONLY_VERL,
        "running_baseline": ALL,
        "group_median": ALL,
        "shrunk_mean": ALL,
        "outcome_mean_std": ALL,
        "mt_grpo_aae": ALL,
        "mt_grpo_cae": ALL,
        "per_turn_mean": ALL,
        "per_turn_mean_std": ALL,
        "per_turn_mean_padded": ALL,
        "per_turn_mean_std_padded": ALL,
        "last_turn_mean_std": ALL,
        "group_in_group": ALL,
        "group_in_batch": ALL,
        "turn_gae": ALL,
        "bilevel_gae": ALL,
        "whitened_bilevel_gae": ALL,
        # objectives
        "policy_gradient": ONLY_VERL,
        "off_policy_masked_clip": ONLY_TRL,
        "cispo_clip": ("OpenRLHF",),
        "sapo_gate": ("OpenRLHF",),
        "vespo_weight": ONLY_TRL,
        "sequence_clip": ONLY_TRL,
        "geo_mean_clip": ("OpenRLHF",),
        "cov_clip": ONLY_VERL,
        "cov_kl": ONLY_VERL,
        "dppo_tv_mask": ONLY_VERL,
        "dppo_kl_mask": ONLY_VERL,
        "dro_quadratic": ONLY_VERL,
        "dpo_sigmoid": ("verl",),
        "ipo_square": ("verl",),
        "kto_value": ONLY_TRL,
        "topr": ALL,
        "m2po": ALL,
        # aggregators
        "token_sum": ONLY_VERL,
        "seq_mean_token_sum": ("OpenRLHF",),
        "seq_mean_token_sum_norm": ("OpenRLHF",),
        "prompt_mean": ALL,
        "segment_mean": ALL,
        "seq_mean_turn_mean": ALL,
        "turn_mean_token_mean": ALL,
        # value losses: TRL's stands in the middle of its training loop
        "squared_error": ("TRL",),
        "clipped_squared_error": ("TRL",),
        # KL
        "k2": ("TRL",),
        "k3_bounded": ("TRL",),
        "k_abs": ONLY_VERL,
        "k1_plus": ("TRL",),
        "k3_plus": ("TRL",),
        "k1_ratio": ALL,
        "k3_ratio": ONLY_TRL,
        "adapted_coefficient": ("TRL",),
        "bradley_terry": ("verl",),
        # corrections
        "sequence_truncated": ("OpenRLHF",),
        "sequence_masked": ("OpenRLHF",),
        "geometric_mean_masked": ("TRL",),
        "normalized": ONLY_VERL,
        "rejection": ONLY_VERL,
        "age_rejection": ALL,
        "outlier_rejection": ALL,
        "binary_kl_rejection": ALL,
        "second_moment_rejection": ALL,
        "segment_truncated": ALL,
        "vaco": ALL,
        # credit
        "advantage_clip": ALL,
        "top_entropy": ONLY_TRL,
        # selections
        "gfpo": ALL,
        "max_variance": ALL,
        # filters
        "nonuniform": ("TRL",),
        "has_spread": ONLY_VERL,
        "mean_inside": ONLY_OPENRLHF,
        "enough_spread": ALL,
        "none_truncated": ALL,
        # variants
        "reinforce": ONLY_VERL,
        "remax": ONLY_VERL,
        "remax_authors": ALL,
        "reinforce_pp": ("TRL",),
        "ppo": ("TRL",),
        "reinforce_pp_baseline": ("TRL",),
        "opo": ONLY_VERL,
        "gpg": ONLY_VERL,
        "cispo": ("OpenRLHF",),
        "gmpo": ("OpenRLHF",),
        "sapo": ("OpenRLHF",),
        "luspo": ("OpenRLHF",),
        "vespo": ONLY_TRL,
        "clip_cov": ONLY_VERL,
        "kl_cov": ONLY_VERL,
        "dppo_tv": ONLY_VERL,
        "dppo_kl": ONLY_VERL,
        "dro": ONLY_VERL,
        "grpo_passk": ONLY_VERL,
        "gdpo": ("OpenRLHF",),
        "optimal_token": ONLY_VERL,
        "grpo_process": ALL,
        "dpo": ("verl",),
        "ipo": ("verl",),
        "kto": ONLY_TRL,
    }
)
