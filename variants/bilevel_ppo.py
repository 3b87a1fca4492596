"""PPO with advantages on two levels: between turns, then between the tokens of each (RAGEN, Wang et al. 2025).

    A_it  = whitened bilevel_gae(gamma_high between turns, gamma within, lam)
    loss  = -1/N sum_i sum_t min(q_it A_it, clip(q_it, 1 - eps_low, 1 + eps_high) A_it)
    critic: 1/N sum_i sum_t max((V - R)^2, (clip(V, V_old -+ clip) - R)^2) / 2,   R = A + V before whitening

Differs from `ppo`: a discount for turns that is not one for tokens. k1 to the reference policy is taken off the reward;
its coefficient is a setting of the experiment and is 0 unless bound. Source: arXiv:2504.20073.
"""

from core import Part, Variant, variant
from estimators.advantages.turn_critic import whitened_bilevel_gae
from estimators.aggregators import token_mean
from estimators.kl import k1
from estimators.objectives.token import clip
from estimators.values import clipped_squared_error


@variant
def bilevel_ppo(
    *,
    advantage: Part = whitened_bilevel_gae,
    objective: Part = clip,
    aggregator: Part = token_mean,
    value_loss: Part = clipped_squared_error,
    kl: Part = k1,
    kl_coef: float = 0.0,
) -> Variant:
    """Generalised advantage estimates on two levels, whitened over all tokens, under PPO's clip."""
    return Variant(
        advantage=advantage,
        objective=objective,
        aggregator=aggregator,
        value_loss=value_loss,
        kl=kl,
        kl_coef=kl_coef,
        kl_place="reward",
    )
