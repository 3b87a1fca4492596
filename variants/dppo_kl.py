"""DPPO with binary KL: tokens are stopped by the KL of their probability (2026, arXiv:2602.04879).

    A_i  = (r_i - mean(r)) / (std(r) + eps)
    loss = -1/N sum_i sum_t sg[min(q_it, ratio_cap)] A_i log pi(y_it) [KL(old || pi) of the token within the thresholds]

Differs from GRPO: a trust region in divergence rather than ratio.
"""

from core import Part, Variant, variant
from estimators.advantages.group import group_mean_std
from estimators.aggregators import token_mean
from estimators.objectives.divergence import dppo_kl_mask


@variant
def dppo_kl(
    *, advantage: Part = group_mean_std, objective: Part = dppo_kl_mask, aggregator: Part = token_mean
) -> Variant:
    """GRPO with a trust region on the binary KL of token probabilities."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
