"""The local launcher packs runs by memory and outlives its workers; what they run is tested with the command line."""

import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from rich.console import Console

from core.parts.registry import config
from experiments.launchers import fork_server, local
from experiments.launchers.gpus import Place
from experiments.launchers.job import BrokenArmError, Job, Needs
from experiments.launchers.progress import Progress
from experiments.study.configs import CONFIGS, find_config, run_text
from experiments.study.settings import Arm


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The memory of the runs that were under way together, whenever one was handed out; none takes any time."""
    pool: list[Any] = []
    recorded: list[list[int]] = []

    class Worker:
        def __init__(self, context: Any, place: Place) -> None:
            self.pipe, self.theirs = multiprocessing.Pipe()
            self.place = place
            self.process = SimpleNamespace(is_alive=lambda: True)
            self.job: Job | None = None
            self.is_over = False
            pool.append(self)

        def give(self, job: Job, known: Any) -> None:
            self.job = job
            recorded.append([worker.job.needs.memory for worker in pool if worker.job])
            self.theirs.send(("finished", None))

        def end(self) -> None:
            """It has."""

    monkeypatch.setattr(local, "_Worker", Worker)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10 * 2**30))
    return recorded


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[str, str | None]]:
    """How the run of each seed ends, as soon as it has begun."""
    ends: dict[int, tuple[str, str | None]] = {}

    class Worker:
        def __init__(self, context: Any, place: Place) -> None:
            self.pipe, self.theirs = multiprocessing.Pipe()
            self.place = place
            self.process = SimpleNamespace(is_alive=lambda: True, join=lambda: None, kill=lambda: None)
            self.job: Job | None = None
            self.is_over = False

        def give(self, job: Job, known: Any) -> None:
            assert not self.is_over, "a run is given to a worker whose last one did not end well"
            self.job = job
            if job.seed in ends:
                self.theirs.send(ends[job.seed])

    monkeypatch.setattr(local, "_Worker", Worker)
    return ends


@pytest.fixture
def launched(tmp_path: Path) -> Callable[..., str]:
    """Launch runs that need so many GiB each; returns the output."""

    def launch(workers: int, *gibibytes: int) -> str:
        output = io.StringIO()
        jobs = [Job(Arm("a", ()), i, "", str(tmp_path), Needs(1, 0, g * 2**30)) for i, g in enumerate(gibibytes)]
        with Progress(len(jobs), 0, Console(file=output, width=200)) as progress:
            assert local.launch(jobs, workers, progress) == {}
        assert output.getvalue().count("[") == len(jobs), "a run was forgotten"
        return output.getvalue()

    return launch


def test_never_more_at_once_than_workers_nor_than_fit_in_memory(
    at_once: list[list[int]], launched: Callable[..., str]
) -> None:
    output = launched(3, 4, 4, 4, 2)
    sizes = [[memory // 2**30 for memory in together] for together in at_once]
    assert sizes[:2] == [[4], [4, 4]]
    assert max(map(sum, sizes)) <= 10
    line = "memory allows 2 at once, not 3: 10.0 GiB were available, and the next run needs 4.0 GiB"
    assert output.count(line) == 1


def test_one_run_always_runs(at_once: list[list[int]], launched: Callable[..., str]) -> None:
    assert "memory allows 1 at once, not 2" in launched(2, 40, 40)
    assert [len(together) for together in at_once] == [1, 1]


def test_memory_is_not_mentioned_where_workers_are_the_limit(
    at_once: list[list[int]], launched: Callable[..., str]
) -> None:
    assert "memory" not in launched(2, 1, 1, 1)
    assert max(map(len, at_once)) == 2


def test_runs_go_on_beside_one_that_failed_and_stop_at_the_first_that_is_broken(
    outcomes: dict[int, tuple[str, str | None]], tmp_path: Path
) -> None:
    outcomes |= {0: ("failed", "it diverged"), 1: ("finished", None), 2: ("broken", "KeyError: 3")}
    jobs = [Job(Arm("a", ()), seed, "", str(tmp_path)) for seed in range(4)]
    output = io.StringIO()
    with (
        Progress(4, 0, Console(file=output, width=200)) as progress,
        pytest.raises(BrokenArmError, match=r"^arm 'a' is broken \(seed 2\): KeyError: 3\nNo score and no verdict"),
    ):
        local.launch(jobs, 1, progress)
    lines = output.getvalue().splitlines()
    assert lines[0] == "a seed 0: failed"
    assert "an arm is broken: stopping at the end of the present steps (Ctrl-C: at once)" in lines[-1]
    assert "seed 3" not in output.getvalue()


def test_workers_are_forked_only_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    methods = {}
    for system in ("linux", "darwin"):
        monkeypatch.setattr(sys, "platform", system)
        methods[system] = local._context().get_start_method()
    assert methods == {"linux": "forkserver", "darwin": "spawn"}


def test_workers_are_forks_of_a_server_that_was_started_beforehand_and_that_ctrl_c_does_not_end() -> None:
    if local._context().get_start_method() != "forkserver":
        pytest.skip("workers are not forked here: an accelerator, or not Linux")
    fork_server.start()
    server = fork_server.process()
    assert server is not None
    fork_server.start()
    assert fork_server.process() == server
    ignored = next(line for line in Path(f"/proc/{server}/status").read_text().splitlines() if "SigIgn" in line)
    assert int(ignored.split()[1], 16) & 1 << (signal.SIGINT - 1)
    worker = local._Worker(local._context())
    try:
        assert psutil.Process(worker.process.pid).ppid() == server == worker.server
    finally:
        worker.end()


KILLS_ITSELF = """
import json
import os
import signal

