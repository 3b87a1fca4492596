"""GRPO turn by turn, over the whole group: an episode that is over has a reward of 0 (verl, issue 7244).

    A_ik = O_i - mean(O) + sum_{l >= k} (T_il - m_l),   m_l = sum_j T_jl / G
    loss = -1/R sum_i 1/n_i sum_t min(q_it A_ik, clip(q_it, 1 - eps_low, 1 + eps_high) A_ik)

At the first turn the advantage is R_i - mean(R). Differs from `grpo_per_turn` in what a mean is over, and in nothing
else; a std of each turn would break the sum.
"""

from core import Part, Variant, variant
from estimators.advantages.turns import per_turn_mean_padded
from estimators.aggregators import seq_mean_token_mean
from estimators.objectives.token import clip


@variant
def grpo_per_turn_padded(
    *, advantage: Part = per_turn_mean_padded, objective: Part = clip, aggregator: Part = seq_mean_token_mean
) -> Variant:
    """Each turn's reward relative to the whole group, under PPO's clip."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
