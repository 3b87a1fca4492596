"""AdamW with a schedule, and float32 master weights for policies kept in less."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from core.distributed import all_reduce_sum
from core.parts.contracts import setting
from core.parts.settings import NOT_NEGATIVE, POSITIVE, Range

Schedule: TypeAlias = Literal["constant", "linear", "cosine"]

LIMITS: Final = {
    "learning_rate": NOT_NEGATIVE,
    "betas": Range(0, 1, "high"),
    "eps": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "warmup_steps": NOT_NEGATIVE,
    "max_grad_norm": POSITIVE,
}
"""Between which numbers settings of an optimizer must lie."""


@dataclass(frozen=True)
class OptimizerSettings:
    """Hyper-parameters of AdamW; `schedule` is `constant`, `linear` or `cosine` (0 just after the last step)."""

    learning_rate: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    warmup_steps: int
    schedule: str
    max_grad_norm: float

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of rollout step `step` (from 1) of `steps`: linear warm-up, then the schedule."""
        if step <= self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        progress = (step - self.warmup_steps - 1) / max(1, steps - self.warmup_steps)
        factor = {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}
        return self.learning_rate * factor[self.schedule]

    def adam(self, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
        """The optimizer of these parameters; every step sets its own rate."""
        return torch.optim.AdamW(
            parameters,
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=True,
        )


@setting(limits=LIMITS)
def adamw(
    *,
    learning_rate: float = 1e-6,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    warmup_steps: int = 0,
    schedule: Schedule = "constant",
    max_grad_norm: float = 1.0,
) -> OptimizerSettings:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101); warm-up and schedule count rollout steps.

    A rate of 0 leaves the model as it is: the control that learning is measured against.
    """
    low, high = betas
    return OptimizerSettings(learning_rate, (low, high), eps, weight_decay, warmup_steps, schedule, max_grad_norm)


class Stepper(Protocol):
    """What an update needs: gradients of any number of micro-batches, then one step over their sum on all ranks."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a micro-batch to those gathered."""
        ...

    def step(self, rate: float) -> float:
        """Clip, step, clear; returns the norm before clipping. One that is not finite leaves the weights alone."""
        ...

    def clear(self) -> None:
        """Forget the gradients gathered so far."""
        ...


class Optimizer:
    """One optimizer step over gradients gathered from any number of micro-batches.

    Weights below float32 get float32 masters, which gather the gradients and take the step: at a learning rate of
    1e-5 a bfloat16 weight would not move at all. Sampling and training then share one set of low-precision weights.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], settings: OptimizerSettings) -> None:
        self._settings = settings
        self._weights = [p for p in parameters if p.requires_grad]
        self._has_masters = any(p.dtype != torch.float32 for p in self._weights)
        self._masters = (
            [nn.Parameter(p.detach().float()) for p in self._weights] if self._has_masters else self._weights
        )
        self.adam = settings.adam(self._masters)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a micro-batch to the masters', in float32."""
        loss.backward()  # type: ignore[no-untyped-call]
        if not self._has_masters:
            return
        for weight, master in zip(self._weights, self._masters, strict=True):
            if weight.grad is not None:
                gradient = weight.grad.float()
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                weight.grad = None

    def step(self, rate: float) -> float:
        """Add up over the ranks, clip, step, clear; returns the gradient norm before clipping.

        A non-finite norm leaves the weights alone.
        """
        # those of shards are added up already
        all_reduce_sum([m.grad for m in self._masters if m.grad is not None and not isinstance(m.grad, DTensor)])
        total = nn.utils.clip_grad_norm_(self._masters, self._settings.max_grad_norm)
        norm = float(total.full_tensor() if isinstance(total, DTensor) else total)
        if math.isfinite(norm):
            for group in self.adam.param_groups:
                group["lr"] = rate
            self.adam.step()
            if self._has_masters:
                with torch.no_grad():
                    for weight, master in zip(self._weights, self._masters, strict=True):
                        weight.copy_(master)
        self.clear()
        return norm

    def clear(self) -> None:
        """Forget the gradients gathered so far."""
        self.adam.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on bit-identically, the weights excepted when there are no masters."""
        masters: list[Tensor] = [m.detach() for m in self._masters] if self._has_masters else []
        return {"adam": self.adam.state_dict(), "masters": masters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.adam.load_state_dict(state["adam"])
        with torch.no_grad():
            for master, saved in zip(self._masters if self._has_masters else [], state["masters"], strict=True):
                master.copy_(saved)
