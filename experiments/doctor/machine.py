"""The processor, the memory, the disk and the programs of a machine."""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from core.errors import GrpoLabError
from experiments.doctor.finding import CAVEAT, FAILS, WORKS, Finding
from experiments.doctor.visit import Visit

GIB: Final = 2**30
LITTLE_MEMORY: Final = 2 * GIB
"""Below, a run of the embedded model and its libraries may not fit."""
LITTLE_DISK: Final = 2 * GIB
"""Below, the checkpoint of a small model may not fit."""
PROBE_BYTES: Final = 8 << 20
PROGRAMS: Final = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "git": ("git",),
    "C++ compiler": ("c++", "g++", "clang++"),
    "nvidia-smi": ("nvidia-smi",),
}
"""What some commands and tests use, by the names that it may have."""


def check_processor(_: Visit) -> Iterator[Finding]:
    """Cores, memory, and whether other work takes them."""
    import psutil

    # absent on macOS
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory, load = psutil.virtual_memory(), os.getloadavg()[0]
    limit = min(memory.total, _group_limit() or memory.total)
    free = min(memory.available, limit)
    seen = f"{cores} cores, {free / GIB:.1f} of {limit / GIB:.1f} GiB of memory free, load {load:.1f}"
    numbers = {"cores": cores, "memory": limit, "free_memory": free, "load": round(load, 2), "model": _processor()}
    if free < LITTLE_MEMORY:
        remedy = f"End other programs: with less than {LITTLE_MEMORY // GIB} GiB free even a small run may be killed."
        yield Finding("processor and memory", CAVEAT, seen, remedy, numbers)
    elif load > cores + 0.5:
        remedy = "Run the doctor again when nothing else runs: checks take longer, and a GPU's speeds come out too low."
        yield Finding("processor and memory", CAVEAT, seen, remedy, numbers)
    else:
        yield Finding("processor and memory", WORKS, seen, numbers=numbers)


def _group_limit() -> int | None:
    """The memory that a container may use, where it is less than the machine's."""
    for file in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if file.is_file() and (text := file.read_text().strip()).isdigit():
            return int(text)
    return None


def _processor() -> str:
    """Its name."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def check_disk(visit: Visit) -> Iterator[Finding]:
    """Write, sync, rename and lock a file where runs go and where temporary files go."""
    yield _disk("disk, current folder", Path(visit.here), "choose another folder with --out")
    yield _disk("disk, temporary files", Path(tempfile.gettempdir()), "name another folder in TMPDIR")


def _disk(name: str, folder: Path, otherwise: str) -> Finding:
    from core.store.files import write_whole
    from core.store.lock import lock

    free = shutil.disk_usage(folder).free
    seen, numbers = f"{free / GIB:.1f} GiB free", {"free": free}
    try:
        with tempfile.TemporaryDirectory(prefix=".grpolab-doctor-", dir=folder) as scratch:
            write_whole(Path(scratch) / "probe", bytes(PROBE_BYTES))
            with lock(Path(scratch)):
                pass
    except (OSError, GrpoLabError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return Finding(
            name, FAILS, f"{seen}; a file cannot be written: {why}", f"Free space there, or {otherwise}.", numbers
        )
    if free < LITTLE_DISK:
        remedy = f"Free space there, or {otherwise}: a checkpoint takes about 14 bytes a parameter."
        return Finding(name, CAVEAT, seen, remedy, numbers)
    return Finding(name, WORKS, f"{seen}; files are written whole, and locked", numbers=numbers)


def check_programs(_: Visit) -> Iterator[Finding]:
    """Which of the programs are there that some commands use; none is needed."""
    there = {name: any(map(shutil.which, names)) for name, names in PROGRAMS.items()}
    seen = ", ".join(f"{name}: {'there' if is_there else 'not there'}" for name, is_there in there.items())
    yield Finding("other programs", WORKS, seen, numbers=there)
