"""`grpolab memory` as a user meets it."""

import json
import os
import subprocess
import sys

import pytest

from core import GrpoLabError
from experiments.cli.main import main
from experiments.memory.measure import Meter, measure

MIB = 2**20


def test_a_table_by_purpose_and_phase(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", "-c", "embedded"]) == 0
    shown = capsys.readouterr().out
    for word in ("load", "sample", "train", "weights", "optimizer state", "key-value cache", "activations", "together"):
        assert word in shown
    assert "in phase 'train'" in shown
    assert "333,888 of 333,888 parameters are trained" in shown


@pytest.mark.slow
def test_the_file_of_a_study_is_read_by_a_command_that_has_imported_no_study() -> None:
    command = [sys.executable, "-m", "experiments.cli.main", "memory", "-c", "demo", "--json"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["peak"] > 0


def test_json_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", "-c", "embedded", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["peak"] == sum(printed["parts"][printed["phase"]].values())
    assert list(printed["parts"]) == ["load", "sample", "train"]
    assert printed["parameters"] == {"total": 333_888, "trainable": 333_888}
    assert main(["memory", "-c", "embedded", "--json", "--processes", "4", "--shard"]) == 0
    shared = json.loads(capsys.readouterr().out)
    assert shared["parts"]["train"]["optimizer state"] * 4 == printed["parts"]["train"]["optimizer state"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-b", "policy.dtyp = 'bfloat16'"], "did you mean dtype"),
        (["-c", "embeded"], "did you mean embedded"),
        (["-b", "rloo.kl_coef = 0.1"], "rloo.kl_coef"),
        (["--processes", "0"], "--processes = 0: must be a whole number from 1 to 4,096"),
        (["--measure", "--shard"], "--measure runs one process"),
        (["-b", "policy.model = './nowhere'"], "there is no such folder"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_measured_run_beside_the_forecast(capsys: pytest.CaptureFixture[str]) -> None:
    short = ["-b", "train.prompts = 2", "-b", "evaluation.questions = 2", "-b", "evaluation.every = 1000"]
    assert main(["memory", "-c", "embedded", *short, "--measure", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    # weights and AdamW's state at the least; the libraries' first use comes on top
    assert printed["measured"] > 3 * printed["parts"]["train"]["weights"]


@pytest.mark.slow
def test_a_run_that_fails_says_why() -> None:
    with pytest.raises(GrpoLabError, match=r"the run to be measured failed: policy\.dtype = 'x': must be 'float32'"):
        measure(
            "policy.dtype = 'x'\ntrain.variant = @grpo()\ntrain.task = @chain_sums()\ntrain.generator = @native()\n"
        )


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own maximum")
def test_the_maximum_is_that_of_what_was_held() -> None:
    meter = Meter()
    held = bytearray(64 * MIB)
    held[::4096] = b"x" * len(held[::4096])
    del held
    later = bytearray(16 * MIB)
    assert 60 * MIB < meter.peak() < 90 * MIB
    del later
