"""Clip-Cov: PPO's clip plus a few high-covariance tokens without gradient (Cui et al. 2025, arXiv:2505.22617).

    A_i  = (r_i - mean(r)) / (std(r) + eps),   cov_it = (A_it - mean A)(log pi_it - mean log pi)
    loss = -1/N sum over all tokens but the drawn ones of min(q_it A_i, clip(q_it) A_i)

Differs from GRPO: the few tokens that cost the most entropy are held, at random; one mean over all tokens. Groups
are filtered as in DAPO.
"""

from core import Part, Variant, variant
from estimators.advantages.group import group_mean_std
from estimators.aggregators import token_mean
from estimators.filters import nonuniform
from estimators.objectives.covariance import cov_clip


@variant
def clip_cov(
    *,
    advantage: Part = group_mean_std,
    objective: Part = cov_clip,
    aggregator: Part = token_mean,
    filter: Part | None = nonuniform,
    filter_rounds: int = 10,
) -> Variant:
    """GRPO that takes a few high-covariance tokens out of the loss."""
    return Variant(
        advantage=advantage, objective=objective, aggregator=aggregator, filter=filter, filter_rounds=filter_rounds
    )
