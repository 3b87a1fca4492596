"""Random batches with every field that a part may ask for, and changed copies of a batch."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Final

import torch
from torch import Tensor

from core import Batch
from core.parts.options import FieldShape, fillable_fields, own_fields
from core.parts.problems import Problem

WEIGHTS: Final = (1.0, 0.5)
"""Of the two reward functions."""
MAX_LENGTH: Final = 6
LIMIT: Final = 9
"""The generation limit of most examples, in tokens."""
VERSION: Final = 3
"""Of the policy, in updates, at the step that examples are trained on."""


def optional_fields() -> tuple[str, ...]:
    """Fields that are filled only where something asks for them, or a variant's KL penalty puts them there."""
    return (*fillable_fields(), "old_logps", "kl_rewards")


def make_batch(
    groups: int,
    samples: int,
    *,
    seed: int = 0,
    binary: bool = False,
    spread: bool = True,
    steps: bool = False,
    kl: bool = False,
    holes: bool = False,
    one_token: bool = False,
    counted: bool = True,
    limit: int = LIMIT,
    turns: bool = False,
) -> Batch:
    """A batch of ragged responses to `groups` prompts, with `samples` each, the caller's own copy.

    Rewards are continuous or `binary`; the second group has no `spread`, or none has. `steps` gives rewards to steps of
    the response, `kl` takes a penalty off every token; both are part of `rewards`. With `holes` some tokens are not
    counted, and in the first group the last response has none at all; with `counted=False` no response has any. With
    `turns` responses are episodes, of one turn or several, whose rewards are part of `rewards` as well.
    """
    batch = copy(_make(groups, samples, seed, binary, spread, steps, kl, holes, one_token, counted, limit))
    batch = with_turns(batch, seed) if turns else batch
    own = enumerate(own_fields().items(), start=seed)
    return batch.having(**{name: _noise(batch, shape, place) for place, (name, shape) in own})


def _noise(batch: Batch, shape: FieldShape, seed: int) -> Tensor:
    """A field of a provider's own, 0 past the end of the responses."""
    sizes = {"[P]": (batch.groups,), "[P, G]": batch.rewards.shape, "[P, G, T]": batch.mask.shape}[shape]
    noise = torch.randn(sizes, generator=torch.Generator().manual_seed(seed))
    return torch.where(batch.response_mask, noise, 0.0) if shape == "[P, G, T]" else noise


@cache
def _make(
    P: int,
    G: int,
    seed: int,
    binary: bool,
    spread: bool,
    steps: bool,
    kl: bool,
    holes: bool,
    one_token: bool,
    counted: bool,
    limit: int,
) -> Batch:
    # every draw is from this one generator: another order of the calls would be other examples
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, MAX_LENGTH + 1, (P, G), generator=draw)
    lengths[0, 0], lengths[-1, -1] = MAX_LENGTH, MAX_LENGTH if P * G == 1 else 1
    if one_token:
        lengths = torch.ones_like(lengths)
    response = torch.arange(int(lengths.max())) < lengths[..., None]
    mask = _with_holes(response, draw) if holes else response.clone()
    parts = _reward_parts(P, G, binary, spread, draw)
    old, ref = _logps(response, draw), _logps(response, draw)
    noise = partial(_normal, response, draw)
    ends = response & (torch.rand(response.shape, generator=draw) < 0.4)
    ends |= torch.arange(response.shape[-1]) == lengths[..., None] - 1
    token_rewards = torch.where(ends, noise(), 0.0)
    penalties = torch.where(response, -0.1 * (old - ref), 0.0)
    rewards = (parts * torch.tensor(WEIGHTS)).sum(-1)
    rewards = rewards + (token_rewards.sum(-1) if steps else 0.0) + (penalties.sum(-1) if kl else 0.0)
    return Batch(
        rewards=rewards,
        response_mask=response,
        mask=mask if counted else torch.zeros_like(mask),
        prompt_ids=10 + torch.arange(P),
        max_tokens=limit,
        step=1,
        reward_parts=parts,
        reward_names=("first", "second"),
        reward_weights=WEIGHTS,
        correct=parts[..., 0] > 0.7,
        truncated=lengths == limit,
        kl_rewards=penalties if kl else None,
        kl_coef=0.1 if kl else 0.0,
        token_rewards=token_rewards if steps else None,
        step_ends=ends if steps else None,
        behaviour_logps=torch.where(response, old + 0.1 * noise(), 0.0).clamp(max=0),
        old_logps=old,
        ref_logps=ref,
        values=noise(),
        sum_squared_probs=_between(old.exp().square(), draw),
        greedy_rewards=parts[:, 0, 0].flip(0) / 2,
        token_version=torch.zeros_like(response, dtype=torch.long),
        problems=tuple(Problem(f"{p} + 1 = ", str(p + 1), 10 + p) for p in range(P)),
        prompt_tokens=tuple(torch.tensor([p + 1, 11, 2, 12]) for p in range(P)),
        response_tokens=torch.where(response, torch.randint(1, 15, response.shape, generator=draw), 0),
        behaviour_entropy=noise().abs(),
    )


