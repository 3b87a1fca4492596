"""The local launcher: runs of a study in persistent worker processes, with live progress.

A worker gets config text and makes everything itself, so what a run computes does not depend on which worker runs it,
nor on how many there are. Workers ignore Ctrl-C; the parent sends them "stop", which they obey at the end of a step.
Without accelerators they are forked from one server that has imported what they need and computes nothing itself.
Runs are packed by their declared memory into what was available at the start; one always runs. A worker takes another
run only after one that finished, and on a GPU none: with its process goes what it holds there. What runs of a seed have
in common before training is evaluated once: the first that has done so tells the parent, which hands it to those that
begin later.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, Final

import psutil
import torch

from core.loop.train import Interrupted
from experiments.launchers import fork_server, gpus
from experiments.launchers.gpus import Gpu, Place
from experiments.launchers.job import (
    BrokenArmError,
    Failures,
    Job,
    mark_lost,
    note_end,
    run_and_report,
    run_job,
    stopping_message,
)
from experiments.launchers.process_tree import kill
from experiments.launchers.progress import Progress
from experiments.launchers.shared import Shared, Telling
from experiments.setup import Origin


def _worker(pipe: Connection, environment: Mapping[str, str], origin: Origin) -> None:
    """Run jobs until "stop" arrives, or until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.clear()  # the fork server's may be older
    os.environ.update(environment)
    sys.stdout = sys.stderr  # the command's own output is the parent's: programs read --json

    def watch(record: Mapping[str, Any]) -> None:
        try:
            pipe.send(("step", dict(record)))
            stop_requested = pipe.poll()
        except OSError as error:  # the parent died: stop like it, resumable
            raise Interrupted from error
        if stop_requested:
            raise Interrupted

    def tell(kind: str, content: Any) -> None:
        with suppress(OSError):  # the parent died: `watch` handles it
            pipe.send((kind, content))

    while True:
        try:
            given = pipe.recv()
            if given is None or given == "stop":  # "stop" came after the last step of a run
                return
            job, known = given
            target = partial(run_job, known=Telling(known, partial(tell, "evaluated")))
            outcome = run_and_report(job, watch, notify=partial(tell, "message"), origin=origin, target=target)
            pipe.send(outcome)
            if outcome[0] != "finished":
                return
        except (EOFError, OSError):
            return


UNKNOWN_EXIT: Final = 255
"""The exit code that multiprocessing reports when the process's fork server is gone."""


class _Worker:
    """A process and our end of its pipe."""

    def __init__(self, context: Any, place: Place = gpus.ANYWHERE) -> None:
        self.pipe, theirs = context.Pipe()
        self.place = place
        environment = {**os.environ, **place.environment}
        self.process = context.Process(target=_worker, args=(theirs, environment, Origin.here()), daemon=True)
        with fork_server.environment():
            os.environ.update(place.environment)
            self.process.start()
        theirs.close()
        self.server = fork_server.process()
        self.job: Job | None = None
        self.is_over = False
        """Whether a run has ended otherwise than well: it takes no other."""

    def exit_code(self) -> int:
        """How the process ended; as if killed, where the server that it was forked from is gone and cannot tell."""
        self.process.join()
        code: int = self.process.exitcode
        return -signal.SIGKILL if code == UNKNOWN_EXIT and self.server is not None and _ends(self.server) else code

    def give(self, job: Job, known: Mapping[str, Any]) -> None:
        """Hand over the next run and what it can use; a worker that has died is noticed where its pipe is read."""
        self.job = job
        with suppress(OSError):
            self.pipe.send((job, known))

    def end(self) -> None:
        """Let it end, and wait for that."""
        with suppress(OSError):
            self.pipe.send(None)
        self.process.join()


def _ends(server: int) -> bool:
    """Whether the fork server has ended, or does: its pipes close a moment before the system calls it dead."""
    for _ in range(200):  # 2 seconds, for a worker that did end with this code
        try:
            if psutil.Process(server).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


def _context() -> Any:
    """The start method: fork server where that is safe, spawn beside an accelerator or on macOS."""
    if sys.platform != "linux" or torch.accelerator.is_available():
        return multiprocessing.get_context("spawn")
    return fork_server.context()


