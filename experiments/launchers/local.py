"""The local launcher: runs of a study in persistent worker processes, with live progress.

A worker gets config text and makes everything itself, so what a run computes does not depend on which worker runs it,
nor on how many there are. Workers ignore Ctrl-C; the parent sends them "stop", which they obey at the end of a step.
Without accelerators they are forked from one server that has imported what they need and computes nothing itself.
Runs are packed by their declared memory into what was available at the start; one always runs.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any, Final

import psutil
import torch

from core.loop.train import Interrupted
from core.parts.import_path import SAFE_PATH
from experiments.launchers.job import (
    BrokenArmError,
    Failures,
    Job,
    mark_lost,
    note_end,
    run_and_report,
    stopping_message,
)
from experiments.launchers.progress import Progress
from experiments.launchers.torchrun import kill
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

    def notify(line: str) -> None:
        with suppress(OSError):  # the parent died: `watch` handles it
            pipe.send(("message", line))

    while True:
        try:
            job = pipe.recv()
            if job is None or job == "stop":  # "stop" came after the last step of a run
                return
            outcome = run_and_report(job, watch, notify=notify, origin=origin)
            pipe.send(outcome)
            if outcome[0] == "interrupted":
                return
        except (EOFError, OSError):
            return


UNKNOWN_EXIT: Final = 255
"""The exit code that multiprocessing reports when the process's fork server is gone."""


@contextmanager
def _start_environment() -> Iterator[None]:
    """Signals and environment for a starting process, and for the fork server, which starts with the first."""
    environment = dict(os.environ)
    # it inherits that Ctrl-C is ignored, also while it imports: only the parent answers it, in its main thread
    is_main = threading.current_thread() is threading.main_thread()
    answer = signal.signal(signal.SIGINT, signal.SIG_IGN) if is_main else None
    # it finds what we find
    os.environ.update(SAFE_PATH, PYTHONPATH=os.pathsep.join(entry or os.getcwd() for entry in sys.path))
    main = sys.modules["__main__"]
    # it would run a script of the user's again, whose call began all this
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        os.environ.clear()
        os.environ.update(environment)
        if is_main:
            signal.signal(signal.SIGINT, answer)


class _Worker:
    """A process and our end of its pipe."""

    def __init__(self, context: Any) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_worker, args=(theirs, dict(os.environ), Origin.here()), daemon=True)
        with _start_environment():
            self.process.start()
        theirs.close()
        self.server: int | None = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
        self.job: Job | None = None

    def exit_code(self) -> int:
        """How the process ended; as if killed, where the server that it was forked from is gone and cannot tell."""
        self.process.join()
        code: int = self.process.exitcode
        return -signal.SIGKILL if code == UNKNOWN_EXIT and self.server is not None and _ends(self.server) else code

    def give(self, job: Job | None) -> None:
        """Hand over the next run, or None to end; a worker that has died is noticed where its pipe is read."""
        self.job = job
        with suppress(OSError):
            self.pipe.send(job)


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
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["experiments.launchers.preloaded"])
    return context


def launch(
    jobs: Sequence[Job], workers: int, progress: Progress, more: Callable[[], Sequence[Job]] = lambda: ()
) -> Failures:
    """Run the jobs in order on `workers` processes, or on as many as their memory allows; see `Launch`."""
    context = _context()
    waiting, failures = list(jobs), Failures()
    pool: list[_Worker] = []
    memory, limit_shown = psutil.virtual_memory().available, False
    try:
        while waiting or any(worker.job for worker in pool):
            _assign_jobs(waiting, pool, workers, memory, context)
            busy = sum(worker.job is not None for worker in pool)
            if waiting and busy < workers and not limit_shown:
                progress.print(
                    f"memory allows {busy} at once, not {workers}: {memory / 2**30:.1f} GiB were available, and the "
                    f"next run needs {waiting[0].needs.memory / 2**30:.1f} GiB"
                )
                limit_shown = True
            for pipe in wait([worker.pipe for worker in pool if worker.job], timeout=0.5):
                worker = next(w for w in pool if w.pipe is pipe)
                _listen(worker, failures, progress)
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
            worker.give(None)
            worker.process.join()
    return failures


def _assign_jobs(waiting: list[Job], pool: list[_Worker], workers: int, memory: int, context: Any) -> None:
    """Give the next jobs to idle workers, and to new ones: in place of dead workers, or further ones."""
    while waiting:
        reserved = [worker.job.needs.memory for worker in pool if worker.job]
        if len(reserved) == workers or (reserved and sum(reserved) + waiting[0].needs.memory > memory):
            return
        idle = next((i for i, worker in enumerate(pool) if worker.job is None), len(pool))
        if idle == len(pool) or not pool[idle].process.is_alive():
            pool[idle : idle + 1] = [_Worker(context)]
        pool[idle].give(waiting.pop(0))


def _listen(worker: _Worker, failures: Failures, progress: Progress) -> None:
    """Handle one message of a worker: a step, a line for the user, or its run's outcome; raises for a broken run."""
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
    worker.job = None
    if broken := note_end(job, (kind, content), progress, failures):
        raise broken
