"""A method as a value: the parts of the maths that together make a published algorithm, and its axis card."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from types import MappingProxyType
from typing import Any, Final, Literal

from core.errors import GrpoLabError
from core.parts.declaring import Function, bare_or_called, check_defaults, check_signature
from core.parts.options import AdvantageOptions, CorrectionOptions, CreditOptions, ObjectiveOptions
from core.parts.registry import Part, as_part, place_of, register
from core.parts.settings import COUNT, NOT_NEGATIVE, POSITIVE, Form, Range, SettingError, annotations, fault, form_of

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
LIMITS: Final[Mapping[str, Range]] = MappingProxyType(
    {
        "kl_coef": NOT_NEGATIVE,
        "filter_rounds": Range(1, 10_000),
        "reward_clip": POSITIVE,
        "kl_target": POSITIVE,
        "kl_horizon": COUNT,
    }
)
"""Between which numbers fields of a variant must lie, and hyper-parameters of the same names."""
CHAINS: Final = ("correction", "credit", "shaping")
"""Kinds of parts of which a variant has any number."""
ANCHORS: Final[Mapping[str, str]] = MappingProxyType(
    {"sampler": "the sampler's log-probabilities", "loglinear": "between the sampler's and the present ones, by age"}
)
"""What ratios are against, where that is not the trainer's log-probabilities before the update."""