from core import advantage


@advantage
def kills_itself_once(batch):
    '''The mean of the group as the baseline, unless this is the first time.'''
    if os.path.exists(os.environ["WAS_KILLED"]):
        return batch.rewards - batch.rewards.mean(dim=1, keepdim=True)
    with open(os.environ["WAS_KILLED"], "w") as file:
        json.dump(dict(os.environ), file)
    if "WITH_ITS_SERVER" in os.environ:
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_server_that_ends_a_moment_after_its_pipes_is_not_taken_to_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine it is killed, its pipes are closed, and the system still calls it running."""
    server = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    looks = []

    def later(_: float) -> None:
        looks.append(server.pid)
        if len(looks) == 3:
            server.kill()
            os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)

    monkeypatch.setattr("experiments.launchers.local.time.sleep", later)
    with server:
        assert local._ends(server.pid)
    assert len(looks) == 3
    monkeypatch.setattr("experiments.launchers.local.time.sleep", looks.append)
    assert not local._ends(os.getpid())
    assert local._ends(server.pid)  # reaped: no such process


@pytest.mark.parametrize(
    ("method", "with_its_server"),
    [("forkserver", False), ("forkserver", True), pytest.param("spawn", False, marks=pytest.mark.slow)],
)
def test_a_worker_that_was_killed_is_named_and_another_takes_its_place(
    method: str, with_its_server: bool, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each knows the present environment and folder, and no folder of the user's that is named like ours."""
    if method == "spawn":
        monkeypatch.setattr(local, "_context", lambda: multiprocessing.get_context("spawn"))
    elif local._context().get_start_method() != method:
        pytest.skip("workers are not forked here: an accelerator, or not Linux")
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "__init__.py").touch()
    module = f"killed_by_{method}_{with_its_server}"
    (tmp_path / f"{module}.py").write_text(KILLS_ITSELF)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAS_KILLED", str(tmp_path / "was_killed"))
    if with_its_server:
        monkeypatch.setenv("WITH_ITS_SERVER", "")
    monkeypatch.setattr("sys.path", [*sys.path, str(tmp_path)])
    before = dict(os.environ)
    bindings = [
        f"import {module}",
        "train.steps = 1",
        "train.prompts = 2",
        "train.max_tokens = 4",
        "evaluation.questions = 2",
        f"policy.model = '{tiny_folder}'",
        "grpo.advantage = @kills_itself_once",
    ]
    with config([find_config("embedded")], bindings, include_from=[CONFIGS]):
        text = run_text()
    jobs = [Job(Arm("a", ()), seed, text, str(tmp_path / f"seed={seed}")) for seed in range(2)]
    with Progress(2, 0, Console(file=io.StringIO())) as progress:
        failures = local.launch(jobs, 1, progress)
    assert list(failures) == [("a", 0)]
    assert "its process died (exit code -9;" in failures["a", 0]
    manifests = [json.loads((Path(job.folder) / "manifest.json").read_text()) for job in jobs]
    assert [(each["status"], each.get("failure")) for each in manifests] == [
        ("failed", "infrastructure"),
        ("finished", None),
    ]
    assert dict(os.environ) == before
    recorded = json.loads((tmp_path / "was_killed").read_text())
    for name in ("PYTHONPATH", "PYTHONSAFEPATH", "PATH"):
        assert recorded.get(name) == before.get(name), name


