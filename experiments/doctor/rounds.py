"""The doctor's rounds: every check in a process of its own, with a deadline; what is found is kept as it comes."""

import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from core.errors import GrpoLabError, similar_files
from core.parts.import_path import SAFE_PATH
from experiments.doctor.checks import CHECKS, models_of
from experiments.doctor.finding import FAILS, REPORT, SKIPPED, Finding
from experiments.doctor.scrub import scrubbed
from experiments.doctor.training import name
from experiments.doctor.visit import EMBEDDED, Check, Visit
from experiments.launchers.process_tree import kill

SCHEMA: Final = 1
"""Of the file; a field that changes its meaning makes it 2."""
LEAST_SECONDS: Final = 5.0
"""With less left, a check is not begun."""
LAST_WORDS: Final = 300
"""Characters of a dead process's last line."""
ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
    **SAFE_PATH,
}
"""Of every check: nothing is downloaded, and there is one thread, as a run has by default."""


@dataclass
class Rounds:
    """What was found so far."""

    quick: bool
    given: bool
    """Whether a model was given."""
    findings: list[Finding] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """By check and model."""
    cpu_seconds: float = 0.0
    """Of all processes, which do not depend on what else the machine does."""
    finished: bool = False

    @property
    def failed(self) -> bool:
        """Whether something does not work."""
        return any(finding.result == FAILS for finding in self.findings)

    @property
    def earlier(self) -> dict[str, Any]:
        """The numbers of the findings so far, by name."""
        return {finding.name: finding.numbers for finding in self.findings if finding.numbers}

    @property
    def on_gpu(self) -> bool:
        """Whether runs compute on an accelerator."""
        return bool(self.earlier.get("device", {}).get("accelerator"))

    def to_json(self) -> dict[str, Any]:
        """The file to attach to a report: without paths, host, user or environment."""
        plain = {
            "schema": SCHEMA,
            "grpo-lab": version("grpo-lab"),
            "python": platform.python_version(),
            "quick": self.quick,
            "model given": self.given,
            "finished": self.finished,
            "seconds": {check: round(seconds, 1) for check, seconds in self.seconds.items()},
            "cpu_seconds": round(self.cpu_seconds, 1),
            "findings": [finding.to_json() for finding in self.findings],
        }
        found: dict[str, Any] = scrubbed(plain)
        return found


def make_rounds(
    *,
    model: str | None,
    quick: bool,
    seconds: float,
    begin: Callable[[Check, str], None],
    tell: Callable[[Rounds, Sequence[Finding]], None],
) -> Rounds:
    """Carry out the checks in their order; `tell` is called with what each found, also of the one that Ctrl-C ends.

    After `seconds` nothing is begun any more, and what was not is told of as such. On a machine with other work a
    check has more time, as much as its share of the processor is smaller. Raises `KeyboardInterrupt`.
    """
    rounds, deadline = Rounds(quick, model is not None), time.monotonic() + seconds
    patience = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))

    def add(found: Sequence[Finding]) -> None:
        rounds.findings += found
        tell(rounds, found)

    with _scratch() as folder:
        for check in (each for each in CHECKS if each.quick or not quick):
            for each in models_of(check, model, on_gpu=rounds.on_gpu):
                left = deadline - time.monotonic()
                visit = Visit(folder, os.getcwd(), each, quick, rounds.earlier)
                title = check.name if check.models == "none" else name(check.name, visit)
                if left < LEAST_SECONDS:
                    add([Finding(title, SKIPPED, "no time was left: give more with --minutes")])
                    continue
                begin(check, title)
                began = time.monotonic()
                command = [sys.executable, "-m", "experiments.doctor.process", check.name, json.dumps(asdict(visit))]
                found: list[Finding] = []
                try:
                    in_a_process(command, title, min(left, patience * check.seconds), found)
                finally:
                    rounds.seconds[title] = time.monotonic() - began
                    used = resource.getrusage(resource.RUSAGE_CHILDREN)
                    rounds.cpu_seconds = used.ru_utime + used.ru_stime
                    add(found)
    rounds.finished = True
    tell(rounds, [])
    return rounds


def in_a_process(command: Sequence[str], title: str, seconds: float, found: list[Finding]) -> None:
    """Add what a process finds to `found`, as far as it gets in so many seconds, and how it ended where that was bad.

    Raises `KeyboardInterrupt` once the process and all that it started are dead.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        start_new_session=True,
    )
    late = False
    try:
        output, words = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        late = True
        output, words = _end(process)
    except BaseException:
        output, _ = _end(process)
        found += _read(output)
        raise
    found += _read(output)
    if late:
        remedy = "Run the doctor again when nothing else runs on the machine, or with more --minutes."
        found.append(Finding(title, FAILS, f"not done after {seconds:.0f} seconds", remedy))
    elif process.returncode:
        found.append(Finding(title, FAILS, *_death(process.returncode, words)))


def _end(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Kill a process with all that it started; what it had said."""
    kill(process.pid)
    return process.communicate()


def _read(output: str) -> Iterator[Finding]:
    """Whole lines; the last one of a killed process may be none."""
    for line in output.splitlines(keepends=True):
        if line.endswith("\n"):
            yield Finding(**json.loads(line))


def _death(code: int, words: str) -> tuple[str, str]:
    """How a process died, and what to do."""
    last = (words.strip().splitlines() or ["no message"])[-1][:LAST_WORDS]
    if code == -signal.SIGKILL:
        return (
            "its process was killed, often for a lack of memory",
            "Free memory, or give a smaller model with --model.",
        )
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}: {last}", REPORT
    if "ModuleNotFoundError" in last or "ImportError" in last:
        return f"its process could not be started: {last}", "Install grpo-lab anew, in an environment of its own."
    return f"its process ended with exit code {code}: {last}", REPORT


@contextmanager
def _scratch() -> Iterator[str]:
    """A folder for the runs of the checks, removed in the end."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="grpolab-doctor-", ignore_cleanup_errors=True)
    except OSError as error:
        raise GrpoLabError(
            f"the doctor needs a folder for temporary files, and none can be made: {error.strerror or error}; free "
            "space, or name a folder with space in TMPDIR"
        ) from error
    with folder as path:
        yield str(Path(path))


def given_model(model: str | None) -> str | None:
    """A folder or file as a path that holds from anywhere; None for the embedded model. `GrpoLabError` if not there."""
    if model in (None, EMBEDDED):
        return None
    path = Path(str(model)).expanduser()
    if not path.exists():
        raise GrpoLabError(f"--model {model}: there is no such folder{similar_files(path)}; nothing is downloaded")
    return str(path.resolve())
