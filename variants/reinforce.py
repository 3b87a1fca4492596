"""REINFORCE without a baseline (Williams 1992): the control.

    loss = -1/R sum_i r_i sum_t log pi(y_it)

What a variant gains over this is what its baseline buys.
"""

from core import Part, Variant, variant
from estimators.advantages.group import no_baseline
from estimators.aggregators import seq_mean_token_sum
from estimators.objectives.token import policy_gradient


@variant
def reinforce(
    *, advantage: Part = no_baseline, objective: Part = policy_gradient, aggregator: Part = seq_mean_token_sum
) -> Variant:
    """The reward itself times the log-probability of the response."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
