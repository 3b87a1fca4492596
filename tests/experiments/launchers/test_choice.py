"""Which launcher, with which options, and the declared resources of a run."""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.cli.main import main
from experiments.launchers import local
from experiments.launchers.choice import add_launcher_options, parse_memory, read_where, where
from experiments.launchers.job import Needs
from experiments.launchers.launcher import LAUNCHERS, Where
from experiments.memory.forecast import forecast
from experiments.planning.needs import CONTEXT, KEPT, KEPT_WITH_ADAPTERS, LIBRARIES, host_memory, needs_of
from experiments.planning.plan import hides_gpus
from experiments.study.configs import find_config
from experiments.study.processes import Processes
from experiments.study.study import prepare_study


def chosen(*arguments: str) -> Where:
    parser = argparse.ArgumentParser()
    add_launcher_options(parser)
    return read_where(parser.parse_args(arguments))


def test_a_launcher_is_chosen_from_python_by_the_same_names() -> None:
    chosen = where("ray", {"address": "auto", "cpus": 2, "memory": "4G"})
    assert (chosen.launcher.name, chosen.cpus, chosen.memory) == ("ray", 2, 4 * 2**30)
    assert where().launcher.name == "local"


def test_memory_is_a_number_and_a_unit() -> None:
    assert [parse_memory(text) for text in ("3K", "1.5M", "4G", "1T")] == [3072, 1572864, 4294967296, 1099511627776]


def test_every_launcher_that_is_named_exists() -> None:
    assert chosen().launch is local.launch
    for name in LAUNCHERS:
        assert callable(chosen("--launcher", name, *(["--time", "5"] if name == "slurm" else [])).launch)


def test_needs_are_those_declared_or_those_of_the_recipe() -> None:
    recipe = prepare_study([find_config("demo")], ["train.threads = 2"], [0]).recipes["grpo"]
    one = Processes()
    held = int(KEPT * forecast(recipe).peak + LIBRARIES)
    assert needs_of(recipe, one, chosen()) == Needs(2, 0, held)
    declared = chosen("--launcher", "ray", "--cpus", "3", "--gpus", "0.5", "--memory", "1G")
    assert needs_of(recipe, one, declared) == Needs(3, 0.5, 2**30)
    # too low a forecast would have Slurm kill the run
    assert needs_of(recipe, one, chosen("--launcher", "slurm", "--time", "5")) == Needs(2, 0, 0)
    several = needs_of(recipe, Processes(3), chosen())
    assert several.cpus == 6
    assert several.memory == 3 * int(KEPT * forecast(recipe, processes=3).peak + LIBRARIES)


def test_on_a_gpu_the_forecast_is_the_gpus_and_an_engine_takes_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the host is needed what reading the model takes, or weights, masters and moments as a checkpoint has them."""
    monkeypatch.setattr("experiments.planning.needs.takes_cpu", lambda: False)
    bindings = ["train.threads = 2", "train.generator = @vllm()", "vllm.gpu_memory_utilization = 0.35"]
    recipe = prepare_study([find_config("demo")], bindings, [0]).recipes["grpo"]
    predicted = forecast(recipe)
    weights = 4 * predicted.total
    assert host_memory(predicted) == 3 * weights > predicted.moments["load"].bytes
    host = int(KEPT * 3 * weights + LIBRARIES)
    expected = Needs(2, 0, host, gpu_memory=predicted.peak + CONTEXT, gpu_utilization=0.35)
    assert needs_of(recipe, Processes(), chosen()) == expected
    ray = needs_of(recipe, Processes(), chosen("--launcher", "ray", "--gpus", "1"))
    assert (ray.gpus, ray.memory) == (1, host)
    without = needs_of(recipe, Processes(), chosen("--launcher", "ray"))
    assert (without.memory, without.gpu_memory) == (int(KEPT * predicted.peak + LIBRARIES), 0)
    bindings = ["train.generator = @vllm()", "vllm.url = 'http://127.0.0.1:1'", "vllm.sync_folder = 'sync'"]
    served = prepare_study([find_config("demo")], bindings, [0]).recipes["grpo"]
    assert needs_of(served, Processes(), chosen()).gpu_utilization == 0


def test_a_gpu_that_runs_will_not_see_is_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray hides those that a task does not declare."""
    monkeypatch.setattr("experiments.planning.plan.takes_cpu", lambda: False)
    assert hides_gpus(chosen("--launcher", "ray"))
    assert not hides_gpus(chosen("--launcher", "ray", "--gpus", "1"))
    assert not hides_gpus(chosen())
    monkeypatch.setattr("experiments.planning.plan.takes_cpu", lambda: True)
    assert not hides_gpus(chosen("--launcher", "ray"))


