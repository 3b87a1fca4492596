"""DAPO: decoupled clip and dynamic sampling (Yu et al. 2025, arXiv:2503.14476).

    A_i  = (r_i - mean(r)) / (std(r) + eps),   r with the soft overlong punishment in it
    loss = -1/N sum_i sum_t min(q_it A_i, clip(q_it, 1 - eps_low, 1 + eps_high) A_i)
    over prompts with 0 < #correct < G only; sampling goes on until the batch is full, for at most `filter_rounds`
    rounds

Differs from GRPO: a higher upper clip, one mean over all tokens, prompts that teach nothing are replaced, length is
punished before the limit is reached, no KL term.
"""

from collections.abc import Sequence

from core import Part, Variant, variant
from estimators.advantages.group import group_mean_std
from estimators.aggregators import token_mean
from estimators.filters import nonuniform
from estimators.objectives.token import clip
from estimators.shaping import soft_overlong


@variant(
    published={
        "eps_low": "DAPO, section 4.1",
        "eps_high": "DAPO, section 4.1",
        "filter_rounds": "DAPO, released recipe",
    }
)
def dapo(
    *,
    advantage: Part = group_mean_std,
    objective: Part = clip,
    aggregator: Part = token_mean,
    filter: Part | None = nonuniform,
    shaping: Sequence[Part] = (soft_overlong,),
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    filter_rounds: int = 10,
) -> Variant:
    """Clip-higher, token mean, dynamic sampling on correctness, soft overlong punishment."""
    return Variant(
        advantage=advantage,
        objective=objective.using(eps_low=eps_low, eps_high=eps_high),
        aggregator=aggregator,
        filter=filter,
        filter_rounds=filter_rounds,
        shaping=shaping,
    )
