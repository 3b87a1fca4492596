"""REINFORCE with the optimal baseline of each token position (verl's `optimal_token_baseline`).

    A_it = R_it - b_t,   b_t = sum_i R_it W_it / sum_i W_it,   W_t = sum_{u <= t} (1 - 2 pi_u + sum_v pi_v^2)
    loss = -1/N sum_i sum_t min(q_it A_it, clip(q_it, 1 - eps_low, 1 + eps_high) A_it)

Costs one forward pass that keeps the sum of squared probabilities of every token.
"""

from core import Part, Variant, variant
from estimators.advantages.token import optimal_token_baseline
from estimators.aggregators import token_mean
from estimators.objectives.token import clip


@variant
def optimal_token(
    *, advantage: Part = optimal_token_baseline, objective: Part = clip, aggregator: Part = token_mean
) -> Variant:
    """A baseline for every position, weighted by the energy of the gradient so far."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
