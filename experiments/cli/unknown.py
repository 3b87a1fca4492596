"""What to say of command-line arguments that a command does not take."""

import argparse
import ast
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

from core.errors import GrpoLabError
from core.parts.gin_reader import known_parts
from core.parts.other_libraries import elsewhere
from core.parts.settings import any_of
from experiments.setup import import_parts

MAX_OWNERS: Final = 3
"""Parts that a message names for one hyper-parameter."""
ALMOST: Final = 0.75
"""How alike a slip of the keyboard leaves two names, as difflib measures it."""


def refuse_unknown(options: argparse.Namespace, unknown: Sequence[str]) -> None:
    """Refuse arguments that the command does not take, with its usage and what was probably meant.

    Raises `GrpoLabError` for a config without `-c`; otherwise ends the program with exit code 2, as argparse does.
    """
    if configs := [each for each in unknown if each.endswith(".gin")]:
        raise GrpoLabError(f"{configs[0]}: a config goes after -c: grpolab {options.command.name} -c {configs[0]}")
    parser: argparse.ArgumentParser = options.command_parser
    option = next((each for each in unknown if each.startswith("-")), None)
    if option is None:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}: {parser.prog} --help says what goes where")
    flag, has_value, value = option.partition("=")
    if not has_value:
        after = unknown[unknown.index(option) + 1 :]
        value = after[0] if after and not after[0].startswith("--") else "..."
    remedy = _remedy(parser, f"--{flag.lstrip('-')}", value) or f"{parser.prog} --help lists all"
    parser.error(f"unknown option {flag}: {remedy}")


def _remedy(parser: argparse.ArgumentParser, flag: str, value: str) -> str:
    """The options that begin so or are spelt almost so, else the setting of this name; empty where there is neither."""
    known = [each for each in parser._option_string_actions if each.startswith("--")]
    begun = [each for each in known if each.startswith(flag)]
    if close := begun or get_close_matches(flag, known, n=2, cutoff=ALMOST):
        return f"did you mean {any_of(close)}?"
    if setting := _setting(flag.lstrip("-").replace("-", "_"), value):
        return setting if "--bind" in known else f"{setting}, where runs are made: grpolab train, compare, ..."
    return ""


def _setting(name: str, value: str) -> str:
    """How to bind what has this name here or in another library; empty where nothing has."""
    import_parts()
    owner, _, parameter = name.rpartition(".")
    parts = [part for part in known_parts() if parameter in part.defaults and owner in ("", part.name)]
    settings = [part for part in parts if part.kind == "setting"]
    first = [part for part in settings if part.name == "train"] or settings
    if not first and (said := elsewhere(name)):
        return f'{said}; a setting is bound by -b "NAME = VALUE"'
    owners = sorted(part.name for part in first or parts)
    bindings = [f'-b "{each}.{parameter} = {_written(value)}"' for each in owners[:MAX_OWNERS]]
    more = ", among others" if len(owners) > MAX_OWNERS else ""
    return f"a setting is bound by {any_of(bindings)}{more}" if owners else ""


def _written(value: str) -> str:
    """A value as gin text: text in quotes, and anything else as it is."""
    try:
        ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value if value == "..." or value.startswith(("@", "%")) else f"'{value}'"
    return value
