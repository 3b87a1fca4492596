"""One optimizer step on tensors alone: what the checks of objectives, corrections and variants have in common."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from core import Batch, Part, Variant
from core.loop.correct import correct
from core.loop.loss import prepare, token_loss
from core.loop.rows import RowTensors
from core.parts.options import AdvantageOptions, AggregatorOptions, ObjectiveOptions
from experiments.check import examples as ex


@cache
def _simplest() -> Mapping[str, Part]:
    """The simplest parts, to complete a variant of the part that is checked."""

    def rewards(batch: Batch) -> Tensor:
        return batch.rewards

    def weighted(logps: Tensor, advantages: Tensor) -> Tensor:
        return -advantages * logps

    def mean(mask: Tensor) -> Tensor:
        return mask.float() / mask.sum().clamp(min=1)

    # resolved: they are not registered, so gin has no bindings for them
    return {
        "advantage": Part("advantage", rewards, AdvantageOptions(min_group=1), is_resolved=True),
        "objective": Part("objective", weighted, ObjectiveOptions(zero_at_zero_advantage=True), is_resolved=True),
        "aggregator": Part("aggregator", mean, AggregatorOptions(), is_resolved=True),
    }


def variant_of(**parts: Any) -> Variant:
    """A variant of these parts, and the simplest ones elsewhere."""
    return Variant(**{**_simplest(), **parts})


@dataclass(frozen=True, eq=False)
class Step:
    """Rows of one optimizer step and the policy's log-probabilities of them, [B, T]."""

    variant: Variant
    rows: RowTensors
    logps: Tensor
    group_size: int

    @classmethod
    def of(cls, variant: Variant, batch: Batch, advantages: Tensor, logps: Tensor) -> "Step":
        """Everything that the loop hands to the objective; advantages and log-probabilities are [P, G, T]."""
        flat = logps.flatten(0, 1)
        rows = correct(variant, RowTensors.of(batch, advantages, ex.VERSION), flat.detach())
        step = cls(variant, rows, flat, batch.group_size)
        if ObjectiveOptions.of(variant.objective).prepare:
            rows = step.prepared()
        draw = torch.Generator().manual_seed(5)
        # the loop gets entropies from the forward pass, after whatever is computed once a step
        rows["entropy"] = torch.rand(flat.shape, generator=draw)
        return replace(step, rows=rows)

    def prepared(self) -> RowTensors:
        """The rows with what the objective computes once per optimizer step."""
        without = RowTensors({name: x for name, x in self.rows.items() if name not in ("prepared", "entropy")})
        generator = torch.Generator().manual_seed(0)
        result = prepare(self.variant, without, self.logps, generator)
        return RowTensors({**self.rows, "prepared": result})

    def having(self, logps: Tensor | None = None, **rows: Tensor) -> "Step":
        """The same step with other tensors; what is prepared stays as it was."""
        return replace(self, rows=RowTensors({**self.rows, **rows}), logps=self.logps if logps is None else logps)

    def at(self, rows: Tensor) -> "Step":
        """These rows alone, as in a micro-batch."""
        return replace(self, rows=self.rows.at(rows), logps=self.logps[rows])

    def losses(self) -> tuple[Tensor, Tensor]:
        """Token losses [B, T], and the gradient of their sum in the log-probabilities."""
        logps = self.logps.detach().clone().requires_grad_()
        losses, _ = token_loss(self.variant, self.rows, logps, self.group_size)
        if not losses.requires_grad:
            return losses, torch.zeros_like(logps)
        (gradient,) = torch.autograd.grad(losses.sum(), logps, allow_unused=True)
        return losses.detach(), torch.zeros_like(logps) if gradient is None else gradient


def make_step(
    variant: Variant,
    *,
    groups: int = 3,
    samples: int = 4,
    seed: int = 0,
    distance: float = 0.1,
    holes: bool = True,
    by_token: bool = True,
) -> Step:
    """A random step, whose policy has moved by about `distance` in each log-probability since the rollout."""
    batch = ex.make_batch(groups, samples, seed=seed, holes=holes)
    draw = torch.Generator().manual_seed(seed)
    shape = batch.mask.shape
    advantages = torch.randn(shape if by_token else (*shape[:2], 1), generator=draw).expand(shape)
    old = batch.require("old_logps")
    logps = (old + distance * torch.randn(shape, generator=draw)).clamp(max=-1e-3) if distance else old
    return Step.of(variant, batch, advantages, torch.where(batch.response_mask, logps, 0.0))
