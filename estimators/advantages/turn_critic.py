"""A critic's values at turns: generalised advantage estimation from turn to turn, and on two levels."""

import torch
from torch import Tensor

from core import Batch, advantage
from estimators.advantages.batch import VERL, WHITENED, whiten
from estimators.advantages.critic import temporal_differences
from estimators.advantages.returns import earned_rewards
from estimators.turns import by_turn, ends_of_turns, over_tokens

TWO_LEVELS = "temporal differences between turns, discount {gamma_high:g}, then within, {gamma:g}, lambda {lam:g}"


def _of_turns(batch: Batch, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages of turns and their values, those at each turn's first counted token; float64 [P, G, K]."""
    first, _, has = ends_of_turns(batch, batch.mask)
    values = torch.where(has, batch.require("values").double().gather(-1, first), 0.0)
    return temporal_differences(by_turn(batch, earned_rewards(batch)), values, has, gamma, lam), values


def turn_return(batch: Batch, *, gamma: float, lam: float) -> Tensor:
    """What a critic is to predict at every token of a turn: A_k + V_k of `turn_gae`; float64 [P, G, T], 0 in holes."""
    advantages, values = _of_turns(batch, gamma, lam)
    return torch.where(batch.mask, over_tokens(batch, advantages + values), 0.0)


@advantage(
    needs=("values",),
    target=turn_return,
    min_group=1,
    axes={
        "baseline": "a critic's value at the turn's first token",
        "std": "none",
        "credit": "temporal differences between turns, discount {gamma:g}, lambda {lam:g}",
    },
)
def turn_gae(batch: Batch, *, gamma: float = 1.0, lam: float = 0.95) -> Tensor:
    """Generalised advantage estimation whose steps are turns: one advantage for all tokens of a turn.

        A_k = delta_k + gamma lam A_{k+1},   delta_k = x_k + gamma V_{k+1} - V_k,   V_k at the turn's first token

    Returns [P, G, T]; x_k is all that the turn earns, with the outcome for the last and its tokens' KL penalty where
    that is in the reward (AReaL leaves the penalty with its token). A turn without a counted token is passed over. With
    gamma = lam = 1 it is the return from the turn on minus the value. Source: AReaL's turn-level GAE.
    """
    return over_tokens(batch, _of_turns(batch, gamma, lam)[0]).to(batch.rewards)


def _two_levels(batch: Batch, gamma: float, gamma_high: float, lam: float) -> Tensor:
    """Advantages by token, float64 [P, G, T]."""
    x, values = earned_rewards(batch), torch.where(batch.mask, batch.require("values").double(), 0.0)
    _, last, has = ends_of_turns(batch, batch.mask)
    at_end, value = (torch.where(has, tensor.gather(-1, last), 0.0) for tensor in (x, values))
    turns = by_turn(batch, x)
    # a turn is worth its value at the end and what its earlier tokens earn: with it the recursion is the ordinary one
    worth = value + turns - at_end
    returns = temporal_differences(turns, worth, has, gamma_high, lam) + value
    ends = _at_ends(batch, last, has)
    return temporal_differences(torch.where(ends, over_tokens(batch, returns), x), values, batch.mask, gamma, lam, ends)


def _at_ends(batch: Batch, last: Tensor, has: Tensor) -> Tensor:
    """[P, G, T], bool: the last counted token of each turn."""
    place = torch.arange(batch.mask.shape[-1], device=last.device)
    return batch.mask & over_tokens(batch, torch.where(has, last, -1)).eq(place)


def two_level_return(batch: Batch, *, gamma: float, gamma_high: float, lam: float) -> Tensor:
    """What a critic is to predict: A_t + V_t of `bilevel_gae`; float64 [P, G, T], 0 in holes."""
    values = batch.require("values")
    return torch.where(batch.mask, _two_levels(batch, gamma, gamma_high, lam) + values, 0.0)


@advantage(
    needs=("values",),
    target=two_level_return,
    min_group=1,
    axes={"baseline": "a critic's value", "std": "none", "credit": TWO_LEVELS},
    published={"gamma_high": "RAGEN"},
)
def bilevel_gae(batch: Batch, *, gamma: float = 1.0, gamma_high: float = 0.95, lam: float = 1.0) -> Tensor:
    """Generalised advantage estimation on two levels: from turn to turn, then within each.

        turns   A_k = delta_k + gamma_high lam A_{k+1},   delta_k = x_k + gamma_high V_{k+1} - V_k,   V at turns' ends
        tokens  A_t = delta_t + gamma lam A_{t+1},   delta_t = x_t + gamma V_{t+1} - V_t,   x_t = A_k + V_k and then
                nothing at the end of turn k

    Returns [P, G, T]. Where tokens before a turn's end are rewarded (a KL penalty), turns before it see that too. With
    all three 1 it is the reward to go minus the value at every token. Turns end where they end; RAGEN's code takes
    every reward other than 0 for an end. Source: RAGEN (Wang et al. 2025, arXiv:2504.20073), its bi-level GAE.
    """
    return _two_levels(batch, gamma, gamma_high, lam).to(batch.rewards)


@advantage(
    needs=("values",),
    target=two_level_return,
    min_group=1,
    scope="batch",
    axes={
        "baseline": "a critic's value, then the mean over all tokens of the batch",
        "std": WHITENED,
        "credit": TWO_LEVELS,
    },
    published={**VERL, "gamma_high": "RAGEN"},
)
def whitened_bilevel_gae(
    batch: Batch,
    *,
    gamma: float = 1.0,
    gamma_high: float = 0.95,
    lam: float = 1.0,
    correction: int = 1,
    eps: float = 1e-8,
    floor: float = 0.0,
) -> Tensor:
    """`bilevel_gae`, whitened over all counted tokens of the batch, as RAGEN uses it.

        A_it = (a_it - mean(a)) / sqrt(max(var(a), floor) + eps),   a = bilevel_gae

    Returns [P, G, T]. Source: as `bilevel_gae`.
    """
    a = _two_levels(batch, gamma, gamma_high, lam)
    return whiten(a, batch.mask, correction=correction, eps=eps, floor=floor).to(batch.rewards)
