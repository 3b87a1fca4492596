"""Turns of an episode: numbers by turn, [P, G, K], out of tokens [P, G, T], and back. K: turns of the longest episode.

A batch of ordinary responses has one turn a response, so that every form by turns is then the usual one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from core import Batch
from estimators.advantages.returns import token_terms


def numbers(batch: Batch) -> Tensor:
    """[P, G, T], int64: which turn a token belongs to, from 1; 0 outside the response."""
    return torch.where(batch.response_mask, batch.turn_numbers, 0)


def turn_counts(batch: Batch) -> Tensor:
    """[P, G], int64: turns of each episode, at least 1."""
    return numbers(batch).amax(-1).clamp(min=1)


def existing(batch: Batch) -> Tensor:
    """[P, G, K], bool: turns that an episode has."""
    counts = turn_counts(batch)
    return torch.arange(int(counts.max()), device=counts.device) < counts[..., None]


def last_turns(batch: Batch) -> Tensor:
    """[P, G, K], bool: true at each episode's last turn."""
    here = existing(batch)
    return here & ~F.pad(here[..., 1:], (0, 1))


def by_turn(batch: Batch, x: Tensor) -> Tensor:
    """Sums of x [P, G, T] over the tokens of each turn, float64 [P, G, K]."""
    which, here = numbers(batch), existing(batch)
    sums = x.new_zeros((*here.shape[:2], here.shape[2] + 1), dtype=torch.float64)
    return sums.scatter_add(-1, which, torch.where(which > 0, x.double(), 0.0))[..., 1:]


def over_tokens(batch: Batch, x: Tensor) -> Tensor:
    """Every token has what its turn has in x [P, G, K]: [P, G, T], 0 outside the response."""
    return F.pad(x, (1, 0)).gather(-1, numbers(batch))


def ends_of_turns(batch: Batch, among: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First and last token of each turn `among` these [P, G, T], as indices [P, G, K], and which turns have one.

    Where a turn has none both indices are 0.
    """
    which = torch.where(among, numbers(batch), 0)
    T, shape = which.shape[-1], (*which.shape[:2], existing(batch).shape[-1] + 1)
    place = torch.arange(T, device=which.device).expand(which.shape)
    first = place.new_full(shape, T).scatter_reduce(-1, which, place, "amin")[..., 1:]
    last = place.new_full(shape, -1).scatter_reduce(-1, which, place, "amax")[..., 1:]
    has = last >= 0
    return torch.where(has, first, 0), last.clamp(min=0), has


def rewards_of_turns(batch: Batch) -> Tensor:
    """T_k: an environment's reward of each turn, float64 [P, G, K]; 0 where an episode has no such turn."""
    given = batch.turn_rewards
    return torch.zeros_like(existing(batch), dtype=torch.float64) if given is None else by_turn(batch, given)


def outcomes(batch: Batch) -> Tensor:
    """O = R - sum_k T_k: the reward without those of turns, float64 [P, G]."""
    rewards = batch.rewards.double()
    return rewards if batch.turn_rewards is None else rewards - rewards_of_turns(batch).sum(-1)


def earned_by_turn(batch: Batch) -> Tensor:
    """x_k: what each turn earns, float64 [P, G, K]; sums to the reward.

    Everything that is rewarded token by token counts with its turn, the rest with the last turn.
    """
    terms = token_terms(batch)
    if terms is None:
        return torch.where(last_turns(batch), batch.rewards.double()[..., None], 0.0)
    x = by_turn(batch, terms)
    return torch.where(last_turns(batch), x + (batch.rewards.double() - x.sum(-1))[..., None], x)


def returns_to_go(x: Tensor, gamma: float = 1.0) -> Tensor:
    """R_k = x_k + gamma R_{k+1}, of x [P, G, K]."""
    running, returns = torch.zeros_like(x[..., 0]), []
    for k in reversed(range(x.shape[-1])):
        running = x[..., k] + gamma * running
        returns.append(running)
    return torch.stack(returns[::-1], -1)


def rounding(batch: Batch) -> Tensor:
    """How far apart numbers of a group may be and still be equal, float64 [P].

    A return is the rewards' sum in their own precision: 1 + 0.3 - 0.3 and 1 + 0.5 - 0.5 are an ulp apart, out of which
    a division by the std would make advantages near 1.
    """
    if batch.turn_rewards is None:
        return batch.rewards.new_zeros(batch.groups, dtype=torch.float64)
    sizes = batch.rewards.double().abs() + rewards_of_turns(batch).abs().sum(-1)
    return 4 * torch.finfo(batch.rewards.dtype).eps * sizes.amax(1)


def relative(
    x: Tensor,
    labels: Tensor,
    among: Tensor,
    *,
    slack: Tensor | None = None,
    std: bool = False,
    eps: float = 0.0,
    correction: int = 1,
) -> Tensor:
    """x minus the mean of all with the same label, over their std + eps where `std`; any shape, float64.

    Statistics are over entries `among` these alone, and others get 0; so do entries whose label's values are all
    equal, within `slack` of the shape of x, a single one's too.
    """
    values, (_, which) = x.double()[among], torch.unique(labels[among], return_inverse=True)
    zeros = values.new_zeros(int(which.max()) + 1 if len(which) else 0)
    n = zeros.index_add(0, which, torch.ones_like(values))
    deviations = values - (zeros.index_add(0, which, values) / n)[which]
    low, high = (zeros.scatter_reduce(0, which, values, how, include_self=False) for how in ("amin", "amax"))
    least = (
        zeros if slack is None else zeros.scatter_reduce(0, which, slack.double()[among], "amax", include_self=False)
    )
    if std:
        variance = zeros.index_add(0, which, deviations.square()) / (n - correction)
        deviations = deviations / (variance.sqrt() + eps)[which]
    # also where there are too few entries for a variance: NaN until here
    deviations = torch.where((high - low > least)[which], deviations, 0.0)
    return torch.zeros_like(x, dtype=torch.float64).masked_scatter(among, deviations)
