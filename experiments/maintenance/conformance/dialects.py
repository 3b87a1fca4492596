"""What references compute by default under the name of a method, where that is another formula."""

from dataclasses import dataclass

from experiments.maintenance.conformance.comparison import Reference


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
