"""MT-GRPO: turns' rewards and the outcome are standardised apart and credited turn by turn (Wei et al. 2025).

    A_ik = z(O)_i + coef * sum_{l >= k} z(T_l)_i,   z(x) = (x - mean(x)) / (std(x) + eps) over the group
    loss = -1/R sum_i 1/n_i sum_t min(q_it A_ik, clip(q_it, 1 - eps_low, 1 + eps_high) A_ik),   k the turn of token t

An episode of one turn gets z(T_1 + O). Bind `@mt_grpo_cae` as the advantage for rewards that are added up first. Every
turn needs a reward of its own from the environment, or this is GRPO. Source: arXiv:2505.11821.
"""

from core import Part, Variant, variant
from estimators.advantages.turns import mt_grpo_aae
from estimators.aggregators import seq_mean_token_mean
from estimators.objectives.token import clip


@variant
def mt_grpo(
    *, advantage: Part = mt_grpo_aae, objective: Part = clip, aggregator: Part = seq_mean_token_mean
) -> Variant:
    """Advantages of the outcome and of the turns still to come, added up, under PPO's clip."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
