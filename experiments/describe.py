"""What a part or a variant is: formula, source, axis card, and every parameter with where its value came from."""

import argparse
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence

from core import VARIANTS, GrpoLabError, Part, Variant
from core.errors import near
from core.registry import REGISTRIES, Setting, bindings_in_force, bindings_used, config, refuse_unused
from core.variant import differences
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
        reached = f"{variant}.{name}" if name in VARIANTS[variant].defaults else variant
        return f"set by {reached}"
    return "your binding" if setting.source == "binding" else "default"


def run_describe(options: argparse.Namespace) -> int:
    """`grpolab describe`."""
    with config([find_config(file) for file in options.config], options.bind, include_from=[CONFIGS]):
        found = {name: part for registry in REGISTRIES.values() for name, part in registry.items()}
        for name in filter(None, (options.name, options.diff)):
            if name not in found:
                raise GrpoLabError(f"unknown part '{name}': {near(name, found)}")
        part = found[options.name]
        if options.diff:
            if not {options.name, options.diff} <= VARIANTS.keys():
                raise GrpoLabError("--diff compares two variants")
            variants: list[Variant] = [VARIANTS[name]() for name in (options.name, options.diff)]
            rows = differences(*map(_card_with_idle_kl, variants))
            table = [("", options.name, options.diff), *((axis, *texts) for axis, texts in rows.items())]
            used, names = [p for v in variants for p in v.parts], [options.name, options.diff]
        else:
            variants = [part()] if part.kind == "variant" else []
            table = [(name, f"= {value}", f"({source})") for name, value, source in parameters(part)]
            used, names = [p for v in variants for p in v.parts] or [part], [v.name for v in variants]
        resolved = [p.resolved() for p in used]
        if not options.config:  # a whole study's file binds more than parts
            refuse_unused(bindings_in_force(), bindings_used(), resolved, names)
        if not options.diff:
            print(f"{part.kind} {part.name}  ({part.place})\n\n{documentation(part)}\n")
            if variants:
                print(f"{variants[0]}\n")
            elif part.axes:
                _table(list(part.describe().items()))
                print()
        _table(table)
    return 0


def _card_with_idle_kl(variant: Variant) -> Mapping[str, str]:
    """The axis card, with the KL estimator named that waits for a coefficient."""
    if variant.kl is None or variant.uses_kl:
        return variant.card()
    return {**variant.card(), "KL": f"none; {variant.kl!r} in the {variant.kl_place} from kl_coef > 0 up"}


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())
