"""Pass@k training: only the best response of a group learns (Tang et al. 2025, arXiv:2503.19595).

    A_best = (r_(1) - r_(2)) / (std(r) + eps), 0 for all others
    loss   = -1/N sum_i sum_t min(q_it A_i, clip(q_it, 1 - eps_low, 1 + eps_high) A_i)

Without the std (`grpo_passk.advantage = @best_minus_second`) its expected gradient is that of the best of G.
"""

from core import Part, Variant, variant
from estimators.advantages.group import best_minus_second_std
from estimators.aggregators import token_mean
from estimators.objectives.token import clip


@variant
def grpo_passk(
    *, advantage: Part = best_minus_second_std, objective: Part = clip, aggregator: Part = token_mean
) -> Variant:
    """The best response, by its lead over the second best."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
