"""Libraries for episodes of several turns, as far as their advantages differ: Trinity-RFT and ROLL."""

from core import Part, Variant, variant
from estimators.advantages.anchors import group_in_batch, group_in_group
from estimators.aggregators import turn_mean_token_mean
from estimators.objectives.token import clip


@variant
def gigpo_trinity(
    *, advantage: Part = group_in_batch, objective: Part = clip, aggregator: Part = turn_mean_token_mean
) -> Variant:
    """GiGPO in Trinity-RFT: no std, no discount, and states are compared across the whole batch.

    A_ik = R_i - mean(R) + R_ik - mean over all turns of the batch with one anchor
    """
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)


@variant(published={"eps": "ROLL"})
def gigpo_roll(
    *,
    advantage: Part = group_in_group,
    objective: Part = clip,
    aggregator: Part = turn_mean_token_mean,
    eps: float = 0.0,
) -> Variant:
    """GiGPO in ROLL: over the std itself, with nothing added, and 0 where there is no spread.

    A_ik = (R_i - mean(R)) / std(R) + (R_ik - mean) / std over turns with one anchor
    """
    return Variant(advantage=advantage.using(eps=eps), objective=objective, aggregator=aggregator)
