"""TRL's dialect, as of version 1.16: what its trainers compute with their defaults."""

from core import Part, Variant, variant
from estimators.advantages.group import best_against_worst, group_mean_std, leave_one_out
from estimators.aggregators import seq_mean_token_mean, seq_mean_token_sum, seq_mean_token_sum_norm, token_mean
from estimators.kl import k1, k3_ratio
from estimators.objectives.preference import ipo_square
from estimators.objectives.sequence import gspo_clip, sequence_clip
from estimators.objectives.token import cispo_clip, clip

STD = {"eps": "TRL"}


@variant(published={**STD, "kl_coef": "TRL: beta"})
def grpo_trl(
    *,
    advantage: Part = group_mean_std,
    objective: Part = clip,
    aggregator: Part = token_mean,
    eps: float = 1e-4,
    kl: Part = k3_ratio,
    kl_coef: float = 0.0,
) -> Variant:
    """GRPO in TRL: eps of 1e-4, one mean over all tokens (its `dapo` loss), and k3 times the ratio where beta > 0.

    A_i  = (r_i - mean(r)) / (std(r) + 1e-4)
    loss = -1/N sum_i sum_t min(q_it A_i, clip(q_it, 0.8, 1.2) A_i) + kl_coef * q_it k3

    N is the tokens of the optimizer step: TRL's own where its steps_per_generation is its gradient accumulation.
    """
    return Variant(
        advantage=advantage.using(eps=eps), objective=objective, aggregator=aggregator, kl=kl, kl_coef=kl_coef
    )


@variant(published=STD)
def dr_grpo_trl(
    *,
    advantage: Part = group_mean_std,
    objective: Part = clip,
    aggregator: Part = seq_mean_token_sum_norm,
    eps: float = 1e-4,
) -> Variant:
    """Dr. GRPO in TRL with `loss_type="dr_grpo"` alone: the constant denominator, but still the division by the std.

    A_i  = (r_i - mean(r)) / (std(r) + 1e-4)
    loss = -1/(R * max_tokens) sum_i sum_t min(q_it A_i, clip(q_it, 0.8, 1.2) A_i)
    """
    return Variant(advantage=advantage.using(eps=eps), objective=objective, aggregator=aggregator)


@variant(published={"kl_coef": "TRL: beta"})
def rloo_trl(
    *,
    advantage: Part = leave_one_out,
    objective: Part = sequence_clip,
    aggregator: Part = seq_mean_token_sum,
    kl: Part = k1,
    kl_coef: float = 0.05,
) -> Variant:
    """RLOO in TRL: PPO's clip on the ratio of whole-response probabilities, k1 off the reward before the baseline.

    A_i  = x_i - mean of the others' x,   x_i = r_i - kl_coef sum_t k1_it
    loss = -1/R sum_i min(s_i A_i, clip(s_i, 0.8, 1.2) A_i),   s_i = exp(sum_t d_it)
    """
    return Variant(
        advantage=advantage, objective=objective, aggregator=aggregator, kl=kl, kl_coef=kl_coef, kl_place="reward"
    )


@variant(published=STD)
def gspo_trl(
    *, advantage: Part = group_mean_std, objective: Part = gspo_clip, aggregator: Part = token_mean, eps: float = 1e-4
) -> Variant:
    """GSPO in TRL with `importance_sampling_level="sequence"` alone: its default loss weighs rows by their length.

    loss = -1/N sum_i n_i min(s_i A_i, clip(s_i) A_i),   s_i = exp(mean_t d_it),   eps of 1e-4 in A
    """
    return Variant(advantage=advantage.using(eps=eps), objective=objective, aggregator=aggregator)


@variant(published=STD)
def cispo_trl(
    *, advantage: Part = group_mean_std, objective: Part = cispo_clip, aggregator: Part = token_mean, eps: float = 1e-4
) -> Variant:
    """CISPO in TRL: the weight is bounded above only, and its `epsilon_high` is the bound itself (5), not 1 + it.

    loss = -1/N sum_i sum_t sg[min(q_it, 5)] A_i log pi(y_it),   eps of 1e-4 in A; no filter, no length punishment
    """
    return Variant(advantage=advantage.using(eps=eps), objective=objective, aggregator=aggregator)


@variant(published={"length_normalised": "TRL"})
def ipo_trl(
    *,
    advantage: Part = best_against_worst,
    objective: Part = ipo_square,
    aggregator: Part = seq_mean_token_mean,
    length_normalised: bool = True,
) -> Variant:
    """IPO in TRL's `DPOTrainer`: differences of means over tokens, so that the target is in nats per token.

    loss = mean over pairs of (h_w / n_w - h_l / n_l - 1 / (2 beta))^2
    """
    return Variant(
        advantage=advantage, objective=objective.using(length_normalised=length_normalised), aggregator=aggregator
    )
