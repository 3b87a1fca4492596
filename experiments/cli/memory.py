"""`grpolab memory`: the memory of a run, by purpose and phase, before it is started."""

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from core.errors import GrpoLabError
from experiments.options import PROCESSES, add_config_options, number
from experiments.terminal import Console

if TYPE_CHECKING:
    from rich.table import Table

    from experiments.memory.forecast import Forecast

MIB = 2**20


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `grpolab memory`."""
    add_config_options(parser)
    parser.add_argument(
        "--processes",
        type=number("--processes", int, PROCESSES),
        default=1,
        metavar="N",
        help="processes that share a run's responses (default: 1)",
    )
    parser.add_argument("--shard", action="store_true", help="spread weights and optimizer state over the processes")
    parser.add_argument("--variants", metavar="LIST", help="these side by side, e.g. ppo,grpo,remax,rloo,dpo")
    parser.add_argument(
        "--sizes", metavar="LIST", help="with --variants, of models of these sizes: policy=7B,critic=7B,reward=2B"
    )
    parser.add_argument("--measure", action="store_true", help="run two steps in a process of their own and compare")
    parser.add_argument("--json", action="store_true", help="print bytes as JSON")


def run_memory(options: argparse.Namespace) -> int:
    """`grpolab memory`."""
    import core.parts.registry as registry
    import experiments.study.study  # noqa: F401 - registers what the file of a study binds beside parts
    from core.parts.bindings import bindings_used, refuse_unused
    from experiments.memory.forecast import forecast
    from experiments.memory.measure import measure
    from experiments.study.configs import (
        CONFIGS,
        DECLARING,
        build,
        find_config,
        run_text,
    )

    if options.measure and (options.processes > 1 or options.shard):
        raise GrpoLabError("--measure runs one process: leave --processes and --shard out")
    if options.sizes and not options.variants:
        raise GrpoLabError("--sizes is a table of variants: name them with --variants, e.g. ppo,grpo")
    if options.variants:
        return show_sizes(options) if options.sizes else show_variants(options)
    files = [find_config(file) for file in options.config or ["embedded"]]
    with registry.config(files, options.bind, include_from=[CONFIGS]):
        recipe = build("train")
        keys = [key for key in registry.bindings_in_force() if key[0].removeprefix("settings.") not in DECLARING]
        refuse_unused(keys, bindings_used(), recipe.parts, [recipe.variant.name])
        text = run_text()
    predicted = forecast(recipe, processes=options.processes, sharded=options.shard)
    measured = measure(text) if options.measure else None
    if options.json:
        print(json.dumps(_as_json(predicted) | ({"measured": measured.peak} if measured else {}), indent=1))
        return 0
    console = Console()
    console.print(memory_table(predicted))
    for line in _sentences(predicted, recipe.policy.model, options.processes):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if measured:
        console.print(
            f"measured: {_size(measured.peak)} above the libraries' own, in the first steps; forecast / measured "
            f"{predicted.peak / measured.peak:.2f} (responses had {measured.length:.0f} tokens in the mean, "
            f"train.max_tokens is {recipe.max_tokens})",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    return 0


def show_variants(options: argparse.Namespace) -> int:
    """Several variants side by side, each under the same configuration."""
    import core.parts.registry as registry
    from core.parts.bindings import bindings_used, refuse_unused
    from experiments.memory.forecast import forecast
    from experiments.memory.measure import measure
    from experiments.memory.methods import forecasts_table, models_of_forecast
    from experiments.study.configs import (
        CONFIGS,
        DECLARING,
        build,
        find_config,
        run_text,
    )

    files = [find_config(file) for file in options.config or ["embedded"]]
    names = variants_of(options)
    rows, keys, used = {}, set(), set()
    for name in names:
        with registry.config(files, [*options.bind, f"train.variant = @{name}()"], include_from=[CONFIGS]):
            recipe = build("train")
            predicted = forecast(recipe, processes=options.processes, sharded=options.shard)
            rows[name] = (recipe, predicted, measure(run_text()) if options.measure else None)
            keys |= {k for k in registry.bindings_in_force() if k[0].removeprefix("settings.") not in DECLARING}
            used |= bindings_used()
    refuse_unused(sorted(keys), used, [part for recipe, *_ in rows.values() for part in recipe.parts], names)
    if options.json:
        print(
            json.dumps(
                {
                    name: _as_json(predicted)
                    | {"equivalents": models_of_forecast(predicted, recipe).equivalents}
                    | ({"measured": measured.peak, "seconds": measured.seconds} if measured else {})
                    for name, (recipe, predicted, measured) in rows.items()
                },
                indent=1,
            )
        )
    else:
        Console().print(forecasts_table(rows))
    return 0


def show_sizes(options: argparse.Namespace) -> int:
    """Several variants side by side, for models of given sizes."""
    import core.parts.registry as registry
    from core.parts.bindings import bindings_used, refuse_unused
    from experiments.memory.methods import models_of, read_sizes, sizes_table

    if options.config or options.measure or options.shard or options.processes > 1:
        raise GrpoLabError(
            "--sizes is arithmetic on parameters: leave --config, --measure, --processes and --shard out"
        )
    sizes, names = read_sizes(options.sizes), variants_of(options)
    with registry.config(bindings=options.bind):
        variants = {name: registry.VARIANTS[name]().resolved() for name in names}
        models = {name: models_of(variant, sizes) for name, variant in variants.items()}
        parts = [part for variant in variants.values() for part in variant.parts]
        refuse_unused(sorted(registry.bindings_in_force()), bindings_used(), parts, names)
    for name, memory in models.items():
        for which in dict.fromkeys(part.partition("=")[0].strip() for part in options.sizes.split(",")):
            if not getattr(memory, which) and sizes[which]:
                print(f"{name} holds no {which}: {_remedy(name, which)}", file=sys.stderr)
    if options.json:
        rows = {n: asdict(m) | {"equivalents": m.equivalents, "bytes": m.bytes} for n, m in models.items()}
        print(json.dumps(rows, indent=1))
    else:
        Console().print(sizes_table(models))
    return 0


def _remedy(name: str, which: str) -> str:
    """How to make a variant hold the model whose size was given."""
    import core.parts.registry as registry

    if which == "reference" and "kl_coef" in registry.VARIANTS[name].defaults:
        return f"its KL penalty has the coefficient 0; with -b '{name}.kl_coef = 0.05' it would"
    if which == "critic" and "value_loss" in registry.VARIANTS[name].defaults:
        return "critic.trunk is the policy's; with critic.trunk = 'own' it would"
    return "none of its parts asks for one, and the size is left out"


def variants_of(options: argparse.Namespace) -> list[str]:
    """The names given by --variants, each registered."""
    import core.parts.registry as registry

    return [registry.VARIANTS[name.strip()].name for name in options.variants.split(",")]


def memory_table(forecast: "Forecast") -> "Table":
    """Purposes by phases, in MiB."""
    from rich.table import Table

    purposes = dict.fromkeys(purpose for parts in forecast.parts.values() for purpose in parts)
    table = Table("MiB", title="one process, by phase")
    for phase in forecast.parts:
        table.add_column(phase, justify="right")
    for purpose in purposes:
        counts = [parts.get(purpose, 0) for parts in forecast.parts.values()]
        if any(counts):
            table.add_row(purpose, *(f"{count / MIB:,.1f}" if count else "" for count in counts))
    table.add_section()
    totals = [f"{moment.bytes / MIB:,.1f}" for moment in forecast.moments.values()]
    table.add_row("together", *totals, style="bold")
    return table


def _sentences(forecast: "Forecast", model: str, processes: int) -> list[str]:
    each = " in each process" if processes > 1 else ""
    lines = [f"peak: {_size(forecast.peak)}{each}, in phase '{forecast.phase}'"]
    lines += [f"  {phase}: {moment.name}" for phase, moment in forecast.moments.items()]
    lines.append(f"{forecast.trainable:,} of {forecast.total:,} parameters are trained")
    if not forecast.prompts.are_counted:
        lines.append(f"{model} comes without a tokenizer: prompts count a token a byte, which is more than they have")
    lines.append(
        "on top comes what Python and the libraries take; on CPU that is also memory which glibc keeps when it is "
        "freed (MALLOC_MMAP_THRESHOLD_=65536 makes it give back)"
    )
    return lines


def _as_json(forecast: "Forecast") -> dict[str, Any]:
    return {
        "peak": forecast.peak,
        "phase": forecast.phase,
        "moments": {phase: moment.name for phase, moment in forecast.moments.items()},
        "parts": {phase: dict(parts) for phase, parts in forecast.parts.items()},
        "parameters": {"total": forecast.total, "trainable": forecast.trainable},
        "prompt_tokens": {
            "mean": forecast.prompts.mean,
            "longest": forecast.prompts.longest,
            "counted": forecast.prompts.are_counted,
        },
    }


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / MIB:.1f} MiB"
