"""Scores by a library's function, which may run the answer as code: in a sandboxed process of its own.

The function is made inside the sandbox and kept there; every answer is scored by a forked child (`worker.py`), within
processor time that is counted, so that a busy machine changes no verdict, and a clock that ends what still lasts.
"""

import importlib
import json
import pickle
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from core.environments.sandbox.levels import Limits, SandboxError, command
from core.environments.sandbox.process import START_SECONDS, Enclosed, ProgramError
from core.environments.workers import Pool
from core.errors import GrpoLabError, MachineError

MAX_PROCESSES: Final = 4
"""Processes for one function."""
START_TIMEOUT_SECONDS: Final = 10.0
"""Seconds by the clock that an answer may take per second of processor time."""
EXTRA_SECONDS: Final = 20.0
"""Seconds beyond that after which the process itself, not its child, is taken to hang."""
LIMITS: Final = Limits(memory=1 << 30, wall_seconds=START_SECONDS)


class Scorer:
    """`getattr(make(*args, **kwargs), method)`, shut in at `level`; its keyword arguments must be plain to pickle.

    Text that it evaluates may use `names` alone. Raises `GrpoLabError` where it cannot be made.
    """

    def __init__(
        self,
        level: str,
        make: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        method: str,
        names: Iterable[str] = (),
    ) -> None:
        factory = pickle.dumps((make, args, dict(kwargs or {}), method))
        config = {"path": _packages(make.__module__), "names": tuple(sorted(names))}
        self._pool = Pool(lambda: _Process(level, factory, config), MAX_PROCESSES)

    def score(self, seconds: float, **kwargs: Any) -> tuple[float, str | None]:
        """The marks, or 0 and why there are none; may be asked from several threads."""
        request = pickle.dumps((kwargs, seconds, seconds * START_TIMEOUT_SECONDS))
        for attempt in range(2):
            try:
                with self._pool.one() as process:
                    word, marks = process.ask(request, seconds * START_TIMEOUT_SECONDS + EXTRA_SECONDS)
            except SandboxError as error:  # by nothing it was asked
                if attempt:
                    raise MachineError(f"the process that scores answers ended twice in a row: {error}") from error
                continue
            return marks, None if word == "scored" else _CAUSES[word]
        raise AssertionError

    def end(self) -> None:
        """End its processes now rather than at the exit of this one."""
        self._pool.end()


_CAUSES: Final = {
    "raised": "the scorer failed on it",
    "too large": "too large to check",
    "too slow": "too slow to check",
    "code": "would run as a program",
    "died": "killed the checker",
}
"""The worker's messages, as the cause of a 0."""


class _Process(Enclosed):
    """The worker that holds one function."""

    def __init__(self, level: str, factory: bytes, config: Mapping[str, Any]) -> None:
        super().__init__(level, LIMITS)
        self._config = config
        try:
            self._start()
            self._write(factory)
            (word,) = json.loads(self._read(1 << 16))
        except ProgramError as error:
            self._end()
            raise GrpoLabError(f"a scorer cannot be made in its sandbox: it {error}") from error
        except BaseException:
            self._end()
            raise
        if word != "made":
            self._end()
            raise GrpoLabError(f"a scorer cannot be made in its sandbox (level {level}): {word}")

    def _command(self) -> list[str]:
        scratch = self._scratch.path if self._scratch else None
        return command(self.level, self.limits, scratch, worker=self._config)

    def ask(self, request: bytes, clock: float) -> tuple[str, float]:
        """A word and marks; raises `SandboxError` where the worker itself is gone or hangs."""
        self._deadline = time.monotonic() + clock
        try:
            self._write(request)
            word, marks, _ = json.loads(self._read(1000))
        except ProgramError as error:
            raise SandboxError(str(error)) from error
        if word == "broken":
            raise SandboxError("a child could not be sandboxed")
        return word, marks

    def kill(self) -> None:
        """End the worker with the child it may have."""
        self._end()

    def disown(self) -> None:
        """Leave it to the parent process."""
        assert self._process
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()
        self._process.returncode = 0


def _packages(module: str) -> tuple[str, ...]:
    """Folders that a module is found in, and those of all installed packages."""
    root = importlib.import_module(module.split(".")[0])
    own = [Path(place).parent for place in getattr(root, "__path__", [root.__file__])]
    installed = [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    return tuple(sorted({str(folder.resolve()) for folder in (*own, *installed) if folder.is_dir()}))
