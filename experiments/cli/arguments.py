"""The options of the commands that do not define them in their own file. Read before torch is imported."""

import argparse
from typing import Final

from core.parts.settings import COUNT, SHARE, Range
from experiments.cli.tables import add_options as add_table_options
from experiments.launchers.choice import add_launcher_options
from experiments.options import (
    COLUMN,
    FIGURE_FORMATS,
    FIGURE_WIDTHS,
    add_config_options,
    add_process_options,
    add_seed_option,
    add_track_option,
    figure_format,
    number,
)

OUT: Final = "runs"
TWO: Final = Range(2, COUNT.high)


def list_options(parser: argparse.ArgumentParser) -> None:
    """Options of `list`."""
    parser.add_argument("kind", nargs="?", help="one kind, e.g. variants, or configs: the shipped gin files")
    add_config_options(parser)


def describe_options(parser: argparse.ArgumentParser) -> None:
    """Options of `describe`."""
    parser.add_argument("name", metavar="NAME|FILE.py", help="a part, or a file of yours, meaning all parts in it")
    parser.add_argument("--diff", metavar="OTHER", help="show only the axes on which two variants differ")
    add_config_options(parser)


def train_options(parser: argparse.ArgumentParser, name: str = "train") -> None:
    """Options of `train`; `sft` gives another default name."""
    add_config_options(parser)
    add_seed_option(parser)
    _add_out(parser)
    parser.add_argument("--name", default=name, help=f"the run's folder in FOLDER (default: {name})")
    add_process_options(parser)
    add_track_option(parser)


def sft_options(parser: argparse.ArgumentParser) -> None:
    """Options of `sft`."""
    train_options(parser, "sft")


def compare_options(parser: argparse.ArgumentParser) -> None:
    """Options of `compare` and `ablate`."""
    add_config_options(parser)
    _add_study_options(parser, None, "compare.seeds, or 5")
    parser.add_argument(
        "--race", action="store_true", help="look after every seed and stop when all is decided (compare.race)"
    )
    parser.add_argument(
        "--grow",
        action="store_true",
        help="declare the study anew in its folder, with more seeds, more arms, further questions or another margin, "
        "and use its finished runs",
    )
    _add_output_options(parser)


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    """`--json` and `--verbose` of what ends with verdicts."""
    parser.add_argument("--json", action="store_true", help="print the analysis as JSON")
    parser.add_argument("--verbose", action="store_true", help="also print tests, p-values and notes in words")


def tune_options(parser: argparse.ArgumentParser) -> None:
    """Options of `tune`."""
    add_config_options(parser)
    parser.add_argument("--rates", default=None, metavar="LIST", help="1e-4,3e-4,1e-3 (default: tune.rates)")
    _add_study_options(parser, "3", "3")


def _add_study_options(parser: argparse.ArgumentParser, seeds: str | None, default_seeds: str) -> None:
    """Options of `compare` and `tune`: seeds, workers, folder, launcher."""
    parser.add_argument("--seeds", default=seeds, metavar="N|LIST", help=f"8, or 0,1,2 (default: {default_seeds})")
    parser.add_argument(
        "--workers",
        type=number("--workers", int, Range(1, 10_000)),
        default=None,
        help="runs at a time (default: one per CPU core; on a cluster, all)",
    )
    _add_out(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="run no arm: check everything, show the arms, forecast cost and power",
    )
    parser.add_argument(
        "--no-probe", action="store_true", help="with --dry-run: do not measure two steps of the baseline"
    )
    add_launcher_options(parser)
    add_process_options(parser)
    add_track_option(parser)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default=OUT, metavar="FOLDER", help=f"default: {OUT}")


def analyze_options(parser: argparse.ArgumentParser) -> None:
    """Options of `analyze`."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a study's folder, e.g. runs/demo; trainers' logs, CSV files or folders of them; or two runs' folders",
    )
    _add_output_options(parser)
    add_table_options(parser)


def report_options(parser: argparse.ArgumentParser) -> None:
    """Options of `report`."""
    _add_study_folder(parser)
    parser.add_argument(
        "--figures",
        nargs="*",
        type=figure_format,
        metavar="FORMAT",
        help=f"also draw the figures for a paper, as {', '.join(FIGURE_FORMATS)} (default: all), into figures/paper",
    )
    parser.add_argument(
        "--width",
        type=number("--width", float, FIGURE_WIDTHS),
        default=COLUMN,
        metavar="INCHES",
        help=f"of these figures (default: {COLUMN}, a column)",
    )


def watch_options(parser: argparse.ArgumentParser) -> None:
    """Options of `watch`."""
    _add_study_folder(parser)
    parser.add_argument(
        "--port",
        type=number("--port", int, Range(0, 65_535)),
        default=0,
        help="of the page on 127.0.0.1 (default: any that is free)",
    )
    parser.add_argument("--once", action="store_true", help="print the present state and end")


def pass_rates_options(parser: argparse.ArgumentParser) -> None:
    """Options of `pass-rates`."""
    add_config_options(parser)
    _add_number(parser, "--samples", COUNT, 8, "N", "responses per question (default: 8)")
    add_seed_option(parser)
    parser.add_argument("--out", required=True, metavar="FILE.jsonl", help="the file for files.pass_rates")


def judge_options(parser: argparse.ArgumentParser) -> None:
    """Options of `judge`."""
    add_config_options(parser)
    _add_number(parser, "--questions", COUNT, 64, "M", "of the tune split (default: 64)")
    _add_number(parser, "--samples", TWO, 4, "N", "responses per question (default: 4)")
    add_seed_option(parser)
    parser.add_argument("--json", action="store_true", help="print what was measured as JSON")


def preferences_options(parser: argparse.ArgumentParser) -> None:
    """Options of `preferences`."""
    add_config_options(parser)
    _add_number(parser, "--prompts", COUNT, 512, "N", "training questions (default: 512)")
    _add_number(
        parser, "--samples", TWO, 4, "N", "responses to each; the best and the worst become a pair (default: 4)"
    )
    parser.add_argument(
        "--annotator-accuracy",
        type=number("--annotator-accuracy", float, SHARE),
        default=1.0,
        metavar="SHARE",
        help="how often the better response is labelled as such (default: 1)",
    )
    add_seed_option(parser)
    parser.add_argument("--out", required=True, metavar="FILE.jsonl")


def reward_model_options(parser: argparse.ArgumentParser) -> None:
    """Options of `reward-model`."""
    add_config_options(parser)
    parser.add_argument(
        "--pairs",
        required=True,
        metavar="FILE",
        help=".jsonl, .parquet or datasets:ID, with prompt, chosen and rejected",
    )
    add_seed_option(parser)
    parser.add_argument("--out", required=True, metavar="FOLDER", help="the folder for reward_model.model")


def make_base_options(parser: argparse.ArgumentParser) -> None:
    """Options of `make-base`."""
    parser.add_argument("--task", default="chain_sums", metavar="NAME", help="the task it is for (default: chain_sums)")
    parser.add_argument("--out", required=True, metavar="FOLDER")
    add_seed_option(parser)
    parser.add_argument(
        "--steps", type=number("--steps", int, COUNT), default=None, help="default: those of the task's shipped base"
    )


def completion_options(parser: argparse.ArgumentParser) -> None:
    """Options of `completion`."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def _add_study_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="the study's folder, e.g. runs/demo")


def _add_number(
    parser: argparse.ArgumentParser, option: str, limit: Range, default: int, metavar: str, text: str
) -> None:
    """An option that is a whole number."""
    parser.add_argument(option, type=number(option, int, limit), default=default, metavar=metavar, help=text)
