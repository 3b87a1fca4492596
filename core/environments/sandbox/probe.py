"""Which level of sandbox this machine gives: each is tried with a program that looks around, strongest first."""

import os
import sys
import threading
from dataclasses import dataclass, field
from typing import Final

from core.environments.sandbox.filter import MACHINES, seccomp_filter
from core.environments.sandbox.levels import LEVELS, Limits, SandboxError
from core.environments.sandbox.process import Program, ProgramError
from core.errors import GrpoLabError

_LOOK: Final = """
import ctypes, os, socket

def attempt(action):
    try:
        action()
    except (OSError, MemoryError):
        return False
    return True

def forks():
    count = 0
    try:
        while count < 100:
            if os.fork() == 0:
                import time
                time.sleep(60)
                os._exit(0)
            count += 1
    except OSError:
        pass
    return count

def system(number, *arguments):
    if ctypes.CDLL(None, use_errno=True)[number](*arguments):
        raise OSError

def look(hidden):
    return {
        "opens sockets": attempt(lambda: socket.socket()),
        "becomes root": attempt(lambda: os.setuid(0)) and os.getuid() == 0 and attempt(lambda: os.chown("/", 1, 1)),
        "sends signals": attempt(lambda: os.kill(os.getppid(), 0)),
        "makes name spaces": attempt(lambda: system("unshare", 0x10000000)),
        "has an environment": bool(os.environ),
        "allocates without limit": attempt(lambda: bytearray(1 << 40)),
        "forks without limit": forks() >= 100,
        "sees files": any(map(os.path.lexists, hidden)),
        "sees processes": os.getpid() > 10 or os.path.exists("/proc/self"),
        "writes outside": attempt(lambda: os.mkdir("/written")),
    }
"""
_WITHOUT_SPACES: Final = ("sees files", "sees processes", "writes outside")
_REMEDY: Final = (
    "install bubblewrap (apt install bubblewrap) and let this user make user namespaces (on Ubuntu 24.04 and later an "
    "AppArmor profile for bwrap; in a container --security-opt seccomp=unconfined or the like)"
)
_NO_FILTER: Final = f"there is a system call filter for Linux on {' or '.join(MACHINES)} only"
_lock = threading.Lock()
_cached: list["Sandbox"] = []


@dataclass(frozen=True)
class Sandbox:
    """The strongest level that this machine gives, and why it gives none of the stronger ones."""

    level: str | None
    refused: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        reasons = "".join(f"; not {level}: {reason}" for level, reason in self.refused.items())
        return f"code sandbox: {self.level or 'none'}{reasons}"


def sandbox() -> Sandbox:
    """What this machine gives, tried out at the first call; for the run's log and manifest."""
    with _lock:
        if not _cached:
            _cached.append(_try_out())
        return _cached[0]


def require(level: str, setting: str = "code_tests.level") -> str:
    """The strongest level there is; raises unless that is `level`, which `setting` asks for, or above."""
    if level not in LEVELS:
        raise GrpoLabError(f"{setting} = {level!r} must be one of {', '.join(LEVELS)}, weakest first")
    available = sandbox()
    if seccomp_filter() is None:
        raise GrpoLabError(f"models' programs cannot be run here: {_NO_FILTER}; run this study on such a machine")
    if available.level is None or LEVELS.index(available.level) < LEVELS.index(level):
        raise GrpoLabError(
            f"this machine gives no sandbox at level '{level}' or above for running models' programs ({available}); "
            f"{_REMEDY}; or, if you trust the programs with your files, {setting} = 'rlimits'"
        )
    return available.level


def _try_out() -> Sandbox:
    refused: dict[str, str] = {}
    if seccomp_filter() is None:
        return Sandbox(None, dict.fromkeys(LEVELS, _NO_FILTER))
    for level in reversed(LEVELS):
        reason = shortcoming(level)
        if reason is None:
            return Sandbox(level, refused)
        refused[level] = reason
    return Sandbox(None, refused)


def shortcoming(level: str) -> str | None:
    """Why a level does not hold here; None if it does."""
    hidden = ["/etc/passwd", "/home", "/proc/1", os.path.abspath(__file__), os.path.expanduser("~/.bashrc")]
    try:
        with Program(_LOOK, level, Limits(wall_seconds=30)) as program:
            _, *pairs = program.call("look", (hidden,), {})
    except (SandboxError, OSError) as error:
        return str(error)
    except ProgramError as error:
        return f"the probe program {error} (can every user read {sys.base_prefix}?)"
    wrong = [name for name, seen in pairs if seen and not (level == "rlimits" and name in _WITHOUT_SPACES)]
    return ", ".join(f"a program {name}" for name in wrong) or None
