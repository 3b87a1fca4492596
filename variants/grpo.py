"""GRPO: group-relative policy optimisation (Shao et al. 2024, arXiv:2402.03300).

    A_i  = (r_i - mean(r)) / (std(r) + eps)
    loss = -1/R sum_i 1/n_i sum_t min(q_it A_i, clip(q_it, 1 - eps_low, 1 + eps_high) A_i) + kl_coef * KL

The KL term is k3 to the reference policy, in the loss. Its coefficient is a setting of the experiment (0.04 in the
paper, 0.001 in R1-Zero, 0 in most work since) and is 0 unless bound. With `kl_place` "reward" it is taken off the
reward instead.
"""

from typing import Literal

from core import Part, Variant, variant
from estimators.advantages.group import group_mean_std
from estimators.aggregators import seq_mean_token_mean
from estimators.kl import k3
from estimators.objectives.token import clip


@variant
def grpo(
    *,
    advantage: Part = group_mean_std,
    objective: Part = clip,
    aggregator: Part = seq_mean_token_mean,
    kl: Part = k3,
    kl_coef: float = 0.0,
    kl_place: Literal["loss", "reward"] = "loss",
) -> Variant:
    """Reward standardised in its group, PPO's clip, mean over responses of their token mean."""
    return Variant(
        advantage=advantage, objective=objective, aggregator=aggregator, kl=kl, kl_coef=kl_coef, kl_place=kl_place
    )
