"""The command line: `grpolab COMMAND`."""

import argparse
import importlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from core.errors import GrpoLabError, near
from experiments.check.command import add_options as add_check_options
from experiments.lens.command import add_options as add_lens_options
from experiments.options import add_config_options

OUT = "runs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; mistakes of the caller's are one readable message and exit code 2."""
    # appended, not put first: a user's own folder named core must not shadow ours
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        from experiments.setup import import_parts, quiet_libraries

        import_parts()
        quiet_libraries()
        code: int = options.run(options)
        return code
    except GrpoLabError as error:
        print(f"grpolab: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        goes_on = "; the same command goes on from here" if options.run in (run_train, run_compare) else ""
        print(f"stopped{goes_on}", file=sys.stderr)
        return 130


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
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    listed = command("list", run_list, "List every registered part by kind.")
    listed.add_argument("kind", nargs="?", help="one kind, e.g. variants")
    described = command("describe", late("describe", "run_describe"), "Formula, source, axis card and parameters.")
    described.add_argument("name")
    described.add_argument("--diff", metavar="OTHER", help="show only the axes on which two variants differ")
    add_config_options(described)

    checked = command("check", late("check.command", "run_check"), "Check parts against the contract of their kind.")
    add_check_options(checked)

    looked = command("lens", late("lens.command", "run_lens"), "Measure the gradient itself: bias, variance, cost.")
    add_lens_options(looked)

    trained = command("train", run_train, "Train one run.")
    add_config_options(trained)
    trained.add_argument("--seed", type=int, default=0)
    trained.add_argument("--out", default=OUT, metavar="FOLDER", help=f"default: {OUT}")
    trained.add_argument("--name", default="train", help="the run's folder in FOLDER (default: train)")

    compared = command("compare", run_compare, "Run arms x seeds and end with the verdicts.")
    add_config_options(compared)
    compared.add_argument("--seeds", default="5", metavar="N|LIST", help="8, or 0,1,2 (default: 5)")
    compared.add_argument("--workers", type=int, default=None, help="processes (default: one per CPU core)")
    compared.add_argument("--out", default=OUT, metavar="FOLDER", help=f"default: {OUT}")
    compared.add_argument("--dry-run", action="store_true", help="check everything, show the arms, run nothing")
    compared.add_argument("--json", action="store_true", help="print the analysis as JSON")

    for name, function, text in (
        ("analyze", run_analyze, "Verdicts of a study that has been run."),
        ("report", run_report, "Write a study's report, one HTML file."),
    ):
        added = command(name, function, text)
        added.add_argument("folder", help="the study's folder, e.g. runs/demo")
        if name == "analyze":
            added.add_argument("--json", action="store_true", help="print the analysis as JSON")

    based = command("make-base", run_make_base, "Pretrain the embedded base model anew (minutes on one core).")
    based.add_argument("folder")
    based.add_argument("--seed", type=int, default=0)
    based.add_argument("--steps", type=int, default=3000)
    return parser


def parse_seeds(text: str) -> tuple[int, ...]:
    """`8` means seeds 0 to 7; `0,1,5` means these."""
    try:
        seeds = tuple(int(part) for part in text.split(",")) if "," in text else tuple(range(int(text)))
    except ValueError:
        raise GrpoLabError(f"--seeds {text}: give a number of seeds (8) or a list (0,1,2)") from None
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise GrpoLabError(f"--seeds {text}: seeds must be at least one, different, and not negative")
    return seeds


def run_list(options: argparse.Namespace) -> int:
    """`grpolab list`."""
    from core.registry import REGISTRIES

    kinds = {kind + "s": registry for kind, registry in REGISTRIES.items()}
    if options.kind and options.kind not in kinds:
        raise GrpoLabError(f"unknown kind '{options.kind}': {near(options.kind, kinds)}")
    for kind, registry in kinds.items():
        if options.kind in (None, kind) and registry:
            print(kind)
            width = max(map(len, registry))
            for name, part in sorted(registry.items()):
                print(f"  {name:<{width}}  {(part.function.__doc__ or '').strip().splitlines()[0]}")
    return 0


def run_train(options: argparse.Namespace) -> int:
    """`grpolab train`."""
    import core.registry as registry
    from core.policy import locate
    from experiments.launch import Job, launch
    from experiments.progress import Progress
    from experiments.study import CONFIGS, Arm, build, find_config

    files = [find_config(file) for file in options.config or ["embedded"]]
    with registry.config(files, options.bind, include_from=[CONFIGS]):
        recipe = build("train")
        locate(recipe.policy.model)  # before anything is written
        # a study's file may be trained from: what declares the study is not for this command
        keys = [key for key in registry.bindings_in_force() if key[0] != "settings.compare"]
        registry.refuse_unused(keys, registry.bindings_used(), recipe.parts, [recipe.variant.name])
        text = registry.config_text()
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("compare."))
    folder = Path(options.out) / options.name / recipe.variant.name / f"seed={options.seed}"
    job = Job(Arm(recipe.variant.name, ()), options.seed, text, str(folder))
    console = Console()
    with Progress(1, int(job.store.is_finished), recipe.steps, console) as progress:
        failures = {} if job.store.is_finished else launch([job], 1, progress)
    for message in failures.values():
        raise GrpoLabError(message)
    console.print(f"{folder}: finished; the trained model is in {folder / 'checkpoint'}", soft_wrap=True)
    return 0


