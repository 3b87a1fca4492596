"""DPPO with total variation: tokens are stopped by how far their probability moved (2026, arXiv:2602.04879).

    A_i  = (r_i - mean(r)) / (std(r) + eps)
    loss = -1/N sum_i sum_t sg[min(q_it, ratio_cap)] A_i log pi(y_it) [pi - old within the thresholds]

Differs from GRPO: a trust region in probability rather than ratio, which lets rare tokens move.
"""

from core import Part, Variant, variant
from estimators.advantages.group import group_mean_std
from estimators.aggregators import token_mean
from estimators.objectives.divergence import dppo_tv_mask


@variant
def dppo_tv(
    *, advantage: Part = group_mean_std, objective: Part = dppo_tv_mask, aggregator: Part = token_mean
) -> Variant:
    """GRPO with a trust region on the difference of token probabilities."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
