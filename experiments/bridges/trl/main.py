"""`grpolab-trl`: TRL's GRPO script with a variant's maths.

    grpolab-trl --variant dapo --bind "dapo.eps_high = 0.3" -- --model_name_or_path MODEL --dataset_name DATA ...
    accelerate launch $(which grpolab-trl) --variant dapo -- ...

What stands after `--` are the options of `trl grpo`.
"""

import argparse
import functools
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import GrpoLabError
from experiments.bridges.options import add_part_options
from experiments.bridges.trl.refusals import names_of, refuse
from experiments.bridges.variant import variant_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; 2 where something cannot be, with one message."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    cut = given.index("--") if "--" in given else len(given)
    options = _parser().parse_args(given[:cut])
    _find_in_same_named_folders()
    try:
        train(options, given[cut + 1 :])
    except GrpoLabError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"grpolab-trl: {error}", file=sys.stderr)
        return 2
    return 0


def train(options: argparse.Namespace, of_trl: Sequence[str]) -> None:
    """Run TRL's script with the bridged trainer in place of its own."""
    variant = variant_of(options.variant, modules=options.modules, files=options.gin, bindings=options.bind)
    from experiments.bridges.trl.trainer import BridgedGRPOTrainer  # it needs TRL, and what is above may fail first

    script, trl = _script()
    try:
        parsed = script.make_parser(prog="grpolab-trl [options] --").parse_args_and_config(list(of_trl))
    except ValueError as error:
        raise GrpoLabError(f"TRL's script: {error}") from error
    script_arguments, config = parsed[:2]
    refuse(variant, config, correct=options.correct, rewards=_rewards(script_arguments))  # before data are read
    # the script takes the trainer from the package when it is run
    trl.GRPOTrainer = functools.partial(BridgedGRPOTrainer, variant=variant, correct=options.correct)
    script.main(*parsed)


def _rewards(options: Any) -> list[str]:
    """Names of the reward functions that TRL's script will take."""
    models = [options.reward_model_name_or_path] if options.reward_model_name_or_path else []
    return [*names_of(models), *(name.rsplit(".", 1)[-1] for name in options.reward_funcs or [])]


def _script() -> tuple[Any, Any]:
    import trl
    from trl.scripts import grpo

    return grpo, trl


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="grpolab-trl",
        usage="%(prog)s --variant NAME [options] -- OPTIONS OF `trl grpo`",
        description="Train a variant with TRL's GRPO script. On several processes: accelerate launch "
        "$(which grpolab-trl) ...",
        allow_abbrev=False,
    )
    parser.add_argument("--variant", required=True, metavar="NAME", help="a variant's name")
    add_part_options(parser)
    parser.add_argument("--gin", action="append", default=[], metavar="FILE", help="a gin file; repeatable")
    parser.add_argument(
        "--correct",
        metavar="REWARD_FUNC",
        help="the reward function whose value, from 1 up, is the verifier's verdict, where there are several",
    )
    return parser


def _find_in_same_named_folders() -> None:
    """Let the user's modules be found in a folder named like one of ours, e.g. `core`, after ours."""
    for name in ("core", "estimators", "variants", "experiments"):
        folder, where = str(Path.cwd() / name), importlib.import_module(name).__path__
        if Path(folder).is_dir() and folder not in where:
            where.append(folder)


if __name__ == "__main__":
    sys.exit(main())
