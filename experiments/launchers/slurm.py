"""The Slurm launcher: every run is a job of its own, submitted with submitit.

The driver's current folder, `--out` and the environment are on a file system that all nodes share. The driver submits
at most `--workers` jobs at a time, reads their metrics.jsonl for progress, and stays until all have ended. Where it
dies, its jobs go on: wait for them (squeue) or cancel them before giving the command again. A run that reaches its time
limit is requeued up to three times and goes on from its last checkpoint.

Tested with submitit's local executor and with stand-ins for Slurm's programs; not yet run on a real Slurm.
"""

import json
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from core import GrpoLabError
from core.parts.import_path import SAFE_PATH
from core.store.integrity import METRICS
from experiments.launchers.job import (
    BrokenArmError,
    Failures,
    Job,
    Outcome,
    drive,
    mark_lost,
    note_end,
    run_and_report,
    stop_when,
    stopping_message,
)
from experiments.launchers.progress import Progress
from experiments.setup import Origin

POLL_SECONDS: Final = 0.5
"""Seconds between two checks of the jobs and their files."""


@dataclass(frozen=True)
class _Task:
    """The task of a Slurm job. Job and driver talk through files in `notes`: `begun`, `stop` and messages."""

    job: Job
    origin: Origin
    notes: Path
    identity: Mapping[str, Any]

    @property
    def begun(self) -> Path:
        """Exists when the run has begun."""
        return self.notes / f"begun-{self.job.arm.label}-{self.job.seed}"

    @property
    def stop(self) -> Path:
        """Exists when all runs must stop."""
        return self.notes / "stop"

    @property
    def messages(self) -> Path:
        """The run's lines for the user."""
        return self.notes / f"said-{self.job.arm.label}-{self.job.seed}"

    def notify(self, line: str) -> None:
        """Have the driver show a line: a job's own output is not shown."""
        with self.messages.open("a") as file:
            file.write(line + "\n")

    def __call__(self) -> Outcome:
        """Carry out the job."""
        self.begun.touch()
        if self.stop.exists():
            return "interrupted", None
        watch = stop_when(lambda _: self.stop.exists())
        return run_and_report(self.job, watch, self.identity, self.notify, origin=self.origin)

    def checkpoint(self) -> Any:
        """The task that submitit requeues at the time limit: the same one, resumed from its last checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def launch(
    jobs: Sequence[Job],
    workers: int,
    progress: Progress,
    more: Callable[[], Sequence[Job]] = lambda: (),
    *,
    partition: str | None,
    minutes: int,
    cluster: str = "slurm",
) -> Failures:
    """Run every job as a Slurm job of at most `minutes`; see `Launch`. `cluster`: submitit's executor."""
    try:
        import submitit
    except ImportError as error:
        raise GrpoLabError("--launcher slurm needs submitit: pip install 'grpo-lab[slurm]'") from error
    if cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise GrpoLabError("--launcher slurm: no sbatch and srun here; give the command on a login node of the cluster")
    if not jobs:
        jobs = more()
    if not jobs:
        return {}
    notes = Path(jobs[0].folder).resolve().parents[1] / ".slurm" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    notes.mkdir(parents=True)
    executor = submitit.AutoExecutor(folder=notes, cluster=cluster)
    driver = _Driver(executor, workers, progress, notes, partition, minutes)
    failures = driver.run(jobs, more)
    if not failures:  # else it holds what the jobs printed
        shutil.rmtree(notes)
        with suppress(OSError):
            notes.parent.rmdir()
    return failures


class _Driver:
    """Submits jobs and polls them."""

    def __init__(
        self, executor: Any, workers: int, progress: Progress, notes: Path, partition: str | None, minutes: int
    ) -> None:
        self._executor, self._workers, self._progress = executor, workers, progress
        self._notes, self._partition, self._minutes = notes, partition, minutes
        self._under_way: list[tuple[Any, _Task]] = []
        self._shown: dict[str, int] = {}
        self._messages_shown: Counter[Path] = Counter()
        self._failures: Failures = {}

    def run(self, jobs: Sequence[Job], more: Callable[[], Sequence[Job]]) -> Failures:
        """Run until all jobs have ended."""
        try:
            drive(
                jobs, self._workers, more, begin=self._submit, listen=self._poll, under_way=lambda: len(self._under_way)
            )
        except (KeyboardInterrupt, BrokenArmError) as stop:
            try:
                (self._notes / "stop").touch()
                self._progress.print(stopping_message(stop))
                for submitted, task in self._under_way:
                    if not task.begun.exists():
                        submitted.cancel()
                self._under_way = [(submitted, task) for submitted, task in self._under_way if task.begun.exists()]
                while self._under_way:
                    self._poll()
            except KeyboardInterrupt:
                for submitted, _ in self._under_way:
                    submitted.cancel()
            raise
        return self._failures

    def _submit(self, job: Job) -> None:
        identity = job.identity or job.facts()["identity"]
        task = _Task(job, Origin.here(), self._notes, identity)
        needs, setup = job.needs, [f"export {name}={value}" for name, value in SAFE_PATH.items()]
        self._executor.update_parameters(
            name=f"{job.arm.label}-{job.seed}",
            timeout_min=self._minutes,
            cpus_per_task=needs.cpus,
            slurm_setup=setup,
            local_setup=setup,
            **({"mem_gb": math.ceil(needs.memory / 2**30)} if needs.memory else {}),
            **({"gpus_per_node": int(needs.gpus)} if needs.gpus else {}),
            **({"slurm_partition": self._partition} if self._partition else {}),
        )
        self._shown[job.folder] = len(_records(job))
        self._under_way.append((self._executor.submit(task), task))

    def _poll(self) -> BrokenArmError | None:
        """Show new steps and messages, and handle ended runs; returns the error of the first broken one."""
        time.sleep(POLL_SECONDS)
        broken: BrokenArmError | None = None
        ended = [pair for pair in self._under_way if pair[0].done()]
        for submitted, task in list(self._under_way):
            job = task.job
            records = _records(job)
            for record in records[self._shown[job.folder] :]:
                self._progress.step(*job.key, record)
            self._shown[job.folder] = max(len(records), self._shown[job.folder])
            lines = task.messages.read_text().splitlines() if task.messages.is_file() else []
            for line in lines[self._messages_shown[task.messages] :]:
                self._progress.print(f"{job.arm.label} seed {job.seed}: {line}")
                self._messages_shown[task.messages] += 1
            if (submitted, task) in ended:
                self._under_way.remove((submitted, task))
                ended_broken = note_end(job, _end(submitted, job), self._progress, self._failures)
                broken = broken or ended_broken
        return broken


def _end(submitted: Any, job: Job) -> Outcome:
    """A job's outcome."""
    import submitit

    try:
        outcome: Outcome = submitted.result()
    except submitit.core.utils.UncompletedJobError:
        return mark_lost(
            job,
            f"Slurm job {submitted.job_id} ended without a result ({submitted.state}); what it "
            f"printed is in {submitted.paths.folder}",
        )
    except submitit.core.utils.FailedJobError as error:  # ours, not the run's: the node has no such folder, say
        return mark_lost(job, f"Slurm job {submitted.job_id} could not be carried out: {error}")
    return outcome


def _records(job: Job) -> list[Mapping[str, Any]]:
    """The records of metrics.jsonl that are completely written."""
    file = Path(job.folder, METRICS)
    lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
