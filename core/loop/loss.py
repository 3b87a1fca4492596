"""The maths of one optimizer step on tensors alone, with no model: advantages, weights, token losses.

The training loop computes log-probabilities micro-batch by micro-batch and hands them in; whoever has all of them at
once (an enumerable policy, another library's numbers) calls `step_loss`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from core.errors import GrpoLabError
from core.loop.correct import anchor_logps, correct, is_ratio, reads_present_logps
from core.loop.rows import RowTensors, inside
from core.parts.batch import Batch
from core.parts.contracts import TokenLoss, check_shape
from core.parts.options import AdvantageOptions, AggregatorOptions, CreditOptions, ObjectiveOptions
from core.parts.registry import Part
from core.parts.variant import Variant


def needs_old_logps(variant: Variant, updates: int) -> bool:
    """Whether the trainer must compute log-probabilities before the update.

    With a single on-policy update they equal those of the update's own forward pass, which then serve as both.
    """
    in_reward = variant.uses_kl and variant.kl_place == "reward"
    needs = [AdvantageOptions.of(variant.advantage).needs, *(CreditOptions.of(part).needs for part in variant.credits)]
    in_advantage = any("old_logps" in names for names in needs)
    before_updates = updates > 1 and variant.anchor == "trainer"
    return in_reward or in_advantage or bool(variant.corrections) or before_updates


def kl_in_reward(variant: Variant, batch: Batch) -> Batch:
    """Take the KL penalty off the reward, token by token, where the variant places it there.

    Only tokens that count are charged: the policy did not write what stands in a hole.
    """
    if not (variant.uses_kl and variant.kl_place == "reward"):
        return batch
    old = batch.require("old_logps")
    penalty = -variant.kl_coef * _kl(variant, old, batch.require("ref_logps"), old)
    penalty = torch.where(batch.mask, penalty, 0.0)
    return batch.having(kl_rewards=penalty, kl_coef=variant.kl_coef, rewards=batch.rewards + penalty.sum(-1))


def compute_advantages(variant: Variant, batch: Batch, state: Any) -> tuple[Tensor, Any]:
    """Advantages [P, G, T] on the whole rollout, detached, in the rewards' precision, and the estimator's new state."""
    part = variant.advantage
    with torch.no_grad():
        result, state = part(batch, state) if AdvantageOptions.of(part).state else (part(batch), state)
    shape = batch.response_mask.shape
    if not isinstance(result, Tensor) or tuple(result.shape) not in (tuple(shape), tuple(shape[:2])):
        actual = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise GrpoLabError(
            f"advantage '{part.name}' ({part.place}) returned {actual}: must be [P, G] or [P, G, T] = {list(shape)}"
        )
    counted = result[batch.mask] if result.ndim == 3 else result
    if not torch.isfinite(counted).all():
        raise GrpoLabError(f"advantage '{part.name}' ({part.place}) returned NaN or infinite values")
    result = result.detach().to(batch.rewards.dtype)
    return _credited(variant, batch, result if result.ndim == 3 else result[..., None].expand(shape)), state


def learned_responses(variant: Variant, batch: Batch, state: Any) -> tuple[Batch, Tensor, Any]:
    """The responses to learn from, their advantages [P, G, T], and the estimator's new state.

    All of the batch where the variant selects none; else of each group those that its selection chooses, with
    advantages among them or among all, as it declares.
    """
    if variant.selection is None:
        return batch, *compute_advantages(variant, batch, state)
    chosen = chosen_responses(variant.selection, batch)
    if variant.statistics == "after":
        batch = batch.choose(chosen)
        least = AdvantageOptions.of(variant.advantage).min_group
        if batch.group_size < least:
            raise GrpoLabError(
                f"selection {variant.selection!r} leaves {batch.group_size} of a group, but advantage "
                f"'{variant.advantage.name}' is defined from {least} up: choose more, or statistics='before'"
            )
        return batch, *compute_advantages(variant, batch, state)
    advantages, state = compute_advantages(variant, batch, state)
    return batch.choose(chosen), advantages[torch.arange(batch.groups, device=chosen.device)[:, None], chosen], state


def chosen_responses(part: Part, batch: Batch) -> Tensor:
    """[P, k], int64: which samples of each group a selection chooses, in their order."""
    keep: Tensor = part(batch)
    check_shape(part, keep, batch.rewards.shape)
    sizes = keep.bool().sum(1)
    if len(sizes) and (int(sizes.min()) != int(sizes.max()) or int(sizes.min()) == 0):
        raise GrpoLabError(
            f"selection '{part.name}' ({part.place}) chose {sizes.tolist()} responses of the groups: it must choose "
            "equally many of each, at least 1"
        )
    return keep.bool().nonzero()[:, 1].view(batch.groups, -1)


@torch.no_grad()
def _credited(variant: Variant, batch: Batch, advantages: Tensor) -> Tensor:
    for part in variant.credits:
        advantages = part(batch, advantages)
        check_shape(part, advantages, batch.response_mask.shape)
        if not torch.isfinite(advantages[batch.mask]).all():
            raise GrpoLabError(f"credit '{part.name}' ({part.place}) returned NaN or infinite values")
        advantages = advantages.detach().to(batch.rewards.dtype)
    return advantages


def value_targets(variant: Variant, batch: Batch) -> Batch:
    """Fill in the returns that a critic learns to predict, where the advantage estimator defines them."""
    part, options = variant.advantage, AdvantageOptions.of(variant.advantage)
    if options.target is None or variant.value_loss is None:
        return batch
    hyper = {name: setting.value for name, setting in part.settings().items() if name in options.target_takes}
    returns = options.target(batch, **hyper)
    check_shape(part, returns, batch.response_mask.shape)
    return batch.having(returns=returns.detach().to(batch.rewards.dtype))


def adapted_coefficient(coefficient: float, kl: float, *, target: float, horizon: float, samples: int) -> float:
    """The next KL coefficient of a controller that holds the divergence near a target.

        coefficient * (1 + clip(kl / target - 1, -0.2, 0.2) * samples / horizon)

    `kl` and `target` in nats; unchanged where they are equal. Source: Ziegler et al. 2019 (arXiv:1909.08593, section
    2.2).
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * samples / horizon)


