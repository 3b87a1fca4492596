"""What a setting may be: its annotation and its limits, asked of every value before it is used.

`int`, `float`, `bool`, `str`, `None`, `Literal`, unions, sequences, tuples, mappings, parts and what parts make are
understood; of any other annotation, or none, nothing is asked. Numbers are finite, whole numbers fit in 64 bits, True
is no number and 2.0 no whole one.
"""

import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from pathlib import Path, PurePath
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args, get_origin

from core.errors import GrpoLabError

MAX_SHOWN: Final = 120
"""Characters of a value that a message shows."""
LARGEST: Final = 2**63 - 1
"""Of whole numbers."""
LARGEST_NUMBER: Final = 3.4e38
"""Of others: more is infinite in float32."""
MANY: Final = 10**7
"""An upper end from here on is named only in the error of a value beyond it."""


@dataclass(frozen=True)
class Range:
    """Between which numbers a value must lie, both ends included unless they are `open`."""

    low: float = -math.inf
    high: float = math.inf
    open: Literal["", "low", "high", "both"] = ""

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open in ("low", "both") else value >= self.low
        return above and (value < self.high if self.open in ("high", "both") else value <= self.high)

    def __str__(self) -> str:
        """`from 0 to below 1`; nothing where there are no ends."""
        low, high = (f"{end:,}" if isinstance(end, int) else f"{end:.15g}" for end in (self.low, self.high))
        from_low = f"above {low}" if self.open in ("low", "both") else f"from {low}"
        to_high = f"below {high}" if self.open in ("high", "both") else high
        if math.isinf(self.low):
            return "" if math.isinf(self.high) else f"up to {to_high}"
        if self.high >= MANY:
            return from_low if from_low.startswith("above") else f"{from_low} up"
        if from_low.startswith("above"):
            return f"{from_low} and {to_high if to_high.startswith('below') else f'up to {high}'}"
        return f"{from_low} to {to_high}"


Limit: TypeAlias = Range | tuple[float, float]
"""A pair is a range with both ends included."""

POSITIVE: Final = Range(0, open="low")
NOT_NEGATIVE: Final = Range(0)
SHARE: Final = Range(0, 1)
COUNT: Final = Range(1, MANY)
"""Of steps, prompts, tokens: beyond it nothing would end, or fit."""
THREADS: Final = Range(1, 1024)


_DATA: Final = (str, bytes, int, float, complex, list, tuple, dict)


class SettingError(GrpoLabError):
    """A value that a setting may not have: which, what it must be, and where it was given."""

    def __init__(self, key: str, value: object, must: str, place: str = "") -> None:
        super().__init__(f"{key} = {shown(value)}: must be {must}{f' ({place})' if place else ''}")
        self.key, self.value, self.must = key, value, must


def shown(value: object) -> str:
    """A value as a message shows it: short, parts by their names, and no object's address."""
    try:
        text = _written(value)
    except (ValueError, RecursionError):  # a number of too many digits, a list in itself
        text = f"a {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 30]} ... {text[-20:]}"


def _written(value: Any) -> str:
    if _is_part(value):
        return f"@{value.name}"
    if isinstance(value, list | tuple):
        inner = ", ".join(map(_written, value)) + "," * (isinstance(value, tuple) and len(value) == 1)
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_written(item)}' for key, item in value.items())}}}"
    # not the repr of other objects: it may hold addresses, or read the very setting that is refused
    return repr(value) if value is None or isinstance(value, _DATA) else f"a {type(value).__name__}"


@dataclass(frozen=True)
class Form:
    """What a value must be: in words, for one and for several of them, and whether it is."""

    words: str
    many: str
    fits: Callable[[Any], bool]
    most: float = math.inf
    """Of numbers, where the words do not name it."""
    either: tuple["Form", ...] = ()
    """What it is one of."""


ANYTHING: Final = Form("anything", "values", lambda _: True)


def fault(value: object, form: Form) -> str | None:
    """What `value` must be instead, in words; None where it fits."""
    try:
        if form.fits(value):
            return None
    except RecursionError:  # a list in itself
        return form.words
    is_large = isinstance(value, int | float) and value > form.most
    return f"{form.words}, at most {form.most:,}" if is_large else form.words


def form_of(annotation: Any, limit: Limit | None = None, default: Any = None) -> Form:
    """The form that an annotation stands for; `limit` holds for every number in it, a `default` shows a part's kind."""
    between = limit if isinstance(limit, Range) else Range(*limit) if limit else Range()
    origin, inner = get_origin(annotation), get_args(annotation)
    kind = origin if isinstance(origin, type) else annotation if isinstance(annotation, type) else object
    if annotation in (int, float):
        return _whole(between) if annotation is int else _number(between)
    if annotation in (bool, str, None, type(None), Path):
        return _PLAIN[annotation]
    if origin is Literal:
        return _either([_just(literal) for literal in inner])
    if origin in (typing.Union, types.UnionType):
        return _either([form_of(each, between, default) for each in inner])
    if origin is Annotated:
        named = next((note for note in inner[1:] if isinstance(note, str)), "")
        if named and _names_part(inner[0]):
            return _part(named)
        if named.startswith("@"):  # what the one part of this name makes
            return Form(named, named, _is_like(inner[0]))
        form = _made(named, lambda value: not isinstance(value, _DATA))
        return form if named and inner[0] is Any else form_of(inner[0], between, default)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return _tuple([form_of(each, between, default) for each in inner])
    if issubclass(kind, Sequence) and kind is not bytes:
        first = next(iter(default), None) if isinstance(default, list | tuple) else None
        return _list(form_of(inner[0], between, first) if inner else ANYTHING)
    if issubclass(kind, Mapping):
        key, item = (form_of(each, between) for each in inner) if len(inner) == 2 else (ANYTHING, ANYTHING)
        return _mapping(key, item)
    if _names_part(annotation):
        return _part(default.kind if _is_part(default) else "")
    if kind.__module__.split(".")[0] == "core":  # what parts make: a variant, a task
        return _made(kind.__name__.lower(), _is_like(kind))
    return ANYTHING


