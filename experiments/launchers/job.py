"""One run as text, and what every launcher does with it."""

import platform
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from core import GrpoLabError
from core.errors import MachineError, cause_of, cause_of_exit, describe_error
from core.loop.before_training import Known
from core.loop.recipe import Recipe
from core.loop.train import Interrupted, Watch, run
from core.parts.registry import config
from core.store.run_folder import RunStore
from experiments.launchers.progress import Progress
from experiments.launchers.rehearsal import rehearse
from experiments.launchers.torchrun import run_in_processes
from experiments.launchers.trackers import Trackers
from experiments.setup import Origin
from experiments.study.configs import build
from experiments.study.identity import before_training, facts
from experiments.study.processes import ONE, Processes
from experiments.study.settings import Arm

Failures: TypeAlias = dict[tuple[str, int], str]
"""(arm, seed) to message."""
Outcome: TypeAlias = tuple[str, str | None]
"""`finished`, `interrupted`, `failed` or `broken`, and the message of a failure."""


class BrokenArmError(GrpoLabError):
    """A run failed because of its code, settings, data or model, not because of its method."""

    def __init__(self, job: "Job", message: str) -> None:
        super().__init__(
            f"arm '{job.arm.label}' is broken (seed {job.seed}): {message}\nNo score and no verdict come of it, and no "
            "further run was begun. Mend it and give the same command again: it goes on from here"
        )
        self.message = message


@dataclass(frozen=True)
class Needs:
    """What a run needs: CPUs, GPUs as declared (a fraction shares one; 0: not) and bytes of memory (0: not known)."""

    cpus: int = 1
    gpus: float = 0
    memory: int = 0
    gpu_memory: int = 0
    """Bytes of the GPU of each of its processes, an engine's aside."""
    gpu_utilization: float = 0.0
    """Share of a whole GPU that an engine beside the trainer takes."""


@dataclass(frozen=True)
class Job:
    """One run of one arm, as text."""

    arm: Arm
    seed: int
    config: str
    folder: str
    needs: Needs = Needs()
    processes: Processes = ONE
    track: tuple[str, ...] = ()
    identity: Mapping[str, Any] | None = None
    """The run's identity when the study began, if known: later edits of code or data are detected."""
    rehearsed: bool = True
    """Whether the arm was rehearsed; otherwise the run takes the tiny step before its first step."""

    @property
    def key(self) -> tuple[str, int]:
        """Arm and seed."""
        return self.arm.label, self.seed

    @property
    def beginning(self) -> str | None:
        """What runs have in common that begin with the same evaluation; None of a run that makes its own."""
        return before_training(self.identity) if self.identity and self.processes.number == 1 else None

    @property
    def store(self) -> RunStore:
        """The run's folder."""
        return RunStore(Path(self.folder))

    def facts(self, recipe: Recipe | None = None) -> dict[str, Any]:
        """The provenance for the run's manifest; a stored identity decides which fields it has."""
        like = self.store.manifest.get("identity")
        return facts(self.config, self.arm, self.seed, self.processes, recipe=recipe, like=like)


class Launch(Protocol):
    """Run the jobs in order, at most `workers` at a time; returns the failures.

    `more` is called for further jobs when all have ended, until it returns none: a race decides by the results so far.
    Raises `BrokenArmError` after a clean stop when a run is broken, and `KeyboardInterrupt` on Ctrl-C; a second
    Ctrl-C, or one while runs are stopping, kills them.
    """

    def __call__(
        self, jobs: Sequence[Job], workers: int, progress: Progress, more: Callable[[], Sequence[Job]] = ...
    ) -> Failures:
        """Run them."""


