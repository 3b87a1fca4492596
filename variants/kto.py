"""KTO on the policy's own samples: Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv:2402.01306).

    A_i  = 1 for the best of the group, -1 for the worst, else 0,   h_i = sum_t log pi(y_it) - log ref(y_it)
    loss = 1/R sum_i (1 - sigmoid(A_i beta (h_i - z))) where A_i is not 0,   z = max(0, mean of h over the step)

Differs from DPO: each response is judged by itself, against the step's mean. `kto.advantage = @group_mean` judges all
of a group, and not the best and the worst alone.
"""

from core import Part, Variant, variant
from estimators.advantages.group import best_against_worst
from estimators.aggregators import seq_mean_token_mean
from estimators.objectives.preference import kto_value


@variant
def kto(
    *, advantage: Part = best_against_worst, objective: Part = kto_value, aggregator: Part = seq_mean_token_mean
) -> Variant:
    """Best and worst, each against what the policy gains on average."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
