"""GRPO on outcomes alone: rewards of turns are shown and not learnt from (Wei et al. 2025, arXiv:2505.11821, GRPO-OR).

    A_i  = (O_i - mean(O)) / (std(O) + eps),   O_i = R_i - sum_k T_ik
    loss = -1/R sum_i 1/n_i sum_t min(q_it A_i, clip(q_it, 1 - eps_low, 1 + eps_high) A_i)

`grpo` itself reads the sum of the outcome and all turns' rewards (their GRPO-MR). Without rewards of turns the two are
the same.
"""

from core import Part, Variant, variant
from estimators.advantages.turns import outcome_mean_std
from estimators.aggregators import seq_mean_token_mean
from estimators.objectives.token import clip


@variant
def grpo_outcome(
    *, advantage: Part = outcome_mean_std, objective: Part = clip, aggregator: Part = seq_mean_token_mean
) -> Variant:
    """Outcome standardised in its group, whatever the turns earned, under PPO's clip."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
