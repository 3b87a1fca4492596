"""GRPO turn by turn, over the episodes that reach a turn: published, and blind to what going on earns or costs.

    A_ik = O_i - mean(O) + sum_{l = k .. K_i} (T_il - m_l),   m_l = mean of T_jl over j with K_j >= l
    loss = -1/R sum_i 1/n_i sum_t min(q_it A_ik, clip(q_it, 1 - eps_low, 1 + eps_high) A_ik)

A decision to go on does not see what further turns earn or cost on average: `per_turn_mean` has the closed form, and
`grpo_per_turn_padded` is without it. Here to show what that does. Bind `@per_turn_mean_std` to divide by stds as well.
Source: MT-GRPO's normalisation by turn index as ported to episodes of any length; verl, issue 7244.
"""

from core import Part, Variant, variant
from estimators.advantages.turns import per_turn_mean
from estimators.aggregators import seq_mean_token_mean
from estimators.objectives.token import clip


@variant
def grpo_per_turn(
    *, advantage: Part = per_turn_mean, objective: Part = clip, aggregator: Part = seq_mean_token_mean
) -> Variant:
    """Each turn's reward relative to the episodes that reach the turn, under PPO's clip."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
