"""PPO whose steps are turns: a critic values turns, and all tokens of one share its advantage (AReaL's form).

    A_k   = delta_k + gamma lam A_{k+1},   delta_k = x_k + gamma V_{k+1} - V_k,   V_k at the turn's first token
    loss  = -1/N sum_i sum_t min(q_it A_ik, clip(q_it, 1 - eps_low, 1 + eps_high) A_ik)
    critic: 1/N sum_i sum_t max((V - R)^2, (clip(V, V_old -+ clip) - R)^2) / 2,   R = A_k + V_k at all tokens of turn k

Differs from `ppo`: a discount and lambda act once a turn, whatever its length, and nothing is whitened. k1 to the
reference policy is taken off the reward; its coefficient is a setting of the experiment and is 0 unless bound.
"""

from core import Part, Variant, variant
from estimators.advantages.turn_critic import turn_gae
from estimators.aggregators import token_mean
from estimators.kl import k1
from estimators.objectives.token import clip
from estimators.values import clipped_squared_error


@variant
def turn_ppo(
    *,
    advantage: Part = turn_gae,
    objective: Part = clip,
    aggregator: Part = token_mean,
    value_loss: Part = clipped_squared_error,
    kl: Part = k1,
    kl_coef: float = 0.0,
) -> Variant:
    """Generalised advantage estimates from turn to turn, under PPO's clip."""
    return Variant(
        advantage=advantage,
        objective=objective,
        aggregator=aggregator,
        value_loss=value_loss,
        kl=kl,
        kl_coef=kl_coef,
        kl_place="reward",
    )
