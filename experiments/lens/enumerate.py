"""The expected gradient of a variant without sampling: every batch of a small case, weighted by its probability."""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import torch
from scipy import stats
from torch import Tensor

from core import Batch, Variant
from core.errors import GrpoLabError
from core.loop.rewards import shape
from core.parts.options import AdvantageOptions, CorrectionOptions, ObjectiveOptions
from core.randomness import torch_generator
from experiments.lens.measures import Moments
from experiments.lens.policy import TabularPolicy
from experiments.lens.step import (
    Derivatives,
    Draw,
    ascent,
    check_variant,
    differentiate,
    extra_tokens,
    first_state,
    gradients,
    make_batch,
    usable_groups,
)

MAX_BATCHES: Final = 200_000
CHUNK: Final = 8000
ALONE: Final = 256
"""Groups that a filter is shown both alone and among all."""
FLIPPED: Final = 200
"""Groups that a variant is shown in two orders."""
PROBES: Final = 16
"""Batches that are computed both alone and among others."""


def every_group(policy: TabularPolicy, group_size: int, in_every_order: bool = False) -> tuple[Draw, Tensor]:
    """Every group of every prompt, and its probability when prompts are drawn uniformly.

    Groups of the same responses are one, unless they are listed in every order that they can be drawn in.
    """
    words, orders = _words(len(policy.responses.tokens), group_size, in_every_order)
    prompts = torch.arange(policy.prompts).repeat_interleave(len(words))
    responses = words.repeat(policy.prompts, 1)
    probability = policy.behaviour.probabilities[prompts[:, None], responses].prod(1) / policy.prompts
    return Draw(prompts, responses), probability * orders.repeat(policy.prompts)


@functools.cache
def _words(responses: int, group_size: int, in_every_order: bool) -> tuple[Tensor, Tensor]:
    """Every group [., G] of so many possible responses, and how many draws it stands for."""
    if in_every_order:
        words = torch.cartesian_prod(*[torch.arange(responses)] * group_size).view(-1, group_size)
        return words, torch.ones(len(words), dtype=torch.float64)
    combinations = list(itertools.combinations_with_replacement(range(responses), group_size))
    same = [math.prod(map(math.factorial, Counter(word).values())) for word in combinations]
    return torch.tensor(combinations), math.factorial(group_size) / torch.tensor(same, dtype=torch.float64)


def expected_gradient(
    policy: TabularPolicy, variant: Variant, *, groups: int, group_size: int
) -> tuple[Tensor, Moments]:
    """E[g] [N, S, V] of a batch of `groups` groups, exactly, and the moments that describe it.

    Prompts are drawn uniformly and independently, responses from `policy.behaviour`. With a filter, batches are those
    that up to `filter_rounds` rounds of `groups` groups would leave; of several it must judge each by itself. A running
    estimator is in its first state; where an objective draws at random, its draw is the same for all batches. Raises
    `GrpoLabError` for a filter that judges groups together, and for more than `MAX_BATCHES` batches.
    """
    check_variant(variant, group_size)
    responses = len(policy.responses.tokens)
    _check_number(policy.prompts * math.comb(responses + group_size - 1, group_size), 1, group_size)
    every, probability = every_group(policy, group_size)
    if not _is_symmetric(policy, variant, every):
        _check_number(policy.prompts * responses**group_size, 1, group_size)
        every, probability = every_group(policy, group_size, in_every_order=True)
    kept = _usable(policy, variant, every, groups)
    share = float(probability[kept].sum()) if variant.filter else 1.0
    rounds = variant.filter_rounds if variant.filter else 1
    usable_groups = stats.binom(rounds * groups, share)
    # a batch of m groups: exactly m were usable in all rounds, or at least as many as there is room for
    sizes = {m: float(usable_groups.sf(m - 1) if m == groups else usable_groups.pmf(m)) for m in range(groups + 1)}
    _check_number(len(kept), max((m for m in sizes if sizes[m]), default=0), group_size)
    true, extra = policy.true_gradient.flatten(), extra_tokens(policy, variant, every).double()
    mean, power, tokens = torch.zeros_like(true), 0.0, 0.0
    for m, size_probability in sizes.items():
        for chunk in _chunks(kept.tolist(), m) if m and size_probability else ():
            batches = torch.tensor(chunk)
            weight = size_probability * (probability[batches] / share).prod(1)
            gradient = gradients_apart(policy, variant, every, batches)
            mean += weight @ gradient
            power += float(weight @ gradient.square().sum(1))
            tokens += float(weight @ extra[batches].sum(1))
    # a round is played as long as those before it have left room
    rounds_sampled = sum(stats.binom.cdf(groups - 1, r * groups, share) if r else 1.0 for r in range(rounds))
    drawn = policy.responses.draws[every.responses].sum(1).double()
    tokens += rounds_sampled * groups * float(probability @ drawn)
    square = float(true @ true)
    along = float(mean @ true) / square
    return mean.view_as(policy.logits), Moments(
        along, along**2, square=float(mean @ mean) / square, power=power / square, tokens=tokens
    )


def _check_number(groups: int, batch: int, group_size: int) -> None:
    """Refuse more batches of `batch` out of `groups` groups than can be enumerated."""
    if groups**batch > MAX_BATCHES:
        raise GrpoLabError(
            f"{groups}^{batch} batches of {batch} groups of {group_size} are too many to enumerate (at most "
            f"{MAX_BATCHES}); take fewer groups or samples, or a smaller policy"
        )


