"""Options of other libraries: what to say of a binding that has one of their names."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

Options: TypeAlias = Mapping[str, tuple[str, ...]]
"""Options by name, or by the end of a dotted one, with the bindings that they are here; none where there is none."""
LIBRARIES: Final[dict[str, Options]] = {}
"""What is known of each library, declared where its methods are."""


def option(name: str) -> tuple[str, str, tuple[str, ...]] | None:
    """The library, its option and what that is here, for the longest end of a dotted name that is one; else None."""
    parts = name.split(".")
    for start in range(len(parts)):
        end = ".".join(parts[start:])
        for library, options in LIBRARIES.items():
            if end in options:
                return library, end, options[end]
    return None


def elsewhere(
    name: str,
    settings: Collection[str] = (),
    variants: Mapping[str, Collection[str]] = MappingProxyType({}),
    in_use: Collection[str] = (),
) -> str:
    """What to say of an unknown binding whose name is an option of another library; empty for any other.

    `settings` are those of the part that was to be bound: where it has the right one itself, that is named. `variants`
    are the settings of every variant: those `in_use` take the place of another that has the same one.
    """
    found = option(name)
    if found is None:
        return ""
    library, theirs, ours = found
    if not ours:
        return f"'{theirs}' is an option of {library}, and there is none like it here"
    asked, here = name.rpartition(".")[0], list[str]()
    for each in ours:
        owner, _, setting = each.split(" ")[0].rpartition(".")
        using = [variant for variant in in_use if setting in variants[variant]] if owner in variants else []
        if asked and setting in settings:
            here.append(f"{asked}.{setting}")
        else:
            here += [each.replace(owner, variant, 1) for variant in using] or [each]
    return f"'{theirs}' is an option of {library}: here it is {' and '.join(here)}"
