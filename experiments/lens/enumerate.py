"""The expected gradient of a variant without sampling: every batch of a small case, weighted by its probability."""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import torch
from scipy import stats
from torch import Tensor

from core import Part, Variant
from core.errors import GrpoLabError
from core.parts.options import AdvantageOptions, ObjectiveOptions
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
    usable_groups,
)

MAX_BATCHES: Final = 100_000
CHUNK: Final = 5000
ALONE: Final = 256
"""Groups that a filter is shown both alone and among all."""
PROBES: Final = 16
"""Batches that are computed both alone and among others."""


def every_group(policy: TabularPolicy, group_size: int) -> tuple[Draw, Tensor]:
    """Every group of every prompt, in whatever order, and its probability when prompts are drawn uniformly."""
    words, orders = _words(len(policy.responses.tokens), group_size)
    prompts = torch.arange(policy.prompts).repeat_interleave(len(words))
    responses = words.repeat(policy.prompts, 1)
    probability = policy.behaviour.probabilities[prompts[:, None], responses].prod(1) / policy.prompts
    return Draw(prompts, responses), probability * orders.repeat(policy.prompts)


@functools.cache
def _words(responses: int, group_size: int) -> tuple[Tensor, Tensor]:
    """Every group [., G] of so many possible responses, and in how many orders each can be drawn."""
    words = list(itertools.combinations_with_replacement(range(responses), group_size))
    same = [math.prod(map(math.factorial, Counter(word).values())) for word in words]
    return torch.tensor(words), math.factorial(group_size) / torch.tensor(same, dtype=torch.float64)


def expected_gradient(
    policy: TabularPolicy, variant: Variant, *, groups: int, group_size: int
) -> tuple[Tensor, Moments]:
    """E[g] [N, S, V] of a batch of `groups` groups, exactly, and the moments that describe it.

    Prompts are drawn uniformly and independently, responses from `policy.behaviour`. With a filter, batches are those
    that up to `filter_rounds` rounds of `groups` groups would leave; it must judge each group by itself. A running
    estimator is in its first state; where an objective draws at random, its draw is the same for all batches. Raises
    `GrpoLabError` for a filter that judges groups together, and for more than `MAX_BATCHES` batches.
    """
    check_variant(variant, group_size)
    combinations = policy.prompts * math.comb(len(policy.responses.tokens) + group_size - 1, group_size)
    if combinations > MAX_BATCHES:
        raise _too_many(combinations, 1, group_size)
    every, probability = every_group(policy, group_size)
    kept = _usable(policy, variant, every)
    share = float(probability[kept].sum()) if variant.filter else 1.0
    rounds = variant.filter_rounds if variant.filter else 1
    usable_groups = stats.binom(rounds * groups, share)
    # a batch of m groups: exactly m were usable in all rounds, or at least as many as there is room for
    sizes = {m: float(usable_groups.sf(m - 1) if m == groups else usable_groups.pmf(m)) for m in range(groups + 1)}
    if sum(len(kept) ** m for m in sizes if sizes[m]) > MAX_BATCHES:
        raise _too_many(len(kept), groups, group_size)
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
    lengths = policy.responses.lengths[every.responses].sum(1).double()
    tokens += rounds_sampled * groups * float(probability @ lengths)
    square = float(true @ true)
    along = float(mean @ true) / square
    return mean.view_as(policy.logits), Moments(
        along, along**2, square=float(mean @ mean) / square, power=power / square, tokens=tokens
    )


def _too_many(groups: int, batch: int, group_size: int) -> GrpoLabError:
    return GrpoLabError(
        f"{groups}^{batch} batches of {batch} groups of {group_size} are too many to enumerate (at most "
        f"{MAX_BATCHES}); take fewer groups or samples, or a smaller policy"
    )


def _usable(policy: TabularPolicy, variant: Variant, every: Draw) -> Tensor:
    """Indices of the groups that the variant's filter keeps."""

    def among(places: Tensor) -> Tensor:
        return places[usable_groups(policy, variant, every.select(places), step=1)[1]]

    everywhere = torch.arange(len(every.prompts))
    kept = among(everywhere)
    if variant.filter is not None:
        some = torch.linspace(0, len(everywhere) - 1, min(ALONE, len(everywhere))).long()
        alone = torch.cat([among(place) for place in some[:, None]])
        dropped = everywhere[~torch.isin(everywhere, kept)]
        with_one_dropped = among(torch.cat([kept, dropped[:1]]))
        if not torch.equal(some[torch.isin(some, kept)], alone) or not torch.equal(kept, with_one_dropped):
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

    They are computed at once where nothing of the variant but its aggregator looks beyond a group: the aggregator is
    then asked for each batch. Parts declare that they do, and `PROBES` batches are computed both ways.
    """

    def alone(chosen: Tensor) -> Tensor:
        return gradients(policy, [_derivatives(policy, variant, every.select(batch)) for batch in chosen])

    if _looks_beyond_a_group(variant):
        return alone(batches)
    M, m = batches.shape
    apart = replace(variant, aggregator=_in_steps(variant.aggregator, m * every.responses.shape[1]))
    derivatives = _derivatives(policy, apart, every.select(batches.flatten()))
    together = ascent(policy, derivatives, torch.arange(M).repeat_interleave(m), M)
    probes = torch.linspace(0, M - 1, min(PROBES, M)).long()
    agree = torch.allclose(together[probes], alone(batches[probes]), rtol=1e-9, atol=1e-12)
    return together if agree else alone(batches)


def _looks_beyond_a_group(variant: Variant) -> bool:
    """Whether a part declares that it reads a whole batch or step, or remembers earlier ones."""
    advantage = AdvantageOptions.of(variant.advantage)
    is_prepared = ObjectiveOptions.of(variant.objective).prepare is not None
    return advantage.scope == "batch" or advantage.state is not None or is_prepared


def _in_steps(aggregator: Part, rows: int) -> Part:
    """An aggregator that takes each `rows` rows for a whole optimizer step."""

    @functools.wraps(aggregator.function)
    def weights(mask: Tensor, **more: Any) -> Tensor:
        # few masks are different
        masks, which = torch.unique(mask.reshape(-1, rows * mask.shape[-1]), dim=0, return_inverse=True)
        each = [aggregator.function(step.view(rows, -1), **more) for step in masks]
        return torch.stack(each)[which].view(mask.shape)

    return replace(aggregator, function=weights)


def _derivatives(policy: TabularPolicy, variant: Variant, draw: Draw) -> Derivatives:
    batch, _ = usable_groups(policy, variant, draw, step=1)
    generator = torch_generator(0, "objective")
    return differentiate(policy, variant, draw, batch, first_state(variant), generator)[0]