def test_adapters_need_more_than_their_forecast() -> None:
    """5.0 GiB were measured where 2.1 were forecast (SmolLM2-135M, rank 8, 8 x 8 responses of 64 tokens)."""
    recipe = prepare_study([find_config("demo")], ["policy.lora_rank = 8"], [0]).recipes["grpo"]
    peak = forecast(recipe).peak
    assert needs_of(recipe, Processes(), chosen()).memory == int(KEPT_WITH_ADAPTERS * peak + LIBRARIES)
    assert int(KEPT_WITH_ADAPTERS * 2187 * 2**20 + LIBRARIES) > (4985 + 389) * 2**20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--launcher", "rya"], "--launcher rya: unknown; did you mean ray"),
        (["--address", "auto"], "--address is for --launcher ray, and this is local: leave it out"),
        (
            ["--launcher", "slurm", "--time", "9", "--bring-back"],
            "--bring-back is for --launcher ray, and this is slurm",
        ),
        (["--launcher", "ray", "--time", "9"], "--time is for --launcher slurm, and this is ray"),
        (["--gpus", "1.5"], "--gpus 1.5: a whole number, or"),
        (["--launcher", "ray", "--cpus", "0"], "--cpus = 0: must be a whole number from 1 to 4,096"),
        (["--launcher", "ray", "--gpus", "1.5"], "--gpus 1.5: a whole number, or"),
        (["--launcher", "ray", "--gpus", "-1"], "--gpus = -1.0: must be a number from 0 to 4,096"),
        (["--launcher", "slurm", "--time", "9", "--gpus", "0.5"], "--gpus 0.5: a whole number, or"),
        (["--launcher", "slurm"], "--launcher slurm: give --time MINUTES"),
        (["--memory", "4"], "--memory 4: give a number and K, M, G or T"),
        (["--memory", "0G"], "--memory 0G: give a number"),
        (["--launcher", "ray", "--address", "ray://head:10001"], "--address ray://head:10001: give HOST:PORT"),
    ],
)
def test_bad_combinations_are_one_readable_message(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "-c", "demo", "--seeds", "1", "--out", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(re.escape(message), error), error
    assert not list(tmp_path.rglob("manifest.json"))


OWN = """
from experiments.launchers.launcher import Launcher, launcher


@launcher
class Cluster(Launcher):
    name = "own_cluster"
    help = "ours"
    takes = ("cpus",)

    def add_options(self, group):
        group.add_argument("--queue", metavar="NAME")

    def check(self, options):
        if options.queue == "closed":
            from core import GrpoLabError

            raise GrpoLabError("--queue closed: give another")

    def launch(self, options):
        def launch(jobs, workers, progress, more=lambda: ()):
            print(f"{len(jobs)} jobs for {options.queue}, {workers} at a time, each of {jobs[0].needs.cpus} CPUs")
            return {job.key: "was never begun" for job in jobs}

        return launch
"""


@pytest.fixture
def own_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A command with a launcher of one's own, in a module of the current folder."""
    (tmp_path / "own_cluster.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    bindings = ["compare.arms = {'grpo': [], 'mean': 'grpo.advantage = @group_mean'}", "compare.variants = []"]
    yield [
        *("compare", "-c", "embedded", "--seeds", "2", "--launcher", "own_cluster"),
        *(word for binding in bindings for word in ("-b", binding)),
    ]
    LAUNCHERS.pop("own_cluster", None)
    sys.modules.pop("own_cluster", None)


def test_a_launcher_of_ones_own_has_its_options_and_its_jobs(
    own_launcher: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*own_launcher, "--queue", "long", "--cpus", "3"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "4 jobs for long, 4 at a time, each of 3 CPUs" in shown
    assert "mean seed 1 failed: was never begun" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--queue", "closed"], "--queue closed: give another"),
        (["--gpus", "1"], "--gpus is for --launcher local or ray or slurm, and this is own_cluster: leave it out"),
        (["--time", "9"], "--time is for --launcher slurm, and this is own_cluster: leave it out"),
    ],
)
def test_a_launcher_of_ones_own_is_checked_like_ours(
    own_launcher: list[str], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*own_launcher, *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("--queue", "--partition"), "launcher 'own_cluster': argument --partition: conflicting option string"),
        (('"own_cluster"', '"ray"'), "two launchers are called 'ray'"),
        (("class Cluster", "1 / 0\nclass Cluster"), "--launcher own_cluster: importing the module 'own_cluster' fails"),
        (("@launcher", ""), "--launcher own_cluster: unknown; known: local, ray, slurm"),
    ],
)
def test_a_launcher_of_ones_own_that_cannot_be_had_is_one_readable_message(
    own_launcher: list[str], edit: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own_cluster.py").write_text(OWN.replace(*edit))
    assert main(own_launcher) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "begins"),
    [
        (["compare", "--seeds", "2"], True),
        (["tune"], True),
        (["compare", "--dry-run"], False),
        (["compare", "--launcher", "ray"], False),
        (["list", "configs"], False),
    ],
)
def test_workers_imports_begin_before_the_commands_own(
    command: list[str], *, begins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = list[str]()
    monkeypatch.setattr("experiments.launchers.fork_server.start", lambda: order.append("the workers'"))
    monkeypatch.setattr("experiments.cli.main.import_parts", lambda: order.append("its own"))
    main(command)
    assert order == ["the workers'", "its own"][not begins :]