def _is_symmetric(policy: TabularPolicy, variant: Variant, every: Draw) -> bool:
    """Whether the order of a group's responses makes no difference: it does where the first of equals is preferred.

    Where the variant draws at random, the draw is the same for all batches, and the order is part of it.
    """
    if "generator" in ObjectiveOptions.of(variant.objective).prepare_takes:
        return True
    some = every.select(torch.linspace(0, len(every.prompts) - 1, min(FLIPPED, len(every.prompts))).long())
    batches = torch.arange(len(some.prompts))[:, None]
    flipped = Draw(some.prompts, some.responses.flip(1))
    one, other = (gradients_apart(policy, variant, draw, batches) for draw in (some, flipped))
    return torch.allclose(one, other, rtol=1e-9, atol=1e-12)


def _usable(policy: TabularPolicy, variant: Variant, every: Draw, groups: int) -> Tensor:
    """Indices of the groups that the variant's filter keeps, in rounds of so many."""

    def among(places: Tensor) -> Tensor:
        return places[usable_groups(policy, variant, every.select(places), step=1)[1]]

    def alone(places: Tensor) -> Tensor:
        return torch.cat([among(place) for place in places[:, None]])

    everywhere = torch.arange(len(every.prompts))
    kept = among(everywhere)
    if variant.filter is not None:
        some = torch.linspace(0, len(everywhere) - 1, min(ALONE, len(everywhere))).long()
        dropped = everywhere[~torch.isin(everywhere, kept)]
        with_one_dropped = among(torch.cat([kept, dropped[:1]]))
        if not torch.equal(some[torch.isin(some, kept)], alone(some)) or not torch.equal(kept, with_one_dropped):
            if groups == 1:  # nobody else is in its round
                return alone(everywhere)
            raise GrpoLabError(
                f"'{variant.name}' cannot be enumerated: its filter '{variant.filter.name}' judges groups together; "
                "measure it over sampled batches"
            )
    return kept


def _chunks(kept: list[int], groups: int) -> Iterator[list[tuple[int, ...]]]:
    """Every batch as a tuple of groups, `CHUNK` at a time."""
    batches = itertools.product(kept, repeat=groups)
    while chunk := list(itertools.islice(batches, CHUNK)):
        yield chunk


def gradients_apart(policy: TabularPolicy, variant: Variant, every: Draw, batches: Tensor) -> Tensor:
    """The direction of ascent of each batch by itself, [M, N * S * V]; `batches` [M, m] are indices of groups.

    They are computed at once, but for the parts that declare that they look beyond a group: these are called for each
    batch. `PROBES` batches are computed both ways, and all one by one where that makes a difference, or where the
    variant remembers batches or draws at random.
    """

    def alone(chosen: Tensor) -> Tensor:
        return gradients(policy, [_derivatives(policy, variant, every.select(batch)) for batch in chosen])

    is_running = AdvantageOptions.of(variant.advantage).state is not None
    if is_running or "generator" in ObjectiveOptions.of(variant.objective).prepare_takes:
        return alone(batches)
    M, m = batches.shape
    derivatives = _derivatives(policy, _in_steps(variant, M), every.select(batches.flatten()))
    together = ascent(policy, derivatives, torch.arange(M).repeat_interleave(m), M)
    probes = torch.linspace(0, M - 1, min(PROBES, M)).long()
    agree = torch.allclose(together[probes], alone(batches[probes]), rtol=1e-9, atol=1e-12)
    return together if agree else alone(batches)


def _in_steps(variant: Variant, steps: int) -> Variant:
    """The variant with its parts that see a whole batch or step called for each of so many, whose rows are in order."""
    advantage, objective = variant.advantage, variant.objective
    options = ObjectiveOptions.of(objective)
    if options.prepare is not None:
        objective = replace(objective, options=replace(options, prepare=_by_rows(options.prepare, steps)))
    if AdvantageOptions.of(advantage).scope == "batch":
        advantage = replace(advantage, function=_by_groups(advantage.function, steps))
    corrections = [
        replace(part, function=_by_rows(part.function, steps)) if CorrectionOptions.of(part).scope == "step" else part
        for part in variant.corrections
    ]
    aggregator = replace(variant.aggregator, function=_by_masks(variant.aggregator.function, steps))
    return replace(variant, advantage=advantage, objective=objective, correction=corrections, aggregator=aggregator)


def _by_rows(function: Callable[..., Any], steps: int) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*rows: Any, **hyper: Any) -> Any:
        each = [function(*own, **hyper) for own in zip(*(x.chunk(steps) for x in rows), strict=True)]
        return tuple(map(torch.cat, zip(*each, strict=True))) if isinstance(each[0], tuple) else torch.cat(each)

    return call


def _by_masks(function: Callable[..., Any], steps: int) -> Callable[..., Any]:
    """Of mask and turns alone: many steps have the same, so it is called once for each that is different."""

    @functools.wraps(function)
    def call(mask: Tensor, *, turns: Tensor | None = None, **hyper: Any) -> Any:
        seen = mask.long() if turns is None else 2 * turns + mask
        different, which = torch.unique(seen.reshape(steps, -1), dim=0, return_inverse=True)
        each = []
        for rows in different.view(len(different), -1, mask.shape[1]):
            supplied = {} if turns is None else {"turns": rows // 2}
            each.append(function(rows % 2 == 1, **supplied, **hyper))
        return torch.stack(each)[which].view(mask.shape)

    return call


def _by_groups(function: Callable[..., Any], steps: int) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(batch: Batch, **hyper: Any) -> Any:
        groups = torch.arange(batch.groups).chunk(steps)
        return torch.cat([function(batch.select(own), **hyper) for own in groups])

    return call


def _derivatives(policy: TabularPolicy, variant: Variant, draw: Draw) -> Derivatives:
    batch, generator = shape(variant, make_batch(policy, draw, step=1)), torch_generator(0, "objective")
    return differentiate(policy, variant, draw, batch, first_state(variant), generator)[0]
