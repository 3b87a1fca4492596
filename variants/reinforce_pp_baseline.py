"""REINFORCE++-baseline: the group's mean as baseline, the batch for the scale (Hu 2025, arXiv:2501.03262).

    c_i  = r_i - mean(r_group),   A_it = (c_i - mean(c)) / sqrt(var(c) + eps) over all tokens of the batch
    loss = -1/N sum_i sum_t min(q_it A_it, clip(q_it, 1 - eps_low, 1 + eps_high) A_it) + kl_coef * k2

The KL term is k2, in the loss; its coefficient is a setting of the experiment and is 0 unless bound.
"""

from core import Part, Variant, variant
from estimators.advantages.batch import whitened_group_mean
from estimators.aggregators import token_mean
from estimators.kl import k2
from estimators.objectives.token import clip


@variant
def reinforce_pp_baseline(
    *,
    advantage: Part = whitened_group_mean,
    objective: Part = clip,
    aggregator: Part = token_mean,
    kl: Part = k2,
    kl_coef: float = 0.0,
) -> Variant:
    """Centred reward, whitened over all tokens of the batch, under PPO's clip."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator, kl=kl, kl_coef=kl_coef)
