"""verl's dialect, as of version 0.9: what its estimators and losses compute with their defaults.

Its `vanilla` loss is always dual-clipped, and its default aggregation is a mean over tokens, whatever the estimator.
Log-ratios are bounded at 20 there, which matters only where training has already failed.
"""

from collections.abc import Sequence

from core import Part, Variant, variant
from estimators.advantages.greedy import greedy_baseline
from estimators.advantages.group import group_mean_nonzero_scaled, group_mean_std, leave_one_out
from estimators.advantages.several_rewards import per_reward_std_whitened
from estimators.aggregators import seq_mean_token_mean, token_mean
from estimators.filters import nonuniform
from estimators.kl import k1, k3_bounded
from estimators.objectives.covariance import cov_kl
from estimators.objectives.sequence import gspo_token_clip
from estimators.objectives.token import cispo_clip, dual_clip, policy_gradient
from estimators.shaping import soft_overlong


@variant
def grpo_verl(
    *,
    advantage: Part = group_mean_std,
    objective: Part = dual_clip,
    aggregator: Part = token_mean,
    kl: Part = k3_bounded,
    kl_coef: float = 0.0,
) -> Variant:
    """GRPO in verl: dual clip, mean over tokens, k3 with bounded log-ratio (20) and value (10) when it is switched on.

    A_i  = (r_i - mean(r)) / (std(r) + 1e-6)
    loss = 1/N sum_i sum_t min(clip loss, 3 |A_i|) for A_i < 0, else the clip loss
    """
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator, kl=kl, kl_coef=kl_coef)


@variant(published={"eps_high": "DAPO, section 4.1", "ratio_cap": "verl's DAPO recipe"})
def dapo_verl(
    *,
    advantage: Part = group_mean_std,
    objective: Part = dual_clip,
    aggregator: Part = token_mean,
    filter: Part | None = nonuniform,
    filter_rounds: int = 10,
    shaping: Sequence[Part] = (soft_overlong,),
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    ratio_cap: float = 10.0,
) -> Variant:
    """DAPO in verl's recipe: clip-higher under a dual clip with a cap of 10.

    loss = 1/N sum_i sum_t min(clip loss, 10 |A_i|) for A_i < 0, else the clip loss with 0.2 and 0.28
    """
    return Variant(
        advantage=advantage,
        objective=objective.using(eps_low=eps_low, eps_high=eps_high, ratio_cap=ratio_cap),
        aggregator=aggregator,
        filter=filter,
        filter_rounds=filter_rounds,
        shaping=shaping,
    )


@variant
def rloo_verl(
    *,
    advantage: Part = leave_one_out,
    objective: Part = dual_clip,
    aggregator: Part = token_mean,
    kl: Part = k1,
    kl_coef: float = 0.0,
) -> Variant:
    """RLOO in verl: the leave-one-out advantage under a dual clip by token, mean over tokens.

    A_i  = r_i - mean of the others,   loss = 1/N sum_i sum_t dual clip(q_it, A_i)
    """
    return Variant(
        advantage=advantage, objective=objective, aggregator=aggregator, kl=kl, kl_coef=kl_coef, kl_place="reward"
    )


@variant
def remax_verl(
    *,
    advantage: Part = greedy_baseline,
    objective: Part = dual_clip,
    aggregator: Part = token_mean,
    kl: Part = k1,
    kl_coef: float = 0.0,
) -> Variant:
    """ReMax in verl: the greedy baseline under a dual clip by token.

    A_it = sum_{u >= t} x_iu - r_greedy,   loss = 1/N sum_i sum_t dual clip(q_it, A_it)
    """
    return Variant(
        advantage=advantage, objective=objective, aggregator=aggregator, kl=kl, kl_coef=kl_coef, kl_place="reward"
    )


@variant
def gspo_verl(
    *, advantage: Part = group_mean_std, objective: Part = gspo_token_clip, aggregator: Part = seq_mean_token_mean
) -> Variant:
    """GSPO in verl: the token form, whose gradient differs from the response form only for advantages by token.

    loss = -1/R sum_i 1/n_i sum_t min(s_it A_i, clip(s_it) A_i),   s_it = sg[s_i] pi(y_it) / sg[pi(y_it)]
    """
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)


@variant(published={"eps_low": "verl's example", "eps_high": "verl's example"})
def cispo_verl(
    *,
    advantage: Part = group_mean_std,
    objective: Part = cispo_clip,
    aggregator: Part = token_mean,
    eps_low: float = 10.0,
    eps_high: float = 0.2,
) -> Variant:
    """CISPO in verl's example: the weight is at most 1.2, since its bound is 1 + eps_high.

    loss = -1/N sum_i sum_t sg[min(q_it, 1.2)] A_i log pi(y_it); no filter, no length punishment
    """
    return Variant(
        advantage=advantage, objective=objective.using(eps_low=eps_low, eps_high=eps_high), aggregator=aggregator
    )


@variant
def gpg_verl(
    *,
    advantage: Part = group_mean_nonzero_scaled,
    objective: Part = policy_gradient,
    aggregator: Part = token_mean,
) -> Variant:
    """GPG in verl: scaled by the number of rewards that are not 0, not by groups without spread.

    A_i  = B / max(1, #{r != 0}) (r_i - mean(r)),   loss = -1/N sum_i sum_t A_i log pi(y_it)
    """
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)


@variant
def gdpo_verl(
    *, advantage: Part = per_reward_std_whitened, objective: Part = dual_clip, aggregator: Part = token_mean
) -> Variant:
    """GDPO in verl: the sum of standardised rewards is whitened over tokens, not over responses.

    A_it = whiten(sum_k w_k (r_ki - mean(r_k)) / (std(r_k) + 1e-6)),   loss = 1/N sum_i sum_t dual clip(q_it, A_it)
    """
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)


@variant(published={"kl_coef": "verl's configuration"})
def kl_cov_verl(
    *,
    advantage: Part = group_mean_std,
    objective: Part = cov_kl,
    aggregator: Part = token_mean,
    kl_coef: float = 0.1,
) -> Variant:
    """KL-Cov with verl's configured penalty, a tenth of the one its documentation names.

    loss = -1/N sum_i sum_t (q_it A_i - 0.1 |log q_it| [it in the top share by covariance])
    """
    return Variant(advantage=advantage, objective=objective.using(kl_coef=kl_coef), aggregator=aggregator)
