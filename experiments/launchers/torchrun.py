"""One run on several processes of one machine: started by torchrun from an accelerate configuration, and watched.

The processes get the run as text, like workers. The main one reports every step through a socket; a process that fails
writes its cause to a file, and torchrun ends the others.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any, Final

from core import GrpoLabError
from core.errors import Cause, MachineError, TrainingError, cause_of_exit
from core.loop.train import Interrupted, Watch
from core.parts.import_path import SAFE_PATH
from core.store.run_folder import RunStore
from experiments.launchers.process_tree import kill
from experiments.setup import Origin
from experiments.study.processes import Processes

ERRORS: Final[Mapping[Cause, type[GrpoLabError]]] = {
    "algorithmic": TrainingError,
    "infrastructure": MachineError,
    "code": GrpoLabError,
}
"""The error raised here for the cause of a process's failure."""
POLL_SECONDS: Final = 1.0
"""Seconds between checks that the processes are alive."""


def run_in_processes(config: str, arm: Any, seed: int, folder: str, processes: Processes, watch: Watch) -> None:
    """Train one run in several processes; raises like a run in one, with the cause of the first that failed."""
    with tempfile.TemporaryDirectory(prefix="grpolab-") as scratch, Listener(family="AF_UNIX") as listener:
        job = {
            "config": config,
            "arm": asdict(arm),
            "seed": seed,
            "folder": folder,
            "listener": listener.address,
            "processes": asdict(processes),
            "key": os.urandom(16).hex(),
            "origin": asdict(Origin.here()),
        }
        file = Path(scratch) / "job.json"
        file.touch(0o600)
        file.write_text(json.dumps(job))
        with (Path(scratch) / "output").open("w+") as output:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "torch.distributed.run",
                    "--standalone",
                    "--nproc-per-node",
                    str(processes.number),
                    "-m",
                    "experiments.launchers.rank",
                    str(file),
                ],
                env={
                    **os.environ,
                    **processes.environment,
                    **SAFE_PATH,
                    "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                outcome = _listen(listener, bytes.fromhex(job["key"]), process, watch)
                process.wait()
            except BaseException:
                kill(process.pid)
                raise
            if outcome == "interrupted":
                raise Interrupted
            # the main process decides: what it reported as finished is on disk
            if outcome != "finished":
                output.seek(0)
                _raise_first(Path(scratch), folder, process.returncode, output.read())


def _listen(listener: Listener, key: bytes, process: subprocess.Popen[bytes], watch: Watch) -> str | None:
    """Pass on the steps that the main process reports; returns its outcome, or None if it died without one."""
    # no public way to wait for a while only
    listener._listener._socket.settimeout(POLL_SECONDS)  # type: ignore[attr-defined]
    pipe = None
    while pipe is None:
        with suppress(TimeoutError):
            pipe = listener.accept()
        if pipe is None and process.poll() is not None:
            return None
    with pipe:
        if pipe.recv_bytes() != key:
            raise MachineError("another program connected in the place of a run's main process")
        while True:
            while not pipe.poll(POLL_SECONDS):
                if process.poll() is not None and not pipe.poll():
                    return None
            try:
                kind, content = pipe.recv()
            except (EOFError, OSError):
                process.wait()
                return None
            if kind != "step":
                return str(kind)
            try:
                watch(content)
            except Interrupted:
                pipe.send("stop")
                continue
            pipe.send("go on")


def _raise_first(scratch: Path, folder: str, code: int, output: str) -> None:
    """Raise the error of the first process that failed; writes it to the manifest too, as the process may not have."""
    causes = [json.loads(file.read_text()) for file in scratch.glob("rank-*.json")]
    # one that is killed leaves no cause, and the others the broken connection that they saw; 15 is torchrun's own
    killed = re.search(r"rank +: (\d+) .*\n *exitcode +: -(?!15 )(\d+) ", output)
    failure: Cause
    if killed:
        message = f"process {killed[1]} was ended by signal {killed[2]} (9 is often a lack of memory)"
        failure = cause_of_exit(-int(killed[2]))
    elif causes:
        first = min(causes, key=lambda cause: float(cause["when"]))
        message, failure = f"process {first['rank']}: {first['message']}", first["failure"]
    else:
        tail = "\n".join(output.splitlines()[-20:])
        message = f"its processes ended with exit code {code} (a lack of memory is the commonest reason):\n{tail}"
        failure = "infrastructure"
    store = RunStore(Path(folder))
    if store.manifest.get("status") in ("running", "failed"):  # else it was refused, and stays what it was
        store.update_manifest(status="failed", error=message, failure=failure)
    raise ERRORS[failure](message)
