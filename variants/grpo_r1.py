"""GRPO with R1's settings of the loss (DeepSeek-AI 2025, arXiv:2501.12948).

    A_i  = (r_i - mean(r)) / (std(r) + eps)
    loss = -1/R sum_i 1/n_i sum_t min(q_it A_i, clip(q_it, 1 - 10, 1 + 10) A_i) + 0.001 * k3

Differs from GRPO: a clip so wide that it hardly acts in 16 updates a rollout, and a small KL to a reference that is
replaced by the policy every 400 steps (a setting of the run: `reference.every = 400`).
"""

from core import Part, Variant, variant
from estimators.advantages.group import group_mean_std
from estimators.aggregators import seq_mean_token_mean
from estimators.kl import k3
from estimators.objectives.token import clip

R1 = "R1, first RL stage"


@variant(published={"eps_low": R1, "eps_high": R1, "kl_coef": "R1-Zero"})
def grpo_r1(
    *,
    advantage: Part = group_mean_std,
    objective: Part = clip,
    aggregator: Part = seq_mean_token_mean,
    eps_low: float = 10.0,
    eps_high: float = 10.0,
    kl: Part = k3,
    kl_coef: float = 0.001,
) -> Variant:
    """GRPO with a clip of 10 on both sides and k3 in the loss."""
    return Variant(
        advantage=advantage,
        objective=objective.using(eps_low=eps_low, eps_high=eps_high),
        aggregator=aggregator,
        kl=kl,
        kl_coef=kl_coef,
    )
