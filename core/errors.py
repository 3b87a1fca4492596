"""Errors by their cause: the code, the machine, or the training."""

import signal
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Final, Literal, TypeAlias

MAX_LISTED: Final = 60
"""Names that an error message spells out."""

Cause: TypeAlias = Literal["code", "infrastructure", "algorithmic"]
"""Why a run failed, as its manifest states it: for what it was given (code, settings, data, models), for the machine's
reasons, or by training as configured. Only the last is evidence about a method."""

_MACHINE: Final = frozenset(
    {
        "MemoryError",
        "OutOfMemoryError",
        "DistError",
        "RayError",
        "UncompletedJobError",
        "KeyboardInterrupt",
    }
)
"""Exceptions that are the machine's, by class or base class: libraries that may not be there are not imported."""
_WRONG_PATH: Final = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
"""Errors of the operating system for a wrong path; what writes to a run's folder raises `MachineError` itself."""
_EXHAUSTED: Final = (
    "can't allocate memory",
    "out of memory",
    "No space left on device",
    "Disk quota exceeded",
    "PytorchStreamWriter",
    "(os error 28)",
    "(os error 122)",
)
"""Texts of it in libraries' errors of a general type."""
_CRASHES: Final = (signal.SIGSEGV, signal.SIGILL, signal.SIGFPE)
"""Signals that a process brings on itself. SIGABRT is not among them: C++ aborts when memory is short."""


class GrpoLabError(Exception):
    """A mistake in what the bench was given; the message states what, where and what to do instead.

    The command line prints the message alone, without a traceback. Everything else that is raised is a bug.
    """


class MachineError(GrpoLabError):
    """A run that ended for a reason outside its method: a full disk, a folder that vanished. Run that seed again."""


class TrainingError(GrpoLabError):
    """A run that training ended: gradients or weights that are not finite, nothing to learn from. Its method failed."""


def cause_of(error: BaseException) -> Cause:
    """The cause of an error: the code's, unless it is known to be the training's or the machine's."""
    if isinstance(error, TrainingError):
        return "algorithmic"
    if isinstance(error, MachineError):
        return "infrastructure"
    if isinstance(error, GrpoLabError):
        return "code"
    if isinstance(error, OSError) and not isinstance(error, _WRONG_PATH):
        return "infrastructure"
    if _MACHINE.intersection(base.__name__ for base in type(error).__mro__):
        return "infrastructure"
    return "infrastructure" if any(text in str(error) for text in _EXHAUSTED) else "code"


def cause_of_exit(code: int) -> Cause:
    """The cause of a process that ended with this exit code (negative for a signal) and reported nothing.

    One that was killed is the machine's: SIGKILL is how Linux answers a lack of memory. One that crashed or left by
    itself was made to by its code.
    """
    return "code" if code >= 0 or -code in _CRASHES else "infrastructure"


def describe_error(error: BaseException) -> str:
    """What to show of an error: its message; of an exception the type too, and where in the user's code it arose.

    The whole traceback, where no code of the user's had a part: that is a bug of the bench or of a library.
    """
    if isinstance(error, GrpoLabError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = next((frame for frame in reversed(frames) if _is_users(frame.filename)), None)
    if place is None:
        return "".join(traceback.format_exception(error)).rstrip()
    return f"{type(error).__name__}: {error} ({place.filename}:{place.lineno}, in {place.name}: {place.line})"


def _is_users(file: str) -> bool:
    """Whether a source file is neither ours nor Python's nor a library's."""
    if file.startswith("<"):
        return False
    root = Path(__file__).parents[1]
    ours = [str(root / name) for name in ("core", "estimators", "variants", "experiments")]
    libraries = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    return not any(Path(file).is_relative_to(folder) for folder in [*ours, *libraries, *installed])


def similar(name: str, known: Iterable[str]) -> str:
    """`did you mean A or B? `, of at most three known names; nothing where none is near."""
    close = get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}? " if close else ""


def similar_files(path: Path) -> str:
    """`did you mean A or B? `, of names that lie where a path was looked for; nothing where none is near."""
    try:
        return similar(path.name, [other.name for other in path.parent.iterdir()])
    except OSError:
        return ""


def near(name: str, known: Iterable[str], command: str = "") -> str:
    """A hint for a misspelt name: the near ones, then all that is known unless that is too much to read.

    `command` shows all, and so the hint does not.
    """
    names = sorted(known)
    hint = similar(name, names)
    if command or len(names) > MAX_LISTED:
        shown = f"{command or 'grpolab list'} shows all {len(names)}"
        return f"{hint}({shown})" if hint else shown
    return f"{hint}known: {', '.join(names) if names else 'none'}"


def brief(error: Exception, most: int = 300) -> str:
    """The text of a foreign error, on one line of at most about so many characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return (text if len(text) <= most else f"{text[:most]}...").removesuffix(".")
