"""The local launcher: runs of a study in persistent worker processes, with live progress.

A worker gets config text and makes everything itself, so what a run computes does not depend on which worker runs it,
nor on how many there are. Workers ignore Ctrl-C; the parent asks them to stop at the end of a step.
"""

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from core import GrpoLabError
from core.registry import config
from core.store import RunStore
from core.train import Interrupted, run
from experiments.declaration import Arm
from experiments.progress import Progress
from experiments.study import build, facts


@dataclass(frozen=True)
class Job:
    """One run of one arm, as text."""

    arm: Arm
    seed: int
    config: str
    folder: str

    @property
    def store(self) -> RunStore:
        """The run's folder."""
        return RunStore(Path(self.folder))


def run_job(job: Job, watch: Any) -> None:
    """Build the recipe from text and train."""
    with config(text=job.config, bindings=job.arm.bindings):
        recipe = build("train")
    run(recipe, job.seed, job.store, facts=facts(job.config, job.arm, job.seed), watch=watch)


def _worker(pipe: Connection) -> None:
    """Run jobs until told to stop, or until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from experiments.setup import import_parts, quiet_libraries

    import_parts()
    quiet_libraries()
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())

    def watch(record: Mapping[str, Any]) -> None:
        try:
            pipe.send(("step", dict(record)))
            asked_to_stop = pipe.poll()
        except OSError as error:  # the parent died: stop like it, resumable
            raise Interrupted from error
        if asked_to_stop:
            raise Interrupted

    while True:
        try:
            job = pipe.recv()
            if job is None or job == "stop":  # asked to stop after the last step of a run
                return
            outcome: tuple[str, Any] = ("finished", None)
            try:
                run_job(job, watch)
            except Interrupted:
                outcome = ("interrupted", None)
            except GrpoLabError as error:
                outcome = ("failed", str(error))
            except Exception:  # a bug, or the machine's: shown whole, and the other runs go on
                outcome = ("failed", traceback.format_exc())
            pipe.send(outcome)
            if outcome[0] == "interrupted":
                return
        except (EOFError, OSError):
            return


class _Worker:
    """A process and our end of its pipe."""

    def __init__(self, context: Any) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_worker, args=(theirs,), daemon=True)
        # a child inherits that Ctrl-C is ignored, also while it imports: only the parent answers it
        answer = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.process.start()
        finally:
            signal.signal(signal.SIGINT, answer)
        theirs.close()
        self.job: Job | None = None

    def give(self, job: Job | None) -> None:
        """Hand over the next run, or None to end; a worker that has died is noticed where its pipe is read."""
        self.job = job
        with suppress(OSError):
            self.pipe.send(job)


def launch(
    jobs: Sequence[Job], workers: int, progress: Progress, more: Callable[[], Sequence[Job]] = lambda: ()
) -> dict[tuple[str, int], str]:
    """Run the jobs in order on `workers` processes; returns the failures, (arm, seed) to message.

    `more` is asked for further jobs when all have ended, until it has none: a race decides by what has been run.
    Raises `KeyboardInterrupt` after a clean stop when Ctrl-C was pressed; pressed twice, workers are killed.
    """
    context = multiprocessing.get_context("spawn")
    waiting, failures = list(jobs), dict[tuple[str, int], str]()
    pool: list[_Worker] = []
    try:
        while waiting or any(worker.job for worker in pool):
            _hand_out(waiting, pool, workers, context)
            for pipe in wait([worker.pipe for worker in pool if worker.job], timeout=0.5):
                worker = next(w for w in pool if w.pipe is pipe)
                _listen(worker, failures, progress)
            if not waiting and not any(worker.job for worker in pool):
                waiting = list(more())
    except KeyboardInterrupt:
        progress.say("stopping at the end of the present steps (Ctrl-C again: at once) ...")
        for worker in pool:
            if worker.job:
                with suppress(OSError):
                    worker.pipe.send("stop")
        try:
            for worker in pool:
                worker.process.join() if worker.job else worker.process.kill()
        except KeyboardInterrupt:
            for worker in pool:
                worker.process.kill()
        raise
    for worker in pool:
        if worker.process.is_alive():
            worker.give(None)
            worker.process.join()
    return failures


def _hand_out(waiting: list[Job], pool: list[_Worker], workers: int, context: Any) -> None:
    """Give the next jobs to idle workers, to new ones in the place of those that died with their run, and to more."""
    for i, worker in enumerate(pool):
        if waiting and worker.job is None:
            if not worker.process.is_alive():
                pool[i] = worker = _Worker(context)
            worker.give(waiting.pop(0))
    while waiting and len(pool) < workers:
        pool.append(_Worker(context))
        pool[-1].give(waiting.pop(0))


def _listen(worker: _Worker, failures: dict[tuple[str, int], str], progress: Progress) -> None:
    """Take one message of a worker: a step, or the end of its run."""
    job = worker.job
    assert job is not None
    remedy = ""
    try:
        kind, content = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode
        kind, content = "failed", f"its process died (exit code {code}; -9 is often a lack of memory)"
        # a terminated process is the machine's doing; a killed one may have grown too large, so the method's
        failure = "infrastructure" if code == -signal.SIGTERM else "algorithmic"
        remedy = f"; if something else killed it, remove {job.store.folder} and give the command again"
        if job.store.is_finished:  # it died after its last word
            kind, content = "finished", None
        else:
            job.store.update_manifest(status="failed", error=content, failure=failure)
    if kind == "step":
        progress.step(job.arm.label, job.seed, content)
        return
    progress.end(job.arm.label, job.seed, kind)
    if kind == "failed":
        failures[job.arm.label, job.seed] = content + remedy
    worker.job = None
