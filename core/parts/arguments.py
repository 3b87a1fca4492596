"""Arguments of functions that are called from Python: refused like settings, by name, before anything runs."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import Parameter
from pathlib import Path
from types import UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from core.errors import GrpoLabError, near
from core.parts.settings import Limit, SettingError, annotations, fault, form_of, signature

P = ParamSpec("P")
R = TypeVar("R")


def checked(*, meant: Mapping[str, str] | None = None, **limits: Limit) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Refuse arguments that a function does not take, or that its annotations and `limits` do not allow.

    Numbers, text, paths, literals, and lists and dictionaries of them are checked; what is annotated otherwise is the
    function's own to check. `meant` says of names from elsewhere what they are here.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            _check_names(function, args, kwargs, meant or {})
            for name, value in signature(function).bind(*args, **kwargs).arguments.items():
                annotation = annotations(function).get(name, Any)
                if _is_plain(annotation):
                    must = fault(_as_plain(value), form_of(annotation, limits.get(name)))
                    if must:
                        raise SettingError(f"{function.__qualname__}: {name}", value, must)
            return function(*args, **kwargs)

        return call

    return decorate


def in_python(text: str) -> str:
    """A message of the command line as Python has it: `--group-size` is the parameter `group_size`."""
    return re.sub(r"(?<![\w-])--([a-z][a-z-]*)", lambda option: option[1].replace("-", "_"), text)


def _check_names(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], meant: Mapping[str, str]
) -> None:
    """Refuse names that are no parameters, parameters that are missing and values that are too many."""
    parameters = signature(function).parameters
    positional = [name for name, each in parameters.items() if each.kind is Parameter.POSITIONAL_OR_KEYWORD]
    called = function.__qualname__
    if not any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values()):
        for name in kwargs:
            if name in meant:
                raise GrpoLabError(f"{called} has no parameter '{name}': it is {meant[name]}")
            if name not in parameters:
                raise GrpoLabError(f"{called} has no parameter '{name}': {near(name, set(parameters) - {'self'})}")
    if len(args) > len(positional):
        raise GrpoLabError(
            f"{called} takes {', '.join(positional)} without a name, and {len(args)} values were given: name the others"
        )
    twice = [name for name in positional[: len(args)] if name in kwargs]
    if twice:
        raise GrpoLabError(f"{called}: {twice[0]} is given twice, with and without its name: take one out")
    for name, each in parameters.items():
        is_needed = each.default is Parameter.empty and each.kind in (
            Parameter.POSITIONAL_OR_KEYWORD,
            Parameter.KEYWORD_ONLY,
        )
        if is_needed and name not in kwargs and name not in positional[: len(args)]:
            raise GrpoLabError(f"{called} needs {name}: {called}(..., {name}=...)")


def _is_plain(annotation: Any) -> bool:
    """Whether an annotation is of numbers, text and paths, or lists and dictionaries of them."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return all(map(_is_plain, inner))
    if origin is Literal:
        return True
    if isinstance(origin, type) and issubclass(origin, Sequence | Mapping):
        return all(each is Any or _is_plain(each) for each in inner)
    return annotation in (int, float, bool, str, type(None), Path)


def _as_plain(value: Any) -> Any:
    """A value with numpy's numbers and arrays, and ranges, as Python's."""
    if isinstance(value, range):
        return list(value)
    return value.tolist() if hasattr(value, "tolist") else value
