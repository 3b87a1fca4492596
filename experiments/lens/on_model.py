"""Variants' gradients on a real policy, all computed on one large pool of rollouts.

No true gradient is known here. Measured are the agreement of variants on the same pool (cosine), the norm of each
gradient, and its noise, from halves of the pool. The pool is sampled once, so dynamic sampling drops groups without
replacing them; their tokens still count.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from core import Batch, Variant
from core.distributed import init
from core.errors import GrpoLabError
from core.loop.learn import fill
from core.loop.loss import compute_advantages, kl_in_reward, needs_old_logps
from core.loop.recipe import Recipe
from core.loop.rewards import filter_groups, shape
from core.loop.rollout import (
    Draw,
    draw_problems,
    grade,
    make_batch,
    sample,
)
from core.loop.run_state import Fill, RunState, make_providers
from core.loop.update import UpdateMetrics, accumulate_gradients, compute_logps
from core.model.policy import Policy, PolicySettings, load_policy
from core.randomness import key, torch_generator
from experiments.lens.measures import Estimate
from experiments.lens.step import first_state

SPLITS: Final = 4
"""Random halvings of the pool that split-half numbers are averaged over."""


@dataclass(frozen=True)
class OnModel:
    """One variant's measurements on the pool. Errors are the spread over halvings of one pool, not over pools."""

    variant: str
    groups: int
    """Groups of the pool that were trained on."""
    tokens: int
    """Sampled tokens: the whole pool, and greedy responses where they are asked for."""
    norm: float
    cosines: Mapping[str, float]
    """With each variant's gradient on the whole pool."""
    split_cosine: Estimate
    """Between the gradients on two halves of the pool."""
    variance: Estimate
    """Of the gradient on the whole pool over its squared expectation, for the number of tokens in the bare pool.

    |g1 - g2|^2 / 4 / (g1 . g2), times tokens / pool tokens; NaN where the halves do not agree at all.
    """


@dataclass(frozen=True)
class Pool:
    """A rollout of the policy, as it is before any variant touches it."""

    batch: Batch
    dropped: int
    tokens: int


def sample_pool(run: RunState) -> Pool:
    """Responses to `recipe.prompts` problems, scored."""
    problems = draw_problems(run, step=1, round=0)
    sampled = sample(run, problems, Draw(run.recipe.group_size, key(run.seed, "sampling", 1, 0)))
    scores = grade(run.recipe.rewards, sampled)
    return Pool(make_batch(run, sampled, scores, step=1), len(scores.failed), run.sampled_tokens)


def measure_on_model(
    recipes: Sequence[Recipe],
    *,
    seed: int,
    checkpoint: str | None = None,
    advance: Callable[[str], None] = lambda _: None,
) -> tuple[list[OnModel], float]:
    """Measure each recipe's variant on one pool, whose accuracy is also returned; recipes differ in variant alone.

    `checkpoint` is a folder with the weights to measure at; the reference policy, for KL terms, is still the recipe's
    own model. `advance` is called after the pool, and for every gradient: `(SPLITS * 2 + 1)` for each variant.
    """
    first = recipes[0]
    torch.set_num_threads(first.threads)
    accelerator = init()
    policy = load_policy(first.policy, accelerator.device)
    base = {name: x.clone() for name, x in policy.model.state_dict().items()} if checkpoint else None
    if checkpoint:
        trained = load_policy(PolicySettings(checkpoint, first.policy.dtype, attention="padded"), accelerator.device)
        policy.model.load_state_dict(trained.model.state_dict())
    pool = sample_pool(RunState(first, seed, policy))
    advance("pool")
    gradients: dict[str, Tensor] = {}
    rows: list[dict[str, Any]] = []
    for recipe in recipes:
        name = recipe.variant.name
        run = RunState(recipe, seed, policy)
        batch = _prepare(run, pool, base)

        def gradient(part: Batch, recipe: Recipe = recipe, name: str = name) -> Tensor:
            advance(name)
            return _gradient(policy, recipe, part, seed)

        halves = [
            [gradient(batch.select(half)) for half in _halves(batch.groups, seed, split)] for split in range(SPLITS)
        ]
        gradients[name] = gradient(batch)
        tokens = pool.tokens + run.sampled_tokens
        rows.append(
            {
                "variant": name,
                "groups": batch.groups,
                "tokens": tokens,
                "norm": float(gradients[name].norm()),
                **_split_half(halves, tokens / pool.tokens),
            }
        )
    lenses = [
        OnModel(**row, cosines={other: _cosine(gradients[row["variant"]], gradients[other]) for other in gradients})
        for row in rows
    ]
    return lenses, float(pool.batch.require("correct").double().mean())


