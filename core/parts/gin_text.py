"""Gin text: read with the place of every binding, in force while a `config` lasts, and written down again.

This module is the only place in core that imports gin; it keeps to gin 0.5, whose stores it reads.
"""

# gin looks for this submodule without importing it when a search path is set
import importlib.util  # noqa: F401
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from tokenize import TokenError
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import gin
from gin.config import ConfigurableReference
from gin.config_parser import BindingStatement, ConfigParser, ImportStatement, IncludeStatement

from core.errors import GrpoLabError, near
from core.parts.settings import SettingError, any_of, shown

REQUIRED: Final = gin.REQUIRED
MACRO: Final = "gin.macro"
COMMAND_LINE: Final = "command line"

Key: TypeAlias = tuple[str, str]
"""Complete selector and parameter; of a macro, MACRO and its name."""
NO_PLACES: Final[Mapping[Key, str]] = MappingProxyType({})


@dataclass(frozen=True)
class Binding:
    """A statement of gin text."""

    key: Key
    value: Any
    place: str
    """`study.gin, line 3`, or empty."""

    @property
    def name(self) -> str:
        """As it is written: `train.steps`, or a macro's name."""
        selector, parameter = self.key
        return parameter if selector == MACRO else f"{selector.split('.')[-1]}.{parameter}"


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


class _Parser(ConfigParser):  # type: ignore[misc]
    """Gin's own, but a dictionary may not have a key twice."""

    def __init__(self, text: str) -> None:
        self._keys: list[set[Any]] = []
        super().__init__(text, gin.config.ParserDelegate())

    @property
    def line(self) -> int:
        """Where reading has come to."""
        return int(self._current_token.start[0])

    def _maybe_parse_container(self) -> tuple[bool, Any]:
        self._keys.append(set())
        found: tuple[bool, Any] = super()._maybe_parse_container()
        self._keys.pop()
        return found

    def _parse_dict_item(self) -> tuple[Any, Any]:
        location = self._current_location()
        key = self.parse_value()
        if not isinstance(key, str | int | float):
            self._raise_syntax_error(f"{shown(key)} cannot be a key of a dictionary: write text in quotes", location)
        if key in self._keys[-1]:
            self._raise_syntax_error(f"the key {shown(key)} stands twice in a dictionary: rename one", location)
        self._keys[-1].add(key)
        if self._current_token.string != ":":
            self._raise_syntax_error("Expected ':'.")
        self._advance()
        return key, self.parse_value()


def read_file(file: Path, *, include_from: Sequence[Path] = (), within: tuple[Path, ...] = ()) -> Iterator[Binding]:
    """The bindings of a gin file and of those that it includes."""
    if not file.is_file():
        raise GrpoLabError(f"config file not found: {file} (looked from {Path.cwd()})")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GrpoLabError(f"the config file {file} cannot be read: {error}") from error

    def place(line: int) -> str:
        return f"{file}, line {line}"

    yield from read(text, place, folder=file.parent, include_from=include_from, within=(*within, file.resolve()))


def read(
    text: str,
    place: Callable[[int], str] = lambda _: "",
    *,
    folder: Path = Path(),
    include_from: Sequence[Path] = (),
    within: tuple[Path, ...] = (),
) -> Iterator[Binding]:
    """The bindings of gin text, one by one, with those of included files; imports are carried out on the way.

    `place` names a line. An included file is looked for in `folder`, in the current folder, then in `include_from`; an
    imported module in `folder` too. Raises `GrpoLabError` with the place for whatever gin refuses, and for a key that a
    dictionary has twice.
    """
    line, parser = 1, None
    with gin.config._parse_scope() as context:
        try:
            parser = _Parser(text)
            for statement in parser:
                line = statement.location.line_num
                if isinstance(statement, IncludeStatement):
                    file = _find(statement.filename, folder, include_from, within)
                    yield from read_file(file, include_from=include_from, within=within)
                elif isinstance(statement, ImportStatement):
                    _import(context, statement, folder, place(line))
                elif isinstance(statement, BindingStatement):
                    yield _binding(statement, place(line))
                elif not context.get_configurable(statement.selector):
                    raise ValueError(f"No configurable matching '{statement.selector}'.")
        except GrpoLabError:
            raise
        except Exception as error:  # gin raises many types, all meaning that the text is wrong
            if isinstance(error, SyntaxError | TokenError):
                line = getattr(error, "lineno", None) or (parser.line if parser else line)
            elif within_statement := _IN_TEXT.search(str(error)):  # the statement has not been handed out yet
                line = int(within_statement[1])
            raise GrpoLabError(f"gin: {_readable(error)}{at(place(line))}") from error
        gin.config._IMPORTS.update(context.imports)


def at(place: str) -> str:
    """` (PLACE)`, or nothing where the place is not known."""
    return f" ({place})" if place else ""


