"""Parts and registries: how a function gets a name, a place in a config file, and its hyper-parameters.

A decorator (`@advantage`, `@objective`, ...) checks a function's signature where it is written, registers it under
its own name and returns a `Part`. Calling a `Part` looks its hyper-parameters up in the gin config in force, so that a
binding on a leaf always applies, and checks each value against annotation and limits. With no config a
call is a plain Python call.
"""

import hashlib
import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Formatter
from types import MappingProxyType
from typing import Any, Final, TypedDict, Unpack

from core.errors import GrpoLabError, near, similar
from core.parts.gin_text import REQUIRED as REQUIRED
from core.parts.gin_text import add, bound, resolved, use
from core.parts.gin_text import bindings_in_force as bindings_in_force
from core.parts.gin_text import config as config
from core.parts.gin_text import config_text as config_text
from core.parts.gin_text import keys_of as keys_of
from core.parts.gin_text import place_of as place_of
from core.parts.gin_text import places as places
from core.parts.gin_text import refuse_doubled as refuse_doubled
from core.parts.settings import LARGEST_NUMBER, Form, Limit, SettingError, annotations, fault, form_of, signature


@dataclass(frozen=True)
class Setting:
    """A hyper-parameter's value, and where it came from: `default`, `published`, `binding` or `variant`."""

    value: Any
    source: str


