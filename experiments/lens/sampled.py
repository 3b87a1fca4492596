"""A variant's gradient over many sampled batches: the same draws for every variant, and every token is counted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from core import Batch, Variant
from core.errors import GrpoLabError
from core.parts.options import AdvantageOptions
from core.randomness import key, torch_generator
from experiments.lens.measures import BLOCKS, Array, Estimate, Sums, estimates, jackknife_error
from experiments.lens.policy import TabularPolicy
from experiments.lens.step import (
    Derivatives,
    Draw,
    check_variant,
    differentiate,
    extra_tokens,
    first_state,
    gradients,
    token_constant,
    usable_groups,
)

WARM_UP: Final = 32
"""Batches that a running estimator sees before the first that counts."""
MIN_BATCHES: Final = 20


@dataclass(frozen=True)
class Measurement:
    """A variant's measurements over many batches of one group size."""

    variant: str
    group_size: int
    rollouts: int
    batches: int
    numbers: Mapping[str, Estimate]
    """By the names of `measures`."""
    by_prompt: Sequence[Mapping[str, Estimate]]
    """The same for each prompt's own logits; `relative_scale` is its scale over that of the whole gradient."""
    weights: Mapping[str, Sequence[Estimate]]
    """`right` and `wrong`: weight of a token by its response's length, 1 to max_tokens, relative to the mean token.

    Compared within a prompt and a verdict, so that hard prompts' longer responses do not show as a length effect. NaN
    where no such response exists.
    """


def sample_groups(policy: TabularPolicy, groups: int, group_size: int, *path: int) -> Draw:
    """Uniform prompts and the sampler's responses, a function of the numbers in `path` alone."""
    draw = np.random.default_rng([*path, group_size])
    prompts = torch.from_numpy(draw.integers(policy.prompts, size=groups))
    uniform = torch.from_numpy(draw.random((groups, group_size)))
    # one sorted table of all prompts' cumulative probabilities: prompt n's lie between n and n + 1
    at = torch.searchsorted(policy.behaviour.cumulative.flatten(), uniform + prompts[:, None], right=True)
    K = policy.behaviour.cumulative.shape[1]
    return Draw(prompts, (at - prompts[:, None] * K).clamp(0, K - 1))


def one_step(
    policy: TabularPolicy, variant: Variant, *, groups: int, group_size: int, seed: int, index: int, state: Any
) -> tuple[Derivatives | None, int, Any]:
    """Batch number `index`, sampled in rounds until full where groups are filtered.

    Returns its derivatives (None when no group is left), the tokens that were sampled for it, and the new state.
    """
    kept: list[Draw] = []
    batches: list[Batch] = []
    tokens = 0
    for round in range(variant.filter_rounds if variant.filter else 1):
        missing = groups - sum(batch.groups for batch in batches)
        if not missing:
            break
        draw = sample_groups(policy, groups, group_size, seed, index, round)
        tokens += int(policy.responses.draws[draw.responses].sum())
        batch, places = usable_groups(policy, variant, draw, step=index + 1)
        taken = torch.arange(min(missing, batch.groups))
        if len(taken):
            kept.append(draw.select(places[taken]))
            batches.append(batch.select(taken))
    if not kept:
        return None, tokens, state
    whole, batch = Draw.concat(kept), Batch.concat(batches)
    tokens += int(extra_tokens(policy, variant, whole).sum())
    generator = torch_generator(seed, "objective", index)
    step, state = differentiate(policy, variant, whole, batch, state, generator)
    return step, tokens, state


