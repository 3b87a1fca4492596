"""Gin text, read: statement by statement, each with its place, in words of ours where gin refuses one.

This module and `core.parts.gin_text` are the only places in core that import gin; they keep to gin 0.5, whose parser
and stores they read.
"""

# gin looks for this submodule without importing it when a search path is set
import importlib.util  # noqa: F401
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import gin
from gin.config import ConfigurableReference
from gin.config_parser import BindingStatement, ConfigParser, ImportStatement, IncludeStatement

from core.errors import GrpoLabError, near
from core.parts.import_path import find_modules_in
from core.parts.other_libraries import elsewhere
from core.parts.settings import shown

MACRO: Final = "gin.macro"
MAX_DEPTH: Final = 50
"""Of brackets within brackets: gin reads them by recursion, and what then ends it depends on where it began."""

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


class ElsewhereError(GrpoLabError):
    """A binding whose name is an option of another library: `naming` says it with the variants that are in use."""

    def __init__(self, name: str, settings: Collection[str], place: str, in_use: Collection[str] = ()) -> None:
        said = elsewhere(name, settings, settings_of_variants(), in_use)
        super().__init__(f"no binding '{name}': {said}{at(place)}")
        self.name, self.settings, self.place = name, settings, place

    def naming(self, in_use: Collection[str]) -> "ElsewhereError":
        """The same, with the variants that are in use."""
        return ElsewhereError(self.name, self.settings, self.place, in_use)


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
        if len(self._keys) > MAX_DEPTH:
            self._raise_syntax_error("brackets are nested too deeply")
        self._keys.append(set())
        result: tuple[bool, Any] = super()._maybe_parse_container()
        self._keys.pop()
        return result

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
    imported module in `folder` too. Raises `GrpoLabError` with the place for whatever gin refuses, for a key that a
    dictionary has twice, and for a binding that a file, apart from its includes, has twice.
    """
    line, parser = 1, None
    bound: dict[Key, int] = {}
    refused: ElsewhereError | None = None
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
                    try:
                        binding = _binding(statement, place(line))
                    except ElsewhereError as error:
                        refused = refused or error  # put off: lines below may say which variants are in use
                        continue
                    if binding.place and bound.setdefault(binding.key, line) != line:
                        raise GrpoLabError(
                            f"{binding.name} is bound twice, on lines {bound[binding.key]} and {line}, and the first "
                            f"would have no effect: remove one{at(binding.place)}"
                        )
                    yield binding
                elif not context.get_configurable(statement.selector):
                    raise ValueError(f"No configurable matching '{statement.selector}'.")
            if refused:
                raise refused
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
    file = next((path for each in places if (path := each / name).is_file()), None)
    if file is None:
        searched = ", ".join(dict.fromkeys(str(each.resolve()) for each in places))
        raise ValueError(f"there is no file '{name}' to include, looked for in {searched}")
    if file.resolve() in within:
        raise ValueError(f"include '{name}' leads back to a file that is being read: remove one of the includes")
    return file


def _import(context: Any, statement: Any, folder: Path, place: str) -> None:
    find_modules_in(str(folder.resolve()))
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
        cause = f"{type(error).__name__}: {error}"
        raise GrpoLabError(f"importing '{statement.module}' fails{at(place)}: {cause}") from error


def _binding(statement: Any, place: str) -> Binding:
    if not statement.arg_name:
        name = "/".join(filter(None, (statement.scope, statement.selector)))
        return Binding((MACRO, name), statement.value, place)
    try:
        key = gin.config.ParsedBindingKey.parse((statement.scope, statement.selector, statement.arg_name))
    except ValueError as error:
        name, part = f"{statement.selector}.{statement.arg_name}", _part_named(statement.selector)
        if elsewhere(name):
            raise ElsewhereError(name, part.defaults if part else (), place) from error
        raise
    binding = Binding((key.complete_selector, key.arg_name), statement.value, place)
    if key.scope:
        raise GrpoLabError(
            f"the binding '{key.scope}/{binding.name}' has no effect: nothing here is called in a gin scope; bind "
            f"'{binding.name}'{at(place)}"
        )
    for reference in references(binding.value):
        if reference.scopes and not is_macro(reference):
            raise GrpoLabError(
                f"{binding.name} refers to '{reference!r}': nothing here is called in a gin scope; write "
                f"@{reference.selector}{at(place)}"
            )
    return binding


_IN_TEXT: Final = re.compile(r"\s*In bindings string line (\d+)\n.*", re.DOTALL)
"""What gin adds of a place: the line, its text and a mark below it."""


def _readable(error: Exception) -> str:
    """Gin's message without the place, with the near names that it leaves out."""
    message = _IN_TEXT.sub("", str(error.msg if isinstance(error, SyntaxError) else error))
    message = " ".join(message.split())
    message = re.sub(r"malformed node or string.*?<.*?> ", "", message)  # of Python's own reader, with an address
    if message.startswith("malformed node or string"):
        return "a value is no number, text in quotes, list, dictionary, @reference or %macro"
    if message.startswith("Failed to parse token"):
        message += ": text goes in quotes, 'like this'"
    unknown = re.search(r"No configurable matching (?:reference )?'@?([^'()]+)", message)
    if unknown:
        message += f" -- {near(unknown[1].split('.')[-1], (part.name for part in known_parts()))}"
    parameter = re.search(r"Configurable '([^']+)' doesn't have a parameter named '([^']+)'", message)
    part = _part_named(parameter[1]) if parameter else None
    return f"{message} -- {near(parameter[2], part.defaults)}" if parameter and part else message


def _part_named(selector: str) -> Any:
    """The part that gin text names, or None."""
    return next((part for part in known_parts() if part.name == selector.split(".")[-1]), None)


def known_parts() -> Iterator[Any]:
    """Every part that gin knows."""
    parts = (getattr(configurable.wrapped, "part", None) for _, configurable in gin.config._REGISTRY.items())
    return (part for part in parts if part is not None)


def settings_of_variants() -> dict[str, Collection[str]]:
    """The hyper-parameters of every variant that gin knows."""
    return {part.name: part.defaults for part in known_parts() if part.kind == "variant"}


def variants_named(bindings: Iterable[Binding]) -> list[str]:
    """The variants that bindings name, in references and in arms' texts; that of `train` where no other does."""
    known, named = settings_of_variants(), {binding.name: _names_in(binding.value) for binding in bindings}
    alone = named.pop("train.variant", [])
    names = [name for each in named.values() for name in each if name in known]
    return list(dict.fromkeys(names or [name for name in alone if name in known]))


def _names_in(value: Any) -> list[str]:
    """What stands behind an @ in a value, its texts included."""
    return re.findall(r"@(?:\w+\.)*(\w+)", repr(value))


def references(value: Any) -> Iterator[Any]:
    """Every gin reference in a value, macros too."""
    if isinstance(value, ConfigurableReference):
        yield value
    elif isinstance(value, Mapping):
        yield from (reference for item in value.values() for reference in references(item))
    elif isinstance(value, list | tuple):
        yield from (reference for item in value for reference in references(item))


def is_macro(reference: Any) -> bool:
    """Whether a gin reference stands for a macro."""
    return reference.selector in (MACRO, "gin.constant")


def referenced(value: Any) -> Any:
    """The part that an unresolved gin reference names, called or not; None for any other value, a macro too."""
    return getattr(value.configurable.wrapped, "part", None) if isinstance(value, ConfigurableReference) else None
