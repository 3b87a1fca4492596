"""Authors' code where it differs from their paper."""

from typing import Literal

from core import Part, Variant, variant
from estimators.advantages.anchors import group_in_group
from estimators.advantages.greedy import discounted_greedy_baseline
from estimators.aggregators import token_mean_local, turn_mean_token_mean
from estimators.kl import k1
from estimators.objectives.token import clip, policy_gradient


@variant(published={"kl_coef": "ReMax, authors' scripts"})
def remax_authors(
    *,
    advantage: Part = discounted_greedy_baseline,
    objective: Part = policy_gradient,
    aggregator: Part = token_mean_local,
    kl: Part = k1,
    kl_coef: float = 0.05,
) -> Variant:
    """ReMax in its authors' code: discounted, clipped, each token paying its own KL only, a mean per micro-batch.

    A_it = -kl_coef k1_it + 0.99^(n_i - t + 1) clip(o_i - r_greedy, -5, 5)
    loss = -(1/N of the micro-batch) sum_i sum_t A_it log pi(y_it)
    """
    return Variant(
        advantage=advantage, objective=objective, aggregator=aggregator, kl=kl, kl_coef=kl_coef, kl_place="reward"
    )


@variant(published={"norm": "GiGPO, authors' code", "statistics": "GiGPO, authors' code"})
def gigpo_authors(
    *,
    advantage: Part = group_in_group,
    objective: Part = clip,
    aggregator: Part = turn_mean_token_mean,
    norm: Literal["mean_std", "mean"] = "mean",
    statistics: Literal["episode", "turn"] = "turn",
) -> Variant:
    """GiGPO in its authors' code: no std, and an episode's return counts once a turn in the group's mean.

    A_ik = R_i - sum_j K_j R_j / sum_j K_j + R_ik - mean over turns with one anchor

    Their grouping of similar states is off by default and not here. A group of one episode has its raw return there.
    """
    return Variant(
        advantage=advantage.using(norm=norm, statistics=statistics), objective=objective, aggregator=aggregator
    )