@dataclass(frozen=True, eq=False)
class Part:
    """A registered function with its name, hyper-parameters and axes.

    Two parts are equal when they are the same function with the same values set by `using`.
    """

    kind: str
    function: Callable[..., Any]
    options: object = None
    """Its decorator's other options, by kind: `core.parts.options`."""
    axes: Mapping[str, str] = field(default_factory=dict)
    """What this part decides, by axis: a format string over its hyper-parameters."""
    published: Mapping[str, str] = field(default_factory=dict)
    """Hyper-parameters whose default is the value of a paper or of a library's code, and of which."""
    limits: Mapping[str, Limit] = field(default_factory=dict)
    """Between which numbers a hyper-parameter must lie."""
    set_values: Mapping[str, Any] = field(default_factory=dict)
    supplied: frozenset[str] = frozenset()
    """Keyword arguments that the core fills in, so not hyper-parameters."""
    is_resolved: bool = False
    source: str = ""
    """Digest of the file that defines the part, as it was when it was imported."""

    @property
    def name(self) -> str:
        """Registered name = function name = gin name."""
        return self.function.__name__

    @property
    def selector(self) -> str:
        """The complete gin name, e.g. `objectives.clip`."""
        return f"{_MODULES[self.kind]}.{self.name}"

    @property
    def module(self) -> str:
        """The module that defines the function."""
        return self.function.__module__

    @property
    def place(self) -> str:
        """File and line of the definition."""
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        return f"{code.co_filename}:{code.co_firstlineno}" if code else self.function.__module__

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the positional parameters: what the part asks for."""
        return tuple(
            p.name
            for p in signature(self.function).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        )

    @property
    def defaults(self) -> dict[str, Any]:
        """Hyper-parameters and their defaults."""
        return {
            p.name: p.default
            for p in signature(self.function).parameters.values()
            if p.kind is p.KEYWORD_ONLY and p.name not in self.supplied
        }

    def takes(self, keyword: str) -> bool:
        """Whether the function names this keyword argument."""
        return keyword in signature(self.function).parameters

    def settings(self) -> dict[str, Setting]:
        """Every hyper-parameter's value and source, resolved through gin now."""
        settings = {
            name: Setting(value, "published" if name in self.published else "default")
            for name, value in self.defaults.items()
        }
        if not self.is_resolved:
            for name, value in bound(self.selector).items():
                if name not in self.set_values:
                    use((self.selector, name))
                    settings[name] = Setting(resolved(value, f"{self.name}.{name}"), "binding")
                    self.check(name, settings[name].value, place_of((self.selector, name)))
        settings |= {name: Setting(value, "variant") for name, value in self.set_values.items()}
        return settings

    def form(self, name: str) -> Form:
        """What a hyper-parameter must be, by its annotation and limits."""
        return form_of(annotations(self.function).get(name, Any), self.limits.get(name), self.defaults[name])

    def check(self, name: str, value: Any, place: str = "") -> None:
        """Raise `SettingError` where a hyper-parameter may not have this value, which was given at `place`."""
        if value is REQUIRED:
            return
        # in Python infinity is a bound that is none; gin's text has no word for it, and what reads that refuses it
        is_no_bound = isinstance(value, float) and math.isinf(value) and not place
        if must := fault(math.copysign(LARGEST_NUMBER, value) if is_no_bound else value, self.form(name)):
            raise SettingError(f"{self.name}.{name}", value, _with_names(must, value), place)

    def using(self, **values: Any) -> "Part":
        """The same part with these hyper-parameters set, e.g. by a variant; they then win over a gin binding."""
        unknown = values.keys() - self.defaults.keys()
        if unknown:
            raise GrpoLabError(
                f"{self.kind} '{self.name}' ({self.place}) has no hyper-parameter "
                f"{', '.join(sorted(unknown))}; it has: {', '.join(self.defaults) or 'none'}. What sets them needs "
                f"an {self.kind} that has them, or another variant"
            )
        for name, value in values.items():
            self.check(name, value)
        return replace(self, set_values={**self.set_values, **values})

    def resolved(self) -> "Part":
        """The same part with every hyper-parameter fixed to its present value, so that calls no longer ask gin."""
        values = {name: setting.value for name, setting in self.settings().items()}
        return replace(self, set_values=values, is_resolved=True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function with its hyper-parameters as they are now; keyword arguments given here win."""
        if self.is_resolved:
            return self.function(*args, **{**self.set_values, **kwargs})
        values = {
            name: setting.value for name, setting in self.settings().items() if setting.source in ("binding", "variant")
        }
        for name in kwargs.keys() & self.defaults.keys():
            self.check(name, kwargs[name])
        values |= kwargs
        missing = [n for n, v in (self.defaults | values).items() if v is inspect.Parameter.empty or v is REQUIRED]
        if missing:
            raise GrpoLabError(f"{self.name}.{missing[0]} is not set: bind it, e.g. {self.name}.{missing[0]} = ...")
        return self.function(*args, **values)

    def describe(self) -> dict[str, str]:
        """Axis by axis, what the part does with its present hyper-parameters; a changed one is never left unsaid."""
        values = {name: setting.value for name, setting in self.settings().items()}
        card = {axis: template.format(**values) for axis, template in self.axes.items()}
        named = {name for template in self.axes.values() for _, name, _, _ in Formatter().parse(template)}
        unsaid = [f"{n} = {v!r}" for n, v in values.items() if n not in named and v != self.defaults[n]]
        if unsaid and card:
            card[next(iter(card))] += f" ({', '.join(unsaid)})"
        return card

    def _key(self) -> tuple[Any, ...]:
        return (
            self.kind,
            self.name,
            self.function,
            tuple(sorted(self.set_values.items(), key=lambda kv: kv[0])),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash((self.kind, self.name))

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={setting.value!r}" for name, setting in self.settings().items())
        return f"{self.name}({values})"


class Registry(Mapping[str, Part]):
    """All parts of one kind, by name: the only list there is."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._parts: dict[str, Part] = {}

    def __getitem__(self, name: str) -> Part:
        if name not in self._parts:
            raise GrpoLabError(f"unknown {self.kind} '{name}': {near(name, self._parts)}")
        return self._parts[name]

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def add(self, part: Part) -> Part:
        """Register a part; raises `GrpoLabError` naming both places when its name is taken by any kind."""
        for registry in REGISTRIES.values():
            existing = registry._parts.get(part.name)
            if existing is not None:
                raise GrpoLabError(
                    f"{part.kind} '{part.name}' at {part.place}: the name is taken by the {existing.kind} at "
                    f"{existing.place}; rename one of them (a name in a gin file must mean one thing)"
                )
        self._parts[part.name] = part
        add(_shim(part), part.name, _MODULES[self.kind])
        return part


_MODULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "advantage": "advantages",
        "objective": "objectives",
        "aggregator": "aggregators",
        "kl": "kls",
        "correction": "corrections",
        "credit": "credits",
        "selection": "selections",
        "filter": "filters",
        "shaping": "shapings",
        "provider": "providers",
        "value_loss": "value_losses",
        "variant": "variants",
        "task": "tasks",
        "reward": "rewards",
        "environment": "environments",
        "generator": "generators",
        "source": "sources",
        "setting": "settings",
    }
)
"""Kind of part to gin module."""

REGISTRIES: Final[Mapping[str, Registry]] = MappingProxyType({kind: Registry(kind) for kind in _MODULES})
(
    ADVANTAGES,
    OBJECTIVES,
    AGGREGATORS,
    KLS,
    CORRECTIONS,
    CREDITS,
    SELECTIONS,
    FILTERS,
    SHAPINGS,
    PROVIDERS,
    VALUE_LOSSES,
    VARIANTS,
    TASKS,
    REWARDS,
    ENVIRONMENTS,
    GENERATORS,
    SOURCES,
    SETTINGS,
) = REGISTRIES.values()


