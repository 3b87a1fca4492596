"""What the lens is pointed at, by name: a variant, an advantage estimator alone, and either with parts exchanged."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, get_args

from core import ADVANTAGES, VARIANTS, Part, Variant
from core.errors import GrpoLabError, near
from core.parts.registry import REGISTRIES
from core.parts.settings import annotations
from core.parts.variant import CHAINS
from estimators.aggregators import seq_mean_token_sum
from estimators.objectives import policy_gradient

NONE: Final = "none"
"""As a part: no correction."""
EXCHANGED: Final = ("advantage", "objective", "aggregator", "credit", "correction", "selection", "filter", "shaping")
"""Kinds of parts that can take the place of a variant's."""


def named_variant(name: str) -> Variant:
    """The variant of that name, or an advantage as the variant that measures the estimator itself.

    Called within a gin config; what is returned no longer asks it.
    """
    if name in VARIANTS:
        variant: Variant = VARIANTS[name]()
    elif name in ADVANTAGES:
        variant = advantage_alone(ADVANTAGES[name])
    else:
        raise GrpoLabError(
            f"unknown variant or advantage '{name}': {near(name, [*VARIANTS, *ADVANTAGES])}. One of your own is found "
            "after its file, FILE.py, or -c FILE.gin that imports it"
        )
    return variant.resolved()


def advantage_alone(advantage: Part) -> Variant:
    """An advantage with the plain policy gradient and the token sum, under which an unbiased one has a scale of 1."""
    return Variant(advantage=advantage, objective=policy_gradient, aggregator=seq_mean_token_sum, name=advantage.name)


def with_parts(variant: Variant, text: str) -> Variant:
    """A variant with parts in the place of its own, `a+b`; its name is `variant+a+b`.

    A part is named as it is registered, an anchor by its word; `none` leaves corrections out. Several corrections are a
    chain.
    """
    if text == NONE and not variant.correction:
        return variant
    chosen: dict[str, list[Part]] = {}
    exchanged: dict[str, Any] = {}
    for name in text.split("+"):
        if name == NONE:
            exchanged["correction"] = None
        elif name in _anchors():
            exchanged["anchor"] = name
        else:
            part = _part(name)
            chosen.setdefault(part.kind, []).append(part.resolved())
    for kind, parts in chosen.items():
        if kind not in CHAINS and len(parts) > 1:
            raise GrpoLabError(f"--parts {text}: a variant has one {kind}; leave out '{parts[1].name}'")
        exchanged[kind] = parts if kind in CHAINS else parts[0]
    try:
        return replace(variant, **exchanged, name=f"{variant.name}+{text}")
    except GrpoLabError as error:
        raise GrpoLabError(f"--parts {text}: {error}") from error


def named_variants(
    names: Sequence[str], parts: Sequence[str] | None, check: Callable[[Variant], None] = lambda _: None
) -> tuple[list[Variant], list[str]]:
    """The variants of these names, each with each of `parts` in it, and remarks on what cannot be.

    The word for all of a kind, `corrections` say, stands for each that is registered, `anchors` for each anchor. What
    does not go together of these, or does not pass `check`, is a remark; what is named by itself raises.
    """
    made: dict[str, Variant] = {}
    notes = []
    for variant in map(named_variant, names):
        for text, is_named in _each(parts) if parts else [("", True)]:
            try:
                new = with_parts(variant, text) if text else variant
                check(new)
            except GrpoLabError as error:
                if is_named:
                    raise
                notes.append(f"Not measured: {error}")
            else:
                made[new.name] = new
    return list(made.values()), notes


def _each(texts: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Every text, and whether it was named rather than stands for all of a kind."""
    for text in texts:
        kind = text.removesuffix("s")
        if text == "anchors":
            yield from ((anchor, False) for anchor in _anchors())
        elif kind in EXCHANGED and text.endswith("s"):
            yield from ((name, False) for name in ([NONE] if kind == "correction" else []))
            yield from ((name, False) for name in REGISTRIES[kind])
        else:
            yield text, True


def _anchors() -> tuple[str, ...]:
    return get_args(annotations(Variant)["anchor"])


def _part(name: str) -> Part:
    parts = {name: part for kind in EXCHANGED for name, part in REGISTRIES[kind].items()}
    if name not in parts:
        words = [NONE, *_anchors(), "anchors", *(f"{kind}s" for kind in EXCHANGED)]
        raise GrpoLabError(f"--parts: no part '{name}': {near(name, [*words, *parts])}")
    return parts[name]
