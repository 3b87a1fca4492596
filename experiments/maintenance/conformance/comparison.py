"""One row of the table: ours and theirs on the same cases, and their relative difference."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal, TypeAlias

import torch
from torch import Tensor

from experiments.maintenance.conformance.cases import HOLES, PLAIN, SEEDS, Case, Flavour, make_case

Reference: TypeAlias = Literal["TRL", "verl", "OpenRLHF"]
REFERENCES: Final[tuple[Reference, ...]] = ("TRL", "verl", "OpenRLHF")

FLOAT64: Final = 1e-6
FLOAT32: Final = 1e-5
"""Tolerances, relative: where the reference computes in the precision it is given, and where it casts to float32."""


@dataclass(frozen=True)
class Figures:
    """What one side computes: values, and their gradient in the present log-probabilities where there is one."""

    values: Tensor
    gradient: Tensor | None = None


Settings: TypeAlias = dict[str, Any]
"""Keyword arguments that several rows share."""

Sides: TypeAlias = Callable[[Case], tuple[Figures, Figures]]
"""Ours and theirs on one case."""


@dataclass(frozen=True)
class Comparison:
    """A part or variant of ours against what a reference has for it."""

    kind: str
    name: str
    reference: Reference
    ours: str
    """Our part with its hyper-parameters as compared."""
    theirs: str
    sides: Sides = field(repr=False)
    note: str = ""
    tolerance: float = FLOAT64
    flavours: Sequence[Flavour] = (PLAIN, HOLES)


@dataclass(frozen=True)
class Measured:
    """The worst relative errors of a comparison over all its cases, or why there are none."""

    values: float = 0.0
    gradient: float | None = None
    failure: str = ""
    tolerance: float = FLOAT64

    @property
    def is_equal(self) -> bool:
        """Whether every case agreed."""
        return not self.failure and max(self.values, self.gradient or 0.0) <= self.tolerance


def measure(comparison: Comparison) -> Measured:
    """Run a comparison on all its cases."""
    values, gradient, something = 0.0, None, False
    for flavour in comparison.flavours:
        for seed in range(SEEDS):
            try:
                ours, theirs = comparison.sides(_case(seed, flavour))
            # a reference that raises is a cell of the matrix, not the end of the run
            except Exception as error:
                return Measured(failure=f"{type(error).__name__}: {error}", tolerance=comparison.tolerance)
            share = 1.0 if comparison.tolerance > FLOAT64 else 0.01
            values = max(values, relative_error(ours.values, theirs.values, share))
            something |= bool(theirs.values.any())
            if ours.gradient is not None and theirs.gradient is not None:
                gradient = max(gradient or 0.0, relative_error(ours.gradient, theirs.gradient, share))
                something &= bool(theirs.gradient.any())
    failure = "" if something else "nothing but zeros was compared"
    return Measured(values, gradient, failure, comparison.tolerance)


@cache
def _case(seed: int, flavour: Flavour) -> Case:
    return make_case(seed, flavour)


def relative_error(ours: Tensor, theirs: Tensor, share: float) -> float:
    """The largest |ours - theirs| relative to the larger of the two, entry by entry; infinite if one is not finite.

    An entry smaller than a `share` of the median one counts as that large: zeros of ours are exact, theirs may be what
    rounding left, and differences of float32 numbers keep the rounding of what was subtracted.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"ours has shape {list(ours.shape)}, theirs {list(theirs.shape)}")
    if not (torch.isfinite(ours).all() and torch.isfinite(theirs).all()):
        return float("inf")
    ours, theirs = ours.double(), theirs.double()
    sizes = theirs.abs()
    floor = share * float(sizes[sizes > 0].median()) if bool(theirs.any()) else 1.0
    return float(((ours - theirs).abs() / torch.maximum(ours.abs(), sizes).clamp(min=floor)).max())


def differentiated(function: Callable[[Tensor], Tensor], logps: Tensor) -> Figures:
    """A scalar function of log-probabilities [B, T], with its gradient."""
    leaf = logps.detach().clone().requires_grad_()
    value = function(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return Figures(value.detach()[None], gradient)
