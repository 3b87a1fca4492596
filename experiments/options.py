"""Options that several commands share."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from core.errors import GrpoLabError
from core.parts.settings import NOT_NEGATIVE, POSITIVE, Range, SettingError, fault, form_of

TABLE_LIMITS: Final[Mapping[str, Range]] = {
    "budget": POSITIVE,
    "margin": Range(1e-30, 1e30),
    "alpha": Range(0, 0.5, "both"),
    "floor": Range(),
    "answers": POSITIVE,
}
"""Of the numbers in a question about a table, by parameter."""
PROCESSES: Final = Range(1, 4096)
FIGURE_FORMATS: Final = ("svg", "pdf", "png")
FIGURE_WIDTHS: Final = Range(1.5, 20.0)
COLUMN: Final = 3.3
"""Inches: the width of a column in most two-column papers."""


def number(option: str, kind: type, limit: Range) -> Callable[[str], Any]:
    """A parser of an option's number, an int or a float; out of limits it raises the error that a setting would."""
    form = form_of(kind, limit)

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = text
        if must := fault(value, form):
            raise SettingError(option, value, must)
        return value

    return read


def figure_format(text: str) -> str:
    """A format in which figures are written; any other word is an error that says what may stand there."""
    if text not in FIGURE_FORMATS:
        raise GrpoLabError(
            f"--figures {text}: the formats are {', '.join(FIGURE_FORMATS[:-1])} and {FIGURE_FORMATS[-1]}, each a word "
            "of its own; the study's folder comes before --figures"
        )
    return text


def add_seed_option(parser: argparse.ArgumentParser) -> None:
    """`--seed`."""
    parser.add_argument("--seed", type=number("--seed", int, NOT_NEGATIVE), default=0)


def file_to_write(text: str) -> Path:
    """The path of an output file; raises early where none can be written: a folder, a device."""
    path = Path(text)
    if path.name in ("", "..") or (path.exists() and not path.is_file()):
        raise GrpoLabError(
            f"--out {text} is no file that can be written: give a file's name, e.g. {path / 'out.jsonl'}"
        )
    return path


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """`--config` and `--bind`: gin files and single bindings, in that order."""
    parser.add_argument(
        "-c",
        "--config",
        action="append",
        default=[],
        metavar="FILE.gin",
        help="gin file; repeatable; a name alone is looked for among the shipped ones",
    )
    parser.add_argument(
        "-b",
        "--bind",
        action="append",
        default=[],
        metavar="'NAME = VALUE'",
        help="gin binding, wins over files; repeatable",
    )


def add_track_option(parser: argparse.ArgumentParser) -> None:
    """`--track`: trackers beside metrics.jsonl."""
    parser.add_argument(
        "--track",
        action="append",
        default=[],
        metavar="NAME",
        help="also send every step to tensorboard, wandb, trackio or mlflow; repeatable; servers, "
        "folders and offline use by the tracker's own environment variables",
    )


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """`--accelerate` and `--processes`: one run on several processes of a machine."""
    parser.add_argument(
        "--accelerate", metavar="CONFIG", help="a run on several processes: ddp, fsdp2, deepspeed_zero3, or a file"
    )
    parser.add_argument(
        "--processes",
        type=number("--processes", int, PROCESSES),
        metavar="N",
        help="of a run (default: the configuration's, or 1)",
    )
