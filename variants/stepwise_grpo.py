"""Step-wise GRPO: every turn is a row and learns from what the last one earned (Trinity-RFT's `step_wise_grpo`).

    A_i  = (x_i - mean(x)) / (std(x) + eps),   x_i = O_i + T_iK
    loss = -1/(sum of K) sum_i sum_k 1/n_ik sum_t min(q_it A_i, clip(q_it, 1 - eps_low, 1 + eps_high) A_i)

Long episodes weigh more, by their number of turns; `last_turn_mean_std.over_turns` takes that back.
"""

from core import Part, Variant, variant
from estimators.advantages.turns import last_turn_mean_std
from estimators.aggregators import turn_mean_token_mean
from estimators.objectives.token import clip


@variant
def stepwise_grpo(
    *, advantage: Part = last_turn_mean_std, objective: Part = clip, aggregator: Part = turn_mean_token_mean
) -> Variant:
    """The last turn's reward standardised in its group, for every turn, each counting the same."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
