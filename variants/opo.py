"""OPO: on-policy RL with the length-weighted baseline (Hao et al. 2025, arXiv:2505.23585).

    A_i  = r_i - sum_j n_j r_j / sum_j n_j
    loss = -1/N sum_i sum_t A_i log pi(y_it)

Exactly on-policy: one update per rollout, no ratio, no KL, no entropy bonus.
"""

from core import Part, Variant, variant
from estimators.advantages.group import length_weighted_mean
from estimators.aggregators import token_mean
from estimators.objectives.token import policy_gradient


@variant
def opo(
    *, advantage: Part = length_weighted_mean, objective: Part = policy_gradient, aggregator: Part = token_mean
) -> Variant:
    """REINFORCE with the baseline of least variance under gradients that grow with length."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