def measure(
    policy: TabularPolicy,
    variant: Variant,
    *,
    group_size: int,
    rollouts: int,
    batches: int,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Measurement:
    """Measure a variant's gradient over `batches` batches of about `rollouts` responses in groups of `group_size`.

    `advance` is called with the number of batches done.
    """
    check_variant(variant, group_size)
    if batches < MIN_BATCHES:
        raise GrpoLabError(f"--batches {batches}: at least {MIN_BATCHES} are needed for errors to mean anything")
    groups = max(1, round(rollouts / group_size))
    size = {"groups": groups, "group_size": group_size, "seed": key(seed, "sampling")}
    state = first_state(variant)
    if AdvantageOptions.of(variant.advantage).state:
        for index in range(batches, batches + WARM_UP):
            _, _, state = one_step(policy, variant, **size, index=index, state=state)
    true = policy.true_gradient.flatten(1).numpy()
    whole: list[Sums] = []
    prompts: list[list[Sums]] = [[] for _ in true]
    used: list[Array] = []
    for block in np.array_split(np.arange(batches), min(BLOCKS, batches // 2)):
        steps: list[Derivatives | None] = []
        paid = []
        for index in block.tolist():
            step, tokens, state = one_step(policy, variant, **size, index=index, state=state)
            steps.append(step)
            paid.append(float(tokens))
        per_batch = gradients(policy, steps).numpy()
        whole.append(Sums.of(per_batch, true.ravel(), np.array(paid)))
        for n, own in enumerate(per_batch.reshape(len(per_batch), len(true), -1).swapaxes(0, 1)):
            prompts[n].append(Sums.of(own, true[n], np.array(paid)))
        used.append(token_weights(policy, steps))
        advance(int(block[-1]) + 1)
    constant = token_constant(variant.aggregator, policy.responses.max_tokens)
    numbers, by_prompt = _numbers(Sums.concat(whole), [Sums.concat(blocks) for blocks in prompts], constant)
    return Measurement(
        variant.name, group_size, groups * group_size, batches, numbers, by_prompt, _relative_weights(np.stack(used))
    )


def _numbers(
    whole: Sums, prompts: Sequence[Sums], constant: float | None
) -> tuple[dict[str, Estimate], list[dict[str, Estimate]]]:
    scale, scale_without = (sums.moments().along for sums in (whole.total(), whole.without_each()))
    by_prompt = []
    for sums in prompts:
        own, own_without = (
            part.moments().along / base for part, base in ((sums.total(), scale), (sums.without_each(), scale_without))
        )
        relative = Estimate(float(own[0]), jackknife_error(own_without))
        by_prompt.append(estimates(sums, constant) | {"relative_scale": relative})
    return estimates(whole, constant), by_prompt


def token_weights(policy: TabularPolicy, steps: Sequence[Derivatives | None]) -> Array:
    """Sums of |d loss / d log-prob| and numbers of tokens, [2, N, verdict, length], wrong responses first."""
    table = policy.responses
    shape = (policy.prompts, 2, table.max_tokens)
    sums = torch.zeros(2, policy.prompts * 2 * table.max_tokens, dtype=torch.float64)
    for step in steps:
        if step is None:
            continue
        prompts, responses = step.draw.prompts[:, None].expand_as(step.draw.responses), step.draw.responses
        lengths = table.lengths[responses]
        verdicts = (policy.rewards[prompts, responses] > 0).long()
        cell = ((prompts * 2 + verdicts) * table.max_tokens + lengths - 1).flatten()
        sums[0].index_add_(0, cell, step.by_logp.abs().sum(-1).flatten())
        sums[1].index_add_(0, cell, lengths.flatten().double())
    return sums.view(2, *shape).numpy()


def _relative_weights(used: Array) -> dict[str, list[Estimate]]:
    """Weight by length over what it would be if all tokens of a prompt and a verdict had the same: [blocks, 2, ...]."""

    def ratio(sums: Tensor | Array) -> Array:
        """Sums [.., 2, N, verdict, length] to ratios [.., verdict, length]."""
        weight, count = np.asarray(sums)[..., 0, :, :, :], np.asarray(sums)[..., 1, :, :, :]
        with np.errstate(divide="ignore", invalid="ignore"):
            even = np.nan_to_num(weight.sum(-1, keepdims=True) / count.sum(-1, keepdims=True)) * count
            relative: Array = weight.sum(-3) / even.sum(-3)
        return relative

    whole = used.sum(0)
    value, without = ratio(whole), ratio(whole - used)
    return {
        verdict: [Estimate(float(v), jackknife_error(without[:, row, at])) for at, v in enumerate(value[row])]
        for row, verdict in enumerate(("wrong", "right"))
    }
