"""IPO on the policy's own samples: identity preference optimisation (Azar et al. 2023, arXiv:2310.12036).

    A_i  = 1 for the best of the group, -1 for the worst, else 0,   h_i = sum_t log pi(y_it) - log ref(y_it)
    loss = mean over groups of the mean over pairs (A_w > 0, A_l < 0) of (h_w - h_l - 1 / (2 beta))^2

Differs from DPO: a pair whose margin exceeds the target is drawn together again, so that a preference that
never errs does not lead the policy away from the reference without end.
"""

from core import Part, Variant, variant
from estimators.advantages.group import best_against_worst
from estimators.aggregators import seq_mean_token_mean
from estimators.objectives.preference import ipo_square


@variant
def ipo(
    *, advantage: Part = best_against_worst, objective: Part = ipo_square, aggregator: Part = seq_mean_token_mean
) -> Variant:
    """The best against the worst, up to a distance."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
