"""Random rollouts to compare on: ragged, float64, wide enough that every branch of every formula is taken.

A case is a batch with every field filled, and the log-probabilities of the policy that is being updated.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from core import Batch


@dataclass(frozen=True)
class Flavour:
    """What is special about a case.

    `holes`: tokens inside a response that do not count. `extreme`: a few log-ratios beyond 20 in size. `empty`: rows
    without a counted token. `several`: three rewards per response, weighted. `close`: a reference policy within 2 nats
    of the present one at every token, for estimators that a library clamps further out. `faint`: rewards and values of
    the order of 0.0001, at which what is added to a standard deviation shows. `two`: groups of two.
    """

    holes: bool = False
    extreme: bool = False
    empty: bool = False
    several: bool = False
    close: bool = False
    faint: bool = False
    two: bool = False


PLAIN: Final = Flavour()
HOLES: Final = Flavour(holes=True)
EXTREME: Final = Flavour(holes=True, extreme=True)
EMPTY: Final = Flavour(empty=True)
SEVERAL: Final = Flavour(several=True)
CLOSE: Final = Flavour(close=True)
FAINT: Final = Flavour(faint=True)
FAINT_SEVERAL: Final = Flavour(faint=True, several=True)
TWO: Final = Flavour(two=True)
ALL: Final = (PLAIN, HOLES, EXTREME)
"""Where a formula must hold everywhere: holes in the mask and log-ratios beyond every clamp."""

SEEDS: Final = 4
"""Cases per flavour: rewards of even seeds are 0 or 1, those of odd seeds are continuous."""

REWARD_WEIGHTS: Final = (1.0, 0.5, 2.0)


@dataclass(frozen=True)
class Case:
    """A batch with every field filled, and the log-probabilities [P, G, T] of the policy that is being updated."""

    batch: Batch
    logps: Tensor
    seed: int

    def advantages(self, per_token: bool) -> Tensor:
        """Arbitrary advantages [P, G, T] of both signs, 0 for some rows; for comparing objectives by themselves."""
        draw = torch.Generator().manual_seed(1000 + self.seed)
        shape = self.batch.mask.shape if per_token else (*self.batch.rewards.shape, 1)
        values = torch.randn(shape, generator=draw, dtype=torch.float64)
        silent = torch.rand((*self.batch.rewards.shape, 1), generator=draw) < 0.1
        return values.masked_fill(silent, 0.0).expand(self.batch.mask.shape).contiguous()


class _Draws:
    """Numbers of one generator, in the order of the calls."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def one_of(self, values: list[float], *shape: int) -> Tensor:
        chosen = torch.randint(len(values), shape, generator=self.generator)
        return torch.tensor(values, dtype=torch.float64)[chosen]


def make_case(seed: int, flavour: Flavour) -> Case:
    """The case of this seed and flavour, always the same."""
    draws = _Draws(seed)
    P, G, T = 6 + seed % 3, 2 if flavour.two else 4 + 2 * (seed % 3), 20 + 5 * (seed % 5)
    response_mask, mask, truncated = _masks(draws, flavour, (P, G, T))
    old, logps, ref, behaviour = _log_probabilities(draws, flavour, (P, G, T))
    rewards, values, parts = _rewards(draws, flavour, (P, G, T), binary=seed % 2 == 0)
    probs = old.exp()
    batch = Batch.of(
        rewards,
        mask,
        greedy_rewards=draws.one_of([0.0, 1.0], P) + 0.25 * (seed % 2),
        values=values,
        max_tokens=T + 8 - T % 2,
        response_mask=response_mask,
        truncated=truncated,
        correct=rewards > 0.5,
        old_logps=old,
        ref_logps=ref,
        behaviour_logps=behaviour,
        sum_squared_probs=probs**2 + draws.uniform(P, G, T) * (1 - probs) ** 2,
        # exact in float32, in which TRL takes its quantile
        behaviour_entropy=(3 * draws.uniform(P, G, T)).float().double(),
        reward_parts=parts,
        reward_names=tuple(f"r{k}" for k in range(parts.shape[-1])),
        reward_weights=REWARD_WEIGHTS[: parts.shape[-1]],
    )
    return Case(batch, logps, seed)


