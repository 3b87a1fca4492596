"""Options that several commands share."""

import argparse


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """`--config` and `--bind`: gin files and single bindings, in that order."""
    parser.add_argument("-c", "--config", action="append", default=[], metavar="FILE.gin",
                        help="gin file; repeatable; a name alone is looked for among the shipped ones")  # fmt: skip
    parser.add_argument("-b", "--bind", action="append", default=[], metavar="'NAME = VALUE'",
                        help="gin binding, wins over files; repeatable")  # fmt: skip
