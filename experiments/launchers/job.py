"""One run as text, and how every launcher carries it out."""

import platform
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from core import GrpoLabError
from core.errors import MachineError, cause_of, cause_of_exit, describe_error
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
from experiments.study.identity import facts
from experiments.study.processes import ONE, Processes
from experiments.study.settings import Arm

Failures: TypeAlias = dict[tuple[str, int], str]
"""(arm, seed) to message."""
Outcome: TypeAlias = tuple[str, str | None]
"""`finished`, `interrupted`, `failed` or `broken`, and the message of a failure."""


class BrokenArmError(GrpoLabError):
    """A run failed for its code, settings, data or model: nothing that says anything about its method."""

    def __init__(self, job: "Job", message: str) -> None:
        super().__init__(
            f"arm '{job.arm.label}' is broken (seed {job.seed}): {message}\nNo score and no verdict come of it, and no "
            "further run was begun. Mend it and give the same command again: it goes on from here"
        )
        self.message = message


@dataclass(frozen=True)
class Needs:
    """What a run needs: CPUs, GPUs (a fraction shares one) and bytes of memory (0: not known)."""

    cpus: int = 1
    gpus: float = 0
    memory: int = 0


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
    """What the run must be, where that was known before: whatever was edited since then is noticed."""
    rehearsed: bool = True
    """Whether a tiny step of the arm has been taken; else the run takes it before its first."""

    @property
    def key(self) -> tuple[str, int]:
        """Arm and seed."""
        return self.arm.label, self.seed

    @property
    def store(self) -> RunStore:
        """The run's folder."""
        return RunStore(Path(self.folder))

    def facts(self, recipe: Recipe | None = None) -> dict[str, Any]:
        """What the run's manifest is to say of where it came from; an identity that is there is met in its terms."""
        like = self.store.manifest.get("identity")
        return facts(self.config, self.arm, self.seed, self.processes, recipe=recipe, like=like)


class Launch(Protocol):
    """Run the jobs in order, at most `workers` at a time; returns the failures.

    `more` is asked for further jobs when all have ended, until it has none: a race decides by what has been run.
    Raises `BrokenArmError` after a clean stop when a run turns out to be broken, and `KeyboardInterrupt` when Ctrl-C
    was pressed; pressed twice, or pressed while they stop, runs are killed.
    """

    def __call__(
        self, jobs: Sequence[Job], workers: int, progress: Progress, more: Callable[[], Sequence[Job]] = ...
    ) -> Failures:
        """Run them."""


def run_job(
    job: Job, watch: Watch, identity: Mapping[str, Any] | None = None, say: Callable[[str], None] = print
) -> None:
    """Build the recipe from text and train, in as many processes as the job says.

    `say` is told what a person should know and no record holds. Raises `MachineError` where it would be another run
    than `identity`, or the job's own.
    """
    recipe, found = read_job(job)
    expected = identity or job.identity
    if different := [name for name, value in found["identity"].items() if expected and value != expected.get(name)]:
        here, there = found["identity"][different[0]], (expected or {}).get(different[0])
        raise MachineError(
            f"node {platform.node()} has another {different[0]} than the driver ({here}, there {there}); install there "
            "what the driver has, and change nothing while a study runs"
        )
    if not job.rehearsed and job.processes.number == 1 and not any(Path(job.folder).glob("checkpoint/*")):
        rehearse({job.arm.label: recipe})
    with Trackers(
        job.track, Path(job.folder), arm=job.arm.label, seed=job.seed, identity=found["identity"], say=say
    ) as trackers:

        def send_and_watch(record: Mapping[str, Any]) -> None:
            trackers.send()
            watch(record)

        if job.processes.number > 1:
            run_in_processes(job.config, job.arm, job.seed, job.folder, job.processes, send_and_watch)
            return
        run(recipe, job.seed, job.store, facts=found, watch=send_and_watch)


def read_job(job: Job) -> tuple[Recipe, dict[str, Any]]:
    """What a job's text builds, and the facts of its run."""
    with config(text=job.config, bindings=job.arm.bindings):
        recipe: Recipe = build("train")
    return recipe, job.facts(recipe)


def run_and_report(
    job: Job,
    watch: Watch,
    identity: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = print,
    *,
    origin: Origin | None = None,
    carry_out: Callable[..., None] = run_job,
) -> Outcome:
    """Run the job, and say how it ended: what every worker does, of whatever launcher.

    With `origin` this process first becomes a worker of that command. `carry_out` may be what takes `run_job`'s place.
    """
    try:
        if origin is not None:
            origin.enter()
        carry_out(job, watch, identity, say)
    except Interrupted:
        return "interrupted", None
    except Exception as error:
        return "broken" if cause_of(error) == "code" else "failed", describe_error(error)
    return "finished", None


def note_end(job: Job, outcome: Outcome, progress: Progress, failures: Failures) -> BrokenArmError | None:
    """Show how a run has ended, and add a failure to `failures`; returns what is to be raised of a broken one."""
    how, message = outcome
    progress.end(*job.key, how)
    if how == "failed":
        failures[job.key] = str(message)
    return BrokenArmError(job, str(message)) if how == "broken" else None


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

    Raises what `listen` says is broken.
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
    """How a run ended whose process was lost, which its manifest is told: for the machine's reasons, or by itself."""
    if job.store.is_finished:  # it died after its last word
        return "finished", None
    cause = cause_of_exit(exit_code)
    job.store.update_manifest(status="failed", error=message, failure=cause)
    return ("broken", message) if cause == "code" else ("failed", f"{message}; give the same command again")


def stopping(reason: BaseException) -> str:
    """What to say while the runs under way are being stopped."""
    why = "an arm is broken: " if isinstance(reason, BrokenArmError) else ""
    return f"{why}stopping at the end of the present steps (Ctrl-C{'' if why else ' again'}: at once) ..."


def stop_when(tell: Callable[[Mapping[str, Any]], bool]) -> Watch:
    """A watch that tells of every step, and stops the run when the answer is True."""

    def watch(record: Mapping[str, Any]) -> None:
        if tell(record):
            raise Interrupted

    return watch
