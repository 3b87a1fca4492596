"""GiGPO: group in group, turns against others that were taken in the same state (Feng et al. 2025, arXiv:2505.10978).

    A_ik = z(R)_i + omega * z(R_k)_ik,   R_ik = x_ik + gamma R_i,k+1,   the second z over turns with one anchor
    loss = -1/(sum of K) sum_i sum_k 1/n_ik sum_t min(q_it A_ik, clip(q_it, 1 - eps_low, 1 + eps_high) A_ik)

z(x) = (x - mean(x)) / (std(x) + eps). The environment names the states; a state that is met once adds nothing. With
`norm` "mean" nothing is divided by a std. A KL term in the loss, of which the paper has one, is the experiment's.
"""

from core import Part, Variant, variant
from estimators.advantages.anchors import group_in_group
from estimators.aggregators import turn_mean_token_mean
from estimators.kl import k3
from estimators.objectives.token import clip


@variant
def gigpo(
    *,
    advantage: Part = group_in_group,
    objective: Part = clip,
    aggregator: Part = turn_mean_token_mean,
    kl: Part = k3,
    kl_coef: float = 0.0,
) -> Variant:
    """Episodes relative to their group and turns relative to their state, every turn counting the same."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator, kl=kl, kl_coef=kl_coef)
