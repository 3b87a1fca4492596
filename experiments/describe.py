"""What a part or a variant is: formula, source, axis card, and every parameter with where its value came from."""

import argparse
import inspect
import sys
from collections.abc import Iterator, Mapping

from core import VARIANTS, GrpoLabError, Part, Variant
from core.errors import near
from core.registry import REGISTRIES, Setting, bindings_in_force, bindings_used, config, refuse_unused
from experiments.study import CONFIGS, find_config


def documentation(part: Part) -> str:
    """Formula and source: of a variant that has a file of its own the file's description, else the function's."""
    module = sys.modules[part.function.__module__]
    own_file = module.__name__.rsplit(".", 1)[-1] == part.name
    return inspect.cleandoc((module.__doc__ if own_file else None) or part.function.__doc__ or "")


def parameters(part: Part) -> Iterator[tuple[str, str, str]]:
    """Every hyper-parameter of a part, or of a variant and its parts: name in gin, value, and where that came from."""
    for name, setting in part.settings().items():
        yield f"{part.name}.{name}", _value(setting.value), _source(part, name, setting)
    if part.kind == "variant":
        variant: Variant = part()
        for used in variant.parts:
            for name, setting in used.settings().items():
                yield f"{used.name}.{name}", _value(setting.value), _source(used, name, setting, variant.name)


def _value(value: object) -> str:
    return f"@{value.name}" if isinstance(value, Part) else repr(value)


def _source(part: Part, name: str, setting: Setting, variant: str = "") -> str:
    """In words: the paper, the default, the reader's own binding, or the variant."""
    if setting.source == "published":
        return f"published: {part.published[name]}"
    if setting.source == "variant":
        reached = f"{variant}.{name}" if name in VARIANTS[variant].defaults else f"variants/{variant}"
        return f"set by {reached}"
    return "your binding" if setting.source == "binding" else "default"


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The axes on which two cards differ, with what each says."""
    axes = dict.fromkeys([*one, *other])
    return {a: (one.get(a, "-"), other.get(a, "-")) for a in axes if one.get(a) != other.get(a)}


def run_describe(options: argparse.Namespace) -> int:
    """`grpolab describe`."""
    found = {name: part for registry in REGISTRIES.values() for name, part in registry.items()}
    with config([find_config(file) for file in options.config], options.bind, include_from=[CONFIGS]):
        found |= {name: part for registry in REGISTRIES.values() for name, part in registry.items()}  # a file's own
        for name in filter(None, (options.name, options.diff)):
            if name not in found:
                raise GrpoLabError(f"unknown part '{name}': {near(name, found)}")
        part = found[options.name]
        if options.diff:
            if not {options.name, options.diff} <= VARIANTS.keys():
                raise GrpoLabError("--diff compares two variants")
            rows = differences(*(VARIANTS[name]().card() for name in (options.name, options.diff)))
            _table([("", options.name, options.diff), *((axis, *texts) for axis, texts in rows.items())])
            return 0
        print(f"{part.kind} {part.name}  ({part.place})\n\n{documentation(part)}\n")
        if part.kind == "variant":
            variant: Variant = part()
            print(f"{variant}\n")
            if not options.config:
                parts = [p.resolved() for p in variant.parts]
                refuse_unused(bindings_in_force(), bindings_used(), parts, [part.name])
        elif part.axes:
            _table([(axis, text) for axis, text in part.describe().items()])
            print()
        _table([(name, f"= {value}", f"({source})") for name, value, source in parameters(part)])
    return 0


def _table(rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())
