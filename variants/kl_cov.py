"""KL-Cov: a penalty on the few tokens of largest covariance, and no clip (Cui et al. 2025, arXiv:2505.22617).

    A_i  = (r_i - mean(r)) / (std(r) + eps),   cov_it = (A_it - mean A)(log pi_it - mean log pi)
    loss = -1/N sum_i sum_t (q_it A_i - kl_coef |log q_it| [it in the top share by covariance])

Differs from GRPO: no clip; the few tokens that cost the most entropy are pulled back; one mean over all
tokens. Groups are filtered as in DAPO.
"""

from core import Part, Variant, variant
from estimators.advantages.group import group_mean_std
from estimators.aggregators import token_mean
from estimators.filters import nonuniform
from estimators.objectives.covariance import cov_kl


@variant
def kl_cov(
    *,
    advantage: Part = group_mean_std,
    objective: Part = cov_kl,
    aggregator: Part = token_mean,
    filter: Part | None = nonuniform,
    filter_rounds: int = 10,
) -> Variant:
    """GRPO without a clip, holding back the tokens of largest covariance."""
    return Variant(
        advantage=advantage, objective=objective, aggregator=aggregator, filter=filter, filter_rounds=filter_rounds
    )
