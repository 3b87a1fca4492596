"""Episodes of several turns for tests, by their rewards: two tokens of the policy a turn, then an observation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core import Batch

OWN, OBSERVED = 2, 1


def episodes(
    turn_rewards: Sequence[Sequence[Sequence[float]]],
    outcomes: Sequence[Sequence[float]] | None = None,
    anchors: Sequence[Sequence[Sequence[int]]] | None = None,
    *,
    own: int = OWN,
    observed: int = OBSERVED,
    dtype: torch.dtype = torch.float64,
    **filled: Any,
) -> Batch:
    """P prompts of G episodes: rewards of their turns, outcomes (0), and states of their turns.

    Each turn is `own` tokens of the policy and, but the last, `observed` tokens of the environment.
    """
    P, G = len(turn_rewards), len(turn_rewards[0])
    T = max(len(row) * (own + observed) - observed for group in turn_rewards for row in group)
    turns, states = torch.zeros(P, G, T, dtype=torch.long), torch.zeros(P, G, T, dtype=torch.long)
    sampled, x = torch.zeros(P, G, T, dtype=torch.bool), torch.zeros(P, G, T, dtype=dtype)
    for p, group in enumerate(turn_rewards):
        for i, row in enumerate(group):
            for k, reward in enumerate(row):
                start = k * (own + observed)
                stop = start + own + (observed if k + 1 < len(row) else 0)
                turns[p, i, start:stop] = k + 1
                sampled[p, i, start : start + own] = True
                x[p, i, start + own - 1] = reward
                if anchors is not None:
                    states[p, i, start : start + own] = anchors[p][i][k]
    rewards = x.sum(-1) + (0.0 if outcomes is None else torch.tensor(outcomes, dtype=dtype))
    return Batch.of(
        rewards,
        sampled,
        response_mask=turns > 0,
        sampled_mask=sampled,
        turns=turns,
        turn_rewards=x,
        anchors=None if anchors is None else states,
        **filled,
    )


def of_turns(batch: Batch, advantages: Tensor) -> list[list[list[float]]]:
    """The one advantage of each turn; it is the same at all tokens that the policy wrote."""
    every = advantages if advantages.ndim == 3 else advantages[..., None].expand(batch.mask.shape)
    result = []
    for group, group_turns, group_mask in zip(every, batch.turn_numbers, batch.mask, strict=True):
        rows = []
        for row, turns, mask in zip(group, group_turns, group_mask, strict=True):
            values = [torch.unique(row[mask & (turns == k)]) for k in range(1, int(turns.max()) + 1)]
            assert all(len(value) == 1 for value in values)
            rows.append([float(value) for value in values])
        result.append(rows)
    return result
