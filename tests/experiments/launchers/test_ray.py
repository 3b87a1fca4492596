"""Ray: three nodes on this machine, runs that are lost, stopped, failed or brought back."""

import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.cli.main import main
from experiments.launchers.ray import _own_modules, _pack, _unpack
from tests.experiments.launchers.conftest import (
    BROKEN,
    When,
    assert_stopped_for_a_broken_arm,
    obstruct_tensorboard,
    tables,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Tip. In future versions of Ray:FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head and two more nodes, each of one CPU."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        yield cluster
        cluster.shutdown()


@pytest.fixture
def compare(cluster: Any, home: Path) -> Callable[..., int]:
    """Run the study on the cluster."""

    def run(out: str, *options: str) -> int:
        return main(
            ["compare", "-c", "study.gin", "--out", out, "--launcher", "ray", "--address", cluster.address, *options]
        )

    return run


def steps(study: Path) -> list[int]:
    """How many steps each run has made that has begun."""
    return [file.read_bytes().count(b"\n") for file in study.glob("*/seed=*/metrics.jsonl")]


@pytest.mark.slow
def test_a_study_on_three_nodes_one_of_which_is_lost_is_the_local_one(
    compare: Callable[..., int],
    cluster: Any,
    local_study: Path,
    home: Path,
    hold: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = home / "lost" / "slow"
    lost = cluster.list_all_nodes()[-1]

    def lose() -> None:
        cluster.remove_node(lost, allow_graceful=False)
        hold.unlink()

    killer = When(lambda: steps(study) == [3, 3, 3], lose)
    try:
        assert compare("lost") == 0
        killer.end()
    finally:
        cluster.add_node(num_cpus=1)
    assert tables(study) == tables(local_study)
    assert capsys.readouterr().out.count("lost with its process or node, begun again on") == 1
    assert not (home / "core" / "__pycache__").exists(), "a user's folder has shadowed ours"
    # three CPUs, so the fourth run began when another had ended
    began = sorted(file.stat().st_mtime for file in study.glob("*/seed=*/eval/test/step=000000.json"))
    ended = sorted(file.stat().st_mtime for file in study.glob("*/seed=*/manifest.json"))
    assert began[3] > ended[0]


@pytest.mark.slow
def test_ctrl_c_ends_the_present_steps_and_any_launcher_goes_on(
    compare: Callable[..., int],
    local_study: Path,
    home: Path,
    held_until_stop_requested: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = home / "cut" / "slow"
    presser = When(lambda: steps(study) == [3, 3], lambda: os.kill(os.getpid(), signal.SIGINT))
    assert compare("cut", "--workers", "2") == 130
    presser.end()
    assert "the same command goes on" in capsys.readouterr().err
    begun = [json.loads(file.read_text())["status"] for file in study.glob("*/seed=*/manifest.json")]
    assert begun == ["interrupted"] * 2
    assert len(list(study.glob("*/seed=*/checkpoint/state.pt"))) == 2
    shutil.copytree(home / "cut", home / "brought")
    assert main(["compare", "-c", "study.gin", "--workers", "2", "--out", "cut"]) == 0
    assert tables(study) == tables(local_study)
    # and on nodes that do not share the folder, from what is sent along
    assert compare("brought", "--bring-back", "--workers", "2") == 0
    assert tables(home / "brought" / "slow") == tables(local_study)
    assert not list((home / "brought").rglob(".tmp-*"))


@pytest.mark.slow
def test_a_failed_arm_and_a_tracker_that_fails_are_reported_and_the_process_takes_further_runs(
    compare: Callable[..., int], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what was sent along: the later arms' parts are of a module that the process has imported for the first."""
    arms = (
        "compare.arms = {'mean': 'grpo.advantage = @held_mean', 'bad': 'grpo.advantage = @held_diverging', "
        "'median': 'grpo.advantage = @held_median'}"
    )
    obstruct_tensorboard(home / "further" / "slow")
    options = ["--bring-back", "--workers", "1", "--seeds", "1", "--track", "tensorboard"]
    assert compare("further", *options, "-b", arms) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "bad seed 0 failed: failed on purpose" in shown
    assert shown.count("mean seed 0: tensorboard failed, and the run goes on without it") == 1
    manifests = {
        file.parts[-3]: json.loads(file.read_text())
        for file in (home / "further" / "slow").glob("*/seed=0/manifest.json")
    }
    assert {label: (m["status"], m["failure"]) for label, m in manifests.items()} == {
        "mean": ("finished", None),
        "bad": ("failed", "algorithmic"),
        "median": ("finished", None),
    }


@pytest.mark.slow
def test_a_broken_arm_stops_the_study_resumably(
    compare: Callable[..., int], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare("broken", "-b", BROKEN, "--seeds", "1") == 2
    assert_stopped_for_a_broken_arm(home / "broken" / "slow", capsys.readouterr())


@pytest.mark.slow
def test_a_run_that_no_node_can_hold_is_refused(
    compare: Callable[..., int], cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.wait_for_nodes()
    assert compare("large", "--cpus", "2") == 2
    error = capsys.readouterr().err
    assert "no node of the cluster is large enough for a run of 2 CPUs, 0 GPUs" in error
    assert error.count("1 CPUs, 0 GPUs") == 3


@pytest.mark.parametrize(
    ("address", "message"),
    [("127.0.0.1:9", "no Ray cluster answers there (Connection refused)"), ("head", "give HOST:PORT of the cluster")],
)
def test_no_cluster_is_one_readable_message(
    address: str, message: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", "-c", "study.gin", "--out", "none", "--launcher", "ray", "--address", address]
    assert main(command) == 2
    assert f"--address {address}: {message}" in capsys.readouterr().err


def test_files_come_back_whole_and_in_the_place_of_others(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "a" / "seed=0"
    (there / "eval").mkdir(parents=True)
    (there / "eval" / "x.json").write_text("new")
    (there / ".tmp-1-y").write_text("unfinished")
    (there / ".lock").write_text("")
    here.mkdir(parents=True)
    (here / "stale").write_text("old")
    packed = _pack(there)
    assert packed is not None
    _unpack(packed, here)
    assert [str(file.relative_to(here)) for file in here.rglob("*") if file.is_file()] == ["eval/x.json"]
    assert list(here.parent.iterdir()) == [here]
    assert _pack(tmp_path / "nothing") is None


@pytest.mark.slow
def test_modules_of_ones_own_are_those_of_the_folder(home: Path, local_study: Path) -> None:
    assert list(_own_modules(home)) == ["held_estimators.py"]
    assert "held_median" in _own_modules(home)["held_estimators.py"]


def test_modules_beside_a_gin_file_go_along_by_the_names_that_they_are_imported_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the current folder is above theirs, or a link to it."""
    package = tmp_path / "studies" / "sent_along"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from sent_along import inner\n")
    (package / "inner.py").write_text("X = 1\n")
    (tmp_path / "link").symlink_to(tmp_path / "studies")
    monkeypatch.setattr("sys.path", [*sys.path, str(tmp_path / "studies")])
    importlib.import_module("sent_along")
    sent = {"sent_along/__init__.py": "from sent_along import inner\n", "sent_along/inner.py": "X = 1\n"}
    try:
        assert _own_modules(tmp_path, tmp_path / "studies") == sent
        assert _own_modules(tmp_path / "link") == sent
        assert _own_modules(tmp_path) == {}
    finally:
        for name in ("sent_along", "sent_along.inner"):
            del sys.modules[name]
