"""A variant in TRL takes the steps that it takes in our own loop: gradients and weights, however TRL cuts its steps."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl")

from tests.experiments.bridges.trl import replay
from tests.experiments.bridges.trl.mutants import MUTANTS, applied
from tests.experiments.bridges.trl.replay import CASES, FURTHER, Case, Outcome, bridged, differences, in_trl, record

CLOSE = 1e-6
"""Of float32, where weights move by 1e-3 and more."""


def assert_equal(case: Case, theirs: Outcome) -> None:
    found = differences(case, theirs)
    assert found["gradients"] < CLOSE
    assert found["weights"] < CLOSE
    assert found["moved"] > 500 * CLOSE


@pytest.mark.parametrize("case", [*CASES, *(Case(name, tuple(more), 2, 2) for name, *more in FURTHER)], ids=str)
def test_one_process_takes_the_steps_of_our_loop(case: Case, tmp_path: Path) -> None:
    assert_equal(case, bridged(case, tmp_path))


@pytest.fixture(scope="module")
def by_two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    # by its file: verl's wheel has a package of the name `tests`, which would be taken for ours
    done = subprocess.run([*torchrun, replay.__file__, str(folder)], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("number", range(len(CASES)), ids=map(str, CASES))
def test_two_processes_take_the_steps_of_our_loop(number: int, by_two_processes: Path) -> None:
    assert_equal(CASES[number], Outcome(**torch.load(by_two_processes / f"{number}.pt")))


@pytest.mark.parametrize("generation", [1, 2])
def test_several_passes_over_a_generation_take_the_steps_of_our_loop(generation: int, tmp_path: Path) -> None:
    case = Case("grpo", (), 2, generation, iterations=2)
    assert_equal(case, bridged(case, tmp_path))


def test_trls_own_dapo_loss_is_another_one_where_a_generation_serves_two_steps(tmp_path: Path) -> None:
    from trl import GRPOTrainer

    bindings = ("dapo.filter = None", "dapo.shaping = ()", "group_mean_std.eps = 1e-4")
    for generation, is_equal in ((1, True), (2, False)):
        case = Case("dapo", bindings, 2, generation, settings={"loss_type": "dapo", "epsilon_high": 0.28})
        found = differences(case, in_trl(case, record(case.groups), tmp_path, GRPOTrainer))
        assert (found["gradients"] < CLOSE) is is_equal
        assert is_equal or found["gradients"] > 1e-3


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_bridge_is_noticed(name: str, by_two_processes: Path, tmp_path: Path) -> None:
    mutant = MUTANTS[name]
    if mutant.processes == 1:
        with applied(mutant):
            theirs = bridged(mutant.case, tmp_path)
    else:
        theirs = Outcome(**torch.load(by_two_processes / f"mutant-{[*MUTANTS].index(name)}.pt"))
    assert differences(mutant.case, theirs)["gradients"] > 10 * CLOSE
