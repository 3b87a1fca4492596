"""Gin text in force: put there while a `config` lasts, looked up binding by binding, and written down again."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import gin
from gin.config import ConfigurableReference

from core.errors import GrpoLabError, near
from core.parts.gin_reader import (
    MACRO,
    NO_PLACES,
    Binding,
    ElsewhereError,
    Key,
    at,
    is_macro,
    known_parts,
    read,
    read_file,
    referenced,
    references,
    settings_of_variants,
    variants_named,
)
from core.parts.other_libraries import elsewhere
from core.parts.settings import SettingError, any_of, shown

REQUIRED: Final = gin.REQUIRED
COMMAND_LINE: Final = "command line"


@dataclass
class _InForce:
    """What gin does not keep about the bindings in force."""

    places: dict[Key, str] = field(default_factory=dict)
    macros_used: set[str] = field(default_factory=set)
    """By any statement, one that was overridden since too."""
    overridden: list[Any] = field(default_factory=list)
    """Values that another has replaced."""
    of_files: set[Key] = field(default_factory=set)
    """Bindings that stand in a file and not on the command line."""
    used: set[Key] = field(default_factory=set)
    """Bindings that have reached a call."""


_NOW = _InForce()
_CALLED: list[str] = []
"""Parts that are being called by reference, the outermost first."""


def add(function: Callable[..., Any], name: str, module: str) -> None:
    """Make a function known to gin; its attribute `part` is what references to it stand for."""
    gin.external_configurable(function, name=name, module=module)


@contextmanager
def config(
    files: Sequence[str | Path] = (),
    bindings: Sequence[str] = (),
    text: str = "",
    *,
    include_from: Sequence[Path] = (),
    places: Mapping[Key, str] = NO_PLACES,
    origin: str = COMMAND_LINE,
) -> Iterator[None]:
    """Put gin files, config text and single bindings in force, in that order; forget them all on leaving.

    `places` states where the bindings of `text` were given at first, `origin` where `bindings` are. An `include` is
    looked for beside its file, in the current folder, then in the folders `include_from`. Raises `GrpoLabError` for a
    missing file, for what gin refuses, for values that gin text cannot hold, and for macros of files and bindings that
    nothing refers to.
    """
    _forget()
    try:
        written = _read_all(read_file(Path(file), include_from=include_from) for file in files)
        _put(written)
        for binding in read(text):
            _put([binding])
            _NOW.places[binding.key] = places.get(binding.key, "")
        overrides = _read_all(
            (read(each, lambda _: origin, include_from=include_from) for each in bindings), after=written
        )
        _put(overrides, overriding=not text)
        _NOW.of_files |= {binding.key for binding in written} - {binding.key for binding in overrides}
        _refuse_idle_macros([*written, *overrides])
        yield
    finally:
        _forget()


def _read_all(texts: Iterable[Iterable[Binding]], after: Sequence[Binding] = ()) -> list[Binding]:
    """The bindings of texts; an option of another library is refused with the variants that all so far have named."""
    found = list[Binding]()
    try:
        for text in texts:
            found.extend(text)
    except ElsewhereError as error:
        raise error.naming(variants_named([*after, *found])) from error
    return found


def _forget() -> None:
    gin.clear_config()
    for collection in vars(_NOW).values():
        collection.clear()


def _put(bindings: Iterable[Binding], *, overriding: bool = True) -> None:
    """Put bindings in force; with `overriding`, record what they replace."""
    for binding in bindings:
        selector, parameter = binding.key
        _refuse_unwritable(binding)
        place, name = ((parameter, MACRO), "value") if selector == MACRO else (("", selector), parameter)
        before = gin.config._CONFIG.get(place, {}).get(name, binding.value)
        if overriding and repr(before) != repr(binding.value):
            _NOW.overridden.append(before)
        gin.bind_parameter((*place, name), binding.value)
        _NOW.places[binding.key] = binding.place
        _NOW.macros_used |= {
            "/".join(reference.scopes) for reference in references(binding.value) if is_macro(reference)
        }


def _refuse_unwritable(binding: Binding) -> None:
    """Refuse what gin would leave out when the config is written down: a run is made of that text."""
    try:
        is_writable = gin.config._is_literally_representable(binding.value)
    except (ValueError, RecursionError):  # an integer of too many digits
        is_writable = False
    if is_writable:
        return
    selector, parameter = binding.key
    for part in known_parts():
        if part.selector == selector:
            part.check(parameter, binding.value, binding.place)
    raise SettingError(binding.name, binding.value, "a value that text can hold, without infinities", binding.place)


def _refuse_idle_macros(bindings: Sequence[Binding]) -> None:
    for binding in bindings:
        if binding.key[0] != MACRO or binding.key[1] in _NOW.macros_used:
            continue
        owners = sorted(f"{part.name}.{binding.name}" for part in known_parts() if binding.name in part.defaults)
        known = [f"{part.name}.{parameter}" for part in known_parts() for parameter in part.defaults]
        close = owners or get_close_matches(binding.name, known)
        remedy = f"did you mean {any_of(close)}?" if close else "remove the line"
        if not owners:
            remedy = elsewhere(binding.name, (), settings_of_variants(), variants_named(bindings)) or remedy
        raise GrpoLabError(
            f"'{binding.name} = {shown(binding.value)}' names no owner, and as a macro nothing refers to it by "
            f"%{binding.name}{at(binding.place)}: {remedy}"
        )


def bound(selector: str) -> dict[str, Any]:
    """The bindings of a part, references unresolved and macros expanded."""
    bindings = gin.config._CONFIG.get(("", selector), {})
    return {name: _expanded(value, (selector, name)) for name, value in bindings.items()}


def bindings_in_force() -> dict[Key, Any]:
    """Every binding of the present config: (complete selector, parameter) to value, as in `bound`."""
    selectors = [selector for _, selector in gin.config._CONFIG if selector != MACRO]
    return {(selector, name): value for selector in selectors for name, value in bound(selector).items()}


def _expanded(value: Any, key: Key, within: tuple[str, ...] = ()) -> Any:
    """The value with each macro replaced by what it stands for."""
    if isinstance(value, list | tuple):
        return type(value)(_expanded(item, key, within) for item in value)
    if isinstance(value, dict):
        return {name: _expanded(item, key, within) for name, item in value.items()}
    if not isinstance(value, ConfigurableReference) or value.selector != MACRO:
        return value
    name = "/".join(value.scopes)
    where = f"{key[0].split('.')[-1]}.{key[1]}"
    if name in within:
        raise GrpoLabError(f"{where}: the macro %{name} stands for itself{at(place_of((MACRO, name)))}")
    macro = gin.config._CONFIG.get((name, MACRO))
    if macro is None:
        known = [scope for scope, selector in gin.config._CONFIG if selector == MACRO]
        raise GrpoLabError(
            f"{where} refers to the macro %{name}, which is not defined{at(_NOW.places.get(key, ''))}: "
            f"{near(name, known)}"
        )
    return _expanded(macro["value"], key, (*within, name))


def resolved(value: Any, bound_to: str = "") -> Any:
    """A value of `bound` with each reference replaced: `@name` by the part, `@name()` by what it returns.

    `bound_to`: what messages call the parameter that has the value.
    """
    if isinstance(value, list | tuple):
        return type(value)(resolved(item, bound_to) for item in value)
    if isinstance(value, dict):
        return {name: resolved(item, bound_to) for name, item in value.items()}
    part = referenced(value)
    if part is None:
        return deepcopy(value)  # of gin's own references, their value
    if not value.evaluate:
        return part
    if part.selector in _CALLED:
        circle = [selector.split(".")[-1] for selector in _CALLED[_CALLED.index(part.selector) :]]
        whose = f"{bound_to}: " if bound_to else ""
        names = " -> ".join(f"@{name}()" for name in [*circle, part.name])
        raise GrpoLabError(f"{whose}references in a circle: {names}")
    _CALLED.append(part.selector)
    try:
        return part()
    finally:
        _CALLED.pop()


def place_of(key: Key) -> str:
    """Where a binding in force was given: `study.gin, line 3`, or empty; with its macros, and where they were given."""
    value = gin.config._CONFIG.get(("", key[0]), {}).get(key[1])
    macros = ["/".join(reference.scopes) for reference in references(value) if is_macro(reference)]
    origins = [f"by %{name}: {_NOW.places.get((MACRO, name), 'nowhere')}" for name in macros]
    return ", ".join(filter(None, [_NOW.places.get(key, ""), *origins]))


def places() -> dict[Key, str]:
    """Where every binding in force was given."""
    return dict(_NOW.places)


def overridden() -> list[Any]:
    """Values that files and bindings gave and that later ones replaced."""
    return list(_NOW.overridden)


def of_files() -> set[Key]:
    """Bindings that stand in a file and not on the command line."""
    return set(_NOW.of_files)


def use(key: Key) -> None:
    """Note that a binding has reached a call."""
    _NOW.used.add(key)


def keys_of(bindings: Iterable[str]) -> set[Key]:
    """What bindings would bind, macros apart, without putting them in force."""
    return {binding.key for each in bindings for binding in read(each) if binding.key[0] != MACRO}


def refuse_doubled(bindings: Iterable[str]) -> None:
    """GrpoLabError where one of these bindings would replace another."""
    seen: set[Key] = set()
    for binding in (binding for each in bindings for binding in read(each)):
        if binding.key in seen:
            raise GrpoLabError(f"{binding.name} is bound twice, and the first would have no effect: remove one")
        seen.add(binding.key)


def used() -> set[Key]:
    """Bindings that have reached a call since the config was put in force."""
    return set(_NOW.used)


def config_text() -> str:
    """The present config as gin text, enough to parse it again elsewhere."""
    # one binding a line: gin's wrapped lines and comments are for people, this is for parsing and hashing
    lines = gin.config_str(max_line_length=100_000).splitlines()
    return "\n".join(line for line in lines if line and not line.startswith("#")) + "\n"
