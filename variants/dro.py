"""DRO, token by token: REINFORCE with a quadratic penalty on the log-ratio (Richemond et al. 2024, arXiv:2405.19107).

    A_i  = r_i - mean(r)
    loss = -1/N sum_i sum_t (A_i log pi(y_it) - beta / 2 (log pi - log old)^2)

The paper learns a value; here the group's mean stands in for it. The penalty is what holds the policy: no clip.
"""

from core import Part, Variant, variant
from estimators.advantages.group import group_mean
from estimators.aggregators import token_mean
from estimators.objectives.token import dro_quadratic


@variant
def dro(*, advantage: Part = group_mean, objective: Part = dro_quadratic, aggregator: Part = token_mean) -> Variant:
    """Centred rewards with a quadratic pull towards the old policy."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