def next_kl_coef(variant: Variant, batch: Batch) -> float:
    """The coefficient for the next rollout: adapted where the variant has a target, else the same.

    The divergence is that of whole responses, in nats: the sum over a response's tokens, averaged over responses.
    """
    if variant.kl_target is None or not batch.groups:
        return variant.kl_coef
    kl = float(batch.require("kl_rewards").sum(-1).mean()) / -batch.kl_coef
    return adapted_coefficient(
        variant.kl_coef, kl, target=variant.kl_target, horizon=variant.kl_horizon, samples=batch.rewards.numel()
    )


def step_weights(variant: Variant, batch: Batch, mask: Tensor, turns: Tensor | None = None) -> Tensor:
    """The aggregator's weights [B, T] for these rows, and the turns of their tokens: without, one turn to a row."""
    return weigh(variant.aggregator, mask, turns, max_tokens=batch.max_tokens, group_size=batch.group_size)


def weigh(aggregator: Part, mask: Tensor, turns: Tensor | None = None, **supplied: int) -> Tensor:
    """Weights [B, T] of one aggregator, which takes of `max_tokens`, `group_size` and `turns` what it names."""
    given = {**supplied, "turns": mask.long() if turns is None else turns}
    weights: Tensor = aggregator(mask, **{name: value for name, value in given.items() if aggregator.takes(name)})
    check_shape(aggregator, weights, mask.shape)
    return weights


def counted_rows(variant: Variant, batch: Batch, rows: RowTensors) -> Tensor:
    """[B], bool: rows that can have a gradient; the others are left out of the passes, still in every denominator."""
    options, mask = ObjectiveOptions.of(variant.objective), rows["mask"]
    counted = mask.any(-1)
    # an aggregator that works on micro-batches counts what is in them: leaving rows out would change its denominators
    may_skip = options.zero_at_zero_advantage and AggregatorOptions.of(variant.aggregator).split_invariant
    if may_skip and not variant.entropy_coef and not _kl_in_loss(variant):
        counted = counted & (rows["advantages"].ne(0) & mask).any(-1)
    if options.level == "group":
        counted = counted.view(batch.groups, -1).any(1, keepdim=True).expand(-1, batch.group_size).flatten()
    return counted


@torch.no_grad()
def prepare(variant: Variant, rows: RowTensors, logps: Tensor, draw: torch.Generator) -> Tensor:
    """What the objective computes once per optimizer step on all its rows, [B, T]."""
    part, options = variant.objective, ObjectiveOptions.of(variant.objective)
    assert options.prepare is not None
    tensors = inside({"old_logps": logps, "turns": rows["mask"].long(), **rows, "logps": logps}, rows["mask"])
    tensors["old_logps"] = anchor_logps(variant, tensors)
    values = {name: setting.value for name, setting in part.settings().items() if name in options.prepare_hyper}
    arguments = (draw if name == "generator" else tensors[name] for name in options.prepare_takes)
    result: Tensor = options.prepare(*arguments, **values)
    check_shape(part, result, logps.shape)
    return result


