"""GPG: group policy gradient (Chu et al. 2025, arXiv:2504.02546).

    A_i  = alpha (r_i - mean(r)),   alpha = B / (B - M),   M = samples in groups without spread
    loss = -1/N sum_i sum_t A_i log pi(y_it)

No ratio, no clip, no KL. Sampling goes on while less than `share` of the groups has spread (the filter
`enough_spread`), for at most `filter_rounds` rounds.
"""

from core import Part, Variant, variant
from estimators.advantages.group import group_mean_spread_scaled
from estimators.aggregators import token_mean
from estimators.filters import enough_spread
from estimators.objectives.token import policy_gradient


@variant
def gpg(
    *,
    advantage: Part = group_mean_spread_scaled,
    objective: Part = policy_gradient,
    aggregator: Part = token_mean,
    filter: Part | None = enough_spread,
    filter_rounds: int = 10,
) -> Variant:
    """REINFORCE on centred rewards, scaled up by what groups without spread take away."""
    return Variant(
        advantage=advantage, objective=objective, aggregator=aggregator, filter=filter, filter_rounds=filter_rounds
    )
