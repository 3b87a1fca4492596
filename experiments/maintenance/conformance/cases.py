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


def make_case(seed: int, flavour: Flavour) -> Case:
    """The case of this seed and flavour, always the same."""
    draw = torch.Generator().manual_seed(seed)
    P, G, T = 6 + seed % 3, 2 if flavour.two else 4 + 2 * (seed % 3), 20 + 5 * (seed % 5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=draw, dtype=torch.float64)

    def one_of(values: list[float], *shape: int) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)[torch.randint(len(values), shape, generator=draw)]

    lengths = torch.randint(1, T + 1, (P, G), generator=draw)
    lengths[0, 0], lengths[1, 1] = T, 1
    truncated = uniform(P, G) < 0.2
    truncated[0, 0] = False
    response_mask = torch.arange(T) < lengths[..., None]
    last = torch.arange(T) == lengths[..., None] - 1
    mask = response_mask
    if flavour.holes:
        mask = mask & ((uniform(P, G, T) > 0.25) | last)
    if flavour.empty:
        unseen = uniform(P, G, 1) < 0.2
        unseen[0, 0] = unseen[1, 1] = False
        mask = mask & ~unseen

    # rows drift from the old policy by very different amounts, so that bounds of 0.0003 and of 5 are both crossed
    old = -0.01 + uniform(P, G, T).log().clamp(min=-12)
    logps = (old + one_of([1e-4, 5e-4, 0.02, 0.3, 1.0], P, G, 1) * normal(P, G, T)).clamp(max=-1e-4)
    ref = (old + one_of([0.05, 0.5, 3.0], P, G, 1) * normal(P, G, T)).clamp(max=-1e-4)
    if flavour.close:
        ref = (logps + (ref - logps).clamp(-2.0, 2.0)).clamp(max=-1e-4)
    behaviour = (old + one_of([0.0, 0.02, 0.1, 0.8], P, G, 1) * normal(P, G, T)).clamp(max=-1e-4)
    if flavour.extreme:
        moves = uniform(P, G, T)
        up, down = moves < 0.02, moves > 0.98
        old = torch.where(up, -30.0 + old, old)
        for moved in (logps, ref, behaviour):
            moved[down] -= 25.0

    rewards = (uniform(P, G) < 0.5).double() if seed % 2 == 0 else normal(P, G)
    # a group without spread; 0.75 is exact in float32, where the mean of equal rewards such as 0.7 is not one of them
    rewards[2] = 1.0 if seed % 2 == 0 else 0.75
    rewards[3, :2] = torch.tensor([0.0, 1.0], dtype=torch.float64)
    scale = 1e-4 if flavour.faint else 1.0
    rewards, values = scale * rewards, scale * normal(P, G, T)
    parts = rewards[..., None]
    if flavour.several:
        parts = torch.stack([rewards, 0.25 * scale * normal(P, G), scale * (uniform(P, G) < 0.3).double()], dim=-1)
        rewards = (parts * torch.tensor(REWARD_WEIGHTS, dtype=torch.float64)).sum(-1)
    probs = old.exp()
    batch = Batch.of(
        rewards,
        mask,
        greedy_rewards=one_of([0.0, 1.0], P) + 0.25 * (seed % 2),
        values=values,
        max_tokens=T + 8 - T % 2,
        response_mask=response_mask,
        truncated=truncated,
        correct=rewards > 0.5,
        old_logps=old,
        ref_logps=ref,
        behaviour_logps=behaviour,
        sum_squared_probs=probs**2 + uniform(P, G, T) * (1 - probs) ** 2,
        reward_parts=parts,
        reward_names=tuple(f"r{k}" for k in range(parts.shape[-1])),
        reward_weights=REWARD_WEIGHTS[: parts.shape[-1]],
    )
    return Case(batch, logps, seed)


def best_and_worst(batch: Batch) -> Tensor:
    """[B]: 1 for each response with its group's largest reward, -1 for the smallest; 0 where all are the same."""
    sides = []
    for group in batch.rewards.tolist():
        sides += [float((r == max(group)) - (r == min(group))) for r in group]
    return torch.tensor(sides, dtype=torch.float64)


def pairs(batch: Batch, sides: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Rows on the side above 0 and rows below, pair by pair, of each group that has any; rows without a token have no
    side.
    """
    given = torch.where(batch.rows("mask").any(-1), sides, 0.0).view(batch.rewards.shape).tolist()
    found = []
    for p, group in enumerate(given):
        above, below = ([p * len(group) + g for g, x in enumerate(group) if s * x > 0] for s in (1, -1))
        if above and below:
            found.append(
                (torch.tensor([i for i in above for _ in below]), torch.tensor([j for _ in above for j in below]))
            )
    return found


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