def _masks(draws: _Draws, flavour: Flavour, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens of the responses and those that count [P, G, T], and responses that were cut off [P, G]."""
    P, G, T = shape
    lengths = torch.randint(1, T + 1, (P, G), generator=draws.generator)
    lengths[0, 0], lengths[1, 1] = T, 1
    truncated = draws.uniform(P, G) < 0.2
    truncated[0, 0] = False
    response_mask = torch.arange(T) < lengths[..., None]
    last = torch.arange(T) == lengths[..., None] - 1
    mask = response_mask
    if flavour.holes:
        mask = mask & ((draws.uniform(P, G, T) > 0.25) | last)
    if flavour.empty:
        unseen = draws.uniform(P, G, 1) < 0.2
        unseen[0, 0] = unseen[1, 1] = False
        mask = mask & ~unseen
    return response_mask, mask, truncated


def _log_probabilities(
    draws: _Draws, flavour: Flavour, shape: tuple[int, int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the old policy, the present one, the reference and the sampler, [P, G, T] each.

    Rows drift from the old policy by very different amounts, so that bounds of 0.0003 and of 5 are both crossed.
    """
    P, G, T = shape
    old = -0.01 + draws.uniform(P, G, T).log().clamp(min=-12)
    logps = (old + draws.one_of([1e-4, 5e-4, 0.02, 0.3, 1.0], P, G, 1) * draws.normal(P, G, T)).clamp(max=-1e-4)
    ref = (old + draws.one_of([0.05, 0.5, 3.0], P, G, 1) * draws.normal(P, G, T)).clamp(max=-1e-4)
    if flavour.close:
        ref = (logps + (ref - logps).clamp(-2.0, 2.0)).clamp(max=-1e-4)
    behaviour = (old + draws.one_of([0.0, 0.02, 0.1, 0.8], P, G, 1) * draws.normal(P, G, T)).clamp(max=-1e-4)
    if flavour.extreme:
        moves = draws.uniform(P, G, T)
        up, down = moves < 0.02, moves > 0.98
        old = torch.where(up, -30.0 + old, old)
        for moved in (logps, ref, behaviour):
            moved[down] -= 25.0
    return old, logps, ref, behaviour


def _rewards(
    draws: _Draws, flavour: Flavour, shape: tuple[int, int, int], *, binary: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards [P, G], a critic's values [P, G, T], and the rewards of which each is the weighted sum [P, G, R]."""
    P, G, T = shape
    rewards = (draws.uniform(P, G) < 0.5).double() if binary else draws.normal(P, G)
    # a group without spread; 0.75 is exact in float32, where the mean of equal rewards such as 0.7 is not one of them
    rewards[2] = 1.0 if binary else 0.75
    rewards[3, :2] = torch.tensor([0.0, 1.0], dtype=torch.float64)
    scale = 1e-4 if flavour.faint else 1.0
    rewards, values = scale * rewards, scale * draws.normal(P, G, T)
    parts = rewards[..., None]
    if flavour.several:
        parts = torch.stack(
            [rewards, 0.25 * scale * draws.normal(P, G), scale * (draws.uniform(P, G) < 0.3).double()], dim=-1
        )
        rewards = (parts * torch.tensor(REWARD_WEIGHTS, dtype=torch.float64)).sum(-1)
    return rewards, values, parts


def best_and_worst(batch: Batch) -> Tensor:
    """[B]: 1 for each response with its group's largest reward, -1 for the smallest; 0 where all are the same."""
    sides = []
    for group in batch.rewards.tolist():
        sides += [float((r == max(group)) - (r == min(group))) for r in group]
    return torch.tensor(sides, dtype=torch.float64)


def pairs(batch: Batch, sides: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Indices of preferred rows (side above 0) and rejected rows (below), pair by pair, group by group.

    Rows without a token have no side.
    """
    given = torch.where(batch.rows("mask").any(-1), sides, 0.0).view(batch.rewards.shape).tolist()
    index_pairs = []
    for p, group in enumerate(given):
        above, below = ([p * len(group) + g for g, x in enumerate(group) if s * x > 0] for s in (1, -1))
        if above and below:
            index_pairs.append(
                (torch.tensor([i for i in above for _ in below]), torch.tensor([j for _ in above for j in below]))
            )
    return index_pairs


def last_token(batch: Batch) -> Tensor:
    """[B, T], float64: 1 at the last token of each response."""
    n = batch.rows("response_mask").sum(-1, keepdim=True)
    return (torch.arange(batch.response_mask.shape[-1]) == n - 1).double()


def token_rewards(batch: Batch) -> Tensor:
    """[B, T]: the outcome on the last token of the response, and each per-token KL penalty on its own token."""
    penalties = torch.zeros_like(batch.response_mask, dtype=torch.float64)
    if batch.kl_rewards is not None:
        penalties = torch.where(batch.response_mask, batch.kl_rewards, 0.0)
    outcome = batch.rewards - penalties.sum(-1)
    return outcome.flatten()[:, None] * last_token(batch) + penalties.flatten(0, 1)


def verdicts(batch: Batch) -> Batch:
    """The batch with 1 for a correct response and 0 for another as rewards."""
    return batch.having(rewards=batch.require("correct").double())
