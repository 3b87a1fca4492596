"""GRPO with process supervision: rewards of steps in place of one per response (Shao et al. 2024, arXiv:2402.03300).

    s_j  = (x_j - mean(x)) / (std(x) + eps) over all steps of the group,   A_it = sum of s_j over steps ending at u >= t
    loss = -1/R sum_i 1/n_i sum_t min(q_it A_it, clip(q_it, 1 - eps_low, 1 + eps_high) A_it)

Needs a provider of `token_rewards` and one of `step_ends`, which are the task's business.
"""

from core import Part, Variant, variant
from estimators.advantages.steps import process_mean_std
from estimators.aggregators import seq_mean_token_mean
from estimators.objectives.token import clip


@variant
def grpo_process(
    *, advantage: Part = process_mean_std, objective: Part = clip, aggregator: Part = seq_mean_token_mean
) -> Variant:
    """GRPO on standardised step rewards, each credited to the tokens that lead to it."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
