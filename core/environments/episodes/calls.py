"""Calls of tools as a policy writes them: read from a text, with what is wrong about each that cannot be read.

    chat     <tool_call>{"name": "find", "arguments": {"key": "k"}}</tool_call>
    plain    find("k")    or    find(key="k")

`chat` is the form of Hermes and Qwen: anywhere in the text. In `plain` a call is a line of its own, and its arguments
are JSON values or texts in single quotes. Both read any number of calls.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias


@dataclass(frozen=True)
class Call:
    """A tool's name and the arguments that it is given."""

    name: str
    positional: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Unreadable:
    """A call that cannot be read, and why."""

    reason: str


Read: TypeAlias = list[Call | Unreadable]
Protocol: TypeAlias = Literal["chat", "plain"]

_BLOCK: Final = re.compile(r"<tool_call>(.*?)(</tool_call>|\Z)", re.DOTALL)
_LINE: Final = re.compile(r"\s*([A-Za-z_]\w*)\((.*)", re.DOTALL)
_NAMED: Final = re.compile(r"([A-Za-z_]\w*)\s*=")
_QUOTED: Final = re.compile(r"'((?:[^'\\]|\\.)*)'")
_SPACE: Final = re.compile(r"\s*")
_ESCAPES: Final = {"n": "\n", "t": "\t"}


def chat_calls(text: str, known: Collection[str]) -> Read:  # noqa: ARG001 - the form of every protocol
    """Every `<tool_call>` of a text."""
    return [_from_json(match[1], closed=bool(match[2])) for match in _BLOCK.finditer(text)]


def _from_json(text: str, *, closed: bool) -> Call | Unreadable:
    if not closed:
        return Unreadable("a <tool_call> without its </tool_call>")
    try:
        said = _DECODER.decode(text.strip())
    except (ValueError, RecursionError) as error:
        return Unreadable(f"a call that is no JSON: {_why(error)}")
    name, arguments = (said.get("name"), said.get("arguments", {})) if isinstance(said, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return Unreadable('a call must be {"name": a text, "arguments": {...}}')
    return Call(name, named=arguments)


def plain_calls(text: str, known: Collection[str]) -> Read:
    """Every line `name(arguments)`; one that is not closed is a call where a tool of that name is known, else text."""
    found: Read = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            continue
        if match[2].endswith(")"):
            found.append(_from_line(match[1], match[2][:-1]))
        elif match[1] in known:
            found.append(Unreadable(f"a call of {match[1]} that does not end with ')'"))
    return found


def _from_line(name: str, text: str) -> Call | Unreadable:
    positional: list[Any] = []
    named: dict[str, Any] = {}
    at = _past_space(text, 0)
    try:
        while at < len(text):
            match = _NAMED.match(text, at)
            value, at = _value(text, match.end() if match else at)
            if match is None and named:
                raise ValueError("an argument without a name after one with a name")
            if match and match[1] in named:
                raise ValueError(f"'{match[1]}' twice")
            if match:
                named[match[1]] = value
            else:
                positional.append(value)
            at = _past_space(text, at)
            if at < len(text) and text[at] != ",":
                raise ValueError(f"',' or ')' expected at '{text[at : at + 20]}'")
            if at + 1 == len(text):
                raise ValueError("nothing after ','")
            at = _past_space(text, at + 1)
    except (ValueError, RecursionError) as error:
        return Unreadable(f"the arguments of {name}: {_why(error)}")
    return Call(name, tuple(positional), named)


def _value(text: str, at: int) -> tuple[Any, int]:
    """A value, and where it ends."""
    at = _past_space(text, at)
    if match := _QUOTED.match(text, at):
        return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), match[1]), match.end()
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON value at '{text[at : at + 20]}'") from error


def _past_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _why(error: ValueError | RecursionError) -> str:
    return "too deep" if isinstance(error, RecursionError) else str(error)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names differ: which of two values was meant nobody knows."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name twice")
    return made


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique)
PROTOCOLS: Final[Mapping[Protocol, Callable[[str, Collection[str]], Read]]] = MappingProxyType(
    {"chat": chat_calls, "plain": plain_calls}
)
"""How calls are written; each takes a text and the names of the tools."""