def _with_holes(response: Tensor, draw: torch.Generator) -> Tensor:
    """A mask [P, G, T] that leaves out some tokens, and the whole last response of the first group."""
    mask = response & (torch.rand(response.shape, generator=draw) < 0.7)
    mask[0, 0, 0], mask[0, -1] = True, response.shape[1] == 1
    return mask


def with_turns(batch: Batch, seed: int = 0) -> Batch:
    """Responses as episodes: some tokens are an environment's, the next one of the policy's begins another turn."""
    draw = torch.Generator().manual_seed(1000 + seed)
    response = batch.response_mask
    # an episode begins and ends with a token of the policy's own
    edge = torch.arange(response.shape[-1]).eq(0) | ~torch.nn.functional.pad(response[..., 1:], (0, 1))
    sampled = response & (edge | (torch.rand(response.shape, generator=draw) < 0.6))
    after = torch.nn.functional.pad(sampled[..., :-1], (1, 0), value=True)
    turns = torch.where(response, 1 + (sampled & ~after).cumsum(-1), 0)
    last = sampled & ~torch.nn.functional.pad(sampled[..., 1:] & (turns[..., 1:] == turns[..., :-1]), (0, 1))
    rewards = torch.where(last, torch.randn(response.shape, generator=draw), 0.0)
    # all episodes of a prompt begin in one state
    later = torch.randint(2, 4, (*response.shape[:2], response.shape[-1] + 2), generator=draw)
    states = torch.where(turns == 1, 1, later.gather(-1, turns))
    calls = torch.randint(-1, 2, response.shape, generator=draw)
    return batch.having(
        rewards=batch.rewards + rewards.sum(-1),
        mask=batch.mask & sampled,
        sampled_mask=sampled,
        turns=turns,
        turn_rewards=rewards,
        anchors=torch.where(sampled, states, 0),
        tool_calls=torch.where(last, calls, 0),
    )


def _reward_parts(P: int, G: int, binary: bool, spread: bool, draw: torch.Generator) -> Tensor:
    """Rewards of the two reward functions, [P, G, 2]."""
    if binary:
        parts = torch.stack([(torch.rand(P, G, generator=draw) < 0.5).float(), torch.zeros(P, G)], -1)
        parts[0, 0, 0], parts[0, -1, 0] = 1.0, 0.0
    else:
        parts = torch.randn(P, G, 2, generator=draw)
        parts[0, 0, 0], parts[0, -1, 0] = 1.5, -1.0
    for p in range(P) if not spread else range(1, min(P, 2)):
        # 0.7 is no float32 number: the mean of a few of them is off by an ulp
        parts[p] = torch.tensor([1.0, 0.0] if binary else [0.7, 0.0])
    return parts


def _logps(response: Tensor, draw: torch.Generator) -> Tensor:
    """Log-probabilities [P, G, T], 0 past the end of the responses."""
    return torch.where(response, -0.05 - 3 * torch.rand(response.shape, generator=draw), 0.0)


def _normal(response: Tensor, draw: torch.Generator) -> Tensor:
    """Standard normal numbers [P, G, T], 0 past the end of the responses."""
    return torch.where(response, torch.randn(response.shape, generator=draw), 0.0)


def _between(square: Tensor, draw: torch.Generator) -> Tensor:
    """A sum of squared probabilities, of which `least` is one."""
    return square + (1 - square.sqrt()).square() * torch.rand(square.shape, generator=draw)


