"""Rewards of turns and of the outcome, each relative to the group: outcome alone, MT-GRPO, turn by turn, last turn."""

import torch
from torch import Tensor

from core import Batch, advantage
from estimators.turns import (
    earned_by_turn,
    existing,
    last_turns,
    outcomes,
    over_tokens,
    relative,
    returns_to_go,
    rewards_of_turns,
    rounding,
    turn_counts,
)

GROUP_STD = "group, ddof {correction}, + {eps:g}"
MT_GRPO = {"eps": "MT-GRPO, authors' code", "correction": "MT-GRPO, authors' code"}


def _in_groups(batch: Batch, x: Tensor, *, eps: float | None = None, correction: int = 1) -> Tensor:
    """x [P, G] or [P, G, K] minus its mean over all G rows, turn by turn; over their std + eps where one is given."""
    columns = x if x.ndim == 3 else x[..., None]
    result = _relative_by_turn(batch, columns, torch.ones_like(columns, dtype=torch.bool), eps, correction)
    return result.view(x.shape)


def _relative_by_turn(batch: Batch, x: Tensor, among: Tensor, eps: float | None, correction: int) -> Tensor:
    """x [P, G, K] relative to entries `among` these of the same group and turn."""
    P, _, K = x.shape
    labels = torch.arange(P * K, device=x.device).view(P, 1, K).expand(x.shape)
    slack = rounding(batch)[:, None, None].expand(x.shape)
    return relative(x, labels, among, slack=slack, std=eps is not None, eps=eps or 0.0, correction=correction)


@advantage(axes={"baseline": "group mean of the outcomes", "std": "of the outcomes in the " + GROUP_STD})
def outcome_mean_std(batch: Batch, *, eps: float = 1e-6, correction: int = 1) -> Tensor:
    """Outcome standardised within its group; rewards of turns do not count.

        A_i = (O_i - mean(O)) / (std(O) + eps),   O_i = R_i - sum_k T_ik

    Returns [P, G]; 0 in a group whose outcomes are all equal. Without rewards of turns it is `group_mean_std`, which
    itself reads R, the outcome and all turns' rewards in one sum. Source: "GRPO-OR" of Wei et al. 2025
    (arXiv:2505.11821), whose "GRPO-MR" is the sum.
    """
    return _in_groups(batch, outcomes(batch), eps=eps, correction=correction).to(batch.rewards)


@advantage(
    axes={
        "baseline": "group means of the outcomes and of each turn's rewards",
        "std": "each in the " + GROUP_STD,
        "credit": "outcome, and {coef:g} x the turns still to come",
    },
    published={**MT_GRPO, "coef": "MT-GRPO, authors' code"},
)
def mt_grpo_aae(batch: Batch, *, coef: float = 1.0, eps: float = 1e-4, correction: int = 1) -> Tensor:
    """MT-GRPO, advantages added: the outcome's, and those of the rewards of this turn and later ones.

        A_ik = z(O)_i + coef * sum_{l >= k} z(T_l)_i,   z(x)_i = (x_i - mean(x)) / (std(x) + eps) over the group

    Returns [P, G, T]. All G rows count in every z: T_l is 0 where an episode has no turn l. An episode of one turn gets
    z(T_1 + O), as where no tool was called. Published for two turns, of which the first alone has a reward; the sum
    over turns to come is what that form is for more. Source: Wei et al. 2025 (arXiv:2505.11821), its code's default.
    """
    outcome, turns, whole = (
        _in_groups(batch, x, eps=eps, correction=correction)
        for x in (outcomes(batch), rewards_of_turns(batch), batch.rewards.double())
    )
    several = outcome[..., None] + coef * returns_to_go(turns)
    result = torch.where((turn_counts(batch) > 1)[..., None], several, whole[..., None])
    return over_tokens(batch, result).to(batch.rewards)


@advantage(
    axes={
        "baseline": "group mean of the returns from each turn on",
        "std": "of these in the " + GROUP_STD,
        "credit": "return from the turn on, discount {gamma:g}",
    },
    published={**MT_GRPO, "gamma": "MT-GRPO, authors' code"},
)
def mt_grpo_cae(batch: Batch, *, gamma: float = 1.0, eps: float = 1e-4, correction: int = 1) -> Tensor:
    """MT-GRPO, rewards added up before they are standardised: the return from each turn on.

        A_ik = z(R_k)_i,   R_ik = sum_{l >= k} gamma^(l - k) T_il + gamma^max(K_i - k, 0) O_i,   z over the group

    Returns [P, G, T]. All G rows count in every z: an episode that is over before turn k has its outcome there, as in
    the published form for two turns, z(T + gamma O) and z(O). Source: Wei et al. 2025 (arXiv:2505.11821), `cae`.
    """
    turns, counts = rewards_of_turns(batch), turn_counts(batch)
    k = torch.arange(1, turns.shape[-1] + 1, device=turns.device)
    left = (counts[..., None] - k).clamp(min=0).double()
    returns = returns_to_go(turns, gamma) + gamma**left * outcomes(batch)[..., None]
    result = _in_groups(batch, returns, eps=eps, correction=correction)
    return over_tokens(batch, result).to(batch.rewards)


