"""PPO with a critic, as language models are trained by it (Schulman et al. 2017, arXiv:1707.06347; Ouyang et al. 2022).

    A_it  = whitened GAE(gamma, lam) of the values V
    loss  = -1/N sum_i sum_t min(q_it A_it, clip(q_it, 1 - eps_low, 1 + eps_high) A_it)
    critic: 1/N sum_i sum_t max((V - R)^2, (clip(V, V_old -+ clip) - R)^2) / 2,   R = A + V before whitening

k1 to the reference policy is taken off the reward, token by token. Its coefficient is a setting of the experiment and
is 0 unless bound; with `kl_target`, in nats a response, it is adapted (Ziegler et al. 2019, arXiv:1909.08593, section
2.2). With values that are 0 and lam = 1 this is REINFORCE++. The critic itself is set up by `critic`. Works with one
sample a prompt.
"""

from core import Part, Variant, variant
from estimators.advantages.critic import whitened_gae
from estimators.aggregators import token_mean
from estimators.kl import k1
from estimators.objectives.token import clip
from estimators.values import clipped_squared_error


@variant
def ppo(
    *,
    advantage: Part = whitened_gae,
    objective: Part = clip,
    aggregator: Part = token_mean,
    value_loss: Part = clipped_squared_error,
    kl: Part = k1,
    kl_coef: float = 0.0,
    kl_target: float | None = None,
    kl_horizon: int = 10_000,
) -> Variant:
    """Generalised advantage estimates of a critic's values, whitened over all tokens, under PPO's clip."""
    return Variant(
        advantage=advantage,
        objective=objective,
        aggregator=aggregator,
        value_loss=value_loss,
        kl=kl,
        kl_coef=kl_coef,
        kl_place="reward",
        kl_target=kl_target,
        kl_horizon=kl_horizon,
    )
