"""GMPO: geometric-mean policy optimisation (Zhao et al. 2025, arXiv:2507.20673).

    A_i  = (r_i - mean(r)) / (std(r) + eps)
    loss = -1/R sum_i A_i exp(1/n_i sum_t clipped d_it),   d = log pi - log old, clipped within -eps_low to eps_high

Differs from GRPO: the geometric mean of the clipped token ratios in place of their arithmetic mean.
"""

from core import Part, Variant, variant
from estimators.advantages.group import group_mean_std
from estimators.aggregators import seq_mean_token_mean
from estimators.objectives.sequence import geo_mean_clip


@variant
def gmpo(
    *,
    advantage: Part = group_mean_std,
    objective: Part = geo_mean_clip,
    aggregator: Part = seq_mean_token_mean,
) -> Variant:
    """GRPO on the geometric mean of clipped token ratios."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
