"""LUSPO: length-unbiased sequence policy optimisation (2026, arXiv:2602.05261).

    A_i  = (r_i - mean(r)) / (std(r) + eps),   s_i = (pi(y_i) / old(y_i))^(1 / n_i)
    loss = -1/R sum_i n_i min(s_i A_i, clip(s_i, 1 - eps_low, 1 + eps_high) A_i)

GSPO's loss of a response times its length, which undoes the 1 / n_i in the gradient of s_i: GSPO's objective under the
sum over tokens.
"""

from core import Part, Variant, variant
from estimators.advantages.group import group_mean_std
from estimators.aggregators import seq_mean_token_sum
from estimators.objectives.sequence import gspo_clip


@variant
def luspo(
    *,
    advantage: Part = group_mean_std,
    objective: Part = gspo_clip,
    aggregator: Part = seq_mean_token_sum,
) -> Variant:
    """GSPO with each response weighted by its length."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
