"""From a batch with advantages to new weights: KL in the reward, weights, token loss by micro-batch, optimizer
steps."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from core.batch import Batch
from core.contracts import TokenLoss, check_shape
from core.errors import GrpoLabError
from core.optimizer import Optimizer
from core.policy import Policy
from core.randomness import torch_generator
from core.rollout import Run
from core.variant import Variant

MOST_FAILED_UPDATES: Final = 10
"""Updates in a row without a finite gradient before a run stops."""


def needs_old_logps(variant: Variant, updates: int) -> bool:
    """Whether the trainer must compute log-probabilities before the update.

    With a single on-policy update they equal those of the update's own forward pass, which then serve as both.
    """
    in_reward = variant.uses_kl and variant.kl_place == "reward"
    asked = "old_logps" in variant.advantage.options["needs"]
    return in_reward or asked or variant.correction is not None or updates > 1


@torch.no_grad()
def compute_logps(policy: Policy, batch: Batch, *, temperature: float, micro_tokens: int) -> Tensor:
    """Log-probabilities [P, G, T] of the responses under a policy, without gradient."""
    out = torch.zeros(batch.response_mask.shape, device=policy.device).flatten(0, 1)
    every = torch.arange(len(out))
    for rows in micro_batches(batch, every, micro_tokens):
        out[rows] = forward(policy, batch, rows, temperature=temperature, entropy=False)[0]
    return out.view(batch.response_mask.shape)


def kl_in_reward(variant: Variant, batch: Batch) -> Batch:
    """Take the KL penalty off the reward, token by token, where the variant places it there."""
    if not (variant.uses_kl and variant.kl_place == "reward"):
        return batch
    old = batch.require("old_logps")
    penalty = -variant.kl_coef * _kl(variant, old, batch.require("ref_logps"), old)
    penalty = torch.where(batch.response_mask, penalty, 0.0)
    return batch.having(kl_rewards=penalty, kl_coef=variant.kl_coef, rewards=batch.rewards + penalty.sum(-1))


def compute_advantages(variant: Variant, batch: Batch, state: Any) -> tuple[Tensor, Any]:
    """Advantages [P, G, T] on the whole rollout, detached, and the estimator's new state."""
    part = variant.advantage
    with torch.no_grad():
        result, state = part(batch, state) if part.options["state"] else (part(batch), state)
    shape = batch.response_mask.shape
    if not isinstance(result, Tensor) or tuple(result.shape) not in (tuple(shape), tuple(shape[:2])):
        got = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise GrpoLabError(
            f"advantage '{part.name}' ({part.place}) returned {got}: must be [P, G] or [P, G, T] = {list(shape)}"
        )
    counted = result[batch.mask] if result.ndim == 3 else result
    if not torch.isfinite(counted).all():
        raise GrpoLabError(f"advantage '{part.name}' ({part.place}) returned NaN or infinite values")
    per_token = result.detach().float() if result.ndim == 3 else result.detach().float()[..., None].expand(shape)
    return per_token, state


@dataclass
class UpdateMetrics:
    """Averages over the optimizer steps of a rollout; sums over counted tokens where a quantity is per token."""

    sums: dict[str, float]
    trained_tokens: int = 0
    steps: int = 0
    skipped: int = 0

    def add(self, name: str, value: float) -> None:
        """Add to a sum."""
        self.sums[name] = self.sums.get(name, 0.0) + value

    def averages(self) -> dict[str, float | None]:
        """Sums as means, per counted token (`name/tokens`) or else per step taken; None if not finite."""
        out: dict[str, float | None] = {}
        for name, total in self.sums.items():
            if not name.endswith("/tokens"):
                count = self.sums.get(f"{name}/tokens", self.steps - self.skipped)
                out[name] = total / count if count and math.isfinite(total) else None
        return out


def update(run: Run, optimizer: Optimizer, batch: Batch, advantages: Tensor, rate: float) -> UpdateMetrics:
    """All optimizer steps of one rollout: `epochs` passes in `minibatches` each, groups kept whole, order keyed."""
    recipe = run.recipe
    metrics = UpdateMetrics({"grad_norm": 0.0, "loss": 0.0})
    for epoch in range(recipe.epochs):
        order = torch.randperm(batch.groups, generator=torch_generator(run.seed, "minibatch", batch.step, epoch))
        if recipe.minibatches == 1:
            order = torch.arange(batch.groups)
        for index, groups in enumerate(order.tensor_split(recipe.minibatches)):
            if len(groups):
                draw = torch_generator(run.seed, "objective", batch.step, epoch, index)
                optimizer_step(run, optimizer, batch.select(groups), advantages[groups], rate, draw, metrics)
    return metrics


