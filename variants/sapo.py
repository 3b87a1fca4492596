"""SAPO: soft adaptive policy optimisation (Gao et al. 2025, arXiv:2511.20347).

    A_i  = (r_i - mean(r)) / (std(r) + eps)
    loss = -1/R sum_i 1/n_i sum_t A_i (4 / tau) sigmoid(tau (q_it - 1)),   tau by the sign of A

Differs from GRPO: a sigmoid gate in place of the clip, a little colder for negative advantages.
"""

from core import Part, Variant, variant
from estimators.advantages.group import group_mean_std
from estimators.aggregators import seq_mean_token_mean
from estimators.objectives.token import sapo_gate


@variant
def sapo(
    *,
    advantage: Part = group_mean_std,
    objective: Part = sapo_gate,
    aggregator: Part = seq_mean_token_mean,
) -> Variant:
    """GRPO with a soft gate in place of the clip."""
    return Variant(
        advantage=advantage,
        objective=objective,
        aggregator=aggregator,
    )