def run_job(
    job: Job,
    watch: Watch,
    identity: Mapping[str, Any] | None = None,
    notify: Callable[[str], None] = print,
    *,
    known: Known | None = None,
) -> None:
    """Build the recipe from text and train, in `job.processes` processes.

    `notify` gets messages for the user that are in no record. `known`: evaluations before training of runs with the
    job's `beginning`; what it makes itself, it adds. Raises `MachineError` where the run's identity is not
    `identity`, or the job's own.
    """
    recipe, run_facts = read_job(job)
    expected = identity or job.identity
    if different := [name for name, value in run_facts["identity"].items() if expected and value != expected.get(name)]:
        here, there = run_facts["identity"][different[0]], (expected or {}).get(different[0])
        raise MachineError(
            f"node {platform.node()} has another {different[0]} than the driver ({here}, there {there}); install there "
            "what the driver has, and change nothing while a study runs"
        )
    if not job.rehearsed and job.processes.number == 1 and not any(Path(job.folder).glob("checkpoint/*")):
        rehearse({job.arm.label: recipe})
    with Trackers(
        job.track, Path(job.folder), arm=job.arm.label, seed=job.seed, identity=run_facts["identity"], notify=notify
    ) as trackers:

        def send_and_watch(record: Mapping[str, Any]) -> None:
            trackers.send()
            watch(record)

        if job.processes.number > 1:
            run_in_processes(job.config, job.arm, job.seed, job.folder, job.processes, send_and_watch)
            return
        run(recipe, job.seed, job.store, facts=run_facts, watch=send_and_watch, known=known)


def read_job(job: Job) -> tuple[Recipe, dict[str, Any]]:
    """The recipe of a job's text, and the facts of its run."""
    with config(text=job.config, bindings=job.arm.bindings):
        recipe: Recipe = build("train")
    return recipe, job.facts(recipe)


def run_and_report(
    job: Job,
    watch: Watch,
    identity: Mapping[str, Any] | None = None,
    notify: Callable[[str], None] = print,
    *,
    origin: Origin | None = None,
    target: Callable[..., None] = run_job,
) -> Outcome:
    """Run the job and return its outcome: the body of every launcher's worker.

    With `origin` this process first becomes a worker of that command. `target` is called in the place of `run_job`.
    """
    try:
        if origin is not None:
            origin.enter()
        target(job, watch, identity, notify)
    except Interrupted:
        return "interrupted", None
    except Exception as error:
        return "broken" if cause_of(error) == "code" else "failed", describe_error(error)
    return "finished", None


def note_end(job: Job, outcome: Outcome, progress: Progress, failures: Failures) -> BrokenArmError | None:
    """Show a run's outcome and add a failure to `failures`; returns the error to raise for a broken run."""
    status, message = outcome
    progress.end(*job.key, status)
    if status == "failed":
        failures[job.key] = str(message)
    return BrokenArmError(job, str(message)) if status == "broken" else None


def drive(
    jobs: Sequence[Job],
    workers: int,
    more: Callable[[], Sequence[Job]],
    *,
    begin: Callable[[Job], None],
    listen: Callable[[], BrokenArmError | None],
    under_way: Callable[[], int],
) -> None:
    """Begin the jobs in order, at most `workers` at a time, and listen until they and all further ones have ended.

    Raises the error that `listen` returns.
    """
    waiting = list(jobs)
    while waiting or under_way():
        while waiting and under_way() < workers:
            begin(waiting.pop(0))
        if broken := listen():
            raise broken
        if not waiting and not under_way():
            waiting = list(more())


def mark_lost(job: Job, message: str, exit_code: int = -signal.SIGKILL) -> Outcome:
    """The outcome of a run whose process died, by its exit code; writes status and cause to the manifest."""
    if job.store.is_finished:  # the process died after the run was stored
        return "finished", None
    cause = cause_of_exit(exit_code)
    job.store.update_manifest(status="failed", error=message, failure=cause)
    return ("broken", message) if cause == "code" else ("failed", f"{message}; give the same command again")


def stopping_message(reason: BaseException) -> str:
    """The line shown while the active runs are being stopped."""
    cause = "an arm is broken: " if isinstance(reason, BrokenArmError) else ""
    return f"{cause}stopping at the end of the present steps (Ctrl-C{'' if cause else ' again'}: at once) ..."


def stop_when(should_stop: Callable[[Mapping[str, Any]], bool]) -> Watch:
    """A watch that calls `should_stop` with every step's record and stops the run when it returns True."""

    def watch(record: Mapping[str, Any]) -> None:
        if should_stop(record):
            raise Interrupted

    return watch
