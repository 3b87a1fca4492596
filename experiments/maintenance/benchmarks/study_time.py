"""Where a study's processor seconds go: the phases of its runs and of the command around them, and what each spends on.

    python -m experiments.maintenance.benchmarks.study_time -c demo --seeds 1

The runs are carried out one after the other in this process. A phase's seconds are the process's, all threads together;
what a worker takes to start is measured apart, in a process of its own.
"""

import argparse
import importlib
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, Final

from experiments.launchers.job import Failures, Job, note_end, run_and_report, run_job
from experiments.launchers.progress import Progress
from experiments.launchers.shared import Shared, Telling
from experiments.options import add_config_options

COMMAND: Final = {
    "experiments.cli.compare:prepare_study": "arms and recipes from gin",
    "experiments.planning.plan:rehearse": "one tiny step of every arm",
    "experiments.planning.plan:_declared": "declaration and identities",
    "experiments.cli.compare:conclude": "verdicts, tables, report",
}
RUN: Final = {
    "experiments.launchers.job:read_job": "recipe and identity from text",
    "core.loop.recipe:Recipe.preflight": "preflight",
    "core.loop.run_state:RunState.start": "model, optimizer, digests",
    "core.loop.rollout_queue:RolloutQueue.roll_out": "sample",
    "core.loop.train:learn": "learn",
    "core.loop.train:rollout_record": "a few responses as text",
    "core.loop.train:line_of": "line of metrics",
    "core.loop.train:evaluate_untrained": "evaluate before training",
    "core.loop.train:evaluate": "evaluate on the way and at the end",
    "core.store.run_folder:RunStore.write_evaluations": "write evaluations",
    "core.store.run_folder:RunStore.write_rollout": "write responses",
    "core.store.run_folder:RunStore.append_metrics": "write metrics",
    "core.store.run_folder:RunStore.update_manifest": "write manifest",
    "core.loop.run_state:RunState.save": "checkpoint",
    "core.loop.train:keep_model": "keep models of the last evaluations",
    "core.loop.train:hash_weights": "digest of the final weights",
    "core.store.run_folder:RunStore.finish": "final model",
    "experiments.launchers.progress:Progress.step": "progress",
    "experiments.launchers.progress:Progress.end": "progress",
}
WITHIN: Final = {
    "core.generation.native:Native.generate": "decode",
    "core.model.policy:Policy.texts": "tokens to text",
    "core.model.policy:Policy.tokens": "text to tokens",
    "core.environments.tasks.chain_sums:ChainSums.problem": "questions",
    "core.loop.rollout:score": "grade",
}


class Account:
    """Processor seconds by phase, each without the phases inside it, and within a phase by what they are spent on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.within: dict[tuple[str, str], float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._open: list[list[Any]] = []
        """Of the phases under way: label, and seconds of the phases inside."""

    def follow(self, place: str, label: str, *, within: bool = False) -> None:
        """Time every call of `module:name`, or of `module:Class.name`."""
        module, _, path = place.partition(":")
        *owners, name = path.split(".")
        owner: Any = importlib.import_module(module)
        for each in owners:
            owner = getattr(owner, each)
        call = vars(owner)[name]
        timed = self._timed(call.__func__ if isinstance(call, classmethod) else call, label, within=within)
        setattr(owner, name, classmethod(timed) if isinstance(call, classmethod) else timed)

    def _timed(self, call: Callable[..., Any], label: str, *, within: bool) -> Callable[..., Any]:
        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if within:
                return self._spent_on(label, call, *args, **kwargs)
            self._open.append([label, 0.0])
            begun = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                seconds = time.process_time() - begun
                _, inside = self._open.pop()
                self.seconds[label] += seconds - inside
                self.calls[label] += 1
                if self._open:
                    self._open[-1][1] += seconds

        return timed

    def _spent_on(self, label: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        begun = time.process_time()
        try:
            return call(*args, **kwargs)
        finally:
            phase = self._open[-1][0] if self._open else "elsewhere"
            self.within[phase, label] += time.process_time() - begun


def launch_here(
    jobs: Sequence[Job], workers: int, progress: Progress, more: Callable[[], Sequence[Job]] = lambda: ()
) -> Failures:
    """A launcher: the jobs one after the other in this process."""
    del workers
    failures, shared = Failures(), Shared()
    for job in (*jobs, *more()):
        target = partial(run_job, known=Telling(shared.of(job), partial(shared.add, job)))
        outcome = run_and_report(job, partial(progress.step, *job.key), target=target)
        if broken := note_end(job, outcome, progress, failures):
            raise broken
    return failures


def start_of_a_worker() -> float:
    """Processor seconds in which a new process imports what workers share."""
    code = "import time, experiments.launchers.preloaded; print(time.process_time())"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_options(parser)
    parser.add_argument("--seeds", default="1")
    options = parser.parse_args()
    from experiments.cli.main import main as grpolab
    from experiments.launchers import local
    from experiments.setup import import_parts, quiet_libraries

    import_parts()
    quiet_libraries()
    importlib.import_module("experiments.cli.compare")
    imports = time.process_time()
    local.launch = launch_here
    account = Account()
    for place, label in {**COMMAND, **RUN}.items():
        account.follow(place, label)
    for place, label in WITHIN.items():
        account.follow(place, label, within=True)
    given = [word for name in ("config", "bind") for value in getattr(options, name) for word in (f"--{name}", value)]
    with tempfile.TemporaryDirectory() as folder:
        grpolab(["compare", *given, "--seeds", options.seeds, "--out", folder])
    total = time.process_time()
    runs = account.calls[RUN["experiments.launchers.job:read_job"]]
    _show(account, runs, imports, total)


def _show(account: Account, runs: int, imports: float, total: float) -> None:
    known = imports + sum(account.seconds.values())
    rows = [("imports", imports), *((label, account.seconds[label]) for label in COMMAND.values())]
    print(f"\n{total:.1f} s of this process for {runs} runs; a worker takes {start_of_a_worker():.1f} s to start\n")
    print(f"{'of a study':40} {'seconds':>8}")
    for label, seconds in [*rows, ("all else", total - known)]:
        print(f"{label:40} {seconds:8.2f}")
    print(f"\n{'of a run':40} {'seconds':>8} {'share':>7}")
    whole = sum(account.seconds[label] for label in RUN.values()) or 1.0
    for label in sorted(dict.fromkeys(RUN.values()), key=lambda each: -account.seconds[each]):
        print(f"{label:40} {account.seconds[label] / runs:8.3f} {account.seconds[label] / whole:7.1%}")
        inside = {what: seconds for (phase, what), seconds in account.within.items() if phase == label}
        for what, seconds in sorted(inside.items(), key=lambda each: -each[1]):
            print(f"    {what:36} {seconds / runs:8.3f} {seconds / whole:7.1%}")


if __name__ == "__main__":
    main()
