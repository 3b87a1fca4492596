"""GDPO: several rewards, each standardised in its group before they are added up (2026, arXiv:2601.05242).

    s_i  = sum_k w_k (r_ki - mean(r_k)) / (std(r_k) + eps),   A_i = (s_i - mean(s)) / (std(s) + eps) over the batch
    loss = -1/N sum_i sum_t min(q_it A_i, clip(q_it, 1 - eps_low, 1 + eps_high) A_i)

Differs from GRPO: a reward of small range is not drowned by one of large range. Reads the reward functions' own values,
so shaping and a KL penalty in the reward do not act.
"""

from core import Part, Variant, variant
from estimators.advantages.several_rewards import per_reward_std
from estimators.aggregators import token_mean
from estimators.objectives.token import clip


@variant
def gdpo(*, advantage: Part = per_reward_std, objective: Part = clip, aggregator: Part = token_mean) -> Variant:
    """Group-standardised rewards, added up and standardised over the batch."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
