"""The launchers that come with the bench, and their options."""

import argparse
import os
from functools import partial
from typing import TYPE_CHECKING

from core.errors import GrpoLabError
from core.parts.settings import Range
from experiments.launchers import fork_server
from experiments.launchers.launcher import Launcher, launcher
from experiments.options import number

if TYPE_CHECKING:
    from experiments.launchers.job import Launch


@launcher
class Local(Launcher):
    """See `experiments.launchers.local`."""

    name = "local"
    help = "processes of this machine"
    takes = ("gpus",)
    shares_gpus = True

    def prepare(self) -> None:
        """Have workers' imports begin."""
        fork_server.start()

    def check(self, options: argparse.Namespace) -> None:
        """Refuse a fraction of more than one GPU: only a single one can be shared."""
        if options.gpus and options.gpus > 1:
            _refuse_fraction(options.gpus)

    def workers(self, runs: int) -> int:  # noqa: ARG002
        """One per CPU core."""
        return os.cpu_count() or 1

    def launch(self, options: argparse.Namespace) -> "Launch":  # noqa: ARG002
        """Processes of this machine."""
        from experiments.launchers import local

        return local.launch


@launcher
class Ray(Launcher):
    """See `experiments.launchers.ray`."""

    name = "ray"
    help = "a Ray cluster"
    takes = ("cpus", "gpus")

    def add_options(self, group: "argparse._ArgumentGroup | argparse.ArgumentParser") -> None:
        """Which cluster, and whether it shares `--out`."""
        group.add_argument(
            "--address", metavar="HOST:PORT", help="ray: of a running cluster, or auto (default: start one)"
        )
        group.add_argument(
            "--bring-back",
            action="store_true",
            help="ray: --out is not shared with the nodes; bring the files of ended runs back",
        )

    def check(self, options: argparse.Namespace) -> None:
        """Refuse a fraction of more than one GPU: only a single one can be shared."""
        if options.gpus and options.gpus > 1:
            _refuse_fraction(options.gpus)

    def launch(self, options: argparse.Namespace) -> "Launch":
        """Tasks of the cluster."""
        from experiments.launchers import ray

        return partial(ray.launch, address=options.address, bring_back=options.bring_back)


@launcher
class Slurm(Launcher):
    """See `experiments.launchers.slurm`."""

    name = "slurm"
    help = "jobs of a Slurm cluster"
    takes = ("cpus", "gpus")
    forecasts_memory = False  # Slurm kills what grows beyond its declaration

    def add_options(self, group: "argparse._ArgumentGroup | argparse.ArgumentParser") -> None:
        """Which partition, and for how long."""
        group.add_argument("--partition", metavar="NAME", help="slurm: default, the cluster's")
        group.add_argument(
            "--time",
            type=number("--time", int, Range(1, 10**6)),
            metavar="MINUTES",
            help="slurm: until a run is requeued",
        )

    def check(self, options: argparse.Namespace) -> None:
        """Refuse a fraction of a GPU, and a missing time limit."""
        if options.gpus:
            _refuse_fraction(options.gpus)
        if options.time is None:
            raise GrpoLabError("--launcher slurm: give --time MINUTES, the limit of one run")

    def launch(self, options: argparse.Namespace) -> "Launch":
        """A job for every run."""
        from experiments.launchers import slurm

        return partial(slurm.launch, partition=options.partition, minutes=options.time)


def _refuse_fraction(gpus: float) -> None:
    if gpus != int(gpus):
        raise GrpoLabError(f"--gpus {gpus:g}: a whole number, or but for Slurm a share of one between 0 and 1")
