"""A machine on which something is broken on purpose: each is named, with its remedy."""

import errno
import os
import shutil
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from core.device import forget_decision
from core.environments.sandbox import probe
from experiments.doctor import devices, libraries, machine
from experiments.doctor.devices import check_devices
from experiments.doctor.finding import CAVEAT, FAILS, WORKS, Finding
from experiments.doctor.grading import check_grading
from experiments.doctor.libraries import check_libraries, outside
from experiments.doctor.machine import GIB, check_disk, check_processor, check_programs
from experiments.doctor.visit import Visit


@pytest.fixture
def visit(tmp_path: Path) -> Visit:
    return Visit(str(tmp_path), str(tmp_path))


# --- libraries -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("installed", "bounds", "position"),
    [
        ("2.13.0+cpu", ">=2.9,<2.14", None),
        ("2.9", ">=2.9,<2.14", None),
        ("2.8.1", ">=2.9,<2.14", "below"),
        ("2.14.0", ">=2.9,<2.14", "above"),
        ("2.14.0rc1", ">=2.9,<2.14", "above"),
        ("10.0", ">=9.5", None),
        ("1.16.0", "==1.16.0", None),
        ("1.16.1", "==1.16.0", "above"),
        ("1.15", "==1.16.0", "below"),
        ("3.0", "", None),
    ],
)
def test_where_a_version_lies(installed: str, bounds: str, position: str | None) -> None:
    assert outside(installed, bounds) == position


def with_versions(monkeypatch: pytest.MonkeyPatch, **other: str | None) -> None:
    """Pretend that these are installed in these versions, or not at all."""

    def version(name: str) -> str:
        found = other[name] if name in other else metadata.version(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(libraries, "version", version)


def test_libraries_as_they_are_here_work(visit: Visit) -> None:
    (found,) = check_libraries(visit)
    assert found.result == WORKS
    assert found.numbers["versions"]["torch"] == torch.__version__


def test_an_old_library_is_named_with_the_command_that_brings_another(
    visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_versions(monkeypatch, transformers="4.57.1")
    (found,) = check_libraries(visit)
    assert found.result == FAILS
    assert "transformers 4.57.1" in found.seen
    assert found.remedy == "pip install 'transformers<6,>=5.5.3'."


def test_a_missing_library_does_not_work_and_a_newer_one_does_with_a_caveat(
    visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_versions(monkeypatch, scipy=None, torch="2.99.0")
    (found,) = check_libraries(visit)
    assert found.result == FAILS
    assert found.remedy == "pip install 'scipy>=1.15'."
    monkeypatch.undo()
    with_versions(monkeypatch, torch="2.99.0", peft=None)
    (found,) = check_libraries(visit)
    assert found.result == CAVEAT
    assert "torch 2.99.0" in found.seen
    assert "pip install 'torch<2.14,>=2.9'" in found.remedy


# --- memory, disk, programs ------------------------------------------------------------------------------------------


def test_little_memory_and_a_busy_machine_are_caveats(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0.1, 0.1))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=8 * GIB, available=4 * GIB))
    (found,) = check_processor(visit)
    assert (found.result, found.numbers["free_memory"]) == (WORKS, 4 * GIB)
    monkeypatch.setattr(os, "getloadavg", lambda: (1e4, 0.1, 0.1))
    (found,) = check_processor(visit)
    assert found.result == CAVEAT
    assert "nothing else runs" in found.remedy
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=8 * GIB, available=GIB))
    (found,) = check_processor(visit)
    assert found.result == CAVEAT
    assert "End other programs" in found.remedy


def test_a_containers_memory_counts(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=8 * GIB, available=6 * GIB))
    monkeypatch.setattr(machine, "_group_limit", lambda: GIB)
    (found,) = check_processor(visit)
    assert found.result == CAVEAT
    assert "1.0 of 1.0 GiB" in found.seen


def test_a_full_disk_is_named_with_what_to_do(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert [found.result for found in check_disk(visit)] == [WORKS, WORKS]
    monkeypatch.setattr(os, "fsync", full)
    here, temporary = check_disk(visit)
    assert here.result == temporary.result == FAILS
    assert "No space left on device" in here.seen
    assert here.remedy == "Free space there, or choose another folder with --out."
    assert temporary.remedy == "Free space there, or name another folder in TMPDIR."
    assert list(Path(visit.here).iterdir()) == []


def test_a_disk_that_is_nearly_full_is_a_caveat(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=GIB))
    here, _ = check_disk(visit)
    assert here.result == CAVEAT
    assert "1.0 GiB free" in here.seen
    assert "14 bytes a parameter" in here.remedy


def test_a_folder_that_cannot_be_written_does_not_work(tmp_path: Path) -> None:
    here, _ = check_disk(Visit(str(tmp_path), "/proc"))
    assert here.result == FAILS


def test_programs_that_are_not_there_are_said_and_needed_by_nothing(
    visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (found,) = check_programs(visit)
    assert found.result == WORKS
    assert "chromium: not there" in found.seen


# --- sandbox ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def sandbox_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_cached", [])


def graded(visit: Visit) -> Finding:
    (found,) = check_grading(visit)
    return found


def test_without_bubblewrap_on_the_path_programs_are_graded_with_a_caveat(
    visit: Visit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sandbox_anew: None
) -> None:
    for program in filter(None, map(shutil.which, ("unshare", "setpriv"))):
        (tmp_path / Path(program).name).symlink_to(program)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = graded(visit)
    assert found.result == CAVEAT
    assert "not bubblewrap: bwrap is not installed" in found.seen
    assert "apt-get install bubblewrap" in found.remedy


def test_without_any_sandbox_no_program_can_be_graded(
    visit: Visit, monkeypatch: pytest.MonkeyPatch, sandbox_anew: None
) -> None:
    monkeypatch.setattr(probe, "seccomp_filter", lambda: None)
    found = graded(visit)
    assert found.result == FAILS
    assert found.numbers["level"] is None


def test_a_grader_that_lets_everything_pass_does_not_work(
    visit: Visit, monkeypatch: pytest.MonkeyPatch, sandbox_anew: None
) -> None:
    monkeypatch.setattr("core.environments.rewards.code.code_tests", lambda *_, **__: 1.0)
    found = graded(visit)
    assert found.result == FAILS
    assert "[1.0, 1.0]" in found.seen


# --- devices ---------------------------------------------------------------------------------------------------------


def device_rows(visit: Visit) -> list[Finding]:
    with forget_decision():
        return list(check_devices(visit))


def test_a_gpu_that_torch_cannot_use_is_a_caveat(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(devices, "_has_nvidia", lambda: False)
    device, noise = device_rows(visit)
    assert (device.result, noise.result) == (WORKS, WORKS)
    assert "on the CPU" in device.seen
    monkeypatch.setattr(devices, "_has_nvidia", lambda: True)
    device, _ = device_rows(visit)
    assert device.result == CAVEAT
    assert "Install torch's CUDA build" in device.remedy


def test_a_device_that_draws_other_noise_does_not_work(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.device.missing_capability", lambda _: "it has no float64")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    _, noise = device_rows(visit)
    assert noise.result == FAILS
    assert "it has no float64" in noise.seen
    assert "GRPOLAB_DEVICE=cpu" in noise.remedy


def test_an_accelerator_that_is_set_aside_is_a_caveat(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Any = SimpleNamespace(type="cuda")
    monkeypatch.setenv("GRPOLAB_DEVICE", "cpu")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: kind)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 0)
    device, _ = device_rows(visit)
    assert device.result == CAVEAT
    assert device.remedy == "Unset GRPOLAB_DEVICE to use it."
