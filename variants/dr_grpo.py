"""Dr. GRPO: GRPO without its two normalisers (Liu et al. 2025, arXiv:2503.20783).

    A_i  = r_i - mean(r)
    loss = -1/(R * max_tokens) sum_i sum_t min(q_it A_i, clip(q_it, 1 - eps_low, 1 + eps_high) A_i)

Differs from GRPO: no division by the group's std (which weighs questions by their difficulty), and a constant in
place of the response's length (which makes a long wrong response cheap).
"""

from core import Part, Variant, variant
from estimators.advantages.group import group_mean
from estimators.aggregators import seq_mean_token_sum_norm
from estimators.objectives.token import clip


@variant
def dr_grpo(
    *, advantage: Part = group_mean, objective: Part = clip, aggregator: Part = seq_mean_token_sum_norm
) -> Variant:
    """GRPO minus the std and length normalisers."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
