"""OpenRLHF's dialect, as of version 0.11: what its estimators compute with its default token-mean PPO loss.

Outcomes are centred first, then clipped; the KL penalty, k1 with a coefficient of 0.01 by default, is added to the
centred reward by token, so that no baseline touches it.
"""

from core import Part, Variant, variant
from estimators.advantages.batch import whitened_return
from estimators.advantages.then_kl import (
    group_mean_std_then_kl,
    group_mean_then_kl,
    leave_one_out_then_kl,
    whitened_group_mean_then_kl,
)
from estimators.aggregators import token_mean
from estimators.kl import k1
from estimators.objectives.token import clip

KL = {"kl_coef": "OpenRLHF, --algo.kl.init_coef"}
WHITEN = {"correction": 0, "eps": 0.0, "floor": 1e-8}


@variant(published=KL)
def grpo_openrlhf(
    *,
    advantage: Part = group_mean_std_then_kl,
    objective: Part = clip,
    aggregator: Part = token_mean,
    kl: Part = k1,
    kl_coef: float = 0.01,
) -> Variant:
    """GRPO in OpenRLHF (`group_norm`): eps of 1e-9, mean over tokens, KL by token outside the group statistics.

    A_it = (o_i - mean(o)) / (std(o) + 1e-9) - kl_coef sum_{u >= t} k1_iu,   loss = 1/N sum_i sum_t clip loss
    """
    return Variant(
        advantage=advantage, objective=objective, aggregator=aggregator, kl=kl, kl_coef=kl_coef, kl_place="reward"
    )


@variant(published=KL)
def dr_grpo_openrlhf(
    *,
    advantage: Part = group_mean_then_kl,
    objective: Part = clip,
    aggregator: Part = token_mean,
    kl: Part = k1,
    kl_coef: float = 0.01,
) -> Variant:
    """Dr. GRPO in OpenRLHF: the reward is centred, but the loss stays a mean over tokens, not over a constant.

    A_it = o_i - mean(o) - kl_coef sum_{u >= t} k1_iu,   loss = 1/N sum_i sum_t clip loss
    """
    return Variant(
        advantage=advantage, objective=objective, aggregator=aggregator, kl=kl, kl_coef=kl_coef, kl_place="reward"
    )


@variant(published=KL)
def rloo_openrlhf(
    *,
    advantage: Part = leave_one_out_then_kl,
    objective: Part = clip,
    aggregator: Part = token_mean,
    kl: Part = k1,
    kl_coef: float = 0.01,
) -> Variant:
    """RLOO in OpenRLHF: leave-one-out on the outcome, the KL part without a baseline, PPO's clip by token.

    A_it = o_i - mean of the others - kl_coef sum_{u >= t} k1_iu,   loss = 1/N sum_i sum_t clip loss
    """
    return Variant(
        advantage=advantage, objective=objective, aggregator=aggregator, kl=kl, kl_coef=kl_coef, kl_place="reward"
    )


@variant(published={**KL, "reward_clip": "OpenRLHF, --reward.clip_range"})
def reinforce_pp_openrlhf(
    *,
    advantage: Part = whitened_return,
    objective: Part = clip,
    aggregator: Part = token_mean,
    kl: Part = k1,
    kl_coef: float = 0.01,
    reward_clip: float = 10.0,
) -> Variant:
    """REINFORCE++ in OpenRLHF (`reinforce`): population variance, bounded below at 1e-8, in the whitening.

    A_it = (R_it - mean(R)) / sqrt(max(var_0(R), 1e-8)),   loss = 1/N sum_i sum_t clip loss
    """
    return Variant(
        advantage=advantage.using(**WHITEN) if advantage is whitened_return else advantage,
        objective=objective,
        aggregator=aggregator,
        kl=kl,
        kl_coef=kl_coef,
        kl_place="reward",
        reward_clip=reward_clip,
    )


@variant(published=KL)
def reinforce_pp_baseline_openrlhf(
    *,
    advantage: Part = whitened_group_mean_then_kl,
    objective: Part = clip,
    aggregator: Part = token_mean,
    kl: Part = k1,
    kl_coef: float = 0.01,
) -> Variant:
    """REINFORCE++-baseline in OpenRLHF (`reinforce_baseline`): KL outside the baseline, then whitened with it.

    a_it = o_i - mean(o) - kl_coef sum_{u >= t} k1_iu,   A_it = (a_it - mean(a)) / sqrt(max(var_0(a), 1e-8))
    loss = 1/N sum_i sum_t clip loss
    """
    return Variant(
        advantage=advantage, objective=objective, aggregator=aggregator, kl=kl, kl_coef=kl_coef, kl_place="reward"
    )
