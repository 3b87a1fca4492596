"""The maths of one optimizer step on tensors alone, with no model: advantages, weights, token losses.

The training loop computes log-probabilities micro-batch by micro-batch and hands them in; whoever has all of them at
once (an enumerable policy, another library's numbers) calls `step_loss`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from core.errors import GrpoLabError
from core.parts.batch import Batch
from core.parts.contracts import TokenLoss, check_shape, row_tensors
from core.parts.options import AdvantageOptions, AggregatorOptions, ObjectiveOptions
from core.parts.variant import Variant


def needs_old_logps(variant: Variant, updates: int) -> bool:
    """Whether the trainer must compute log-probabilities before the update.

    With a single on-policy update they equal those of the update's own forward pass, which then serve as both.
    """
    in_reward = variant.uses_kl and variant.kl_place == "reward"
    in_advantage = "old_logps" in AdvantageOptions.of(variant.advantage).needs
    return in_reward or in_advantage or variant.correction is not None or updates > 1


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
    return (result if result.ndim == 3 else result[..., None].expand(shape)), state


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


class RowTensors(dict[str, Tensor]):
    """A minibatch's tensors as rows: [B, T], and [B] for `lengths`, `truncated`, `rewards`."""

    @classmethod
    def of(cls, batch: Batch, advantages: Tensor) -> "RowTensors":
        """All filled fields that an objective may ask for."""
        filled = {name: batch.get(name) for name in row_tensors()}
        return cls(
            {name: x.flatten(0, 1) for name, x in filled.items() if x is not None},
            advantages=advantages.flatten(0, 1),
        )

    def at(self, rows: Tensor) -> "RowTensors":
        """These rows of every tensor."""
        return RowTensors({name: x[rows] for name, x in self.items()})


def step_weights(variant: Variant, batch: Batch, mask: Tensor) -> Tensor:
    """The aggregator's weights [B, T] for these rows."""
    part = variant.aggregator
    limit = {"max_tokens": batch.max_tokens} if part.takes("max_tokens") else {}
    weights: Tensor = part(mask, **limit)
    check_shape(part, weights, mask.shape)
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
    inside = _inside({**rows, "old_logps": rows.get("old_logps", logps), "logps": logps}, rows["mask"])
    values = {name: setting.value for name, setting in part.settings().items() if name in options.prepare_hyper}
    arguments = (draw if name == "generator" else inside[name] for name in options.prepare_takes)
    result: Tensor = options.prepare(*arguments, **values)
    check_shape(part, result, logps.shape)
    return result


def token_loss(
    variant: Variant, rows: Mapping[str, Tensor], logps: Tensor, group_size: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Objective, times the correction's factors, plus KL, minus the entropy bonus: [B, T], 0 outside the mask.

    Also what is worth logging, [B, T] each. Log-probs of the old policy are those of the present one where none are
    given.
    """
    objective, mask = variant.objective, rows["mask"]
    tensors = _inside({"old_logps": logps.detach(), **rows, "logps": logps}, mask)
    logps = tensors["logps"]
    arguments = {name: tensors[name] for name in objective.parameters}
    if ObjectiveOptions.of(objective).level == "group":
        arguments = {name: x.view(-1, group_size, *x.shape[1:]) for name, x in arguments.items()}
    result = objective(**arguments)
    result = result if isinstance(result, TokenLoss) else TokenLoss(result)
    check_shape(objective, result.loss, arguments["logps"].shape)
    loss = result.loss.reshape(mask.shape)  # one number for a group may stand on its tokens by expand()
    info = {name: x.reshape(mask.shape) for name, x in result.info.items()}
    if variant.correction is not None:
        factors = variant.correction(tensors["old_logps"], tensors["behaviour_logps"], mask).detach()
        check_shape(variant.correction, factors, mask.shape)
        info["correction"] = factors
        info["correction_kept"] = _is_ratio(factors, tensors["old_logps"], tensors["behaviour_logps"], mask)
        loss = loss * factors
    if _kl_in_loss(variant):
        divergence = _kl(variant, logps, tensors["ref_logps"], tensors["old_logps"])
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


def _is_ratio(factors: Tensor, old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    """1 where a correction's factor is the importance ratio itself, of the token or its response: neither truncated nor
    masked.
    """
    # NaN: the sampler gave no log-probability, and there is no correction
    log_ratio = torch.where(mask, old_logps - behaviour_logps, 0.0).nan_to_num(0.0)
    of_response = torch.exp(log_ratio.sum(-1, keepdim=True)).expand_as(factors)
    return (torch.isclose(factors, torch.exp(log_ratio)) | torch.isclose(factors, of_response)).float()


def step_loss(
    variant: Variant, batch: Batch, logps: Tensor, advantages: Tensor, draw: torch.Generator | None = None
) -> Tensor:
    """The loss of one optimizer step on the whole batch, differentiable in `logps` [P, G, T]; a scalar.

    sum(weights * where(mask, token loss, 0))
    """
    rows, flat = RowTensors.of(batch, advantages), logps.flatten(0, 1)
    if ObjectiveOptions.of(variant.objective).prepare:
        rows["prepared"] = prepare(variant, rows, flat.detach(), draw or torch.Generator().manual_seed(0))
    losses, _ = token_loss(variant, rows, flat, batch.group_size)
    return (step_weights(variant, batch, rows["mask"]) * losses).sum()


def _inside(tensors: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
    """The same tensors, 0 outside the mask.

    A where() after the objective would keep a NaN or an overflow at a masked token out of the loss, not out of the
    gradient (0 * inf): so nothing from outside the mask goes in.
    """
    return {
        name: torch.where(mask, x, 0.0) if x.ndim == 2 and x.is_floating_point() else x for name, x in tensors.items()
    }


def _kl_in_loss(variant: Variant) -> bool:
    return variant.uses_kl and variant.kl_place == "loss"


def _kl(variant: Variant, logps: Tensor, ref_logps: Tensor, old_logps: Tensor) -> Tensor:
    assert variant.kl is not None
    extra = {"old_logps": old_logps} if variant.kl.takes("old_logps") else {}
    result: Tensor = variant.kl(logps, ref_logps, **extra)
    check_shape(variant.kl, result, logps.shape)
    return result
