"""Options that several commands share."""

import argparse


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """`--config` and `--bind`: gin files and single bindings, in that order."""
    parser.add_argument("-c", "--config", action="append", default=[], metavar="FILE.gin",
                        help="gin file; repeatable; a name alone is looked for among the shipped ones")  # fmt: skip
    parser.add_argument("-b", "--bind", action="append", default=[], metavar="'NAME = VALUE'",
                        help="gin binding, wins over files; repeatable")  # fmt: skip


def add_track_option(parser: argparse.ArgumentParser) -> None:
    """`--track`: trackers beside metrics.jsonl."""
    parser.add_argument("--track", action="append", default=[], metavar="NAME",
                        help="also send every step to tensorboard, wandb, trackio or mlflow; repeatable; servers, "
                             "folders and offline use by the tracker's own environment variables")  # fmt: skip


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """`--accelerate` and `--processes`: one run on several processes of a machine."""
    parser.add_argument("--accelerate", metavar="CONFIG",
                        help="a run on several processes: ddp, fsdp2, deepspeed_zero3, or a file")  # fmt: skip
    parser.add_argument("--processes", type=int, metavar="N", help="of a run (default: the configuration's, or 1)")