def _with_names(must: str, value: Any) -> str:
    """Words about parts, with the names that there are."""
    for kind, registry in REGISTRIES.items():
        if f"registered {kind}" in must:
            names = [f"@{name}" for name in registry]
            hint = similar(f"@{value.lstrip('@').removesuffix('()')}", names) if isinstance(value, str) else ""
            return must.replace("@name", f"{hint and '@name: '}{hint}one of {', '.join(names)}", 1)
        if f"a {kind}, with brackets" in must:
            name = value.name if isinstance(value, Part) and value.kind == kind else next(iter(registry), "name")
            return must.replace("@name()", f"@{name}()")
    return must


def as_part(value: Any, kind: str, where: str) -> Part:
    """The `Part` that a gin reference or a Python argument stands for; raises if it is of another kind."""
    part = getattr(value, "part", value)
    if not isinstance(part, Part) or part.kind != kind:
        actual = f"the {part.kind} '{part.name}'" if isinstance(part, Part) else repr(value)
        names = ", ".join(REGISTRIES[kind])
        raise GrpoLabError(f"{where} must be a registered {kind}, not {actual}; in gin write @name, one of: {names}")
    return part


_LIMITS_OF_PACKAGES: dict[str, Mapping[str, Limit]] = {}


def default_limits(package: str, limits: Mapping[str, Limit]) -> None:
    """Give these limits to every part that a package registers from now on, where it has such a hyper-parameter.

    A part's own limits win. Raises `GrpoLabError` where the package has registered a part before: it would have none.
    """
    early = [part for registry in REGISTRIES.values() for part in registry.values() if _belongs(part.module, package)]
    if early:
        raise GrpoLabError(
            f"{early[0].place}: {early[0].kind} '{early[0].name}' was registered before the default limits of "
            f"'{package}': declare them before that module is imported"
        )
    _LIMITS_OF_PACKAGES[package] = limits


def _belongs(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


class Descriptions(TypedDict, total=False):
    """What every decorator takes: a part's `axes`, `published` values and `limits`."""

    axes: Mapping[str, str]
    published: Mapping[str, str]
    limits: Mapping[str, Limit]


def register(
    kind: str,
    function: Callable[..., Any],
    options: object = None,
    supplied: Collection[str] = (),
    **descriptions: Unpack[Descriptions],
) -> Part:
    """Make a `Part` of a function and add it to the registry of its kind.

    Refuses lambdas, missing docstrings, `**kwargs`, and hyper-parameters that are positional.
    """
    for package, limits in _LIMITS_OF_PACKAGES.items():
        if _belongs(function.__module__, package):
            descriptions = {**descriptions, "limits": {**limits, **descriptions.get("limits", {})}}
    part = Part(kind, function, options, **descriptions, supplied=frozenset(supplied), source=_source(function))
    signature = inspect.signature(function)
    if not function.__name__.isidentifier():
        raise GrpoLabError(f"{part.place}: a {kind} needs a name of its own: write it as a def, not a lambda")
    if not (function.__doc__ or "").strip():
        raise GrpoLabError(f"{part.place}: {kind} '{part.name}' needs a docstring: one sentence is enough")
    if part.published.keys() - part.defaults.keys():
        raise GrpoLabError(f"{part.place}: {kind} '{part.name}' publishes what it has no hyper-parameter for")
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            raise GrpoLabError(f"{part.place}: {kind} '{part.name}' may not take *{parameter.name}: name each argument")
    return REGISTRIES[kind].add(part)


def _source(function: Callable[..., Any]) -> str:
    """Digest of the whole file: a part may rest on anything in it."""
    file = inspect.unwrap(function).__code__.co_filename
    return hashlib.blake2b(Path(file).read_bytes(), digest_size=8).hexdigest() if Path(file).is_file() else ""


def _shim(part: Part) -> Callable[..., Any]:
    """The function that gin sees: hyper-parameters only, and a way back to the part."""

    def call(**_: Any) -> Any:
        # gin has already looked the same bindings up; the part does it again so that each is counted as used
        return part()

    call.__name__ = call.__qualname__ = part.name
    call.__doc__ = part.function.__doc__
    parameters = inspect.signature(part.function).parameters
    # what must be bound is missed by the part, in words of ours, and not by gin
    shown = [p.replace(default=None) if p.default is REQUIRED else p for p in (parameters[n] for n in part.defaults)]
    call.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    call.part = part  # type: ignore[attr-defined]
    return call
