"""DPO on the policy's own samples (Rafailov et al. 2023, arXiv:2305.18290; online: Guo et al. 2024, arXiv:2402.04792).

    A_i  = 1 for the best of the group, -1 for the worst, else 0,   h_i = sum_t log pi(y_it) - log ref(y_it)
    loss = mean over groups of the mean over pairs (A_w > 0, A_l < 0) of -log sigmoid(beta (h_w - h_l))

Differs from GRPO: of the rewards only the order is read, a pair counts less the larger its margin already is, and
the pull of the reference policy is in the loss itself. With G = 2 both learn from the same pairs.
"""

from core import Part, Variant, variant
from estimators.advantages.group import best_against_worst
from estimators.aggregators import seq_mean_token_mean
from estimators.objectives.preference import dpo_sigmoid


@variant
def dpo(
    *, advantage: Part = best_against_worst, objective: Part = dpo_sigmoid, aggregator: Part = seq_mean_token_mean
) -> Variant:
    """The best against the worst, as a classification of pairs."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