def _whole(limit: Range) -> Form:
    def fits(value: object) -> bool:
        return (
            not isinstance(value, bool)
            and isinstance(value, Integral)
            and abs(int(value)) <= LARGEST
            and int(value) in limit
        )

    return Form(f"a whole number {limit}".strip(), f"whole numbers {limit}".strip(), fits, _unsaid(limit, LARGEST))


def _number(limit: Range) -> Form:
    def fits(value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, Real):
            return False
        try:
            return abs(float(value)) <= LARGEST_NUMBER and float(value) in limit
        except OverflowError:
            return False

    return Form(f"a number {limit}".strip(), f"numbers {limit}".strip(), fits, _unsaid(limit, LARGEST_NUMBER))


def _unsaid(limit: Range, largest: float) -> float:
    """The upper end that the words of a limit leave out."""
    return min(limit.high, largest) if limit.high >= MANY else math.inf


_PLAIN: Final = {
    bool: Form("True or False", "True or False", lambda value: isinstance(value, bool)),
    str: Form("text in quotes", "texts in quotes", lambda value: isinstance(value, str)),
    Path: Form("a path", "paths", lambda value: isinstance(value, PurePath)),
    None: Form("None", "None", lambda value: value is None),
    type(None): Form("None", "None", lambda value: value is None),
}


def _just(literal: object) -> Form:
    return Form(repr(literal), repr(literal), lambda value: type(value) is type(literal) and value == literal)


def _either(forms: Sequence[Form]) -> Form:
    flat = [each for form in forms for each in form.either or (form,)]
    if ANYTHING in flat:
        return ANYTHING
    return Form(
        any_of(form.words for form in flat),
        any_of(form.many for form in flat),
        lambda value: any(form.fits(value) for form in flat),
        min(form.most for form in flat),
        tuple(flat),
    )


def _list(item: Form) -> Form:
    return Form(
        f"a list of {item.many}",
        f"lists of {item.many}",
        lambda value: isinstance(value, list | tuple) and all(map(item.fits, value)),
    )


def _tuple(items: Sequence[Form]) -> Form:
    size = "two" if len(items) == 2 else str(len(items))
    alike = len({item.words for item in items}) == 1
    one = f"{size} {items[0].many}" if alike else f"({', '.join(item.words for item in items)})"

    def fits(value: object) -> bool:
        has_size = isinstance(value, list | tuple) and len(value) == len(items)
        return has_size and all(item.fits(x) for item, x in zip(items, value, strict=True))  # type: ignore[call-overload]

    return Form(one, f"tuples ({', '.join(item.words for item in items)})", fits)


def _mapping(key: Form, item: Form) -> Form:
    def fits(value: object) -> bool:
        return isinstance(value, Mapping) and all(key.fits(k) and item.fits(v) for k, v in value.items())

    return Form(f"a dictionary of {key.many} to {item.many}", f"dictionaries of {key.many} to {item.many}", fits)


def _part(kind: str) -> Form:
    def fits(value: Any) -> bool:
        part = getattr(value, "part", value)
        return _is_part(part) and kind in ("", part.kind)

    return Form(f"a registered {kind or 'part'}, @name", f"registered {kind or 'part'}s, @name", fits)


def _made(kind: str, fits: Callable[[Any], bool]) -> Form:
    """What a part of this kind makes."""

    def is_made(value: object) -> bool:
        return not _is_part(value) and fits(value)

    return Form(f"a {kind}, with brackets: @name()", f"{kind}s, with brackets: @name()", is_made)


def _is_like(kind: type) -> Callable[[object], bool]:
    """Whether a value is of a class, or has all attributes of a protocol."""
    if not getattr(kind, "_is_protocol", False):
        return lambda value: isinstance(value, kind)
    members = [n for n in (*vars(kind), *getattr(kind, "__annotations__", {})) if not n.startswith("_")]
    return lambda value: all(hasattr(value, name) for name in members)


def _names_part(annotation: Any) -> bool:
    return isinstance(annotation, type) and annotation.__name__ == "Part" and hasattr(annotation, "selector")


def _is_part(value: object) -> bool:
    # known by its make-up: parts are made of settings, not the other way round
    return _names_part(type(value))


def any_of(words: Iterable[str]) -> str:
    """`a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


@cache
def annotations(function: Callable[..., Any]) -> Mapping[str, Any]:
    """A function's annotations, those left out that cannot be read."""
    plain = inspect.unwrap(function)
    try:
        return typing.get_type_hints(plain, include_extras=True)
    except Exception:  # a single name that only a type checker knows spoils them all
        readable = {}
        for name, written in getattr(plain, "__annotations__", {}).items():
            try:
                readable[name] = eval(written, plain.__globals__) if isinstance(written, str) else written
            except Exception:  # what cannot be read asks nothing of a value
                continue
        return readable


@cache
def signature(function: Callable[..., Any]) -> inspect.Signature:
    """A function's parameters, read once: every call of a part asks for them."""
    return inspect.signature(function)
