"""RLOO: REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024, arXiv:2402.14740).

    A_i  = r_i - mean of the other rewards of the group
    loss = -1/R sum_i A_i sum_t log pi(y_it)

The response is one action: no token ratio, no clip. The paper takes k1 to the reference policy off the reward, before
the baseline; its coefficient (0.03 to 0.1 there) is a setting of the experiment and is 0 unless bound.
"""

from core import Part, Variant, variant
from estimators.advantages.group import leave_one_out
from estimators.aggregators import seq_mean_token_sum
from estimators.kl import k1
from estimators.objectives.token import policy_gradient


@variant
def rloo(
    *,
    advantage: Part = leave_one_out,
    objective: Part = policy_gradient,
    aggregator: Part = seq_mean_token_sum,
    kl: Part = k1,
    kl_coef: float = 0.0,
) -> Variant:
    """REINFORCE on whole responses, with the other samples' mean as the baseline."""
    return Variant(
        advantage=advantage,
        objective=objective,
        aggregator=aggregator,
        kl=kl,
        kl_coef=kl_coef,
        kl_place="reward",
    )