def _prepare(run: RunState, pool: Pool, base: Mapping[str, Tensor] | None) -> Batch:
    """The pool as a variant trains on it: shaped, filtered, with the fields that its parts ask for."""
    variant, policy = run.recipe.variant, run.policy
    run.grader_log.add(pool.dropped, run.recipe.prompts)
    batch = filter_groups(variant, shape(variant, pool.batch))
    if needs_old_logps(variant, updates=1):
        batch = batch.having(
            old_logps=compute_logps(
                policy, batch, temperature=run.recipe.temperature, micro_tokens=run.recipe.micro_tokens
            )
        )
    batch = kl_in_reward(variant, fill(batch, _providers(run, base)))
    if batch.groups < 2:
        raise GrpoLabError(
            f"'{variant.name}' keeps {batch.groups} of the pool's {pool.batch.groups} groups, and halves need at least "
            "one each; raise --prompts"
        )
    return batch


def _providers(run: RunState, base: Mapping[str, Tensor] | None) -> dict[str, Fill]:
    """Providers made while the policy has its first weights, as in training: a reference policy is a copy of those."""
    if base is None:
        return make_providers(run)
    model = run.policy.model
    present = {name: x.clone() for name, x in model.state_dict().items()}
    model.load_state_dict(base)
    providers = make_providers(run)
    model.load_state_dict(present)
    return providers


def _halves(groups: int, seed: int, split: int) -> tuple[Tensor, Tensor]:
    order = torch.randperm(groups, generator=torch_generator(seed, "minibatch", split))
    return order[: groups // 2], order[groups // 2 : groups // 2 * 2]


def _gradient(policy: Policy, recipe: Recipe, batch: Batch, seed: int) -> Tensor:
    """Direction of ascent in all weights, flat, for one optimizer step on this batch."""
    variant: Variant = recipe.variant
    advantages, _ = compute_advantages(variant, batch, first_state(variant))
    policy.model.zero_grad(set_to_none=True)
    accumulate_gradients(
        policy,
        variant,
        batch,
        advantages,
        torch_generator(seed, "objective"),
        UpdateMetrics({}),
        temperature=recipe.temperature,
        micro_tokens=recipe.micro_tokens,
        backward=_backward,
    )
    flat = [
        -(torch.zeros_like(weight) if weight.grad is None else weight.grad).flatten().float().cpu()
        for weight in policy.model.parameters()
    ]
    policy.model.zero_grad(set_to_none=True)
    return torch.cat(flat)


def _backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def _dot(one: Tensor, other: Tensor) -> float:
    return float(one.double() @ other.double())


def _cosine(one: Tensor, other: Tensor) -> float:
    length = (_dot(one, one) * _dot(other, other)) ** 0.5
    return _dot(one, other) / length if length else math.nan


def _split_half(halves: Sequence[Sequence[Tensor]], cost: float) -> dict[str, Estimate]:
    """Cosine and relative variance over halvings: their mean and their standard deviation."""
    cosines = torch.tensor([_cosine(one, other) for one, other in halves])
    signal = torch.tensor([_dot(one, other) for one, other in halves])
    noise = torch.tensor([_dot(one - other, one - other) / 4 for one, other in halves])
    # the signal's mean: one halving's may be near 0
    ratios = cost * noise / signal.mean() if signal.mean() > 0 else torch.full_like(noise, torch.nan)
    return {"split_cosine": _over_halvings(cosines), "variance": _over_halvings(ratios)}


def _over_halvings(values: Tensor) -> Estimate:
    """Mean and standard deviation without NaN: a half without any gradient has no direction."""
    defined = values[~values.isnan()]
    if not len(defined):
        return Estimate(math.nan, math.nan)
    return Estimate(float(defined.mean()), float(defined.std()) if len(defined) > 1 else math.nan)