def chain(value: Any, kind: str, where: str) -> tuple[Part, ...]:
    """The parts of a chain: of a sequence of them, a single one or None."""
    parts = () if value is None else value if isinstance(value, Sequence) else (value,)
    return tuple(as_part(part, kind, where) for part in parts)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Maths only: what a step does with a rollout. Everything else a run needs is its recipe.

    `kl_place`: whether the KL penalty is a term of the loss or is taken off the reward. `anchor` is what ratios are
    against: the trainer's log-probabilities before the rollout's updates; those of the sampler; or `"loglinear"`,
    between the sampler's and the present ones by the tokens' age (A-3PO, arXiv:2512.06547). `correction` is one part or
    a chain: each reads the same rows, their factors multiply, and a token stays that all of them keep. `denominator`:
    whether an aggregator counts all tokens, or those that are `"kept"`. `credit` transforms the advantages, one part
    after the other.
    `selection` chooses responses of every group, with advantages among those ("after") or among all of the group
    ("before"): `statistics`. `filter` chooses the groups
    to train on; sampling goes on for at most `filter_rounds` rounds until the batch is full again. `truncated="mask"`
    takes responses that were cut at the limit out of the loss, not out of the group's statistics. `reward_clip` bounds
    |reward| before shaping. `value_loss` is what a critic minimises, where the advantage asks for its values. With a
    `kl_target`, in nats a response, the coefficient of a penalty in the reward is adapted after every rollout, within
    about `kl_horizon` responses.
    """

    advantage: Part
    objective: Part
    aggregator: Part
    kl: Part | None = None
    kl_coef: float = 0.0
    kl_place: Literal["loss", "reward"] = "loss"
    correction: Part | Sequence[Part] | None = ()
    anchor: Literal["trainer", "sampler", "loglinear"] = "trainer"
    denominator: Literal["all", "kept"] = "all"
    credit: Part | Sequence[Part] | None = ()
    selection: Part | None = None
    statistics: Literal["before", "after"] = "after"
    filter: Part | None = None
    filter_rounds: int = 1
    shaping: Sequence[Part] = ()
    entropy_coef: float = 0.0
    reward_clip: float | None = None
    value_loss: Part | None = None
    kl_target: float | None = None
    kl_horizon: int = 10_000
    truncated: Literal["keep", "mask"] = "keep"
    name: str = ""

    def __post_init__(self) -> None:
        where = f"variant '{self.name}'" if self.name else "Variant"
        for kind in ("advantage", "objective", "aggregator", "kl", "selection", "filter", "value_loss"):
            value = getattr(self, kind)
            optional = kind not in ("advantage", "objective", "aggregator")
            if not (optional and value is None):
                object.__setattr__(self, kind, as_part(value, kind, f"{where}: {kind}"))
        for kind in CHAINS:
            object.__setattr__(self, kind, chain(getattr(self, kind), kind, f"{where}: {kind}"))
        for name, form in _forms().items():
            value = getattr(self, name)
            if must := fault(value, form):
                raise SettingError(f"{self.name or 'Variant'}.{name}", value, must)
        if self.kl_coef > 0 and self.kl is None:
            raise GrpoLabError(f"{where}: kl_coef={self.kl_coef} needs a kl, e.g. @k3")
        if self.kl_target is not None and (not self.uses_kl or self.kl_place != "reward"):
            raise GrpoLabError(
                f"{where}: kl_target={self.kl_target} adapts the penalty in the reward: give a kl, a kl_coef to start "
                "from, above 0, and kl_place='reward'"
            )
        self._check_anchor(where)

    def _check_anchor(self, where: str) -> None:
        """Refuse an anchor that nothing reads, and a ratio that would count twice."""
        takes = {*self.objective.parameters, *ObjectiveOptions.of(self.objective).prepare_takes}
        if self.anchor != "trainer" and "old_logps" not in takes:
            raise GrpoLabError(
                f"{where}: anchor={self.anchor!r} would change nothing: objective '{self.objective.name}' takes no "
                "old_logps; leave it out, or give an objective with a ratio, e.g. @clip"
            )
        weighing = [part.name for part in self.corrections if CorrectionOptions.of(part).weights]
        if self.anchor == "sampler" and weighing:
            raise GrpoLabError(
                f"{where}: anchor='sampler' has the ratio of trainer to sampler in it already, and correction "
                f"'{weighing[0]}' would count it twice: leave one out, or give a correction that only takes tokens out "
                "(weights=False)"
            )

    @property
    def corrections(self) -> tuple[Part, ...]:
        """The chain of corrections."""
        return chain(self.correction, "correction", self.name)

    @property
    def credits(self) -> tuple[Part, ...]:
        """The chain of credit after the advantage estimator."""
        return chain(self.credit, "credit", self.name)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every part in use."""
        single = (
            self.advantage,
            self.objective,
            self.aggregator,
            self.kl,
            self.selection,
            self.filter,
            self.value_loss,
        )
        return (*(part for part in single if part is not None), *self.corrections, *self.credits, *self.shaping)

    @property
    def uses_kl(self) -> bool:
        """Whether the KL penalty acts: at a coefficient of 0 the reference policy is not even loaded."""
        return self.kl is not None and self.kl_coef > 0

    @property
    def needs(self) -> frozenset[str]:
        """Batch fields that must be filled before the update."""
        needed = set(AdvantageOptions.of(self.advantage).needs) | set(self.objective.parameters)
        needed |= set(ObjectiveOptions.of(self.objective).prepare_takes)
        if self.uses_kl:
            needed |= {"ref_logps"}
        for part in self.corrections:
            needed |= set(part.parameters)
        for part in self.credits:
            needed |= set(CreditOptions.of(part).needs)
        if self.anchor != "trainer":
            needed |= {"behaviour_logps"}
        return frozenset(needed)

    def resolved(self) -> "Variant":
        """The same variant with every hyper-parameter of every part fixed to its present value."""
        fixed: dict[str, Any] = {kind: tuple(part.resolved() for part in getattr(self, kind)) for kind in CHAINS}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Part):
                fixed[field.name] = value.resolved()
        return replace(self, **fixed)

    def card(self) -> Mapping[str, str]:
        """The axis card: what the variant does, axis by axis, with the values in force."""
        card: dict[str, str] = {}
        for part in (self.advantage, self.objective, self.aggregator):
            card |= part.describe() or {part.kind: repr(part)}
        card["KL"] = f"{self.kl!r} in the {self.kl_place}, coefficient {self.kl_coef:g}" if self.uses_kl else "none"
        if self.kl_target is not None:
            card["KL"] += f" at first, adapted to {self.kl_target:g} nats a response"
        if self.value_loss is not None:
            card["value loss"] = repr(self.value_loss)
        if self.credits:
            card["credit"] = ", ".join(map(repr, self.credits))
        if self.anchor != "trainer":
            card["anchor"] = ANCHORS[self.anchor]
        card["correction"] = ", ".join(map(repr, self.corrections)) or "none"
        if self.corrections and self.denominator != "all":
            card["correction"] += ", tokens that are kept are those counted"
        if self.selection is not None:
            card["selection"] = f"{self.selection!r}, statistics {self.statistics} it"
        rounds = f", at most {self.filter_rounds} rounds" if self.filter else ""
        card["filter"] = f"{self.filter!r}{rounds}" if self.filter else "none"
        card["shaping"] = ", ".join(map(repr, self.shaping)) or "none"
        card["truncated responses"] = self.truncated
        card["entropy bonus"] = f"{self.entropy_coef:g}" if self.entropy_coef else "none"
        card["reward clip"] = f"{self.reward_clip:g}" if self.reward_clip is not None else "none"
        return card

    def changes(self, other: "Variant") -> list[str]:
        """What was exchanged between two variants, part by part, with the axes that this changed."""
        changed: list[str] = []
        listed: set[str] = set()
        for name in ("advantage", "objective", "aggregator"):
            for part in (getattr(other, name), getattr(self, name)):
                listed |= {*part.describe(), part.kind}  # one without axes has a line of its kind's name on the card
            axes = differences(getattr(other, name).describe(), getattr(self, name).describe())
            if getattr(other, name) != getattr(self, name) or axes:
                hint = "" if getattr(self, name).axes else " (axes= on it would show more)"
                changed.append((f"{name}: {', '.join(axes)}" if axes else name) + hint)
        return changed + [axis for axis in differences(other.card(), self.card()) if axis not in listed]

    def __str__(self) -> str:
        card = self.card()
        width = max(map(len, card))
        return "\n".join([self.name or "variant", *(f"  {axis:<{width}}  {text}" for axis, text in card.items())])


