"""The command line: `grpolab COMMAND`."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from core.errors import GrpoLabError, describe_error, near
from core.parts.settings import COUNT, SHARE, Range
from core.printable import printable
from experiments.cli.check import add_options as add_check_options
from experiments.cli.launchers import add_launcher_options
from experiments.cli.lens import add_options as add_lens_options
from experiments.cli.memory import add_options as add_memory_options
from experiments.cli.tables import add_options as add_table_options
from experiments.options import add_config_options, add_process_options, add_seed_option, add_track_option, number
from experiments.terminal import Console

OUT = "runs"
TWO = Range(2, COUNT.high)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; mistakes of the caller's are one readable message and exit code 2."""
    # appended, not put first: a user's own folder named core must not shadow ours
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    resumable = False
    try:
        options = make_parser().parse_args(arguments)
        resumable = options.resumable
        from experiments.setup import import_parts, quiet_libraries

        import_parts()
        quiet_libraries()
        return _run(options)
    except GrpoLabError as error:
        print(printable(f"grpolab: {error}"), file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # of a file that is there and cannot be read, a name that is too long, ...
        if error.filename is None:
            raise
        print(printable(f"grpolab: {error.filename}: {error.strerror}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        goes_on = "; the same command goes on from here" if resumable else ""
        print(f"stopped{goes_on}", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    try:
        code: int = options.run(options)
    except SystemExit as error:  # or the command would seem to have succeeded
        raise GrpoLabError(
            f"a part of yours ended the program: {describe_error(error)}; raise an exception instead"
        ) from error
    return code


def late(module: str, name: str) -> Callable[[argparse.Namespace], int]:
    """A command whose module is imported when it runs: importing torch takes seconds."""

    def run(options: argparse.Namespace) -> int:
        code: int = getattr(importlib.import_module(f"experiments.{module}"), name)(options)
        return code

    return run


def make_parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    parser = argparse.ArgumentParser(
        prog="grpolab", description="The research bench for critic-free RL of language models."
    )
    parser.add_argument("--version", action="version", version=f"grpolab {version('grpo-lab')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run, resumable=False)
        return added

    listed = command("list", run_list, "List every registered part by kind.")
    listed.add_argument("kind", nargs="?", help="one kind, e.g. variants")
    add_config_options(listed)
    described = command("describe", late("cli.describe", "run_describe"), "Formula, source, axis card and parameters.")
    described.add_argument("name", metavar="NAME|FILE.py", help="a part, or a file of yours, meaning all parts in it")
    described.add_argument("--diff", metavar="OTHER", help="show only the axes on which two variants differ")
    add_config_options(described)

    checked = command("check", late("cli.check", "run_check"), "Check parts against the contract of their kind.")
    add_check_options(checked)

    looked = command("lens", late("cli.lens", "run_lens"), "Measure the gradient itself: bias, variance, cost.")
    add_lens_options(looked)

    remembered = command(
        "memory", late("cli.memory", "run_memory"), "Forecast the memory of a run, by purpose, before it is started."
    )
    add_memory_options(remembered)

    for name, text in (
        ("train", "Train one run."),
        ("sft", "Fine-tune one run on worked solutions (default config: sft)."),
    ):
        trained = command(name, late("cli.train", f"run_{name}"), text)
        trained.set_defaults(resumable=True)
        add_config_options(trained)
        add_seed_option(trained)
        trained.add_argument("--out", default=OUT, metavar="FOLDER", help=f"default: {OUT}")
        trained.add_argument("--name", default=name, help=f"the run's folder in FOLDER (default: {name})")
        add_process_options(trained)
        add_track_option(trained)

    for name, text in (
        ("compare", "Run arms x seeds and end with the verdicts."),
        ("ablate", "Make arms of axes and a design (ablate.*), run them and end with the verdicts."),
        ("tune", "Try learning rates for every arm of a study, on seeds and questions of their own."),
    ):
        studied = command(name, late("cli.tune" if name == "tune" else "cli.compare", f"run_{name}"), text)
        studied.set_defaults(resumable=True)
        add_config_options(studied)
        if name == "tune":
            studied.add_argument("--rates", default=None, metavar="LIST", help="1e-4,3e-4,1e-3 (default: tune.rates)")
        seeds = ("3", "3") if name == "tune" else (None, "compare.seeds, or 5")
        studied.add_argument("--seeds", default=seeds[0], metavar="N|LIST", help=f"8, or 0,1,2 (default: {seeds[1]})")
        studied.add_argument(
            "--workers",
            type=number("--workers", int, Range(1, 10_000)),
            default=None,
            help="runs at a time (default: one per CPU core; on a cluster, all)",
        )
        studied.add_argument("--out", default=OUT, metavar="FOLDER", help=f"default: {OUT}")
        studied.add_argument(
            "--dry-run",
            action="store_true",
            help="run no arm: check everything, show the arms, forecast cost and power",
        )
        studied.add_argument(
            "--no-probe", action="store_true", help="with --dry-run: do not measure two steps of the baseline"
        )
        add_launcher_options(studied)
        add_process_options(studied)
        add_track_option(studied)
        if name != "tune":
            studied.add_argument(
                "--race", action="store_true", help="look after every seed and stop when all is decided (compare.race)"
            )
            studied.add_argument(
                "--grow",
                action="store_true",
                help="declare the study anew in its folder, with more seeds, more arms, further "
                "questions or another margin, and use its finished runs",
            )
            studied.add_argument("--json", action="store_true", help="print the analysis as JSON")

    analyzed = command("analyze", run_analyze, "Verdicts of a study that has been run, or of anybody's CSV files.")
    analyzed.add_argument(
        "paths", nargs="+", metavar="PATH", help="a study's folder, e.g. runs/demo, CSV files, or two runs' folders"
    )
    analyzed.add_argument("--json", action="store_true", help="print the analysis as JSON")
    add_table_options(analyzed)

    reported = command("report", run_report, "Write a study's report, one HTML file, and its tables.")
    reported.add_argument("folder", help="the study's folder, e.g. runs/demo")

    watched = command(
        "watch", late("report.watch", "run_watch"), "Watch a study while it runs, here and as a local page."
    )
    watched.add_argument("folder", help="the study's folder, e.g. runs/demo")
    watched.add_argument(
        "--port",
        type=number("--port", int, Range(0, 65_535)),
        default=0,
        help="of the page on 127.0.0.1 (default: any that is free)",
    )
    watched.add_argument("--once", action="store_true", help="print the present state and end")

    rated = command(
        "pass-rates",
        late("feedback.pass_rates", "run_pass_rates"),
        "Measure how often the model passes each training question of files.path.",
    )
    add_config_options(rated)
    rated.add_argument(
        "--samples",
        type=number("--samples", int, COUNT),
        default=8,
        metavar="N",
        help="responses per question (default: 8)",
    )
    add_seed_option(rated)
    rated.add_argument("--out", required=True, metavar="FILE.jsonl", help="to be given as files.pass_rates")

    judged = command(
        "judge",
        late("feedback.judge_agreement", "run_judge"),
        "Measure how far the judge of train.rewards agrees with gold verdicts.",
    )
    add_config_options(judged)
    judged.add_argument(
        "--questions",
        type=number("--questions", int, COUNT),
        default=64,
        metavar="M",
        help="of the tune split (default: 64)",
    )
    judged.add_argument(
        "--samples",
        type=number("--samples", int, TWO),
        default=4,
        metavar="N",
        help="responses per question (default: 4)",
    )
    add_seed_option(judged)
    judged.add_argument("--json", action="store_true", help="print what was measured as JSON")

    preferred = command(
        "preferences",
        late("feedback.preferences", "run_preferences"),
        "Make pairs of responses, labelled by an annotator of known accuracy.",
    )
    add_config_options(preferred)
    preferred.add_argument(
        "--prompts",
        type=number("--prompts", int, COUNT),
        default=512,
        metavar="N",
        help="training questions (default: 512)",
    )
    preferred.add_argument(
        "--samples",
        type=number("--samples", int, TWO),
        default=4,
        metavar="N",
        help="responses to each; the best and the worst become a pair (default: 4)",
    )
    preferred.add_argument(
        "--annotator-accuracy",
        type=number("--annotator-accuracy", float, SHARE),
        default=1.0,
        metavar="SHARE",
        help="how often the better response is labelled as such (default: 1)",
    )
    add_seed_option(preferred)
    preferred.add_argument("--out", required=True, metavar="FILE.jsonl")

    learnt = command(
        "reward-model",
        late("feedback.reward_model", "run_reward_model"),
        "Train a reward model on pairs of responses (reward_model_training.*).",
    )
    learnt.set_defaults(resumable=True)
    add_config_options(learnt)
    learnt.add_argument(
        "--pairs",
        required=True,
        metavar="FILE",
        help=".jsonl, .parquet or datasets:ID, with prompt, chosen and rejected",
    )
    add_seed_option(learnt)
    learnt.add_argument("--out", required=True, metavar="FOLDER", help="to be given as reward_model.model")

    based = command("make-base", run_make_base, "Pretrain an embedded base model anew (minutes on one core).")
    based.add_argument("--task", default="chain_sums", metavar="NAME", help="the task it is for (default: chain_sums)")
    based.add_argument("--out", required=True, metavar="FOLDER")
    add_seed_option(based)
    based.add_argument(
        "--steps", type=number("--steps", int, COUNT), default=None, help="default: those of the task's shipped base"
    )
    return parser


def run_list(options: argparse.Namespace) -> int:
    """`grpolab list`."""
    from core.parts.registry import REGISTRIES, config
    from experiments.study.configs import (
        CONFIGS,
        find_config,
    )

    kinds = {kind + ("es" if kind.endswith("s") else "s"): registry for kind, registry in REGISTRIES.items()}
    if options.kind and options.kind not in kinds:
        raise GrpoLabError(f"unknown kind '{options.kind}': {near(options.kind, kinds)}")
    # a gin file's imports register parts
    with config([find_config(file) for file in options.config], options.bind, include_from=[CONFIGS]):
        for kind, registry in kinds.items():
            if options.kind in (None, kind) and registry:
                print(kind)
                width = max(map(len, registry))
                for name, part in sorted(registry.items()):
                    print(f"  {name:<{width}}  {(part.function.__doc__ or '').strip().splitlines()[0]}")
    return 0


def run_analyze(options: argparse.Namespace) -> int:
    """`grpolab analyze`."""
    from experiments.cli.compare_runs import are_runs, compare_runs
    from experiments.cli.tables import are_tables, given, run_tables

    paths = [Path(path) for path in options.paths]
    if are_runs(paths):
        return compare_runs(paths, as_json=options.json)
    if are_tables(paths):
        return run_tables(options)
    if unused := given(options):
        declared = ", ".join(name.replace("_", " ") for name in unused)
        raise GrpoLabError(f"{paths[0]} is a study's folder, which declares its own {declared}: leave the options out")
    from experiments.cli.conclude import conclude

    return conclude(paths[0], Console(stderr=options.json), as_json=options.json)


def run_report(options: argparse.Namespace) -> int:
    """`grpolab report`."""
    from experiments.report import write_figures, write_report, write_tables
    from experiments.results.stored_study import load_study

    folder = Path(options.folder)
    study = load_study(folder)
    judgement = study.judge()
    tables = write_tables(study, judgement, folder / "tables")
    page = write_report(study, judgement, folder / "report.html")
    for path in (*tables, *write_figures(study, page.read_text("utf-8"), folder / "figures"), page):
        print(path)
    return 0


def run_make_base(options: argparse.Namespace) -> int:
    """`grpolab make-base`."""
    from rich.progress import Progress as Bar

    from experiments.cli.make_base import make_base, steps_of

    steps = options.steps or steps_of(options.task)
    with Bar() as bar:
        shown = bar.add_task("pretraining", total=steps)
        folder = make_base(
            options.task,
            Path(options.out),
            seed=options.seed,
            steps=steps,
            report=lambda step, loss: bar.update(shown, completed=step, description=f"pretraining, loss {loss:.3f}"),
        )
    print(f"base model: {folder}; use it with -b \"policy.model = '{folder}'\"")
    return 0


if __name__ == "__main__":
    sys.exit(main())
