"""From a batch with advantages to new weights: forward passes, token losses by micro-batch, optimizer steps."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from core.distributed import all_reduce_sum, assign_by_cost, gather, ranks
from core.errors import TrainingError
from core.loop.loss import counted_rows, reads_present_policy, step_rows, step_weights, token_loss
from core.loop.rows import RowTensors
from core.loop.run_state import (
    Backward,
    RunState,
)
from core.model.optimizer import Stepper
from core.model.policy import Policy
from core.model.truncation import Truncation
from core.parts.batch import Batch
from core.parts.options import AggregatorOptions, ObjectiveOptions
from core.parts.variant import Variant
from core.randomness import torch_generator

MAX_FAILED_UPDATES: Final = 10
"""Updates in a row without a finite gradient before a run stops."""


@torch.no_grad()
def compute_logps(policy: Policy, batch: Batch, *, temperature: float, micro_tokens: int) -> Tensor:
    """Log-probabilities [P, G, T] of the responses under a policy, without gradient."""

    def logps(rows: Tensor) -> Tensor:
        return forward(policy, batch, rows, temperature=temperature, entropy=False)[0]

    return map_micro_batches(batch, logps, micro_tokens)


@torch.no_grad()
def compute_entropy(policy: Policy, batch: Batch, *, temperature: float, micro_tokens: int) -> Tensor:
    """Entropies [P, G, T] of a policy's next-token distributions along the responses, in nats, without gradient."""

    def entropies(rows: Tensor) -> Tensor:
        entropy = forward(policy, batch, rows, temperature=temperature, entropy=True)[1]
        assert entropy is not None
        return entropy

    return map_micro_batches(batch, entropies, micro_tokens)


@torch.no_grad()
def compute_sum_squared_probs(policy: Policy, batch: Batch, *, temperature: float, micro_tokens: int) -> Tensor:
    """Sum of squared next-token probabilities [P, G, T] at every token of the responses, without gradient."""
    width = batch.response_mask.shape[-1]

    def sums(rows: Tensor) -> Tensor:
        tokens, kept = ragged_tokens(batch, rows, policy.device), support_of(batch, rows, policy.device)
        return policy.sum_squared_probs(*tokens, width=width, temperature=temperature, kept=kept)

    return map_micro_batches(batch, sums, micro_tokens)


@torch.no_grad()
def compute_support_logmass(
    policy: Policy, batch: Batch, truncation: Truncation, *, temperature: float, micro_tokens: int
) -> Tensor:
    """log S [P, G, T] of what a truncation keeps of the policy's distribution at every token of the responses."""
    width = batch.response_mask.shape[-1]

    def logmass(rows: Tensor) -> Tensor:
        tokens = ragged_tokens(batch, rows, policy.device)
        return policy.support_logmass(*tokens, width=width, temperature=temperature, truncation=truncation)

    return map_micro_batches(batch, logmass, micro_tokens)


def map_micro_batches(batch: Batch, compute: Callable[[Tensor], Tensor], micro_tokens: int) -> Tensor:
    """What `compute` gives [b, T] for micro-batches of rows, [P, G, T]; the ranks take turns."""
    out = torch.zeros(batch.response_mask.shape).flatten(0, 1)
    micros, turns = assign_micro_batches(batch, torch.arange(len(out)), micro_tokens)
    for rows in turns:
        if rows is None:
            compute(min(micros, key=len))
        else:
            out[rows] = compute(rows).cpu()
    all_reduce_sum([out])
    return out.view(batch.response_mask.shape)


