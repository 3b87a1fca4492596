"""The options that choose a launcher and the resources of a run."""

import argparse
import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Final

import experiments.launchers.shipped  # noqa: F401 - registers them
from core.errors import GrpoLabError, describe_error, near
from core.parts.settings import Range
from experiments.launchers.launcher import LAUNCHERS, Launcher, Where
from experiments.options import number

UNITS: Final = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def add_launcher_options(parser: argparse.ArgumentParser) -> None:
    """`--launcher`, the resources of a run, and each launcher's own options."""
    group = parser.add_argument_group("where runs run")
    *names, last = LAUNCHERS
    group.add_argument(
        "--launcher", default="local", metavar="NAME", help=f"{', '.join(names)} or {last} (default: local)"
    )
    without = ", ".join(each.name for each in LAUNCHERS.values() if not each.forecasts_memory)
    group.add_argument("--memory", metavar="SIZE", help=f"of a run, 4G say (default: forecast; {without}: none)")
    group.add_argument(
        "--cpus",
        type=number("--cpus", int, Range(1, 4096)),
        metavar="N",
        help=f"{', '.join(_launchers_with('cpus'))}: of a run (default: train.threads)",
    )
    group.add_argument(
        "--gpus",
        type=number("--gpus", float, Range(0, 4096)),
        metavar="X",
        help=f"{', '.join(_launchers_with('gpus'))}: of a run; 0.5 shares one (default: 0; local: by memory)",
    )
    for launcher in LAUNCHERS.values():
        try:
            launcher.add_options(group)
        except argparse.ArgumentError as error:
            raise GrpoLabError(f"launcher '{launcher.name}': {error}; give its option another name") from error


def _launchers_with(option: str) -> list[str]:
    """The launchers that accept an option."""
    return [name for name, each in LAUNCHERS.items() if option in each.takes or option in each.own_options()]


def read_where(options: argparse.Namespace) -> Where:
    """The chosen launcher; GrpoLabError for an unknown name and for options that do not go together."""
    launcher = LAUNCHERS.get(options.launcher)
    if launcher is None:
        raise GrpoLabError(f"--launcher {options.launcher}: unknown; {near(options.launcher, LAUNCHERS)}")
    _refuse_others(launcher, options)
    memory = None if options.memory is None else parse_memory(options.memory)
    launcher.check(options)
    return Where(launcher, launcher.launch(options), options.cpus, options.gpus or 0.0, memory)


def where(launcher: str = "local", options: Mapping[str, Any] = MappingProxyType({})) -> Where:
    """The launcher of that name with its options and the resources of a run, by the names of the command line.

    `where("ray", {"address": "auto", "cpus": 2, "memory": "4G"})`. Raises GrpoLabError as `read_where` does, and for an
    option that no launcher has.
    """
    _import(launcher)
    parser = argparse.ArgumentParser(add_help=False)
    add_launcher_options(parser)
    chosen = parser.parse_args([])
    for name, value in options.items():
        if name == "launcher" or name not in vars(chosen):
            known = [each for each in vars(chosen) if each != "launcher"]
            raise GrpoLabError(f"no launcher has an option '{name}': {near(name, known)}")
        setattr(chosen, name, value)
    chosen.launcher = launcher
    return read_where(chosen)


def _refuse_others(launcher: Launcher, options: argparse.Namespace) -> None:
    """Raise for an option of another launcher."""
    defaults = {"cpus": None, "gpus": None}
    for each in LAUNCHERS.values():
        defaults |= each.own_options()
    for option, default in defaults.items():
        if getattr(options, option) != default and launcher.name not in (names := _launchers_with(option)):
            raise GrpoLabError(
                f"--{option.replace('_', '-')} is for --launcher {' or '.join(names)}, and this is {launcher.name}: "
                "leave it out"
            )


def import_launcher(arguments: Sequence[str] | None) -> None:
    """Import the user's module that `--launcher` names, unless a launcher has that name: it may register one."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--launcher", nargs="?")
    _import(parser.parse_known_args(arguments)[0].launcher or "")


def _import(name: str) -> None:
    if name in LAUNCHERS or name in sys.modules or not name.isidentifier() or find_spec(name) is None:
        return
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever a user's module does while it is imported
        raise GrpoLabError(
            f"--launcher {name}: importing the module '{name}' fails: {describe_error(error)}"
        ) from error


def parse_memory(text: str) -> int:
    """Bytes: 4G is 4 * 2^30."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT])", text)
    if not match or not float(match[1]):
        raise GrpoLabError(f"--memory {text}: give a number and K, M, G or T, such as 4G")
    return int(float(match[1]) * UNITS[match[2]])
