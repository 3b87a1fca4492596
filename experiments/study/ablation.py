"""The gin declaration of an ablation, and every mistake in it before an arm is built.

    ablate.design = 'leave_one_out'
    ablate.axes = {'dapo.eps_high': [0.28, 0.2], 'dapo.filter': [@nonuniform, None]}
    ablate.names = {'dapo.eps_high': 'clip-higher'}

What declares the study (metric, margin, name, ...) stays with `compare`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from core import SETTINGS, GrpoLabError, Part, setting
from core.errors import near
from core.parts.gin_reader import referenced
from core.parts.registry import REGISTRIES, REQUIRED, bindings_in_force
from core.parts.settings import NOT_NEGATIVE, Range
from experiments.study.designs import DESIGNS, Axis, bindings, count, random_points

MAX_ARMS: Final = 1000
NOT_VARIED: Final = {
    "compare": "it declares the study, not a run",
    "ablate": "it declares the study, not a run",
    "evaluation": "all arms must be tested alike",
}


@dataclass(frozen=True)
class Ablation:
    """Arms by label, the baseline first; `shared` binds every axis to its first value for all of them."""

    design: str
    axes: tuple[Axis, ...]
    shared: tuple[str, ...]
    arms: Mapping[str, tuple[str, ...]]
    seed: int | None
    """Of the draw, where the design draws."""

    @property
    def declaration(self) -> dict[str, Any]:
        """What is hashed with the study."""
        drawn = {} if self.seed is None else {"seed": self.seed}
        return {"design": self.design, **drawn, "axes": {axis.parameter: list(axis.values) for axis in self.axes}}

    def joint(self, baseline: str) -> list[str]:
        """Arms that differ from `baseline` on more than one axis."""
        bound = {label: {line.split(" = ")[0]: line for line in lines} for label, lines in self.arms.items()}
        base = bound[baseline]
        apart = {x: sum(b.get(k) != base.get(k) for k in b.keys() | base.keys()) for x, b in bound.items()}
        return [label for label, axes in apart.items() if axes > 1]


@setting(limits={"number": Range(2), "seed": NOT_NEGATIVE})
def ablate(
    *,
    axes: Mapping[str, Sequence[Any]] = REQUIRED,
    design: Literal["grid", "one_at_a_time", "leave_one_out", "cumulative", "random"] = "one_at_a_time",
    names: Mapping[str, str] | None = None,
    number: int | None = None,
    seed: int = 0,
) -> Ablation:
    """Declare an ablation: `axes` maps a parameter to its values, `design` says which combinations are arms.

    The first arm is the baseline, unless `compare.baseline` names another:

        grid            every combination                                     from the first values on
        one_at_a_time   the first values, then each other value alone         `base`
        leave_one_out   axes are [with, without]: all, then all but one       `full`
        cumulative      axes are [with, without]: none, then one more each    `bare`
        random          `number` distinct points of the grid by `seed`        the first values, always among them

    `names` renames axes in labels. Axes are read unresolved: values must stay gin text.
    """
    swept = _axes(axes, names or {})
    pairs = design != "random" and DESIGNS[design].pairs
    for axis in swept:
        if len(axis.values) < 2 or (pairs and len(axis.values) != 2):
            needed = "exactly two, [with, without]" if pairs else "two or more"
            raise GrpoLabError(
                f"ablate.axes: '{axis.parameter}' has {len(axis.values)} value{'s'[: len(axis.values) != 1]} and "
                f"design '{design}' needs {needed}; add values, or bind '{axis.parameter}' outside ablate.axes"
            )
    sizes = [len(axis.values) for axis in swept]
    if design == "random":
        if number is None or number > math.prod(sizes):
            raise GrpoLabError(
                f"ablate.number = {number!r}: design 'random' draws from 2 to all {math.prod(sizes)} points of the "
                "grid, the first values among them"
            )
    elif number is not None or ("settings.ablate", "seed") in bindings_in_force():
        raise GrpoLabError(f"ablate.number and ablate.seed go with design 'random', not '{design}': remove them")
    arms = number if number is not None else count(design, sizes)
    if arms > MAX_ARMS:
        raise GrpoLabError(
            f"ablate: design '{design}' makes {arms:,} arms of {' x '.join(map(str, sizes))} values, more than "
            f"{MAX_ARMS:,}; drop values, choose 'one_at_a_time', or draw some with 'random' and ablate.number"
        )
    if number is not None:
        points, label = random_points(sizes, number, seed), DESIGNS["grid"].label
    else:
        points, label = DESIGNS[design].points(sizes), DESIGNS[design].label
    labelled: dict[str, tuple[str, ...]] = {}
    for point in points:
        name, lines = label(swept, point), bindings(swept, point)
        if name in labelled:
            raise GrpoLabError(
                f"ablate: two arms are called '{name}' ({'; '.join(labelled[name]) or 'the first values'} and "
                f"{'; '.join(lines)}); give other ablate.names, or values that can be told apart"
            )
        labelled[name] = lines
    return Ablation(design, swept, bindings_of_first(swept), labelled, seed if number is not None else None)


def bindings_of_first(axes: Sequence[Axis]) -> tuple[str, ...]:
    """Gin lines that give every axis its first value."""
    return tuple(axis.binding(0) for axis in axes)


def declared_ablation() -> Ablation | None:
    """The ablation that the present gin config declares; None when it binds nothing of `ablate`."""
    bound = {
        parameter: value for (owner, parameter), value in bindings_in_force().items() if owner == "settings.ablate"
    }
    if not bound:
        return None
    if "axes" not in bound:
        raise GrpoLabError("ablate has no axes: bind ablate.axes = {'dapo.eps_high': [0.2, 0.28]}")
    ablation: Ablation = SETTINGS["ablate"](axes=bound["axes"])
    return ablation


def _axes(axes: Mapping[str, Sequence[Any]], names: Mapping[str, str]) -> tuple[Axis, ...]:
    """Checked axes, each named by its parameter alone where that is unambiguous."""
    if not axes:
        raise GrpoLabError("ablate.axes is empty: ablate.axes = {'dapo.eps_high': [0.2, 0.28]}")
    last = [key.rsplit(".", 1)[-1] for key in axes]
    swept, seen = [], dict[tuple[str, str], str]()
    for key, values in axes.items():
        part, parameter = _find(key)
        same = seen.setdefault((part.selector, parameter), key)
        if same != key:
            raise GrpoLabError(f"ablate.axes: '{key}' and '{same}' are the same parameter; keep one")
        for place, value in enumerate(values):
            _check_value(key, part, parameter, value)
            if any(_equal(other, value) for other in values[:place]):
                raise GrpoLabError(f"ablate.axes: '{key}' has the value {value!r} twice; remove one")
        name = names.get(key, parameter if last.count(parameter) == 1 else f"{part.name}.{parameter}")
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise GrpoLabError(f"ablate.names: {name!r} is part of a folder's name: use letters, digits, '_', '-', '.'")
        swept.append(Axis(name, key, tuple(map(repr, values))))
    unknown = sorted(set(names) - set(axes))
    if unknown:
        raise GrpoLabError(f"ablate.names: '{unknown[0]}' is not an axis: {near(unknown[0], axes)}")
    return tuple(swept)


def _find(key: str) -> tuple[Part, str]:
    """The part and the parameter that an axis names, as gin would find them."""
    owner, _, parameter = key.rpartition(".")
    name = owner.rsplit(".", 1)[-1]
    parts = {n: part for registry in REGISTRIES.values() for n, part in registry.items()}
    if name not in parts or owner not in (name, parts[name].selector):
        raise GrpoLabError(
            f"ablate.axes: '{key}' names no parameter: write PART.PARAMETER, e.g. 'dapo.eps_high'; {near(name, parts)}"
        )
    if name in NOT_VARIED:
        raise GrpoLabError(f"ablate.axes: '{key}' cannot be an axis: {NOT_VARIED[name]}; bind it outside ablate.axes")
    if parameter not in parts[name].defaults:
        raise GrpoLabError(
            f"ablate.axes: '{name}' has no parameter '{parameter}': {near(parameter, parts[name].defaults)}"
        )
    return parts[name], parameter


def _check_value(key: str, part: Part, parameter: str, value: object) -> None:
    """Refuse a reference or a dictionary where a plain value belongs, and a plain value where a part does."""
    default, given = part.defaults[parameter], referenced(value)
    if isinstance(default, Part):
        # whether None is allowed is up to the variant: a filter may be left out, an advantage may not
        if value is not None and (given is None or given.kind != default.kind):
            raise GrpoLabError(
                f"ablate.axes: '{key}' takes a registered {default.kind}, such as @{default.name}, not {value!r}; one "
                f"of: {', '.join('@' + name for name in REGISTRIES[default.kind])}"
            )
    elif isinstance(value, Mapping) and not isinstance(default, Mapping):
        such = f"a value such as {default!r}" if isinstance(default, bool | int | float | str) else "one value"
        raise GrpoLabError(f"ablate.axes: '{key}' takes {such}, not {value!r}; write the values of the axis as a list")
    elif (
        given is not None
        and isinstance(default, bool | int | float | str)
        and f"@{given.name}()" not in part.form(parameter).words  # what this part makes is such a value too
    ):
        raise GrpoLabError(
            f"ablate.axes: '{key}' takes a value such as {default!r}, not the {given.kind} {value!r}; write values "
            "without @"
        )


def _equal(one: object, other: object) -> bool:
    """Whether two values are equal, as 1 and 1.0 are: the runs would be the same."""
    return repr(one) == repr(other) or (
        isinstance(one, int | float) and isinstance(other, int | float) and one == other
    )
