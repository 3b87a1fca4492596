"""`grpolab train` and `grpolab sft`: one run, read, planned and run."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.launchers.trackers import check_trackers
from experiments.planning.single import plan_run, run_job
from experiments.study.processes import read_processes
from experiments.study.settings import check_folder_name
from experiments.terminal import Console


def run_train(options: argparse.Namespace) -> int:
    """`grpolab train`."""
    return _train(options, options.config or ["embedded"])


def run_sft(options: argparse.Namespace) -> int:
    """`grpolab sft`: a config that samples what it trains on is refused."""
    return _train(options, options.config or ["sft"], supervised=True)


def _train(options: argparse.Namespace, files: Sequence[str], *, supervised: bool = False) -> int:
    """Train one run, in a worker of this machine."""
    check_folder_name("--name", options.name)
    track, processes = check_trackers(options.track), read_processes(options.processes, options.accelerate)
    console, folder = Console(), Path(options.out) / options.name
    job, recipe = plan_run(
        files, options.bind, folder, options.seed, console, processes=processes, track=track, supervised=supervised
    )
    run_job(job, recipe, console)
    trained = Path(job.folder) / "checkpoint"
    console.print(f"{job.folder}: finished; the trained model is in {trained}", soft_wrap=True)
    return 0
