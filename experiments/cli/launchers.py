"""The options that choose a launcher and declare what a run needs of it."""

import argparse
import importlib
import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from core.errors import GrpoLabError, near
from core.parts.settings import Range
from experiments.options import number

if TYPE_CHECKING:
    from core.loop.recipe import Recipe
    from experiments.launchers.job import Launch, Needs
    from experiments.study.processes import Processes

LAUNCHERS: Final = ("local", "ray", "slurm")
"""Each the name of its module."""
OF_LAUNCHER: Final = {
    "address": ("ray",),
    "bring_back": ("ray",),
    "partition": ("slurm",),
    "time": ("slurm",),
    "cpus": ("ray", "slurm"),
    "gpus": ("ray", "slurm"),
}
"""Which launchers an option is for; the others are for all."""
KEPT: Final = 1.35
"""What a process comes to over its forecast, since glibc keeps what is freed: 1.18 to 1.32 measured on SmolLM2-135M
with all weights trained."""
KEPT_WITH_ADAPTERS: Final = 2.4
"""The same where adapters are trained: 1.44 and 2.33 measured at two shapes, not while the model is read."""
LIBRARIES: Final = 0.5 * 2**30
"""Bytes of a process that has imported everything and read no model: 0.4 GiB measured, on CPU."""
UNITS: Final = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def add_launcher_options(parser: argparse.ArgumentParser) -> None:
    """`--launcher`, what a run needs, and what is one launcher's own."""
    group = parser.add_argument_group("where runs run")
    group.add_argument("--launcher", default="local", metavar="NAME", help="local, ray or slurm (default: local)")
    group.add_argument("--memory", metavar="SIZE", help="of a run, 4G say (default: forecast; slurm: none)")
    group.add_argument(
        "--cpus",
        type=number("--cpus", int, Range(1, 4096)),
        metavar="N",
        help="ray, slurm: of a run (default: train.threads)",
    )
    group.add_argument(
        "--gpus",
        type=number("--gpus", float, Range(0, 4096)),
        metavar="X",
        help="ray, slurm: of a run; 0.5 shares one (default: 0)",
    )
    group.add_argument("--address", metavar="HOST:PORT", help="ray: of a running cluster, or auto (default: start one)")
    group.add_argument(
        "--bring-back",
        action="store_true",
        help="ray: --out is not shared with the nodes; bring the files of ended runs back",
    )
    group.add_argument("--partition", metavar="NAME", help="slurm: default, the cluster's")
    group.add_argument(
        "--time", type=number("--time", int, Range(1, 10**6)), metavar="MINUTES", help="slurm: until a run is requeued"
    )


def chosen_launcher(options: argparse.Namespace) -> "Launch":
    """The launcher that was asked for; GrpoLabError for an unknown name and for options that do not go together."""
    name = options.launcher
    if name not in LAUNCHERS:
        raise GrpoLabError(f"--launcher {name}: unknown; {near(name, LAUNCHERS)}")
    for option, launchers in OF_LAUNCHER.items():
        if getattr(options, option) not in (None, False) and name not in launchers:
            raise GrpoLabError(
                f"--{option.replace('_', '-')} is for --launcher {' or '.join(launchers)}, and this is {name}: "
                "leave it out"
            )
    if options.memory is not None:
        parse_memory(options.memory)
    gpus = options.gpus or 0.0
    if (gpus > 1 or name == "slurm") and gpus != int(gpus):
        raise GrpoLabError(f"--gpus {gpus:g}: a whole number, or with --launcher ray a share of one between 0 and 1")
    if name == "slurm" and options.time is None:
        raise GrpoLabError("--launcher slurm: give --time MINUTES, the limit of one run")
    launch: Any = importlib.import_module(f"experiments.launchers.{name}").launch
    if name == "ray":
        launch = partial(launch, address=options.address, bring_back=options.bring_back)
    if name == "slurm":
        launch = partial(launch, partition=options.partition, minutes=options.time)
    chosen: Launch = launch
    return chosen


def needs_of(recipe: "Recipe", processes: "Processes", options: argparse.Namespace) -> "Needs":
    """What a run of `recipe` needs: as declared, else its processes' threads, no GPU, and what memory is forecast."""
    from experiments.launchers.job import Needs
    from experiments.memory.forecast import forecast

    if options.memory is not None:
        memory = parse_memory(options.memory)
    elif options.launcher == "slurm":  # which kills what grows beyond its declaration
        memory = 0
    else:
        found = forecast(recipe, processes=processes.number, sharded=processes.sharding is not None)
        kept = KEPT_WITH_ADAPTERS if recipe.policy.lora else KEPT
        memory = processes.number * int(kept * found.peak + LIBRARIES)
    return Needs(options.cpus or processes.number * recipe.threads, options.gpus or 0.0, memory)


def parse_memory(text: str) -> int:
    """Bytes: 4G is 4 * 2^30."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT])", text)
    if not found or not float(found[1]):
        raise GrpoLabError(f"--memory {text}: give a number and K, M, G or T, such as 4G")
    return int(float(found[1]) * UNITS[found[2]])