def launch(
    jobs: Sequence[Job], workers: int, progress: Progress, more: Callable[[], Sequence[Job]] = lambda: ()
) -> Failures:
    """Run the jobs in order on `workers` processes, or on as many as their memory allows; see `Launch`."""
    context = _context()
    waiting, failures, shared = list(jobs), Failures(), Shared()
    pool: list[_Worker] = []
    machine, limit_shown = _Machine(psutil.virtual_memory().available, gpus.machine_gpus()), False
    for job in jobs:
        gpus.check(job, machine.gpus)
    try:
        while waiting or any(worker.job for worker in pool):
            _assign_jobs(waiting, pool, workers, machine, context, shared, progress)
            busy = sum(worker.job is not None for worker in pool)
            if waiting and busy < workers and not limit_shown:
                progress.print(_limit(waiting[0], pool, workers, machine))
                limit_shown = True
            for pipe in wait([worker.pipe for worker in pool if worker.job], timeout=0.5):
                worker = next(w for w in pool if w.pipe is pipe)
                _listen(worker, failures, progress, shared)
            if not waiting and not any(worker.job for worker in pool):
                waiting = list(more())
    except (KeyboardInterrupt, BrokenArmError) as stop:
        for worker in pool:
            if worker.job:
                with suppress(OSError):
                    worker.pipe.send("stop")
        progress.print(stopping_message(stop))
        try:
            for worker in pool:
                worker.process.join() if worker.job else worker.process.kill()
        except KeyboardInterrupt:
            for worker in pool:
                kill(worker.process.pid)
        raise
    for worker in pool:
        if worker.process.is_alive():
            worker.end()
    return failures


@dataclass(frozen=True)
class _Machine:
    """What runs are packed into."""

    memory: int
    """Bytes of the host that were available at the start."""
    gpus: Sequence[Gpu]


def _assign_jobs(
    waiting: list[Job],
    pool: list[_Worker],
    workers: int,
    machine: _Machine,
    context: Any,
    shared: Shared,
    progress: Progress,
) -> None:
    """Give the next jobs to idle workers, and to new ones: in place of dead workers, or further ones."""
    while waiting:
        busy = [worker for worker in pool if worker.job]
        if len(busy) == workers or not _fits_host(waiting[0], pool, machine):
            return
        place = gpus.place(waiting[0], machine.gpus, [worker.place for worker in busy])
        if place is None:
            return
        idle = next((i for i, worker in enumerate(pool) if worker.job is None), len(pool))
        if idle == len(pool) or pool[idle].is_over or not pool[idle].process.is_alive():
            pool[idle : idle + 1] = [_Worker(context, place)]
        if len(machine.gpus) > 1:
            progress.print(f"{waiting[0].arm.label} seed {waiting[0].seed}: {place}")
        pool[idle].give(waiting[0], shared.of(waiting[0]))
        waiting.pop(0)
        shared.keep(waiting)


def _fits_host(job: Job, pool: Sequence[_Worker], machine: _Machine) -> bool:
    """Whether the host's memory takes a run beside those under way; one always runs."""
    reserved = [worker.job.needs.memory for worker in pool if worker.job]
    return not reserved or sum(reserved) + job.needs.memory <= machine.memory


def _limit(job: Job, pool: Sequence[_Worker], workers: int, machine: _Machine) -> str:
    """Why fewer runs are under way than there may be workers."""
    busy = sum(worker.job is not None for worker in pool)
    if not _fits_host(job, pool, machine):
        return (
            f"memory allows {busy} at once, not {workers}: {machine.memory / 2**30:.1f} GiB were available, and the "
            f"next run needs {job.needs.memory / 2**30:.1f} GiB"
        )
    return f"GPUs allow {busy} at once, not {workers}: {gpus.limit(job, machine.gpus)}"


def _listen(worker: _Worker, failures: Failures, progress: Progress, shared: Shared) -> None:
    """Handle one message of a worker: a step, a line for the user, what it has evaluated before training, or its run's
    outcome; raises for a broken run.
    """
    job = worker.job
    assert job is not None
    try:
        kind, content = worker.pipe.recv()
    except (EOFError, OSError):
        code = worker.exit_code()
        kind, content = mark_lost(job, f"its process died (exit code {code}; -9 is often a lack of memory)", code)
    if kind == "step":
        progress.step(job.arm.label, job.seed, content)
        return
    if kind == "message":
        progress.print(f"{job.arm.label} seed {job.seed}: {content}")
        return
    if kind == "evaluated":
        shared.add(job, content)
        return
    worker.job = None
    worker.is_over = kind != "finished"
    if worker.place.gpus and not worker.is_over:
        worker.end()
        worker.is_over = True
    if broken := note_end(job, (kind, content), progress, failures):
        raise broken
