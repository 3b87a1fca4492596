"""One rank of a run on several processes, started by `experiments.launchers.torchrun`."""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

from core import GrpoLabError
from core.distributed import shutdown
from core.errors import cause_of, describe_error
from core.loop.train import Interrupted, Watch, run
from core.store.files import write_json
from experiments.launchers.job import Job, read_job, run_and_report
from experiments.setup import Origin
from experiments.study.processes import Processes
from experiments.study.settings import Arm


def main(file: Path) -> None:
    """Take part in the run described in `file`; where that fails, leave the cause beside it and exit."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rank = int(os.environ["RANK"])
    spec = json.loads(file.read_text())
    arm = Arm(spec["arm"]["label"], tuple(spec["arm"]["bindings"]))
    job = Job(arm, spec["seed"], spec["config"], spec["folder"], processes=Processes(**spec["processes"]))
    origin_fields = spec["origin"]
    origin = Origin(origin_fields["folder"], tuple(origin_fields["modules"]), tuple(origin_fields["command"]))
    pipe = None
    if rank == 0:
        pipe = Client(spec["listener"])
        pipe.send_bytes(bytes.fromhex(spec["key"]))

    def take_part(job: Job, watch: Watch, *_: Any) -> None:
        try:
            recipe, run_facts = read_job(job)
            run(recipe, job.seed, job.store, facts=run_facts, watch=watch)
        except Interrupted:
            raise
        except BaseException as error:
            _write_cause(file.parent, rank, error)
            raise

    outcome, message = run_and_report(job, _watch(pipe), origin=origin, target=take_part)
    if outcome not in ("finished", "interrupted"):
        sys.exit(message)
    if pipe is not None:
        with suppress(OSError):
            pipe.send((outcome, None))
    shutdown()


def _watch(pipe: Connection | None) -> Watch:
    """A watch that sends every step to the parent, from the main process, and stops when it answers so or is gone."""

    def watch(record: Mapping[str, Any]) -> None:
        assert pipe is not None
        try:
            pipe.send(("step", dict(record)))
            answer = pipe.recv()
        except (EOFError, OSError) as error:  # the parent died: stop like it, resumable
            raise Interrupted from error
        if answer == "stop":
            raise Interrupted

    return watch


def _write_cause(folder: Path, rank: int, error: BaseException) -> None:
    cause = {"rank": rank, "when": time.time(), "message": describe_error(error), "failure": cause_of(error)}
    with suppress(GrpoLabError):
        write_json(folder / f"rank-{rank}.json", cause)  # whole: torchrun may end this process meanwhile


if __name__ == "__main__":
    main(Path(sys.argv[1]))
