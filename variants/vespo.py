"""VESPO: smoothly weighted sequence-level policy optimisation (2026, arXiv:2602.10693).

    A_i  = (r_i - mean(r)) / (std(r) + eps),   w_i = pi(y_i) / old(y_i)
    loss = -1/N sum_i sum_t sg[phi(w_i)] A_i log pi(y_it),   phi(w) = e^lambda w^k e^(-lambda w)

Differs from GRPO: no clip; a response counts less the further its probability has moved, on both sides.
"""

from core import Part, Variant, variant
from estimators.advantages.group import group_mean_std
from estimators.aggregators import token_mean
from estimators.objectives.sequence import vespo_weight


@variant
def vespo(
    *, advantage: Part = group_mean_std, objective: Part = vespo_weight, aggregator: Part = token_mean
) -> Variant:
    """REINFORCE with a weight that falls off smoothly off-policy."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
