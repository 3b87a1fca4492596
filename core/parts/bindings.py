"""Bindings that have reached a call, and the refusal of those that had no effect."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from core.errors import GrpoLabError
from core.parts.gin_reader import NO_PLACES, Key, at, referenced
from core.parts.gin_text import bound, of_files, overridden, place_of, used
from core.parts.registry import VARIANTS, Part


def bindings_used() -> set[Key]:
    """Bindings that have reached a call since the config was put in force, and those that are `excused`."""
    return used() | excused()


def excused() -> set[Key]:
    """Bindings of files, of parts that only a binding chose which a later one replaced, e.g. in an included file."""
    selectors, waiting = set[str](), [part for value in overridden() for part in _parts_in(value)]
    while waiting:
        part = waiting.pop()
        if part.selector not in selectors:
            selectors.add(part.selector)
            waiting += references(part)
    return {key for key in of_files() if key[0] in selectors}


def references(part: Part) -> list[Part]:
    """The parts that a part's hyper-parameters name, called or not, in collections and through macros too."""
    return list(_parts_in({**part.defaults, **({} if part.is_resolved else bound(part.selector)), **part.set_values}))


def _parts_in(value: Any) -> Iterator[Part]:
    part = value if isinstance(value, Part) else referenced(value)
    if part is not None:
        yield part
    elif isinstance(value, Mapping):
        yield from (part for item in value.values() for part in _parts_in(item))
    elif isinstance(value, list | tuple | set):
        yield from (part for item in value for part in _parts_in(item))


def refuse_unused(
    keys: Iterable[tuple[str, str]],
    used: Collection[tuple[str, str]],
    parts: Sequence[Part],
    variants: Sequence[str],
    places: Mapping[Key, str] = NO_PLACES,
) -> None:
    """Raise `GrpoLabError` for the first of `keys` that is not `used`, naming the right key where there is one.

    `parts` are those in use, `variants` the names of the variants that were built. `places` states where bindings were
    given, if the config is no longer in force.
    """
    for selector, parameter in keys:
        if (selector, parameter) in used:
            continue
        owner = selector.split(".")[-1]
        place = places.get((selector, parameter)) or place_of((selector, parameter))
        message = f"the binding '{owner}.{parameter}' had no effect"
        setter = next((p for p in parts if p.selector == selector and parameter in p.set_values), None)
        if setter is not None:
            owners = [v for v in variants if parameter in VARIANTS[v].defaults]
            right = " or ".join(f"'{v}.{parameter}'" for v in owners)
            message += f": the variant sets it itself; bind {right or 'it where the variant is defined'} instead"
        elif selector.startswith("variants.") and variants:
            message += f": '{owner}' is not used here, but {', '.join(variants)}; bind that one"
        else:
            in_use = sorted({p.name for p in parts if p.kind + "s" == selector.split(".")[0]})
            message += f": '{owner}' is not used here" + (f", but {', '.join(in_use)}" if in_use else "")
        raise GrpoLabError(f"{message}; or remove the line{at(place)}")
