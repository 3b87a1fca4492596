"""What the decorators of all kinds of parts have in common: signatures checked where they are written."""

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, cast, overload

from core.errors import GrpoLabError
from core.parts.registry import Descriptions, Part, register

Function: TypeAlias = Callable[..., Any]
Decorator: TypeAlias = Callable[[Function], Part]
Settings = ParamSpec("Settings")


def where(kind: str, function: Function) -> str:
    """File, line and name, for messages."""
    return f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}: {kind} '{function.__name__}'"


def check_signature(kind: str, function: Function, positional: Collection[tuple[str, ...]]) -> None:
    """Refuse a function whose positional parameters are none of these, by number and name."""
    names = tuple(
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    )
    if names not in positional:
        allowed = " or ".join(f"({', '.join(p)})" for p in positional)
        raise GrpoLabError(
            f"{where(kind, function)} takes ({', '.join(names)}) but must take {allowed}; "
            "write hyper-parameters after a bare *, each with a default"
        )


def check_defaults(kind: str, function: Function, supplied: Collection[str] = ()) -> None:
    """Refuse hyper-parameters without a default."""
    for p in inspect.signature(function).parameters.values():
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name not in supplied:
            raise GrpoLabError(f"{where(kind, function)}: hyper-parameter '{p.name}' needs a default")


def check_choice(kind: str, function: Function, option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse an option that is none of its choices."""
    if value not in allowed:
        raise GrpoLabError(f"{where(kind, function)}: {option}={value!r} must be one of {', '.join(allowed)}")


class BareOrCalled(Protocol[Settings]):
    """A decorator that is written with options in brackets or without any: `@kl`, `@kl(limits=...)`."""

    @overload
    def __call__(self, function: Function, /) -> Part: ...
    @overload
    def __call__(self, *args: Settings.args, **options: Settings.kwargs) -> Decorator: ...


def bare_or_called(add: Callable[Concatenate[Function, Settings], Part]) -> BareOrCalled[Settings]:
    """The decorator that registers by `add(function, **options)`."""

    decorator: Function = add

    @functools.wraps(decorator)
    def decorate(function: Function | None = None, /, **options: Any) -> Part | Decorator:
        return functools.partial(decorator, **options) if function is None else decorator(function, **options)

    return cast(BareOrCalled[Settings], decorate)


def plain(
    kind: str,
    function: Function,
    positional: Collection[tuple[str, ...]],
    descriptions: Descriptions,
    supplied: tuple[str, ...] = (),
) -> Part:
    """Register a part of a kind that has no options."""
    check_signature(kind, function, positional)
    check_defaults(kind, function, supplied)
    return register(kind, function, None, supplied, **descriptions)