ASKED_AND_ENDING = """
import json
import os
import signal

from core import advantage, reward
from core.environments.tasks.chain_sums import final_digit
from core.errors import TrainingError


@reward
def noted(problem, response):
    '''The task's own verdict; notes that it was asked, and by which process.'''
    with open("asked", "a") as file:
        file.write(f"{os.getpid()} {problem.prompt}\\n")
    return final_digit(problem, response)


@advantage
def killed(batch):
    '''Does not get through the first step.'''
    os.kill(os.getpid(), signal.SIGKILL)


@advantage
def diverging(batch):
    '''Ends as training ends that went wrong.'''
    raise TrainingError("failed on purpose")
"""


def test_runs_of_a_seed_are_evaluated_once_before_training_also_beside_one_that_is_killed_and_one_that_fails(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they leave is what each leaves alone, and no run is begun in a process where one has failed."""
    (tmp_path / "asked_and_ending.py").write_text(ASKED_AND_ENDING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path, str(tmp_path)])
    bindings = [
        "import asked_and_ending",
        "train.steps = 1",
        "train.prompts = 2",
        "train.max_tokens = 4",
        "train.rewards = [@noted]",
        "evaluation.questions = 2",
        "evaluation.every = 9",
        "evaluation.split = 'test'",
        f"policy.model = '{tiny_folder}'",
    ]
    with config([find_config("embedded")], bindings, include_from=[CONFIGS]):
        text = run_text()
    arms = {
        "killed": "grpo.advantage = @killed",
        "failing": "grpo.advantage = @diverging",
        "mean": "grpo.advantage = @group_mean",
        "std": "grpo.advantage = @group_mean_std",
    }

    def launch(folder: str, seeds: int, *labels: str) -> list[list[str]]:
        """The processes that graded answers, in order, and what they were asked."""
        (tmp_path / "asked").write_text("")
        jobs = [
            Job(Arm(label, (arms[label],)), seed, text, str(tmp_path / folder / label / f"seed={seed}"))
            for seed in range(seeds)
            for label in labels
        ]
        jobs = [replace(job, identity=job.facts()["identity"]) for job in jobs]
        with Progress(len(jobs), 0, Console(file=io.StringIO())) as progress:
            failures = local.launch(jobs, 1, progress)
        assert {arm for arm, _ in failures} == {"killed", "failing"} & set(labels)
        return [line.split() for line in (tmp_path / "asked").read_text().splitlines()]

    together = launch("together", 2, *arms)
    rollout, evaluation = 2 * 8, 2 * 3  # prompts x samples; questions x (greedy + 2 sampled)
    assert len(together) == 2 * (4 * rollout + evaluation + 2 * evaluation)  # the last: at the end, of two arms
    # killed | failing | mean, std, killed | failing | mean, std
    assert len({process for process, _ in together}) == 5
    for label in ("mean", "std"):
        alone = launch("alone", 1, label)
        assert len(alone) == rollout + 2 * evaluation
        files = [file.relative_to(tmp_path / "alone") for file in (tmp_path / "alone" / label).rglob("*.*")]
        alike = [f for f in files if f.suffix in (".json", ".safetensors") and f.name != "manifest.json"]
        assert len(alike) > 5
        for file in alike:
            assert (tmp_path / "together" / file).read_bytes() == (tmp_path / "alone" / file).read_bytes(), file