def _find(name: str, folder: Path, include_from: Sequence[Path], within: tuple[Path, ...]) -> Path:
    places = [folder, Path(), *include_from]
    file = next((found for each in places if (found := each / name).is_file()), None)
    if file is None:
        looked = ", ".join(dict.fromkeys(str(each.resolve()) for each in places))
        raise ValueError(f"there is no file '{name}' to include, looked for in {looked}")
    if file.resolve() in within:
        raise ValueError(f"include '{name}' leads back to a file that is being read: remove one of the includes")
    return file


def _import(context: Any, statement: Any, folder: Path, place: str) -> None:
    # appended, not put first: a user's own folder named core must not shadow ours
    if str(folder.resolve()) not in sys.path:
        sys.path.append(str(folder.resolve()))
    try:
        context.process_import(statement)
    except GrpoLabError:
        raise
    except ModuleNotFoundError as error:
        through = "" if error.name == statement.module.split(".")[0] else f" by way of '{statement.module}'"
        raise GrpoLabError(
            f"a gin file imports '{error.name}'{through}, which is not on the import path{at(place)}: modules are "
            f"looked for beside the gin file ({folder.resolve()}), in the current folder and among installed packages"
        ) from error
    except (Exception, SystemExit) as error:  # whatever a user's module does while it is imported
        told = f"{type(error).__name__}: {error}"
        raise GrpoLabError(f"importing '{statement.module}' fails{at(place)}: {told}") from error


def _binding(statement: Any, place: str) -> Binding:
    if not statement.arg_name:
        name = "/".join(filter(None, (statement.scope, statement.selector)))
        return Binding((MACRO, name), statement.value, place)
    found = gin.config.ParsedBindingKey.parse((statement.scope, statement.selector, statement.arg_name))
    made = Binding((found.complete_selector, found.arg_name), statement.value, place)
    if found.scope:
        raise GrpoLabError(
            f"the binding '{found.scope}/{made.name}' has no effect: nothing here is called in a gin scope; bind "
            f"'{made.name}'{at(place)}"
        )
    for reference in references(made.value):
        if reference.scopes and not _is_macro(reference):
            raise GrpoLabError(
                f"{made.name} refers to '{reference!r}': nothing here is called in a gin scope; write "
                f"@{reference.selector}{at(place)}"
            )
    return made


_IN_TEXT: Final = re.compile(r"\s*In bindings string line (\d+)\n.*", re.DOTALL)
"""What gin adds of a place: the line, its text and a mark below it."""


def _readable(error: Exception) -> str:
    """Gin's message without the place, with the near names that it leaves out."""
    message = _IN_TEXT.sub("", str(error.msg if isinstance(error, SyntaxError) else error))
    message = " ".join(message.split())
    message = re.sub(r"malformed node or string.*?<.*?> ", "", message)  # of Python's own reader, with an address
    if isinstance(error, RecursionError):
        return "brackets are nested too deeply"
    if message.startswith("malformed node or string"):
        return "a value is no number, text in quotes, list, dictionary, @reference or %macro"
    unknown = re.search(r"No configurable matching (?:reference )?'@?([^'()]+)", message)
    if unknown:
        message += f" -- {near(unknown[1].split('.')[-1], (part.name for part in _parts()))}"
    parameter = re.search(r"Configurable '([^']+)' doesn't have a parameter named '([^']+)'", message)
    part = next((p for p in _parts() if parameter and p.name == parameter[1].split(".")[-1]), None)
    return f"{message} -- {near(parameter[2], part.defaults)}" if parameter and part else message