def _per_turn(batch: Batch, *, padded: bool, eps: float | None = None, correction: int = 1) -> Tensor:
    turns = rewards_of_turns(batch)
    among = torch.ones_like(turns, dtype=torch.bool) if padded else existing(batch)
    relative_turns = _relative_by_turn(batch, turns, among, eps, correction)
    outcome = _in_groups(batch, outcomes(batch), eps=eps, correction=correction)
    # padded rows: what an episode did not get after its end is credit of its last turn as well
    return over_tokens(batch, outcome[..., None] + returns_to_go(relative_turns)).to(batch.rewards)


BIASED = "group mean of the outcomes, and of each turn's rewards over the episodes that reach it"
PADDED = "group mean of the outcomes, and of each turn's rewards, 0 where an episode is over"
TO_COME = "outcome, and the turns still to come"


@advantage(axes={"baseline": BIASED, "std": "none", "credit": TO_COME})
def per_turn_mean(batch: Batch) -> Tensor:
    """Each turn's reward minus its mean over the episodes that reach the turn: biased where these are not all.

        A_ik = O_i - mean(O) + sum_{l = k .. K_i} (T_il - m_l),   m_l = mean of T_jl over j with K_j >= l

    Returns [P, G, T]; a turn that one episode alone reaches gets 0. The baseline has as many terms as the episode has
    turns, which the policy chose: a decision to go on loses all that its further turns earn on average. Where turn 1
    stops with probability 1 - c and return s, or goes on to return i + x, x of turn 2 with mean m, the expected
    gradient in the logit of c is

        c (1 - c) (i - s),   which is the true one minus c (1 - c) m

    so that what a further turn pays or costs has no effect on whether it is reached; what the deciding turn itself is
    paid has, for every episode has a turn 1. `per_turn_mean_padded` mends it. Source: per-turn-index normalisation as
    ported from MT-GRPO, and its bias: verl, issue 7244.
    """
    return _per_turn(batch, padded=False)


@advantage(
    axes={"baseline": BIASED, "std": "each in the " + GROUP_STD, "credit": TO_COME},
    published=MT_GRPO,
)
def per_turn_mean_std(batch: Batch, *, eps: float = 1e-4, correction: int = 1) -> Tensor:
    """`per_turn_mean` with each turn's deviations, and the outcome's, over their own std: as biased.

        A_ik = z(O)_i + sum_{l = k .. K_i} (T_il - m_l) / (s_l + eps),   m_l, s_l over the episodes that reach turn l

    Returns [P, G, T]; a turn that one episode alone reaches gets 0. Source: as `per_turn_mean`.
    """
    return _per_turn(batch, padded=False, eps=eps, correction=correction)


@advantage(axes={"baseline": PADDED, "std": "none", "credit": TO_COME})
def per_turn_mean_padded(batch: Batch) -> Tensor:
    """Each turn's reward minus its mean over the whole group, in which an episode that is over has 0.

        A_ik = O_i - mean(O) + sum_{l >= k} (T_il - m_l),   m_l = sum_j T_jl / G

    Returns [P, G, T]. At the first turn it is R_i - mean(R). The sum goes on after an episode's own end: what it did
    not get there is credit of the turn in which it ended. Source: verl, issue 7244.
    """
    return _per_turn(batch, padded=True)


@advantage(
    axes={"baseline": PADDED, "std": "each in the " + GROUP_STD, "credit": TO_COME},
    published=MT_GRPO,
)
def per_turn_mean_std_padded(batch: Batch, *, eps: float = 1e-4, correction: int = 1) -> Tensor:
    """`per_turn_mean_padded` with each turn's deviations, and the outcome's, over their own std.

        A_ik = z(O)_i + sum_{l >= k} z(T_l)_i,   z over the whole group

    Returns [P, G, T]. Turns are weighed by one over their std: what they add up to is not the return any more, and a
    turn that few episodes reach weighs more. Source: as `per_turn_mean_padded`.
    """
    return _per_turn(batch, padded=True, eps=eps, correction=correction)


@advantage(
    axes={"baseline": "group mean of the last turns' rewards", "std": "of these in the " + GROUP_STD},
    published={"eps": "Trinity-RFT", "correction": "Trinity-RFT"},
)
def last_turn_mean_std(batch: Batch, *, eps: float = 1e-6, correction: int = 1, over_turns: bool = False) -> Tensor:
    """What the last turn earned, standardised within its group, for every turn of the episode.

        A_i = (x_i - mean(x)) / (std(x) + eps),   x_i = O_i + T_iK, K = K_i;   over K_i with `over_turns`

    Returns [P, G]. Rewards of earlier turns do not count. With `over_turns` an episode weighs once where each of its
    turns is a row of its own. Without turns it is `group_mean_std`. Source: step-wise GRPO of Trinity-RFT, whose
    `enable_step_norm` is `over_turns`.
    """
    last = torch.where(last_turns(batch), earned_by_turn(batch), 0.0).sum(-1)
    result = _in_groups(batch, last, eps=eps, correction=correction)
    return (result / turn_counts(batch) if over_turns else result).to(batch.rewards)
