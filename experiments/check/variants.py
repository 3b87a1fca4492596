"""What holds of variants: a whole optimizer step on a random rollout, without a model."""

from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from core import PROVIDERS, Batch, Part, Variant
from core.loop.loss import kl_in_reward, learned_responses, step_weights, token_loss
from core.loop.rewards import filter_groups, shape
from core.parts.options import AdvantageOptions, ProviderOptions, fillable_fields
from experiments.check import examples as ex
from experiments.check.checks import Broken, Checks, finite
from experiments.check.steps import Step

CHECKS = Checks("variant")


def built(part: Part) -> Variant:
    """The variant with its parts as they are now."""
    variant = part()
    if not isinstance(variant, Variant):
        raise Broken(f"it returned {type(variant).__name__}")
    return variant.resolved()


def rollout(variant: Variant, groups: int, samples: int, *, counted: bool = True, turns: bool = False) -> Batch:
    """A batch as the loop makes it for this variant, everything asked for filled, half of the responses right."""
    needs_steps = bool({"token_rewards", "step_ends"} & variant.needs)
    batch = ex.make_batch(
        groups, samples, seed=41, binary=True, holes=True, counted=counted, steps=needs_steps, turns=turns
    )
    correct = (torch.arange(samples) % 2 == 0).expand(groups, samples).clone()
    # no two responses alike: some advantages are 0 where the best two are
    style = torch.rand(groups, samples, generator=torch.Generator().manual_seed(41))
    parts = torch.stack([correct.float(), style], -1)
    rewards = (parts * torch.tensor(ex.WEIGHTS)).sum(-1)
    for terms in (batch.token_rewards if needs_steps else None, batch.turn_rewards):
        rewards = rewards if terms is None else rewards + torch.where(batch.response_mask, terms, 0.0).sum(-1)
    batch = batch.having(correct=correct, reward_parts=parts, rewards=rewards)
    shaped = shape(variant, batch)
    kept = filter_groups(variant, shaped)
    # a filter that drops every group tests nothing about the step
    return kl_in_reward(variant, kept if kept.groups else shaped)


def step_of(variant: Variant, batch: Batch, distance: float) -> tuple[Tensor, Tensor]:
    """The loss of one optimizer step, and its gradient in the log-probabilities [B, T]."""
    state = AdvantageOptions.of(variant.advantage).first_state()
    batch, advantages, _ = learned_responses(variant, batch, state)
    draw = torch.Generator().manual_seed(42)
    old = batch.require("old_logps")
    logps = (old + distance * torch.randn(old.shape, generator=draw)).clamp(max=-1e-3) if distance else old
    step = Step.of(variant, batch, advantages, torch.where(batch.response_mask, logps, 0.0))
    leaf = step.logps.detach().clone().requires_grad_()
    losses, _ = token_loss(variant, step.rows, leaf, step.group_size)
    loss = (step_weights(variant, batch, step.rows.denominator, step.rows.get("turns")) * losses).sum()
    if not loss.requires_grad:
        raise Broken("the loss does not depend on the policy")
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


@CHECKS.must("builds", remedy="return a Variant; its message says which part does not fit")
def builds(part: Part) -> None:
    """Every part is of the kind that its place needs."""
    built(part)


@CHECKS.must("axis card", remedy="say with axes={...} what each part decides, as format strings over hyper-parameters")
def axis_card(part: Part) -> None:
    """Every row of the card says something."""
    empty = [axis for axis, text in built(part).card().items() if not text.strip()]
    if empty:
        raise Broken(f"nothing under {', '.join(empty)}")


@CHECKS.must("a whole step", remedy="look at the parts of the variant one by one: grpolab check NAME")
def whole_step(part: Part) -> None:
    """The loss and its gradient are finite, on-policy and off, and on-policy the gradient is not 0; of episodes too."""
    variant = built(part)
    # a KL penalty whose coefficient the experiment sets is tried too
    coefficients = {variant.kl_coef, 0.1 if variant.kl else variant.kl_coef}
    for kl_coef, distance, turns in product(sorted(coefficients), (0.0, 0.2), (False, True)):
        variant = replace(variant, kl_coef=kl_coef)
        batch = rollout(variant, 3, max(4, _min_group(variant)), turns=turns)
        loss, gradient = step_of(variant, batch, distance)
        given = f"{'off' if distance else 'on'}-policy, {ex.rewards_of(batch)}, KL coefficient {kl_coef:g}"
        given += ", episodes of several turns" if turns else ""
        finite(loss[None], what="loss", given=given)
        finite(gradient, what="gradient", given=given)
        if not distance and gradient.eq(0).all():
            raise Broken(f"the gradient is 0, {given}")


@CHECKS.must("smallest step", remedy="raise min_group of the advantage, or let its parts bear a single group")
def smallest_step(part: Part) -> str:
    """One group of the smallest size is enough for a finite loss and gradient."""
    variant = built(part)
    batch = rollout(variant, 1, _min_group(variant))
    loss, gradient = step_of(variant, batch, 0.2)
    finite(loss[None], what="loss", given=f"one group of {_min_group(variant)}")
    finite(gradient, what="gradient", given=f"one group of {_min_group(variant)}")
    return f"1 x {_min_group(variant)}"


@CHECKS.must("nothing counted", remedy="clamp denominators: an all-masked step has loss 0 and no gradient")
def nothing_counted(part: Part) -> None:
    """A rollout in which every token is masked has loss 0 and gradient 0."""
    variant = built(part)
    loss, gradient = step_of(variant, rollout(variant, 2, max(4, _min_group(variant)), counted=False), 0.2)
    if not loss == 0 or not gradient.eq(0).all():
        raise Broken(f"loss {loss:.4g}, gradient up to {gradient.abs().max():.4g}")


@CHECKS.reports("everything it needs is provided")
def provided(part: Part) -> str | None:
    """Every field that its parts ask for is filled by the core or by a registered provider."""
    filled: dict[str, Any] = {ProviderOptions.of(provider).fills: provider for provider in PROVIDERS.values()}
    needed = sorted(built(part).needs & set(fillable_fields()))
    missing = [name for name in needed if name not in filled]
    if missing:
        raise Broken(f"nothing fills {', '.join(missing)}: register @provider(fills={missing[0]!r}, cost=...)")
    return "; ".join(f"{name}: {ProviderOptions.of(filled[name]).cost}" for name in needed) or None


def _min_group(variant: Variant) -> int:
    return AdvantageOptions.of(variant.advantage).min_group