def _parts() -> Iterator[Any]:
    """Every part that gin knows."""
    found = (getattr(known.wrapped, "part", None) for _, known in gin.config._REGISTRY.items())
    return (part for part in found if part is not None)


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

    `places` says where the bindings of `text` were given at first, `origin` where `bindings` are. An `include` is
    looked for beside its file, in the current folder, then in the folders `include_from`. Raises `GrpoLabError` for a
    missing file, for what gin refuses, for values that gin text cannot hold, and for macros of files and bindings that
    nothing refers to.
    """
    _forget()
    try:
        written = [binding for file in files for binding in read_file(Path(file), include_from=include_from)]
        _put(written)
        for binding in read(text):
            _put([binding])
            _NOW.places[binding.key] = places.get(binding.key, "")
        given = [binding for each in bindings for binding in read(each, lambda _: origin, include_from=include_from)]
        _put(given, overriding=not text)
        _NOW.of_files |= {binding.key for binding in written} - {binding.key for binding in given}
        _refuse_idle_macros([*written, *given])
        yield
    finally:
        _forget()


def _forget() -> None:
    gin.clear_config()
    for kept in vars(_NOW).values():
        kept.clear()


def _put(bindings: Iterable[Binding], *, overriding: bool = True) -> None:
    """Put bindings in force; with `overriding`, remember what they replace."""
    for binding in bindings:
        selector, parameter = binding.key
        _refuse_unwritable(binding)
        place, name = ((parameter, MACRO), "value") if selector == MACRO else (("", selector), parameter)
        before = gin.config._CONFIG.get(place, {}).get(name, binding.value)
        if overriding and repr(before) != repr(binding.value):
            _NOW.overridden.append(before)
        gin.bind_parameter((*place, name), binding.value)
        _NOW.places[binding.key] = binding.place
        _NOW.macros_used |= {"/".join(found.scopes) for found in references(binding.value) if _is_macro(found)}


def _refuse_unwritable(binding: Binding) -> None:
    """Refuse what gin would leave out when the config is written down: a run is made of that text."""
    try:
        is_kept = gin.config._is_literally_representable(binding.value)
    except (ValueError, RecursionError):  # an integer of too many digits
        is_kept = False
    if is_kept:
        return
    selector, parameter = binding.key
    for part in _parts():
        if part.selector == selector:
            part.check(parameter, binding.value, binding.place)
    raise SettingError(binding.name, binding.value, "a value that text can hold, without infinities", binding.place)


def _refuse_idle_macros(given: Iterable[Binding]) -> None:
    for binding in given:
        if binding.key[0] != MACRO or binding.key[1] in _NOW.macros_used:
            continue
        owners = sorted(f"{part.name}.{binding.name}" for part in _parts() if binding.name in part.defaults)
        known = [f"{part.name}.{parameter}" for part in _parts() for parameter in part.defaults]
        close = owners or get_close_matches(binding.name, known)
        raise GrpoLabError(
            f"'{binding.name} = {shown(binding.value)}' names no owner, and as a macro nothing refers to it by "
            f"%{binding.name}{at(binding.place)}: {f'did you mean {any_of(close)}?' if close else 'remove the line'}"
        )


def references(value: Any) -> Iterator[Any]:
    """Every gin reference in a value, macros too."""
    if isinstance(value, ConfigurableReference):
        yield value
    elif isinstance(value, Mapping):
        yield from (found for item in value.values() for found in references(item))
    elif isinstance(value, list | tuple):
        yield from (found for item in value for found in references(item))


def _is_macro(reference: Any) -> bool:
    return reference.selector in (MACRO, "gin.constant")


def referenced(value: Any) -> Any:
    """The part that an unresolved gin reference names, called or not; None for any other value, a macro too."""
    return getattr(value.configurable.wrapped, "part", None) if isinstance(value, ConfigurableReference) else None


def bound(selector: str) -> dict[str, Any]:
    """The bindings of a part, references unresolved and macros expanded."""
    found = gin.config._CONFIG.get(("", selector), {})
    return {name: _expanded(value, (selector, name)) for name, value in found.items()}


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


def resolved(value: Any) -> Any:
    """A value of `bound` with each reference replaced: `@name` by the part, `@name()` by what it returns."""
    if isinstance(value, list | tuple):
        return type(value)(map(resolved, value))
    if isinstance(value, dict):
        return {name: resolved(item) for name, item in value.items()}
    part = referenced(value)
    if part is None:
        return deepcopy(value)  # of gin's own references, their value
    if not value.evaluate:
        return part
    if part.selector in _CALLED:
        circle = [selector.split(".")[-1] for selector in _CALLED[_CALLED.index(part.selector) :]]
        raise GrpoLabError(f"references in a circle: {' -> '.join(f'@{name}()' for name in [*circle, part.name])}")
    _CALLED.append(part.selector)
    try:
        return part()
    finally:
        _CALLED.pop()


def place_of(key: Key) -> str:
    """Where a binding in force was given: `study.gin, line 3`, or empty; with its macros, and where they were given."""
    value = gin.config._CONFIG.get(("", key[0]), {}).get(key[1])
    macros = ["/".join(found.scopes) for found in references(value) if _is_macro(found)]
    told = [f"by %{name}: {_NOW.places.get((MACRO, name), 'nowhere')}" for name in macros]
    return ", ".join(filter(None, [_NOW.places.get(key, ""), *told]))


def places() -> dict[Key, str]:
    """Where every binding in force was given."""
    return dict(_NOW.places)


def overridden() -> list[Any]:
    """Values that files and bindings gave and gave anew."""
    return list(_NOW.overridden)


def of_files() -> set[Key]:
    """Bindings that stand in a file and not on the command line."""
    return set(_NOW.of_files)


def use(key: Key) -> None:
    """Note that a binding has reached a call."""
    _NOW.used.add(key)


def keys_of(bindings: Iterable[str]) -> set[Key]:
    """What bindings would bind, macros apart, without putting them in force."""
    return {found.key for each in bindings for found in read(each) if found.key[0] != MACRO}


def used() -> set[Key]:
    """Bindings that have reached a call since the config was put in force."""
    return set(_NOW.used)


def config_text() -> str:
    """The present config as gin text, enough to parse it again elsewhere."""
    # one binding a line: gin's wrapped lines and comments are for people, this is for parsing and hashing
    lines = gin.config_str(max_line_length=100_000).splitlines()
    return "\n".join(line for line in lines if line and not line.startswith("#")) + "\n"