def optimizer_step(
    run: Run,
    optimizer: Optimizer,
    batch: Batch,
    advantages: Tensor,
    rate: float,
    draw: torch.Generator,
    metrics: UpdateMetrics,
) -> None:
    """One optimizer step on all rows of `batch`: weights once, then gradients micro-batch by micro-batch."""

    def backward(loss: Tensor) -> None:
        run.accelerator.backward(loss)
        optimizer.gather()

    loss = accumulate_gradients(
        run.policy, run.recipe.variant, batch, advantages, draw, metrics,
        temperature=run.recipe.temperature, micro_tokens=run.recipe.micro_tokens,
        backward=backward,
    )  # fmt: skip
    metrics.steps += 1
    if loss is None:
        metrics.skipped += 1
        return
    norm = optimizer.step(rate)
    run.failed_updates = 0 if math.isfinite(norm) else run.failed_updates + 1
    if run.failed_updates >= MOST_FAILED_UPDATES:
        variant = run.recipe.variant
        raise GrpoLabError(
            f"{run.failed_updates} updates in a row had a gradient that is not finite (loss {loss}), at step "
            f"{batch.step} of variant '{variant.name}' with objective {variant.objective!r} and aggregator "
            f"{variant.aggregator!r}; the run stops"
        )
    if run.failed_updates:
        metrics.skipped += 1
        return
    metrics.add("grad_norm", norm)
    metrics.add("loss", loss)


def accumulate_gradients(
    policy: Policy,
    variant: Variant,
    batch: Batch,
    advantages: Tensor,
    draw: torch.Generator,
    metrics: UpdateMetrics,
    *,
    temperature: float,
    micro_tokens: int,
    backward: Callable[[Tensor], None],
) -> float | None:
    """Hand the loss of every micro-batch to `backward`; returns their sum, or None when no token counts.

    Weights come from the aggregator over all rows, so any split into micro-batches adds up to the same gradient.
    """
    rows = RowTensors.of(batch, advantages)
    weights = variant.aggregator(rows["mask"], **_limit(variant, batch))
    check_shape(variant.aggregator, weights, rows["mask"].shape)
    objective = variant.objective
    prepared = None
    if objective.options["prepare"]:
        logps = compute_logps(policy, batch, temperature=temperature, micro_tokens=micro_tokens).flatten(0, 1)
        prepared = objective.options["prepare"](logps, rows["advantages"], rows["mask"], draw)

    counted = rows["mask"].any(-1)
    if objective.options["zero_at_zero_advantage"] and not variant.entropy_coef and not _kl_in_loss(variant):
        # a row without advantage has no gradient: left out of the passes, still in every denominator
        counted &= (rows["advantages"].ne(0) & rows["mask"]).any(-1)
    if objective.options["level"] == "group":
        counted = counted.view(batch.groups, -1).any(1, keepdim=True).expand(-1, batch.group_size).flatten()
    metrics.trained_tokens += int(rows["mask"][counted].sum())
    micros = list(micro_batches(batch, counted.nonzero()[:, 0], micro_tokens, objective.options["level"] == "group"))
    total = None
    for micro in micros:
        if not variant.aggregator.options["split_invariant"]:
            weights[micro] = variant.aggregator(rows["mask"][micro], **_limit(variant, batch)) / len(micros)
        wants_entropy = variant.entropy_coef != 0 or "entropy" in objective.parameters
        logps, entropy = forward(policy, batch, micro, temperature=temperature, entropy=wants_entropy)
        tensors = rows.at(micro)
        tensors["logps"] = logps
        if entropy is not None:
            tensors["entropy"] = entropy
        if prepared is not None:
            tensors["prepared"] = prepared[micro]
        tensors.setdefault("old_logps", logps.detach())
        # where() after the objective would keep a NaN or an overflow at a masked token out of the loss, not out of the
        # gradient (0 * inf): so nothing from outside the mask goes in
        inside = tensors["mask"]
        tensors = {n: torch.where(inside, x, 0.0) if x.ndim == 2 and x.is_floating_point() else x
                   for n, x in tensors.items()}  # fmt: skip
        loss = (weights[micro] * torch.where(tensors["mask"], _token_loss(variant, tensors, batch, metrics), 0.0)).sum()
        backward(loss)
        total = float(loss.detach()) + (total or 0.0)
    return total


