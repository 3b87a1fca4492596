"""`grpolab memory`: what a run will hold, by purpose and phase, before it is started."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from rich.console import Console

from core.errors import GrpoLabError
from experiments.options import add_config_options

if TYPE_CHECKING:
    from rich.table import Table

    from experiments.memory.forecast import Forecast

MIB = 2**20


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `grpolab memory`."""
    add_config_options(parser)
    parser.add_argument("--processes", type=int, default=1, metavar="N",
                        help="processes that share a run's responses (default: 1)")  # fmt: skip
    parser.add_argument("--shard", action="store_true", help="spread weights and optimizer state over the processes")
    parser.add_argument("--measure", action="store_true", help="run two steps in a process of their own and compare")
    parser.add_argument("--json", action="store_true", help="print bytes as JSON")


def run_memory(options: argparse.Namespace) -> int:
    """`grpolab memory`."""
    import core.registry as registry
    from experiments.memory.forecast import forecast
    from experiments.memory.measure import measure
    from experiments.study import CONFIGS, DECLARING, build, find_config, run_text

    if options.processes < 1:
        raise GrpoLabError(f"--processes {options.processes}: must be at least 1")
    if options.measure and (options.processes > 1 or options.shard):
        raise GrpoLabError("--measure runs one process: leave --processes and --shard out")
    files = [find_config(file) for file in options.config or ["embedded"]]
    with registry.config(files, options.bind, include_from=[CONFIGS]):
        recipe = build("train")
        keys = [key for key in registry.bindings_in_force() if key[0].removeprefix("settings.") not in DECLARING]
        registry.refuse_unused(keys, registry.bindings_used(), recipe.parts, [recipe.variant.name])
        text = run_text()
    found = forecast(recipe, processes=options.processes, sharded=options.shard)
    measured = measure(text) if options.measure else None
    if options.json:
        print(json.dumps(_as_json(found) | ({"measured": measured.peak} if measured else {}), indent=1))
        return 0
    console = Console()
    console.print(memory_table(found))
    for line in _sentences(found, recipe.policy.model, options.processes):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if measured:
        console.print(
            f"measured: {_size(measured.peak)} above the libraries' own, in the first steps; forecast / measured "
            f"{found.peak / measured.peak:.2f} (responses had {measured.length:.0f} tokens in the mean, "
            f"train.max_tokens is {recipe.max_tokens})", highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    return 0


def memory_table(found: "Forecast") -> "Table":
    """Purposes by phases, in MiB."""
    from rich.table import Table

    purposes = dict.fromkeys(purpose for parts in found.parts.values() for purpose in parts)
    table = Table("MiB", title="one process, by phase")
    for phase in found.parts:
        table.add_column(phase, justify="right")
    for purpose in purposes:
        counts = [parts.get(purpose, 0) for parts in found.parts.values()]
        if any(counts):
            table.add_row(purpose, *(f"{count / MIB:,.1f}" if count else "" for count in counts))
    table.add_section()
    totals = [f"{moment.bytes / MIB:,.1f}" for moment in found.moments.values()]
    table.add_row("together", *totals, style="bold")
    return table


def _sentences(found: "Forecast", model: str, processes: int) -> list[str]:
    each = " in each process" if processes > 1 else ""
    lines = [f"peak: {_size(found.peak)}{each}, in phase '{found.phase}'"]
    lines += [f"  {phase}: {moment.name}" for phase, moment in found.moments.items()]
    lines.append(f"{found.trainable:,} of {found.total:,} parameters are trained")
    if not found.prompts.are_counted:
        lines.append(f"{model} comes without a tokenizer: prompts count a token a byte, which is more than they have")
    lines.append(
        "on top comes what Python and the libraries take; on CPU that is also memory which glibc keeps when it is "
        "freed (MALLOC_MMAP_THRESHOLD_=65536 makes it give back)"
    )
    return lines


def _as_json(found: "Forecast") -> dict[str, Any]:
    return {
        "peak": found.peak,
        "phase": found.phase,
        "moments": {phase: moment.name for phase, moment in found.moments.items()},
        "parts": {phase: dict(parts) for phase, parts in found.parts.items()},
        "parameters": {"total": found.total, "trainable": found.trainable},
        "prompt_tokens": {
            "mean": found.prompts.mean, "longest": found.prompts.longest, "counted": found.prompts.are_counted,
        },
    }  # fmt: skip


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / MIB:.1f} MiB"
