"""Slurm: runs through submitit's own local executor, and through stand-ins for Slurm's programs."""

import os
import re
import signal
from functools import partial
from pathlib import Path

import pytest

from experiments.cli.main import main
from experiments.launchers import slurm
from tests.experiments.launchers.conftest import (
    BROKEN,
    When,
    assert_stopped_for_a_broken_arm,
    obstruct_tensorboard,
    tables,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*:ResourceWarning")

PROGRAMS = {
    # keeps what it was given, and runs it as job 7, 8, ...
    "sbatch": """
n=$((7 + $(ls {folder}/*.sbatch 2>/dev/null | wc -l)))
cp "$1" {folder}/$n.sbatch
out=$(sed -n "s/#SBATCH --output=//;T;s/%j/$n/p" "$1")
SLURM_JOB_ID=$n SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 \\
    setsid bash "$1" > "$out" 2>&1 &
echo $! > {folder}/$n.pid
echo "Submitted batch job $n"
""",
    "srun": """
while [[ "$1" == --* ]]; do [[ "$1" == --output || "$1" == --error ]] && shift; shift; done
exec "$@"
""",
    "sacct": """
echo 'JobID|State|NodeList'
for file in {folder}/*.pid; do
    n=$(basename $file .pid)
    kill -0 $(cat $file) 2>/dev/null && echo "$n|RUNNING|here" || echo "$n|FAILED|here"
done
""",
}


@pytest.fixture
def on_this_machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--launcher slurm` submits to submitit's local executor."""
    monkeypatch.setattr(slurm, "launch", partial(slurm.launch, cluster="local"))


@pytest.fixture
def programs(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins on the path; the folder in which they keep what they were given."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "given").mkdir()
    for name, text in PROGRAMS.items():
        file = tmp_path / "bin" / name
        file.write_text("#!/bin/bash" + text.replace("{folder}", str(tmp_path / "given")))
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path / "given"


def compare(out: str, *options: str) -> int:
    return main(["compare", "-c", "study.gin", "--out", out, "--launcher", "slurm", "--time", "9", *options])


@pytest.mark.slow
def test_ctrl_c_ends_the_present_steps_and_the_same_command_ends_like_the_local_launcher(
    on_this_machine: None,
    forks: None,
    home: Path,
    local_study: Path,
    held_until_stop_requested: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = home / "slurm" / "slow"
    metrics = study / "mean" / "seed=0" / "metrics.jsonl"
    presser = When(
        lambda: metrics.is_file() and metrics.read_bytes().count(b"\n") == 3,
        lambda: os.kill(os.getpid(), signal.SIGINT),
    )
    assert compare("slurm", "--seeds", "1") == 130
    presser.end()
    assert "stopping at the end of the present steps" in capsys.readouterr().out
    assert '"interrupted"' in (metrics.parent / "manifest.json").read_text()
    assert compare("slurm", "--seeds", "1") == 0
    ours, theirs = ({k: v for k, v in tables(each).items() if "seed=0" in k} for each in (study, local_study))
    assert ours == theirs


@pytest.mark.slow
def test_a_broken_arm_stops_the_study_resumably(
    on_this_machine: None, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By jobs as they are really started."""
    assert compare("slurm_broken", "-b", BROKEN, "--seeds", "1") == 2
    assert_stopped_for_a_broken_arm(home / "slurm_broken" / "slow", capsys.readouterr())


@pytest.mark.slow
def test_slurm_gets_the_options_and_a_tracker_that_fails_is_reported(
    programs: Path, forks: None, home: Path, local_study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    obstruct_tensorboard(home / "asked" / "slow")
    options = ["--workers", "2", "--cpus", "3", "--gpus", "2", "--memory", "1.5G", "--partition", "long"]
    assert compare("asked", *options, "--track", "tensorboard") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("mean seed 0: tensorboard failed, and the run goes on without it") == 1
    assert tables(home / "asked" / "slow") == tables(local_study)
    sbatch_options = [
        dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", file.read_text())) for file in programs.glob("*.sbatch")
    ]
    assert sorted(each["job-name"] for each in sbatch_options) == ["mean-0", "mean-1", "median-0", "median-1"]
    for each in sbatch_options:
        assert (each["time"], each["partition"]) == ("9", "long")
        assert (each["cpus-per-task"], each["gpus-per-node"], each["mem"]) == ("3", "2", "2GB")
    assert not (home / "asked" / "slow" / ".slurm").exists()


@pytest.mark.slow
def test_a_run_that_fails_and_a_job_that_dies_are_distinguished(
    programs: Path, forks: None, home: Path, hold: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = "compare.arms = {'mean': 'grpo.advantage = @held_mean', 'bad': 'grpo.advantage = @held_diverging'}"
    metrics = home / "told" / "slow" / "mean" / "seed=0" / "metrics.jsonl"
    killer = When(metrics.is_file, lambda: os.killpg(int((programs / "7.pid").read_text()), signal.SIGKILL))
    assert compare("told", "-b", arms, "--seeds", "1") == 1
    killer.end()
    shown = " ".join(capsys.readouterr().out.split())
    assert "bad seed 0 failed: failed on purpose" in shown
    assert "mean seed 0 failed: Slurm job 7 ended without a result" in shown
    assert '"infrastructure"' in (metrics.parent / "manifest.json").read_text()
    assert '"algorithmic"' in (metrics.parents[2] / "bad" / "seed=0" / "manifest.json").read_text()
    assert list((home / "told" / "slow" / ".slurm").glob("*/7_0_log.out")), "what the jobs printed is kept"


def test_without_slurm_it_says_where_to_go(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert compare("without") == 2
    assert "no sbatch and srun here; give the command on a login node" in capsys.readouterr().err


def test_a_job_whose_time_is_over_is_submitted_again_as_it_was(home: Path, tmp_path: Path) -> None:
    from experiments.launchers.job import Job
    from experiments.setup import Origin
    from experiments.study.settings import Arm

    task = slurm._Task(Job(Arm("a", ()), 0, "", str(tmp_path)), Origin.here(), tmp_path, {})
    again = task.checkpoint()
    assert (again.function, again.args, again.kwargs) == (task, (), {})
    task.stop.touch()
    assert task() == ("interrupted", None)
    assert task.begun.exists()