def _token_loss(variant: Variant, tensors: dict[str, Tensor], batch: Batch, metrics: UpdateMetrics) -> Tensor:
    """Objective, times the correction's factors, plus KL, minus the entropy bonus: [b, T]."""
    objective, mask = variant.objective, tensors["mask"]
    logps = tensors["logps"]
    is_group = objective.options["level"] == "group"
    asked = {name: tensors[name] for name in objective.parameters}
    if is_group:
        asked = {name: x.view(-1, batch.group_size, *x.shape[1:]) for name, x in asked.items()}
    result = objective(**asked)
    result = result if isinstance(result, TokenLoss) else TokenLoss(result)
    check_shape(objective, result.loss, asked["logps"].shape)
    loss = result.loss.view(logps.shape)
    _count(metrics, mask, {name: x.reshape(mask.shape) for name, x in result.info.items()})
    if variant.correction is not None:
        behaviour = tensors["behaviour_logps"]
        factors = variant.correction(tensors["old_logps"], behaviour, mask).detach()
        check_shape(variant.correction, factors, mask.shape)
        _count(metrics, mask, {"correction": factors})
        loss = loss * factors
    if _kl_in_loss(variant):
        divergence = _kl(variant, logps, tensors["ref_logps"], tensors["old_logps"])
        _count(metrics, mask, {"kl": divergence.detach()})
        loss = loss + variant.kl_coef * divergence
    if variant.entropy_coef:
        loss = loss - variant.entropy_coef * tensors["entropy"]
    if "behaviour_logps" in tensors and metrics.steps == 0:
        _count(metrics, mask, {"sampler_mismatch": (logps.detach() - tensors["behaviour_logps"]).abs()})
    return loss


def _count(metrics: UpdateMetrics, mask: Tensor, info: Mapping[str, Tensor]) -> None:
    """Add per-token quantities over the tokens that count."""
    for name, values in info.items():
        metrics.add(name, float(values.detach()[mask].float().sum()))
        metrics.add(f"{name}/tokens", int(mask.sum()))


def _kl_in_loss(variant: Variant) -> bool:
    return variant.uses_kl and variant.kl_place == "loss"


def _kl(variant: Variant, logps: Tensor, ref_logps: Tensor, old_logps: Tensor) -> Tensor:
    assert variant.kl is not None
    extra = {"old_logps": old_logps} if variant.kl.takes("old_logps") else {}
    result: Tensor = variant.kl(logps, ref_logps, **extra)
    check_shape(variant.kl, result, logps.shape)
    return result


def _limit(variant: Variant, batch: Batch) -> dict[str, int]:
    return {"max_tokens": batch.max_tokens} if variant.aggregator.takes("max_tokens") else {}


class RowTensors(dict[str, Tensor]):
    """A minibatch's tensors as rows: [B, T], and [B] for `lengths`, `truncated`, `rewards`."""

    @classmethod
    def of(cls, batch: Batch, advantages: Tensor) -> "RowTensors":
        """All filled fields that an objective may ask for."""
        names = ("mask", "behaviour_logps", "old_logps", "ref_logps", "values", "sum_squared_probs", "lengths",
                 "truncated", "rewards")  # fmt: skip
        filled = {name: getattr(batch, name) for name in names}
        return cls(
            {name: x.flatten(0, 1) for name, x in filled.items() if x is not None},
            advantages=advantages.flatten(0, 1),
        )

    def at(self, rows: Tensor) -> dict[str, Tensor]:
        """These rows of every tensor."""
        return {name: x[rows] for name, x in self.items()}


def forward(
    policy: Policy, batch: Batch, rows: Tensor, *, temperature: float, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities [b, T] of these rows, and entropies if asked; each prompt among them is computed once."""
    tokens, mask = batch.rows("response_tokens"), batch.rows("response_mask")
    prompt_of = (rows // batch.group_size).tolist()
    local = {p: i for i, p in enumerate(dict.fromkeys(prompt_of))}
    return policy.logps(
        [batch.prompt_tokens[p] for p in local],
        [tokens[row][mask[row]] for row in rows.tolist()],
        [local[p] for p in prompt_of],
        width=mask.shape[-1], temperature=temperature, entropy=entropy,
    )  # fmt: skip


def micro_batches(batch: Batch, rows: Tensor, micro_tokens: int, whole_groups: bool = False) -> Iterator[Tensor]:
    """Split rows, in order, into runs of at most `micro_tokens` tokens, prompts counted once; at least one unit each.

    A unit is a row, or with `whole_groups` all of a group's rows that follow each other.
    """
    lengths = batch.lengths.flatten().tolist()
    units: list[tuple[int, list[int]]] = []
    for row in rows.tolist():
        prompt = row // batch.group_size
        if whole_groups and units and units[-1][0] == prompt:
            units[-1][1].append(row)
        else:
            units.append((prompt, [row]))
    run: list[int] = []
    size, last_prompt = 0, -1
    for prompt, members in units:
        responses = sum(lengths[row] for row in members)
        cost = responses + (len(batch.prompt_tokens[prompt]) if prompt != last_prompt else 0)
        if run and size + cost > micro_tokens:
            yield torch.tensor(run)
            run, size = [], 0
            cost = responses + len(batch.prompt_tokens[prompt])
        run += members
        size += cost
        last_prompt = prompt
    if run:
        yield torch.tensor(run)
