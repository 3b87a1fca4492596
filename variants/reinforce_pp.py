"""REINFORCE++: no group, one baseline and one scale for the whole batch (Hu 2025, arXiv:2501.03262).

    A_it = (R_it - mean(R)) / sqrt(var(R) + eps) over all tokens of the batch,   R_t = x_t + gamma R_{t+1}
    loss = -1/N sum_i sum_t min(q_it A_it, clip(q_it, 1 - eps_low, 1 + eps_high) A_it)

k1 to the reference policy is taken off the reward, token by token; its coefficient is a setting of the experiment and
is 0 unless bound. Works with one sample a prompt.
"""

from core import Part, Variant, variant
from estimators.advantages.batch import whitened_return
from estimators.aggregators import token_mean
from estimators.kl import k1
from estimators.objectives.token import clip


@variant
def reinforce_pp(
    *,
    advantage: Part = whitened_return,
    objective: Part = clip,
    aggregator: Part = token_mean,
    kl: Part = k1,
    kl_coef: float = 0.0,
) -> Variant:
    """Reward to go, whitened over all tokens of the batch, under PPO's clip."""
    return Variant(
        advantage=advantage, objective=objective, aggregator=aggregator, kl=kl, kl_coef=kl_coef, kl_place="reward"
    )