@cache
def _forms() -> Mapping[str, Form]:
    """What each field must be, worked out once: studies, and tests of parts, make variants by the thousand."""
    return {name: form_of(annotation, LIMITS.get(name)) for name, annotation in annotations(Variant).items()}


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The axes on which two cards differ, with the values of each."""
    axes = dict.fromkeys([*one, *other])
    return {a: (one.get(a, "-"), other.get(a, "-")) for a in axes if one.get(a) != other.get(a)}


@bare_or_called
def variant(function: Callable[..., Variant], /, *, published: Mapping[str, str] = NOTHING) -> Part:
    """Register a variant: a function of keyword-only hyper-parameters that composes parts into a `Variant`.

    Every part that a reader may want to ablate is a parameter, so that gin reaches it: `dapo.aggregator = @token_mean`.
    `published` states which defaults are the paper's own value, and where it stands there.
    """
    check_signature("variant", function, [()])
    check_defaults("variant", function)

    def build(**hyper: Any) -> Variant:
        try:
            return replace(function(**hyper), name=function.__name__)
        except SettingError as error:
            # of a part that the variant sets: the hyper-parameter that it came from is what a reader can change
            came_from = [name for name, value in hyper.items() if value is error.value]
            own = [name for name in came_from if error.key.endswith(f".{name}")] or came_from
            if len(own) != 1:
                named = f"variant '{function.__name__}': {error.key}"
                raise SettingError(named, error.value, error.must) from error
            place = place_of((f"variants.{function.__name__}", own[0]))
            raise SettingError(f"{function.__name__}.{own[0]}", error.value, error.must, place) from error
        except GrpoLabError as error:
            raise GrpoLabError(f"variant '{function.__name__}': {str(error).removeprefix('Variant: ')}") from error

    return register("variant", _like(build, function), published=published, limits=LIMITS)


def _like(build: Function, function: Function) -> Function:
    """Give the wrapper the name, place and signature of what it wraps, for registration and for gin."""
    build.__wrapped__ = function  # type: ignore[attr-defined]
    for attribute in ("__name__", "__qualname__", "__doc__", "__module__"):
        setattr(build, attribute, getattr(function, attribute))
    return build
