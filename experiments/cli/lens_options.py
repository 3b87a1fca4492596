"""The options of `grpolab lens`, and how their lists are read."""

import argparse
from collections.abc import Sequence
from typing import Any, Final

from core.errors import GrpoLabError
from core.parts.settings import COUNT, Range
from experiments.options import add_config_options, add_seed_option, number

OUT: Final = "runs/lens"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `grpolab lens`."""
    parser.add_argument(
        "names",
        nargs="+",
        metavar="NAME|FILE.py",
        help="a variant, an advantage, or a file of yours, meaning all of both in it",
    )
    add_config_options(parser)
    parser.add_argument(
        "--group-size",
        type=number("--group-size", int, COUNT),
        default=None,
        metavar="G",
        help="samples per prompt (default: 8; with --age or --mismatch 4; with --turns 2 4, with --turns 3 3; with "
        "--model that of the recipe)",
    )
    parser.add_argument(
        "--group-sizes", default=None, metavar="LIST", help="group sizes of the curve (default: 2,4,8,16)"
    )
    parser.add_argument(
        "--rollouts",
        type=number("--rollouts", int, COUNT),
        default=None,
        metavar="N",
        help="responses in a batch, as near as complete groups allow (default: 64)",
    )
    parser.add_argument(
        "--batches",
        type=number("--batches", int, COUNT),
        default=None,
        metavar="N",
        help="sampled batches for each group size (default: 2000)",
    )
    add_seed_option(parser)
    _add_other_forms(parser)
    parser.add_argument(
        "--parts",
        nargs="+",
        metavar="PART",
        help="put each PART into each NAME: a registered part, an anchor, several as a+b, none for no correction, or "
        "all of a kind: corrections, anchors, objectives, ...",
    )
    parser.add_argument(
        "--model",
        default=None,
        metavar="FILE.gin|RUN",
        help="measure on a model: a config's, e.g. embedded, or a finished run's",
    )
    parser.add_argument(
        "--prompts",
        type=number("--prompts", int, COUNT),
        default=64,
        metavar="N",
        help="with --model: problems in the pool of rollouts (default: 64)",
    )
    parser.add_argument("--json", action="store_true", help="print everything measured as JSON")
    parser.add_argument("--out", default=OUT, metavar="FOLDER", help=f"default: {OUT}")


def _add_other_forms(parser: argparse.ArgumentParser) -> None:
    apart = parser.add_mutually_exclusive_group()
    apart.add_argument(
        "--age",
        nargs="*",
        metavar="K",
        help="off-policy: responses of the policy K updates ago; several (default: 0 1 2 4 8 16) are compared",
    )
    apart.add_argument(
        "--mismatch",
        nargs="*",
        metavar="D",
        help="off-policy: responses of a sampler D nats a token away, by noise on its logits (default: 0 1e-4 1e-3 "
        "1e-2)",
    )
    apart.add_argument(
        "--turns",
        type=int,
        choices=(2, 3),
        help="episodes of up to so many turns, with a tool: bias, variance, and what is made of another turn",
    )


def parse_sizes(text: str) -> tuple[int, ...]:
    """`2,4,8` as group sizes."""
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise GrpoLabError(f"--group-sizes {text}: give a list of numbers, e.g. 2,4,8") from None
    if min(sizes) < 1:
        raise GrpoLabError(f"--group-sizes {text}: a group has at least one sample")
    return sizes


def parse_distances(option: str, texts: Sequence[str], kind: type, limit: Range) -> list[Any]:
    """`0 2 8` or `0,2,8` as numbers, in their order and each once."""
    read = number(option, kind, limit)
    try:
        return sorted({read(part) for text in texts for part in text.split(",") if part})
    except GrpoLabError as error:
        raise GrpoLabError(f"{error}; what to measure is named before {option}") from None
