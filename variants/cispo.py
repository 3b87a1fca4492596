"""CISPO: clipped importance-sampling weights (MiniMax-M1, 2025, arXiv:2506.13585).

    A_i  = (r_i - mean(r)) / (std(r) + eps)
    loss = -1/N sum_i sum_t sg[clip(q_it, 1 - eps_low, 1 + eps_high)] A_i log pi(y_it)

Differs from GRPO: the weight is clipped, not the gradient, so every token keeps one; one mean over all tokens. Dynamic
sampling and the length punishment are DAPO's. The paper tunes the upper bound without printing it.
"""

from collections.abc import Sequence

from core import Part, Variant, variant
from estimators.advantages.group import group_mean_std
from estimators.aggregators import token_mean
from estimators.filters import nonuniform
from estimators.objectives.token import cispo_clip
from estimators.shaping import soft_overlong


@variant(published={"filter_rounds": "as DAPO"})
def cispo(
    *,
    advantage: Part = group_mean_std,
    objective: Part = cispo_clip,
    aggregator: Part = token_mean,
    filter: Part | None = nonuniform,
    filter_rounds: int = 10,
    shaping: Sequence[Part] = (soft_overlong,),
) -> Variant:
    """REINFORCE with clipped importance weights on group-standardised rewards."""
    return Variant(
        advantage=advantage,
        objective=objective,
        aggregator=aggregator,
        filter=filter,
        filter_rounds=filter_rounds,
        shaping=shaping,
    )
