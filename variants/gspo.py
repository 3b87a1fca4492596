"""GSPO: group sequence policy optimisation (Zheng et al. 2025, arXiv:2507.18071).

    A_i  = (r_i - mean(r)) / (std(r) + eps),   s_i = (pi(y_i) / old(y_i))^(1 / n_i)
    loss = -1/R sum_i min(s_i A_i, clip(s_i, 1 - eps_low, 1 + eps_high) A_i)

Differs from GRPO: one ratio per response, the geometric mean over its tokens, so that a response is clipped whole, and
bounds that are three orders narrower.
"""

from core import Part, Variant, variant
from estimators.advantages.group import group_mean_std
from estimators.aggregators import seq_mean_token_mean
from estimators.objectives.sequence import gspo_clip


@variant
def gspo(
    *,
    advantage: Part = group_mean_std,
    objective: Part = gspo_clip,
    aggregator: Part = seq_mean_token_mean,
) -> Variant:
    """GRPO with one length-normalised ratio per response."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
