"""What holds of reward shapings."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from core import Part
from core.parts.contracts import check_shape
from experiments.check.checks import Broken, Call, Checks, finite, same

CHECKS = Checks("shaping")
LIMIT = 20


def responses() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Rewards, lengths and whether the response was cut at the limit, [P, G] each."""
    for P, G, seed in ((1, 1, 0), (3, 4, 1), (2, 7, 2)):
        draw = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, LIMIT + 1, (P, G), generator=draw)
        lengths[0, 0] = LIMIT
        yield torch.randn(P, G, generator=draw), lengths, lengths == LIMIT
    short = torch.ones(2, 3, dtype=torch.long)
    yield torch.tensor([[1.0, 1.0, 1.0], [0.7, 0.7, 0.7]]), short, short > 1


def shaped(part: Part, rewards: Tensor, lengths: Tensor, truncated: Tensor) -> Tensor:
    """Rewards as the part leaves them, of the shape of `rewards`."""
    extra = {"max_tokens": LIMIT} if part.takes("max_tokens") else {}
    result: Tensor = part(rewards, lengths, truncated, **extra)
    check_shape(part, result, rewards.shape)
    return result


@CHECKS.must("shape and numbers", remedy="return rewards of the shape that came in, [P, G] or [P], floating and finite")
def shape_and_numbers(part: Part) -> None:
    """[P, G] for samples, [P] for greedy responses."""
    for triple in responses():
        for result in (shaped(part, *triple), shaped(part, *(x[:, 0] for x in triple))):
            if not result.is_floating_point():
                raise Broken(f"dtype {result.dtype}")
            finite(result, what="reward")


@CHECKS.must("permutation", remedy="let nothing depend on the order of samples or prompts")
def permutation(part: Part) -> None:
    """Samples and groups in another order have the same rewards, in that order."""
    for triple in responses():
        P, G = triple[0].shape
        draw = torch.Generator().manual_seed(0)
        order = torch.randperm(P, generator=draw)[:, None], torch.randperm(G, generator=draw)
        same(shaped(part, *(x[order] for x in triple)), shaped(part, *triple)[order], given="reordered")


def calls(part: Part) -> Iterator[Call]:
    """A call on every example, and its inputs by name."""
    for triple in responses():
        yield partial(shaped, part, *triple), dict(zip(("rewards", "lengths", "truncated"), triple, strict=True))


CHECKS.pure(
    calls,
    same_output="draw nothing; a shaped reward is a function of reward and length",
    inputs_unchanged="work on a copy: rewards.clone(), or operations without a trailing underscore",
)
CHECKS.axes(remedy="write axes as format strings over hyper-parameters; {{ for a brace")


@CHECKS.reports("each response by itself")
def responses_apart(part: Part) -> None:
    """A greedy response is shaped as the same response among samples is."""
    for triple in responses():
        single = shaped(part, *(x[:, 0] for x in triple))
        same(single, shaped(part, *triple)[:, 0], given="[P] instead of the first sample of [P, G]")


def _by_length(part: Part) -> Tensor:
    """The reward of 1 after shaping, for every length up to the limit."""
    lengths = torch.arange(1, LIMIT + 1)[:, None]
    return torch.cat([shaped(part, torch.ones(1, 1), n[None], n[None] == LIMIT)[0] for n in lengths])


@CHECKS.reports("never rises with length")
def falls(part: Part) -> None:
    """A longer response is never worth more."""
    rewards = _by_length(part)
    rises = rewards.diff() > 1e-6
    if rises.any():
        n = int(rises.nonzero()[0]) + 1
        raise Broken(f"a reward of 1 becomes {rewards[n - 1]:.4g} at {n} tokens, {rewards[n]:.4g} at {n + 1}")


@CHECKS.reports("leaves short responses alone")
def short_unchanged(part: Part) -> None:
    """Up to a quarter of the limit."""
    short = _by_length(part)[: LIMIT // 4]
    same(short, torch.ones_like(short), given=f"a reward of 1 with up to {LIMIT // 4} of {LIMIT} tokens")


@CHECKS.reports("change at most")
def largest_change(part: Part) -> str:
    """Over all lengths, for a reward of 1."""
    change = _by_length(part) - 1
    n = int(change.abs().argmax())
    return f"{change[n]:+.4g} at {n + 1} of {LIMIT} tokens" if change[n] else "none"