def examples(min_samples: int = 2, *, steps: bool = False) -> Iterator[Batch]:
    """One batch of each kind, of groups from `min_samples` up; with `steps` all have rewards of steps."""
    yield make_batch(1, min_samples, seed=1, steps=steps)
    yield make_batch(3, max(min_samples, 4), seed=2, holes=True, steps=steps)
    yield make_batch(2, max(min_samples, 7), seed=3, binary=True, holes=True, steps=steps)
    yield make_batch(4, min_samples + 1, seed=4, kl=True, steps=steps, limit=MAX_LENGTH)
    yield make_batch(3, max(min_samples, 3), seed=5, steps=True, kl=True, holes=True)
    yield make_batch(2, max(min_samples, 3), seed=6, spread=False, steps=steps)
    yield make_batch(2, max(min_samples, 4), seed=7, counted=False, steps=steps)
    yield make_batch(2, max(min_samples, 5), seed=8, one_token=True, steps=steps)
    yield make_batch(3, max(min_samples, 4), seed=9, turns=True, steps=steps)
    yield make_batch(2, max(min_samples, 3), seed=10, turns=True, kl=True, holes=True, steps=steps)


def per_token(batch: Batch) -> dict[str, Tensor]:
    """Every field [P, G, T] of a batch, by name."""
    return {n: x for n, x in batch.tensors().items() if x.shape == batch.mask.shape and n != "reward_parts"}


def mapped(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """A copy in which every tensor is changed."""
    return batch.having(**{name: change(value) for name, value in batch.tensors().items()})


def copy(batch: Batch) -> Batch:
    """A copy that shares no memory."""
    return mapped(batch, torch.clone)


def shuffled_samples(batch: Batch, order: Tensor) -> Batch:
    """Samples of each group in another order [P, G]."""
    grouped = {n: x for n, x in batch.tensors().items() if x.shape[:2] == batch.rewards.shape}
    every = torch.arange(batch.groups)[:, None]
    return batch.having(**{name: value[every, order] for name, value in grouped.items()})


def orders(batch: Batch, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A random order of the groups [P], and one of the samples of each [P, G]."""
    draw = torch.Generator().manual_seed(seed)
    P, G = batch.rewards.shape
    return torch.randperm(P, generator=draw), torch.stack([torch.randperm(G, generator=draw) for _ in range(P)])


def padded(batch: Batch, columns: int) -> Batch:
    """More columns at the end, which hold no token of any response."""
    return batch.having(
        **{name: torch.nn.functional.pad(value, (0, columns)) for name, value in per_token(batch).items()}
    )


def with_junk(batch: Batch, junk: float) -> Batch:
    """`junk` in every field [P, G, T] where there is no token of the response."""
    floating = {name: value for name, value in per_token(batch).items() if value.is_floating_point()}
    return batch.having(**{name: torch.where(batch.response_mask, x, junk) for name, x in floating.items()})


def affine(batch: Batch, scale: float, shift: float) -> Batch:
    """Rewards times `scale` plus `shift`, and with them everything that is measured in rewards."""
    assert batch.token_rewards is None
    assert batch.kl_rewards is None
    changed = {n: scale * x + shift for n, x in batch.tensors().items() if n in ("rewards", "greedy_rewards", "values")}
    changed["reward_parts"] = scale * batch.require("reward_parts") + shift / sum(batch.reward_weights)
    return batch.having(**changed)


def with_equal_rewards(batch: Batch, levels: Sequence[float]) -> Batch:
    """The first groups' rewards all equal to one level each, the greedy response's too; other groups as they were."""
    changed = {n: batch.require(n).clone() for n in ("rewards", "greedy_rewards", "reward_parts", "correct")}
    for p, level in enumerate(levels):
        changed["rewards"][p] = changed["greedy_rewards"][p] = level
        changed["reward_parts"][p] = torch.tensor([level, 0.0])
        changed["correct"][p] = level >= 1
    return batch.having(**changed)


def with_other_groups(batch: Batch, other: Batch, kept: int) -> Batch:
    """Group `kept` of one batch among the groups of another."""
    mixed = {}
    for name, value in batch.tensors().items():
        mixed[name] = other.require(name).clone()
        mixed[name][kept] = value[kept]
    return batch.having(**mixed | {"prompt_ids": batch.prompt_ids})


def without(batch: Batch, names: Sequence[str]) -> Batch:
    """A batch in which these fields were not filled."""
    return batch.having(**dict.fromkeys(names))


def rewards_of(batch: Batch, group: int = 0) -> str:
    """A group's rewards, for a message."""
    return "rewards " + " ".join(f"{reward:.4g}" for reward in batch.rewards[group].tolist())
