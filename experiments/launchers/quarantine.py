"""Sets damaged runs aside before a command runs, so that only these are run again."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console

from core.loop.recipe import Recipe
from core.store.integrity import (
    REMEDY,
    DamagedError,
)
from core.store.lock import (
    lock,
    quarantine,
)
from core.store.run_folder import RunStore
from experiments.launchers.job import Job
from experiments.results.stored_run import DamagedRunError, read_run


def quarantine_damaged(jobs: Iterable[Job], recipes: Mapping[str, Recipe], console: Console) -> None:
    """Check the runs that have begun; print each damaged file and the new name of its run's folder.

    Unfinished writes of a killed process are cleared away too. Waits for workers that outlive their parent to end
    their step; raises `GrpoLabError` when a run's folder stays in use.
    """
    for job in jobs:
        folder = Path(job.folder)
        if not folder.is_dir():
            continue
        with lock(folder):
            try:
                read_run(folder, job.arm.label, job.seed)
                store = RunStore(folder)
                store.recover()
                if not store.is_finished:
                    store.check_checkpoint(recipes[job.arm.label].checkpoint_every)
            except (DamagedError, DamagedRunError) as error:
                aside = quarantine(folder)
                console.print(
                    f"{str(error).removesuffix(f'; {REMEDY}')}. The folder is now {aside.name}; this run is made again",
                    style="yellow",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
