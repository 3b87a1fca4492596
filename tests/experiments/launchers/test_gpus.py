"""The local launcher's GPUs: each worker sees its own, and runs share one as far as they fit or declare."""

import io
import multiprocessing
import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from core.errors import GrpoLabError
from experiments.launchers import gpus, local
from experiments.launchers.gpus import ANYWHERE, Gpu, Place, machine_gpus, place
from experiments.launchers.job import Job, Needs
from experiments.launchers.progress import Progress
from experiments.study.processes import Processes
from experiments.study.settings import Arm

GIB = 2**30
TWO = [Gpu("0", 70 * GIB, 80 * GIB), Gpu("1", 40 * GIB, 80 * GIB)]


def job(seed: int = 0, processes: int = 1, **needs: Any) -> Job:
    return Job(Arm("a", ()), seed, "", "folder", Needs(**needs), Processes(processes))


@pytest.fixture(autouse=True)
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two."""
    monkeypatch.setattr(gpus, "takes_cpu", lambda: False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    memory = {0: (70 * GIB, 80 * GIB), 1: (40 * GIB, 80 * GIB)}
    monkeypatch.setattr(torch.accelerator, "get_memory_info", memory.__getitem__)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def places(jobs: list[Job], given: list[Gpu] = TWO) -> list[str]:
    """Where runs are that begin one after the other; those that have to wait are left out."""
    under_way: list[Place] = []
    for each in jobs:
        at = place(each, given, under_way)
        under_way += [at] if at else []
    return [str(at) for at in under_way]


# which there are


def test_those_that_the_command_sees_by_the_names_that_a_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine_gpus() == TWO
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, MIG-abc")
    assert [gpu.name for gpu in machine_gpus()] == ["5", "MIG-abc"]
    assert Place(tuple(machine_gpus()), (1.0, 1.0)).environment == {"CUDA_VISIBLE_DEVICES": "5,MIG-abc"}
    monkeypatch.setattr(gpus, "takes_cpu", lambda: True)
    assert machine_gpus() == []
    assert ANYWHERE.environment == {}


# where a run is


def test_runs_go_where_least_is_taken_and_share_by_what_is_forecast() -> None:
    """20 GiB each: three fit into the 70 that are free on the first, two into the 40 of the second."""
    twenty = [job(gpu_memory=20 * GIB) for _ in range(9)]
    assert places(twenty) == ["GPU 0", "GPU 1", "GPU 0", "GPU 1", "GPU 0"]
    # beside 7 GiB, an engine takes 0.35 of all 80: 35 of 70, and 35 of 40
    with_engine = [job(gpu_memory=7 * GIB, gpu_utilization=0.35) for _ in range(9)]
    assert places(with_engine) == ["GPU 0", "GPU 1", "GPU 0"]


def test_a_gpu_without_a_run_takes_any_however_large() -> None:
    assert places([job(gpu_memory=500 * GIB) for _ in range(3)]) == ["GPU 0", "GPU 1"]


def test_declared_shares_and_whole_ones_count_in_place_of_a_forecast() -> None:
    half = [job(gpus=0.5, gpu_memory=500 * GIB) for _ in range(9)]
    assert places(half) == ["GPU 0", "GPU 1", "GPU 0", "GPU 1"]
    tenth = [job(gpus=0.1) for _ in range(30)]
    assert len(places(tenth)) == 20
    assert places([job(gpus=1.0) for _ in range(3)]) == ["GPU 0", "GPU 1"]
    assert places([job(gpus=2.0) for _ in range(3)]) == ["GPUs 0, 1"]


def test_each_process_of_a_run_has_one() -> None:
    """The next run waits until both take it."""
    thirty = [job(processes=2, gpu_memory=30 * GIB) for _ in range(3)]
    assert places(thirty) == ["GPUs 0, 1"]
    assert places([job(processes=2, gpu_memory=20 * GIB) for _ in range(3)]) == ["GPUs 0, 1", "GPUs 0, 1"]
    assert place(job(processes=2, gpu_memory=GIB), TWO, [Place((TWO[1],), (1.0,))]) is None


def test_without_gpus_a_run_is_anywhere() -> None:
    assert place(job(), [], [ANYWHERE]) == ANYWHERE


@pytest.mark.parametrize(
    ("asks", "given", "message"),
    [
        (job(gpus=3.0), TWO, r"--gpus 3: this machine has 2 that runs can use; leave it out"),
        (job(gpus=0.5), [], r"--gpus 0.5: this machine has 0 that runs can use; leave it out"),
        (job(processes=3), TWO, r"--processes 3: every process takes a GPU, and this machine has 2"),
        (job(processes=2, gpus=1.0), TWO, r"--gpus 1: every process takes a GPU, and a run has 2"),
    ],
)
def test_what_could_never_begin_is_refused_before_anything_runs(asks: Job, given: list[Gpu], message: str) -> None:
    with pytest.raises(GrpoLabError, match=message):
        gpus.check(asks, given)
    gpus.check(job(processes=2), [])  # on CPUs


# workers


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Workers whose runs take no time, in the order in which they were started."""
    started: list[Any] = []

    class Worker:
        def __init__(self, context: Any, place: Place) -> None:
            self.pipe, self.theirs = multiprocessing.Pipe()
            self.place, self.is_over = place, False
            self.has_ended = False
            self.process = SimpleNamespace(is_alive=lambda: not self.has_ended)
            self.job: Job | None = None
            started.append(self)

        def give(self, job: Job, known: Any) -> None:
            assert not self.has_ended
            self.job = job
            self.theirs.send(("finished", None))

        def end(self) -> None:
            self.has_ended = True

    monkeypatch.setattr(local, "_Worker", Worker)
    return started


def launch(jobs: list[Job], number: int) -> str:
    output = io.StringIO()
    with Progress(len(jobs), 0, Console(file=output, width=200)) as progress:
        assert local.launch(jobs, number, progress) == {}
    return output.getvalue()


def test_every_run_has_a_worker_and_a_place_of_its_own_which_the_user_is_shown(workers: list[Any]) -> None:
    """A worker's process keeps what it has taken of a GPU, so it ends with its run."""
    output = launch([job(seed, gpu_memory=40 * GIB) for seed in range(4)], 8)
    assert [worker.has_ended for worker in workers] == [True] * 4
    assert [str(worker.place) for worker in workers[:2]] == ["GPU 0", "GPU 1"]
    assert "a seed 0: GPU 0\n" in output
    assert "a seed 1: GPU 1\n" in output
    assert output.count("GPUs allow 2 at once, not 8: 40.0 GiB were free on each of 2 at least, and the next run") == 1
    assert "needs 40.0 GiB on one; --gpus X declares a share" in output


def test_with_one_gpu_there_is_nothing_to_show(workers: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    assert "GPU" not in launch([job(seed, gpus=0.5) for seed in range(2)], 2)
    assert {str(worker.place) for worker in workers} == {"GPU 0"}


def test_a_process_is_told_its_gpu_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it is started from is told nothing: the next worker has another."""
    told: dict[str, str] = {}

    class Process:
        def __init__(self, target: Any, args: tuple[Any, ...], daemon: bool) -> None:
            self.environment = args[1]

        def start(self) -> None:
            told.update(at_start=os.environ["CUDA_VISIBLE_DEVICES"], kept=self.environment["CUDA_VISIBLE_DEVICES"])

    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=Process)
    local._Worker(context, Place((TWO[1],), (1.0,)))
    assert told == {"at_start": "1", "kept": "1"}
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
