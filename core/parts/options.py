"""Options of a part's decorator beside the hyper-parameters, by kind: `AdvantageOptions.of(part).needs`.

Also what follows from the options of all providers: which fields of a batch can be filled.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, TypeAlias

from core.parts.registry import PROVIDERS, Part

FILLED_FIELDS: Final = ("greedy_rewards", "ref_logps", "values", "sum_squared_probs", "token_rewards", "step_ends")
"""Batch fields that a provider fills when a part asks for them, beside `old_logps`, which the core fills."""

FieldShape: TypeAlias = Literal["[P]", "[P, G]", "[P, G, T]"]


class Options:
    """Of one kind of part."""

    @classmethod
    def of(cls, part: Part) -> Self:
        """The options of a part of this kind; raises `TypeError` for a part of another."""
        if not isinstance(part.options, cls):
            raise TypeError(f"the {part.kind} '{part.name}' has no {cls.__name__}")
        return part.options


@dataclass(frozen=True)
class AdvantageOptions(Options):
    """Of `@advantage`."""

    needs: tuple[str, ...] = ()
    """Batch fields to be filled first."""
    min_group: int = 2
    """The smallest group size at which it is defined."""
    scope: Literal["group", "batch"] = "group"
    """What it reads."""
    state: Callable[[], Any] | None = None
    """Makes the initial state of a running estimator."""
    target: Callable[..., Any] | None = None
    """What a critic is to predict."""
    target_takes: frozenset[str] = frozenset()
    """Hyper-parameters of the estimator that the target is called with."""

    def first_state(self) -> Any:
        """The state that a running estimator starts in; None for any other."""
        return self.state() if self.state else None


@dataclass(frozen=True)
class ObjectiveOptions(Options):
    """Of `@objective`."""

    level: Literal["row", "group"] = "row"
    """Whether tensors come and go as [B, T] or as [P, G, T]."""
    prepare: Callable[..., Any] | None = None
    """Runs once per optimizer step on all rows."""
    prepare_takes: tuple[str, ...] = ()
    """Tensors that `prepare` asks for by name."""
    prepare_hyper: frozenset[str] = frozenset()
    """Hyper-parameters of the objective that `prepare` is called with."""
    zero_at_zero_advantage: bool = False
    """Whether a row whose advantages are 0 has no loss and no gradient."""


@dataclass(frozen=True)
class AggregatorOptions(Options):
    """Of `@aggregator`."""

    split_invariant: bool = True
    """Whether its weights are those of the whole step; else of each micro-batch by itself."""


@dataclass(frozen=True)
class CorrectionOptions(Options):
    """Of `@correction`."""

    weights: bool = True
    """Whether its factors carry the importance ratio; False where it only takes tokens out of the loss."""
    scope: Literal["row", "step"] = "row"
    """What it reads: one response, or all those of an optimizer step."""


@dataclass(frozen=True)
class CreditOptions(Options):
    """Of `@credit`."""

    needs: tuple[str, ...] = ()
    """Batch fields to be filled first."""


@dataclass(frozen=True)
class RewardOptions(Options):
    """Of `@reward`."""

    parallel: bool = False
    """Whether it may be called from several threads at a time."""
    together: bool = False
    """Whether all problems and responses are handed in at once."""
    start: Callable[..., str] | None = None
    """Called before anything runs; returns a text for the manifest."""


@dataclass(frozen=True)
class ProviderOptions(Options):
    """Of `@provider`."""

    fills: str
    """The batch field that it fills."""
    cost: str
    """What that takes, in words."""
    shape: FieldShape = "[P, G, T]"
    """Of a field of its own, which no batch has by itself."""


def own_fields() -> dict[str, FieldShape]:
    """Batch fields that a registered provider adds to those of every batch, and their shapes."""
    every = (ProviderOptions.of(part) for part in PROVIDERS.values())
    return {options.fills: options.shape for options in every if options.fills not in FILLED_FIELDS}


def fillable_fields() -> tuple[str, ...]:
    """Batch fields that a provider may be asked to fill."""
    return (*FILLED_FIELDS, *own_fields())
