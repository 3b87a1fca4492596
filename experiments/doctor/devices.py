"""Which accelerators there are, and which device runs compute on."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from experiments.doctor.finding import CAVEAT, FAILS, WORKS, Finding
from experiments.doctor.visit import Visit

NAME: Final = "device"
GIB: Final = 2**30


def check_devices(_: Visit) -> Iterator[Finding]:
    """The accelerators that torch sees, and the bench's own choice."""
    import torch

    from core.device import VARIABLE, device_note, takes_cpu

    numbers: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda_of_torch": torch.version.cuda,
        "driver": _driver(),
        "accelerator": None,
        "devices": [],
    }
    if torch.accelerator.is_available():
        kind = str(torch.accelerator.current_accelerator())
        numbers["devices"] = [_device(kind, i) for i in range(torch.accelerator.device_count())]
    on_cpu, note = takes_cpu(), device_note()
    if not on_cpu:
        numbers["accelerator"] = kind
        yield Finding(NAME, WORKS, f"runs compute on {kind}: {_listed(numbers['devices'])}", numbers=numbers)
    elif note:
        remedy = (
            f"Unset {VARIABLE} to use it."
            if os.environ.get(VARIABLE)
            else "Go on: on the CPU runs are right, and slower."
        )
        yield Finding(NAME, CAVEAT, note, remedy, numbers)
    elif _has_nvidia():
        build = "is built without CUDA" if torch.version.cuda is None else "cannot use it"
        yield Finding(
            NAME,
            CAVEAT,
            f"there is an NVIDIA device, but torch {torch.__version__} {build}: runs compute on the CPU",
            "Install torch's CUDA build for this driver (pytorch.org/get-started), and see that nvidia-smi works.",
            numbers,
        )
    else:
        yield Finding(NAME, WORKS, "runs compute on the CPU", numbers=numbers)
    yield _noise()


def _device(kind: str, index: int) -> dict[str, Any]:
    """Name, memory and capability of a device."""
    import torch

    found: dict[str, Any] = {"name": kind}
    if kind.startswith("cuda"):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        found = {
            "name": properties.name,
            "memory": total,
            "free_memory": free,
            "capability": f"{properties.major}.{properties.minor}",
        }
    return found


def _listed(devices: list[dict[str, Any]]) -> str:
    return ", ".join(
        f"{each['name']}"
        + (f" ({each['free_memory'] / GIB:.0f} of {each['memory'] / GIB:.0f} GiB free)" if "memory" in each else "")
        for each in devices
    )


def _has_nvidia() -> bool:
    return Path("/dev/nvidia0").exists() or Path("/proc/driver/nvidia").is_dir()


def _driver() -> str | None:
    """The NVIDIA driver's version."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        asked = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        said = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip().partition("\n")[0] or None


def _noise() -> Finding:
    """64-bit integers and float64 on the device: sampling noise must be the same everywhere."""
    import torch

    from core.device import missing_capability
    from experiments.doctor.precisions import device_of_runs

    device = device_of_runs()
    if missing := missing_capability(torch.device(device)):
        return Finding(
            "noise", FAILS, f"{device}: {missing}", "Set GRPOLAB_DEVICE=cpu: this device cannot draw the bench's noise."
        )
    return Finding("noise", WORKS, f"{device} draws the very numbers that the definition gives")
