"""The expected gradient of a variant without sampling: every batch of a small case, weighted by its probability."""

import itertools
from collections.abc import Iterator
from typing import Final

import torch
from scipy import stats
from torch import Tensor

from core import Variant
from core.errors import GrpoLabError
from core.randomness import torch_generator
from experiments.lens.measures import Moments
from experiments.lens.policy import TabularPolicy
from experiments.lens.step import (
    Derivatives,
    Draw,
    check_variant,
    differentiate,
    extra_tokens,
    first_state,
    gradients,
    usable_groups,
)

MAX_BATCHES: Final = 100_000
CHUNK: Final = 1000


def every_group(policy: TabularPolicy, group_size: int) -> tuple[Draw, Tensor]:
    """Every ordered group of every prompt, and its probability when prompts are drawn uniformly."""
    K = policy.probabilities.shape[1]
    words = torch.tensor(list(itertools.product(range(K), repeat=group_size)))
    prompts = torch.arange(policy.prompts).repeat_interleave(len(words))
    responses = words.repeat(policy.prompts, 1)
    probability = policy.probabilities[prompts[:, None], responses].prod(1) / policy.prompts
    return Draw(prompts, responses), probability


def expected_gradient(
    policy: TabularPolicy, variant: Variant, *, groups: int, group_size: int
) -> tuple[Tensor, Moments]:
    """E[g] [N, S, V] of a batch of `groups` groups, exactly, and the moments that describe it.

    Prompts are drawn uniformly and independently. With a filter, batches are those that up to `filter_rounds` rounds
    of `groups` groups would leave; it must judge each group by itself. A running estimator is in its first state;
    where an objective draws at random, its draw is the same for all batches. Raises `GrpoLabError` for a filter that
    judges groups together, and for more than `MAX_BATCHES` batches.
    """
    check_variant(variant, group_size)
    every, probability = every_group(policy, group_size)
    kept = _usable(policy, variant, every)
    share = float(probability[kept].sum()) if variant.filter else 1.0
    rounds = variant.filter_rounds if variant.filter else 1
    usable_groups = stats.binom(rounds * groups, share)
    # a batch of m groups: exactly m were usable in all rounds, or at least as many as there is room for
    sizes = {m: float(usable_groups.sf(m - 1) if m == groups else usable_groups.pmf(m)) for m in range(groups + 1)}
    if sum(len(kept) ** m for m in sizes if sizes[m]) > MAX_BATCHES:
        raise GrpoLabError(
            f"{len(kept)}^{groups} batches of {groups} groups of {group_size} are too many to enumerate (at most "
            f"{MAX_BATCHES}); take fewer groups or samples, or a smaller policy"
        )
    true = policy.true_gradient.flatten()
    mean, power, tokens = torch.zeros_like(true), 0.0, 0.0
    for m, size_probability in sizes.items():
        for chunk in _chunks(kept.tolist(), m) if m and size_probability else ():
            batches = torch.tensor(chunk)
            weight = size_probability * (probability[batches] / share).prod(1)
            steps = [_derivatives(policy, variant, every.select(batch)) for batch in batches]
            gradient = gradients(policy, steps)
            mean += weight @ gradient
            power += float(weight @ gradient.square().sum(1))
            tokens += sum(
                w * extra_tokens(policy, variant, step.draw) for w, step in zip(weight.tolist(), steps, strict=True)
            )
    # a round is played as long as those before it have left room
    rounds_sampled = sum(stats.binom.cdf(groups - 1, r * groups, share) if r else 1.0 for r in range(rounds))
    lengths = policy.responses.lengths[every.responses].sum(1).double()
    tokens += rounds_sampled * groups * float(probability @ lengths)
    square = float(true @ true)
    along = float(mean @ true) / square
    return mean.view_as(policy.logits), Moments(
        along, along**2, square=float(mean @ mean) / square, power=power / square, tokens=tokens
    )


def _usable(policy: TabularPolicy, variant: Variant, every: Draw) -> Tensor:
    """Indices of the groups that the variant's filter keeps."""

    def among(places: Tensor) -> Tensor:
        return places[usable_groups(policy, variant, every.select(places), step=1)[1]]

    everywhere = torch.arange(len(every.prompts))
    kept = among(everywhere)
    if variant.filter is not None:
        alone = torch.cat([among(place) for place in everywhere[:, None]])
        dropped = everywhere[~torch.isin(everywhere, kept)]
        with_one_dropped = among(torch.cat([kept, dropped[:1]]))
        if not torch.equal(kept, alone) or not torch.equal(kept, with_one_dropped):
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


def _derivatives(policy: TabularPolicy, variant: Variant, draw: Draw) -> Derivatives:
    batch, _ = usable_groups(policy, variant, draw, step=1)
    generator = torch_generator(0, "objective")
    return differentiate(policy, variant, draw, batch, first_state(variant), generator)[0]
