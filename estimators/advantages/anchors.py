"""Group in group: episodes relative to the group, and turns relative to others that were taken in the same state."""

from typing import Literal

import torch
from torch import Tensor

from core import Batch, GrpoLabError, advantage
from estimators.turns import (
    earned_by_turn,
    ends_of_turns,
    existing,
    over_tokens,
    relative,
    returns_to_go,
    rounding,
)

AXES = {
    "baseline": "group mean, once per {statistics}, and mean of returns in the same state",
    "std": "{norm} in the group and in the state, ddof {correction}, + {eps:g}",
}
CREDIT = "episode, + {{omega:g}} x return from the turn on in the states of {where}, discount {{gamma:g}}"
PUBLISHED = {"omega": "GiGPO, authors' code", "eps": "GiGPO, authors' code", "correction": "GiGPO, authors' code"}


def states(batch: Batch) -> Tensor:
    """[P, G, K], int64: the state that each turn was taken in; 0 where none is named.

    Ordinary responses of one turn were all taken in the state of their prompt.
    """
    if batch.anchors is None:
        if batch.turns is None:
            prompts = torch.arange(1, batch.groups + 1, device=batch.rewards.device)
            return prompts[:, None, None].expand(existing(batch).shape)
        raise GrpoLabError(
            "group in group (GiGPO) compares turns that were taken in the same state, and Batch.anchors names none: "
            "give the environment's Step an anchor, or train another variant, e.g. @mt_grpo()"
        )
    sampled = batch.response_mask if batch.sampled_mask is None else batch.response_mask & batch.sampled_mask
    first, _, has = ends_of_turns(batch, sampled)
    return torch.where(has, batch.anchors.gather(-1, first), 0)


def _group_in_group(
    batch: Batch, within: Tensor, omega: float, gamma: float, norm: str, eps: float, correction: int, statistics: str
) -> Tensor:
    """A^E + omega A^S by token, [P, G, T]; states are compared where `within` [P] has the same number."""
    here = existing(batch)
    slack = rounding(batch)[:, None, None].expand(here.shape)

    def z(x: Tensor, labels: Tensor, among: Tensor) -> Tensor:
        return relative(x, labels, among, slack=slack, std=norm == "mean_std", eps=eps, correction=correction)

    prompt = torch.arange(batch.groups, device=here.device)[:, None, None].expand(here.shape)
    counted = here if statistics == "turn" else here & (torch.arange(here.shape[-1], device=here.device) == 0)
    of_episode = z(batch.rewards[..., None].expand(here.shape), prompt, counted)[..., :1]
    state = states(batch)
    names, number = torch.unique(state, return_inverse=True)
    labels = within[:, None, None] * len(names) + number
    of_turn = z(returns_to_go(earned_by_turn(batch), gamma), labels, here & (state != 0))
    return over_tokens(batch, of_episode + omega * of_turn).to(batch.rewards)


@advantage(axes={**AXES, "credit": CREDIT.format(where="the group")}, published={**PUBLISHED, "gamma": "ROLL"})
def group_in_group(
    batch: Batch,
    *,
    omega: float = 1.0,
    gamma: float = 0.95,
    norm: Literal["mean_std", "mean"] = "mean_std",
    eps: float = 1e-6,
    correction: int = 1,
    statistics: Literal["episode", "turn"] = "episode",
) -> Tensor:
    """An episode relative to its group, and each turn relative to the group's turns in the same state.

        A_ik = z(R)_i + omega z(R_k)_ik,   R_ik = x_ik + gamma R_i,k+1
        z(x) = (x - mean(x)) / (std(x) + eps), the second over turns with one anchor; without the std for norm "mean"

    Returns [P, G, T]. A state that one turn alone was taken in gives it 0, as does one without a name. x_k is the
    turn's reward, with the outcome for the last. `statistics` "turn" counts an episode's return once a turn, in its
    mean and std: long episodes weigh more and advantages do not sum to 0. Ordinary responses have one turn and one
    state: 1 + omega times `group_mean_std`. States are equal or not; the authors' grouping of similar texts is not
    here. Source: GiGPO (Feng et al. 2025, arXiv:2505.10978, equations 3 to 8).
    """
    within = torch.arange(batch.groups, device=batch.rewards.device)
    return _group_in_group(batch, within, omega, gamma, norm, eps, correction, statistics)


@advantage(scope="batch", axes={**AXES, "credit": CREDIT.format(where="the batch")}, published=PUBLISHED)
def group_in_batch(
    batch: Batch,
    *,
    omega: float = 1.0,
    gamma: float = 1.0,
    norm: Literal["mean_std", "mean"] = "mean",
    eps: float = 1e-6,
    correction: int = 1,
    statistics: Literal["episode", "turn"] = "episode",
) -> Tensor:
    """`group_in_group`, with turns compared wherever in the batch they were taken in a state of the same number.

        A_ik = z(R)_i within the group + omega z(R_k)_ik over all turns of the batch with one anchor

    Returns [P, G, T]. Right where a state says all that matters, the task included: else it compares what is not alike.
    Source: Trinity-RFT's GiGPO.
    """
    within = torch.zeros(batch.groups, dtype=torch.long, device=batch.rewards.device)
    return _group_in_group(batch, within, omega, gamma, norm, eps, correction, statistics)
