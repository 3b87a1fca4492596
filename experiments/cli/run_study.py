"""The three stages that `compare`, `ablate` and `tune` share: plan the jobs, run them, conclude."""

import argparse
from collections.abc import Callable
from pathlib import Path

from core.errors import GrpoLabError
from experiments.launchers.choice import read_where
from experiments.launchers.run import run_jobs
from experiments.launchers.trackers import check_trackers
from experiments.planning.plan import RunOptions, plan_jobs
from experiments.study.processes import read_processes
from experiments.study.settings import check_seeds
from experiments.study.study import Study
from experiments.terminal import Console


def run_study(
    study: Study,
    options: RunOptions,
    console: Console,
    conclude: Callable[[Path], int],
    *,
    judged: bool = True,
) -> int:
    """Run arms x seeds and `conclude` on the study's folder; a dry run only shows the plan.

    Without `judged` no verdicts follow, so notes about them are not printed.
    """
    plan = plan_jobs(study, options, console, judged=judged)
    if plan is None:  # a dry run
        return 0
    failures = run_jobs(plan, console)
    code = conclude(plan.folder)
    return 1 if failures else code


def read_run_options(options: argparse.Namespace, *, grow: bool = False) -> RunOptions:
    """The run options of the command line; GrpoLabError where they do not go together or something is missing."""
    return RunOptions(
        out=Path(options.out),
        processes=read_processes(options.processes, options.accelerate),
        where=read_where(options),
        track=check_trackers(options.track),
        workers=options.workers,
        dry_run=options.dry_run,
        probe=not options.no_probe,
        grow=grow,
    )


def parse_seeds(text: str) -> tuple[int, ...]:
    """`8` means seeds 0 to 7; `0,1,5` means these."""
    try:
        seeds = [int(part) for part in text.split(",")] if "," in text else int(text)
    except ValueError:
        raise GrpoLabError(f"--seeds {text}: give a number of seeds (8) or a list (0,1,2)") from None
    return check_seeds("--seeds", seeds)
