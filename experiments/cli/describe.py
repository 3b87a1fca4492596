"""`grpolab list` and `grpolab describe`: formula, source, axis card, every parameter, and what the lens measured."""

import argparse
import inspect
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from core import VARIANTS, GrpoLabError, Part, Variant
from core.errors import near
from core.parts.bindings import bindings_used, refuse_unused
from core.parts.gin_text import bound
from core.parts.registry import REGISTRIES, REQUIRED, Setting, bindings_in_force, config
from core.parts.settings import ANYTHING, shown
from core.parts.variant import differences
from core.store.files import read_json
from experiments.check.files import is_file, parts_of, registered
from experiments.lens.shipped import FIGURES, off_policy, on_policy
from experiments.study.configs import (
    CONFIGS,
    find_config,
    shipped_configs,
)


def run_list(options: argparse.Namespace) -> int:
    """`grpolab list`."""
    kinds = {kind + ("es" if kind.endswith("s") else "s"): registry for kind, registry in REGISTRIES.items()}
    if options.kind and options.kind not in (*kinds, "configs"):
        raise GrpoLabError(f"unknown kind '{options.kind}': {near(options.kind, (*kinds, 'configs'))}")
    # a gin file's imports register parts
    with config([find_config(file) for file in options.config], options.bind, include_from=[CONFIGS]):
        for kind, registry in kinds.items():
            if options.kind in (None, kind) and registry:
                _print_names(kind, {n: (p.function.__doc__ or "").strip() for n, p in sorted(registry.items())})
    if options.kind in (None, "configs"):
        _print_names("configs", shipped_configs())
    return 0


def _print_names(kind: str, texts: Mapping[str, str]) -> None:
    """Every name of a kind, with the first line of its text."""
    print(kind)
    width = max(map(len, texts))
    for name, text in texts.items():
        print(f"  {name:<{width}}  {text.splitlines()[0]}")


def documentation(part: Part) -> str:
    """Formula and source: of a variant that has a file of its own the file's description, else the function's."""
    module = sys.modules[part.function.__module__]
    own_file = module.__name__.rsplit(".", 1)[-1] == part.name
    return inspect.cleandoc((module.__doc__ if own_file else None) or part.function.__doc__ or "")


def parameters(part: Part) -> Iterator[tuple[str, str, str, str]]:
    """Every hyper-parameter of a part, or of a variant and its parts: gin name, value, source, what it must be."""
    for name, setting in part.settings().items():
        yield f"{part.name}.{name}", _value(part, name, setting), _source(part, name, setting), _requirement(part, name)
    if part.kind == "variant":
        variant: Variant = part()
        for used in variant.parts:
            for name, setting in used.settings().items():
                source = _source(used, name, setting, variant.name)
                yield f"{used.name}.{name}", _value(used, name, setting), source, _requirement(used, name)


def _value(part: Part, name: str, setting: Setting) -> str:
    """The value as gin text, or that it must be bound."""
    if setting.value is REQUIRED:
        return "(to be bound)"
    return repr(bound(part.selector)[name]) if setting.source == "binding" else shown(setting.value)


def _requirement(part: Part, name: str) -> str:
    form = part.form(name)
    return "" if form is ANYTHING else form.words


def _source(part: Part, name: str, setting: Setting, variant: str = "") -> str:
    """Where the value comes from: the paper, the default, the user's binding, or the variant."""
    if setting.source == "published":
        return f"published: {part.published[name]}"
    if setting.source == "variant":
        reached = f"{variant}.{name}" if name in VARIANTS[variant].defaults else variant
        return f"set by {reached}"
    return "your binding" if setting.source == "binding" else "default"


def run_describe(options: argparse.Namespace) -> int:
    """`grpolab describe`."""
    own = [part.name for part in parts_of(Path(options.name))] if is_file(options.name) else []
    with config([find_config(file) for file in options.config], options.bind, include_from=[CONFIGS]):
        registry = registered()
        names = [*(own or [options.name]), *([] if options.diff is None else [options.diff])]
        for name in names:
            if name not in registry:
                raise GrpoLabError(f"unknown part '{name}': {near(name, registry)}")
        parts = [registry[name] for name in names]
        if options.diff is not None and (len(parts) != 2 or not set(names) <= VARIANTS.keys()):
            raise GrpoLabError("--diff compares two variants")
        given = [*(x for f in options.config for x in ("-c", f)), *(x for b in options.bind for x in ("-b", b))]
        lens = shlex.join(["grpolab", "lens", options.name, *given])
        texts = [_diff(names)] if options.diff is not None else [_description(part, lens) for part in parts]
        variants: list[Variant] = [part() for part in parts if part.kind == "variant"]
        used = [*(part for part in parts if part.kind != "variant"), *(p for v in variants for p in v.parts)]
        if not options.config:  # a whole study's file binds more than parts
            resolved = [part.resolved() for part in used]
            refuse_unused(bindings_in_force(), bindings_used(), resolved, [v.name for v in variants])
    print("\n\n".join(texts))
    return 0


def _description(part: Part, lens: str) -> str:
    """Kind, place, documentation, axis card and parameters of a part; of a variant its lens figures too."""
    card = _table(list(part.describe().items())) if part.axes else ""
    blocks = (
        f"{part.kind} {part.name}  ({part.place})",
        documentation(part),
        str(part()) if part.kind == "variant" else card,
        _table([(name, f"= {value}", f"({source})", must) for name, value, source, must in parameters(part)]),
        _lens_figures(part, lens) if part.kind == "variant" else "",
    )
    return "\n\n".join(filter(None, blocks))


def _lens_figures(part: Part, command: str) -> str:
    """What the lens measured of a shipped variant as it is shipped, with the commands that measure it."""
    figures = read_json(FIGURES)
    ages = figures["off_policy"]["at"]
    commands = (command, f"{command} --age {' '.join(map(str, ages))}")
    if part.name not in figures["variants"] or any(source == "your binding" for _, _, source, _ in parameters(part)):
        return _table([("bias and variance of its gradient:", commands[0]), ("of older responses:", commands[1])])
    fresh = {title: text for title, text in on_policy(figures, part.name).items() if title != "tokens a batch"}
    rows = [("gradient", *fresh, "measured by"), ("sampled, on-policy", *fresh.values(), commands[0])]
    for age, numbers in off_policy(figures, part.name).items():
        named = f"exact, {age} updates old"
        rows.append((named, *(numbers.get(title, "") for title in fresh), commands[1]))
    aside = figures["variants"][part.name]["beside_reward"]
    also = f"\n\n  It optimises more than the reward, which counts as bias: {', '.join(aside)}." if aside else ""
    return _table(rows) + also


def _diff(names: Sequence[str]) -> str:
    """The axes on which two variants differ."""
    rows = differences(*(_card_with_idle_kl(VARIANTS[name]()) for name in names))
    return _table([("", *names), *((axis, *texts) for axis, texts in rows.items())])


def _card_with_idle_kl(variant: Variant) -> Mapping[str, str]:
    """The axis card; a KL estimator whose coefficient is 0 is named too."""
    if variant.kl is None or variant.uses_kl:
        return variant.card()
    return {**variant.card(), "KL": f"none; {variant.kl!r} in the {variant.kl_place} from kl_coef > 0 up"}


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns as wide as their widest cell."""
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(f"  {line}" for line in lines)
