"""How far a program is shut in: three levels, each tried out before it is believed.

    bubblewrap   own user, mount, process, network, IPC and host name spaces, made by bwrap
    namespaces   the same spaces, made by util-linux's unshare
    rlimits      none of them: limits and the system call filter only; files that the user can reach stay reachable

At each level: limits on time, memory, processes, files and output, no capability, no way to regain one, a system call
filter (`core.environments.sandbox.filter`), an empty environment. Started by root, the program runs as a user that
nothing else has.
"""

import itertools
import os
import resource
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from core.environments.sandbox.filter import seccomp_filter

LEVELS: Final = ("rlimits", "namespaces", "bubblewrap")
"""Weakest first."""

NOBODY: Final = 65534
_HARNESS: Final = Path(__file__).with_name("harness.py")
_WORKER: Final = Path(__file__).with_name("worker.py")
_numbers = itertools.count()


class SandboxError(Exception):
    """The sandbox itself failed, through no fault of the program."""


@dataclass(frozen=True)
class Limits:
    """What one program may use, over all tests of one problem."""

    cpu_seconds: int = 4
    """Of each of its processes."""
    wall_seconds: float = 20.0
    memory: int = 512 << 20
    """Address space of each process, in bytes."""
    processes: int = 8
    """With threads, and two of the sandbox's own."""
    scratch: int = 16 << 20
    """Bytes in its scratch folder; at level rlimits, in each of its files."""
    output: int = 4 << 20
    """Bytes of standard output, or of a returned value as it is sent."""
    files: int = 64


def command(level: str, limits: Limits, scratch: str | None, *, worker: Mapping[str, Any] | None = None) -> list[str]:
    """The command that starts the harness at `level`; `scratch` is a folder to work in, for level rlimits alone.

    With `worker`, what its configuration holds beside the harness's, the program in `worker.py` is started instead.
    """
    root = os.geteuid() == 0
    packages = tuple(worker["path"]) if worker else ()
    config: dict[str, Any] = {
        "mounts": None,
        "inodes": limits.scratch if level == "bubblewrap" else None,
        "uid": _own_user() if root else None,
        "processes": limits.processes,
        "supervised": level == "rlimits",
        "count_processes": level == "rlimits" and not root,
        "rlimits": [
            *([] if worker else [(resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds)]),
            (resource.RLIMIT_AS, limits.memory, limits.memory),
            (resource.RLIMIT_FSIZE, limits.scratch, limits.scratch),
            (resource.RLIMIT_NOFILE, limits.files, limits.files),
            (resource.RLIMIT_CORE, 0, 0),
            (resource.RLIMIT_MEMLOCK, 0, 0),
            (resource.RLIMIT_MSGQUEUE, 0, 0),
        ],
        "filter": seccomp_filter(),
        "scratch": scratch or "/tmp",
        "owns_scratch": scratch is not None,
        "output": limits.output,
    }
    if worker:  # its children have the filter, and one deadline each
        config |= {"filter": None, "child_filter": config["filter"], "harness": _text(_HARNESS), **worker}
    spaces: list[str] = []
    if level == "bubblewrap":
        spaces = _bubblewrap(root, limits, packages)
    elif level == "namespaces":
        config["mounts"] = {
            "root": "/mnt",
            "shown": _shown(packages),
            "emptied": _emptied(packages),
            "scratch": limits.scratch,
        }
        # setpriv: when the trainer dies, unshare must too, and then its child
        spaces = [_tool("setpriv"), "--pdeathsig", "KILL", _tool("unshare"), *([] if root else ["--map-root-user"])]
        spaces += ["--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child", "--"]
    # hash seeds are fixed: a verdict must not depend on the order of a set
    return [
        *spaces,
        _interpreter(),
        "-s",
        "-S",
        "-P",
        "-B",
        "-X",
        "utf8",
        "-c",
        _text(_WORKER if worker else _HARNESS),
        ascii(config),
    ]


def _bubblewrap(root: bool, limits: Limits, packages: tuple[str, ...]) -> list[str]:
    """bwrap with its options; the harness keeps what it takes to limit a mount and to change the user, and drops it."""
    options = [_tool("bwrap"), "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    options += ["--cap-add", "CAP_SYS_ADMIN"]
    options += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if root else ["--unshare-user"]
    options += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    # before what is shown, which may lie in it
    options += ["--perms", "1777", "--size", str(limits.scratch), "--tmpfs", "/tmp"]
    # left to itself bwrap makes these folders as closed as those they stand for, and the program is another user
    for folder in sorted({str(parent) for path in _shown(packages) for parent in Path(path).parents} - {"/", "/tmp"}):
        options += ["--perms", "0755", "--dir", folder]
    for path in _shown(packages):
        options += ["--dev-bind" if path.startswith("/dev/") else "--ro-bind", path, path]
    for path in _emptied(packages):
        options += ["--perms", "0755", "--size", "4096", "--tmpfs", path, "--remount-ro", path]
    options += ["--remount-ro", "/"]
    return [*options, "--chdir", "/tmp", "--"]


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise SandboxError(f"{name} is not installed")
    return path


@cache
def _shown(packages: tuple[str, ...] = ()) -> list[str]:
    """The interpreter, its standard library, the shared libraries and `packages`: all of the files that there are."""
    paths = [_interpreter(), sysconfig.get_path("stdlib"), f"{sys.base_prefix}/lib", "/usr/lib", "/lib", "/lib64"]
    paths += ["/usr/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/zero", "/dev/urandom", *packages]
    shown: list[str] = []
    for path in sorted(paths):  # a folder before what is inside it
        inside = any(path == seen or path.startswith(seen + "/") for seen in shown)
        if os.path.exists(path) and not inside:
            shown.append(path)
    return shown


@cache
def _emptied(packages: tuple[str, ...] = ()) -> list[str]:
    """Folders of installed packages inside the shown ones: a program gets the standard library and nothing else."""
    library = Path(sysconfig.get_path("stdlib"))
    installed = (library / "site-packages", library / "dist-packages", library.parent / "python3" / "dist-packages")
    return [
        str(path) for path in installed if path.is_dir() and not any(Path(p).is_relative_to(path) for p in packages)
    ]


@cache
def _interpreter() -> str:
    return os.path.realpath(sys.executable)


@cache
def _text(program: Path) -> str:
    return program.read_text()


def _own_user() -> int:
    """A user id that no other sandbox has just now, so that limits on processes and signals stay apart."""
    if _maps_every_user():
        return (1 << 30) + (os.getpid() % (1 << 14) << 16) + next(_numbers) % (1 << 16)
    return NOBODY


@cache
def _maps_every_user() -> bool:
    first, _, count = map(int, Path("/proc/self/uid_map").read_text().split()[:3])
    return first == 0 and count > 1 << 31
