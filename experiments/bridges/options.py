"""Options of commands that name a variant; read before torch is imported."""

import argparse


def add_part_options(parser: argparse.ArgumentParser) -> None:
    """`--import` and `--bind`: parts of the user's own, and settings."""
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module of yours that registers parts; repeatable",
    )
    parser.add_argument(
        "-b", "--bind", action="append", default=[], metavar="'NAME = VALUE'", help="a gin binding; repeatable"
    )
