"""ReMax: REINFORCE with the greedy response as the baseline (Li et al. 2023, arXiv:2310.10505).

    A_it = sum_{u >= t} x_iu - r_greedy
    loss = -1/N sum_i sum_t A_it log pi(y_it)

Costs one greedy response per prompt and step. The paper takes k1 to the reference policy off the reward (0.05 to 0.1);
its coefficient is a setting of the experiment and is 0 unless bound.
"""

from core import Part, Variant, variant
from estimators.advantages.greedy import greedy_baseline
from estimators.aggregators import token_mean
from estimators.kl import k1
from estimators.objectives.token import policy_gradient


@variant
def remax(
    *,
    advantage: Part = greedy_baseline,
    objective: Part = policy_gradient,
    aggregator: Part = token_mean,
    kl: Part = k1,
    kl_coef: float = 0.0,
) -> Variant:
    """REINFORCE with the reward of the greedy response as the baseline."""
    return Variant(
        advantage=advantage,
        objective=objective,
        aggregator=aggregator,
        kl=kl,
        kl_coef=kl_coef,
        kl_place="reward",
    )