def assign_micro_batches(
    batch: Batch, rows: Tensor, micro_tokens: int, whole_groups: bool = False
) -> tuple[list[Tensor], list[Tensor | None]]:
    """All micro-batches, and this rank's: None for a pass of loss 0, which keeps ranks in step."""
    lengths = batch.lengths.flatten()
    if ranks() > 1:  # small enough that every rank has something to do
        prompts = sum(len(batch.prompt_tokens[p]) for p in set((rows // batch.group_size).tolist()))
        micro_tokens = min(micro_tokens, -(-(int(lengths[rows].sum()) + prompts) // ranks()))
    micros = list(micro_batches(batch, rows, micro_tokens, whole_groups))
    return micros, assign_by_cost(micros, [int(lengths[micro].sum()) for micro in micros])


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
        """Sums as means, per counted token or other update (`name/count`), else per step taken; None if not finite."""
        out: dict[str, float | None] = {}
        for name, total in self.sums.items():
            if not name.endswith("/count"):
                count = self.sums.get(f"{name}/count", self.steps - self.skipped)
                out[name] = total / count if count and math.isfinite(total) else None
        return out


def update(run: RunState, optimizer: Stepper, batch: Batch, advantages: Tensor, rate: float) -> UpdateMetrics:
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
    run: RunState,
    optimizer: Stepper,
    batch: Batch,
    advantages: Tensor,
    rate: float,
    draw: torch.Generator,
    metrics: UpdateMetrics,
) -> None:
    """One optimizer step on all rows of `batch`: weights once, then gradients micro-batch by micro-batch."""
    loss = accumulate_gradients(
        run.policy,
        run.recipe.variant,
        batch,
        advantages,
        draw,
        metrics,
        temperature=run.recipe.temperature,
        micro_tokens=run.recipe.micro_tokens,
        backward=optimizer.backward,
    )
    metrics.steps += 1
    for learn in run.learners:
        for name, value in learn(batch, optimizer.backward).items():
            metrics.add(name, value)
            metrics.add(f"{name}/count", 1)  # made whether or not the policy takes its step
    if loss is None:
        optimizer.clear()  # a learner may have left a gradient: no step is taken on that alone
        metrics.skipped += 1
        return
    norm = optimizer.step(rate)
    run.failed_updates = 0 if math.isfinite(norm) else run.failed_updates + 1
    if run.failed_updates >= MAX_FAILED_UPDATES:
        variant = run.recipe.variant
        raise TrainingError(
            f"{run.failed_updates} updates in a row had a gradient that is not finite (loss {loss}), at step "
            f"{batch.step} of variant '{variant.name}' with objective {variant.objective!r} and aggregator "
            f"{variant.aggregator!r}; the run stops"
        )
    if run.failed_updates:
        metrics.skipped += 1
        return
    run.policy.version += 1
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
    backward: Backward,
) -> float | None:
    """Hand the loss of every micro-batch to `backward`; returns their sum, or None when no token counts.

    Weights come from the aggregator over all rows, so any split into micro-batches adds up to the same gradient.
    """
    rows, objective = RowTensors.of(batch, advantages, policy.version), variant.objective
    present: Tensor | None = None
    if reads_present_policy(variant):
        present = compute_logps(policy, batch, temperature=temperature, micro_tokens=micro_tokens).flatten(0, 1)
    if "entropy" in ObjectiveOptions.of(objective).prepare_takes:
        rows["entropy"] = compute_entropy(policy, batch, temperature=temperature, micro_tokens=micro_tokens).flatten(
            0, 1
        )
    sampled = int(rows["mask"].sum())
    rows, weights = step_rows(variant, batch, rows, present, draw)
    if variant.corrections:
        metrics.add("correction_dropped", sampled - int(rows["mask"].sum()))
        metrics.add("correction_dropped/count", sampled)
    whole_groups = ObjectiveOptions.of(objective).level == "group"
    counted = counted_rows(variant, batch, rows)
    metrics.trained_tokens += int(rows["mask"][counted].sum())
    micros, turns = assign_micro_batches(batch, counted.nonzero()[:, 0], micro_tokens, whole_groups)
    if not micros:
        return None
    counts, total = UpdateMetrics({}), 0.0
    for turn in turns:
        micro = min(micros, key=len) if turn is None else turn
        if not AggregatorOptions.of(variant.aggregator).split_invariant:
            turns_of = rows["turns"][micro] if "turns" in rows else None
            weights[micro] = step_weights(variant, batch, rows.denominator[micro], turns_of) / len(micros)
        with_entropy = variant.entropy_coef != 0 or "entropy" in objective.parameters
        logps, entropy = forward(policy, batch, micro, temperature=temperature, entropy=with_entropy)
        tensors = rows.at(micro)
        if entropy is not None:
            tensors["entropy"] = entropy
        losses, info = token_loss(variant, tensors, logps, batch.group_size)
        # in the log-probs' precision: weights of float64 would make the whole backward pass so
        loss = (weights[micro].to(logps.dtype) * losses).sum()
        backward(loss if turn is not None else 0.0 * loss)
        if turn is None:
            continue
        total += float(loss.detach())
        if metrics.steps > 0:
            info.pop("sampler_mismatch", None)  # after the first update it would measure that update
        _count(counts, tensors["mask"], info)
    for sums in gather([counts.sums]):
        for name, value in sums.items():
            metrics.add(name, value)
    return sum(gather([total]))


def _count(metrics: UpdateMetrics, mask: Tensor, info: Mapping[str, Tensor]) -> None:
    """Add per-token quantities over the tokens that count."""
    for name, values in info.items():
        metrics.add(name, float(values.detach()[mask].float().sum()))
        metrics.add(f"{name}/count", int(mask.sum()))


def forward(
    policy: Policy, batch: Batch, rows: Tensor, *, temperature: float, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities [b, T] of these rows, and entropies if asked; each prompt among them is computed once.

    Of the distributions that truncated sampling left, where the batch has their `support`. On the CPU, as a batch is:
    token ids go to the policy's device, and this comes back, with the gradients' way to it.
    """
    tokens, kept = ragged_tokens(batch, rows, policy.device), support_of(batch, rows, policy.device)
    width = batch.response_mask.shape[-1]
    logps, entropies = policy.logps(*tokens, width=width, temperature=temperature, entropy=entropy, kept=kept)
    return logps.cpu(), None if entropies is None else entropies.cpu()


def support_of(batch: Batch, rows: Tensor, device: torch.device) -> Tensor | None:
    """The kept tokens [N, V] at each token of these rows in order, where the trainer's distributions are cut down."""
    if batch.support is None:
        return None
    return batch.rows("support")[rows][batch.rows("response_mask")[rows]].to(device, non_blocking=True)


def ragged_tokens(batch: Batch, rows: Tensor, device: torch.device) -> tuple[list[Tensor], list[Tensor], list[int]]:
    """The prompts of these rows, each once, the responses, and which prompt each response continues; as token ids.

    They are on `device`, responses in one copy.
    """
    mask = batch.rows("response_mask")[rows]
    flat = batch.rows("response_tokens")[rows][mask].to(device, non_blocking=True)
    responses = torch.split(flat, mask.sum(-1).tolist())
    prompt_of = (rows // batch.group_size).tolist()
    local = {p: i for i, p in enumerate(dict.fromkeys(prompt_of))}
    return (
        [batch.prompt_tokens[p].to(device, non_blocking=True) for p in local],
        list(responses),
        [local[p] for p in prompt_of],
    )


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