def token_loss(
    variant: Variant, rows: Mapping[str, Tensor], logps: Tensor, group_size: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Objective, times the corrections' factors, plus KL, minus the entropy bonus: [B, T], 0 outside the mask.

    `rows` are as `correct` leaves them. Also what is worth logging, [B, T] each. Log-probs of the old policy are those
    of the present one where none are given.
    """
    objective, mask = variant.objective, rows["mask"]
    tensors = inside({"old_logps": logps.detach(), "turns": mask.long(), **rows, "logps": logps}, mask)
    logps, anchor = tensors["logps"], anchor_logps(variant, tensors)
    arguments = {name: anchor if name == "old_logps" else tensors[name] for name in objective.parameters}
    if ObjectiveOptions.of(objective).level == "group":
        arguments = {name: x.view(-1, group_size, *x.shape[1:]) for name, x in arguments.items()}
    result = objective(**arguments)
    result = result if isinstance(result, TokenLoss) else TokenLoss(result)
    check_shape(objective, result.loss, arguments["logps"].shape)
    loss = result.loss.reshape(mask.shape)  # one number for a group may stand on its tokens by expand()
    info = {name: x.reshape(mask.shape) for name, x in result.info.items()}
    if variant.corrections:
        factors = rows["factors"]
        proximal = anchor if variant.anchor == "loglinear" else tensors["old_logps"]
        info["correction"] = factors
        if "behaviour_logps" in tensors:
            info["correction_kept"] = is_ratio(factors, proximal, tensors["behaviour_logps"], mask)
        loss = loss * factors
    if _kl_in_loss(variant):
        divergence = _kl(variant, logps, tensors["ref_logps"], anchor)
        info["kl"] = divergence.detach()
        loss = loss + variant.kl_coef * divergence
    if variant.entropy_coef:
        loss = loss - variant.entropy_coef * tensors["entropy"]
    if "behaviour_logps" in tensors:
        info["sampler_mismatch"] = (logps.detach() - tensors["behaviour_logps"]).abs()
        log_ratio = tensors["old_logps"] - tensors["behaviour_logps"]
        # over tokens that the sampler drew, the mean of this is an unbiased estimate of KL(sampler || trainer), >= 0
        info["sampler_kl"] = torch.expm1(log_ratio) - log_ratio
    return torch.where(mask, loss, 0.0), info


def reads_present_policy(variant: Variant) -> bool:
    """Whether what is computed once per optimizer step rests on the present policy's log-probabilities."""
    return ObjectiveOptions.of(variant.objective).prepare is not None or reads_present_logps(variant)


def step_rows(
    variant: Variant, batch: Batch, rows: RowTensors, logps: Tensor | None, draw: torch.Generator
) -> tuple[RowTensors, Tensor]:
    """All that is computed once per optimizer step on all its rows: corrections, then weights [B, T], then `prepare`.

    `logps` [B, T]: the present policy's, where `reads_present_policy`.
    """
    rows = correct(variant, rows, logps)
    weights = step_weights(variant, batch, rows.denominator, rows.get("turns"))
    if ObjectiveOptions.of(variant.objective).prepare:
        assert logps is not None
        rows["prepared"] = prepare(variant, rows, logps, draw)
    return rows, weights


def step_loss(
    variant: Variant,
    batch: Batch,
    logps: Tensor,
    advantages: Tensor,
    draw: torch.Generator | None = None,
    *,
    entropy: Tensor | None = None,
    version: int | None = None,
) -> Tensor:
    """The loss of one optimizer step on the whole batch, differentiable in `logps` and `entropy` [P, G, T]; a scalar.

        sum(weights * where(mask, token loss, 0))

    `version`: the policy's, in updates; with it the batch's `token_version` becomes the age of each token.
    """
    rows, flat = RowTensors.of(batch, advantages, version), logps.flatten(0, 1)
    if entropy is not None:
        rows["entropy"] = entropy.flatten(0, 1)
    rows, weights = step_rows(variant, batch, rows, flat.detach(), draw or torch.Generator().manual_seed(0))
    losses, _ = token_loss(variant, rows, flat, batch.group_size)
    return (weights * losses).sum()


def _kl_in_loss(variant: Variant) -> bool:
    return variant.uses_kl and variant.kl_place == "loss"


def _kl(variant: Variant, logps: Tensor, ref_logps: Tensor, old_logps: Tensor) -> Tensor:
    assert variant.kl is not None
    extra = {"old_logps": old_logps} if variant.kl.takes("old_logps") else {}
    result: Tensor = variant.kl(logps, ref_logps, **extra)
    check_shape(variant.kl, result, logps.shape)
    return result