def run_compare(options: argparse.Namespace) -> int:
    """`grpolab compare`."""
    from experiments.launch import Job, launch
    from experiments.progress import Progress
    from experiments.study import facts, find_config, prepare_study

    if not options.config and not options.bind:
        raise GrpoLabError("compare needs a study: -c FILE.gin (try: grpolab compare -c demo)")
    workers = options.workers if options.workers is not None else os.cpu_count() or 1
    if workers < 1:
        raise GrpoLabError(f"--workers {workers}: must be at least 1")
    study = prepare_study([find_config(file) for file in options.config], options.bind, parse_seeds(options.seeds))
    folder = Path(options.out) / study.settings.name
    console = Console(stderr=options.json)
    steps = next(iter(study.recipes.values())).steps
    jobs = [
        Job(arm, seed, study.config, str(folder / arm.label / f"seed={seed}"))
        for seed in study.seeds
        for arm in study.settings.arms
    ]
    console.print(
        f"{folder}: {len(study.settings.arms)} arms x {len(study.seeds)} seeds x {steps} steps",
        highlight=False,
    )
    for warning in study.confounded():
        console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False)
    if options.dry_run:
        for label, recipe in study.recipes.items():
            console.print(f"\n[bold]{label}[/]\n{recipe.variant}", highlight=False)
        return 0
    study.declare(folder, "grpolab " + shlex.join(sys.argv[1:]))
    for job in jobs:  # finished ones too: an edit in the middle would mix two estimators in one verdict
        job.store.refuse_other(facts(study.config, job.arm, job.seed)["identity"])
    left = [job for job in jobs if not job.store.is_finished]
    with Progress(len(jobs), len(jobs) - len(left), steps, console) as progress:
        failures = launch(left, workers, progress) if left else {}
    for (arm, seed), message in failures.items():
        console.print(f"\n{arm} seed {seed} failed: {message}", style="red", highlight=False, markup=False)
    code = conclude(folder, console, as_json=options.json)
    return 1 if failures else code


def conclude(folder: Path, console: Console, *, as_json: bool = False) -> int:
    """Verdict table, report and where it is."""
    from experiments.report import verdict_table, write_report
    from experiments.results import load_study

    study = load_study(folder)
    analysis = study.analyze()
    if as_json:
        print(json.dumps(analysis.to_json() if analysis else {}, indent=1))
    elif analysis:
        console.print(verdict_table(analysis, study))
        for comparison in analysis.comparisons:
            console.print(comparison.sentence, highlight=False, markup=False)
        for note in analysis.notes:
            console.print(f"note: {note}", highlight=False, markup=False)
    path = write_report(study, analysis, folder / "report.html")
    console.print(f"report: {path}", soft_wrap=True, highlight=False)
    return 0


def run_analyze(options: argparse.Namespace) -> int:
    """`grpolab analyze`."""
    return conclude(Path(options.folder), Console(stderr=options.json), as_json=options.json)


def run_report(options: argparse.Namespace) -> int:
    """`grpolab report`."""
    from experiments.report import write_report
    from experiments.results import load_study

    study = load_study(Path(options.folder))
    print(write_report(study, study.analyze(), Path(options.folder) / "report.html"))
    return 0


def run_make_base(options: argparse.Namespace) -> int:
    """`grpolab make-base`."""
    from rich.progress import Progress as Bar

    from experiments.make_base import make_base

    with Bar() as bar:
        task = bar.add_task("pretraining", total=options.steps)
        folder = make_base(
            Path(options.folder), seed=options.seed, steps=options.steps,
            report=lambda step, loss: bar.update(task, completed=step, description=f"pretraining, loss {loss:.3f}"),
        )  # fmt: skip
    print(f"base model: {folder}; use it with -b \"policy.model = '{folder}'\"")
    return 0


if __name__ == "__main__":
    sys.exit(main())
