"""Real optimizer steps of verl's own FSDP worker, fed by the trainer of the bridge, are ours: loss and gradients."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch

from tests.experiments.bridges.verl.cases import CASES

pytest.importorskip("verl")
pytest.importorskip("transfer_queue")
PROGRAM = Path(__file__).with_name("program.py")
pytestmark = pytest.mark.slow
Found: TypeAlias = dict[str, dict[str, list[dict[str, Any]]]]
"""`cases` or `mutations`, by name, step by step."""


@pytest.fixture(scope="module")
def found_by(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Found]:
    """By the number of processes, what the first of them found; all find the same."""
    folder = tmp_path_factory.mktemp("steps")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", str(PROGRAM), str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-6000:]
    return {size: torch.load(folder / str(size) / "0.pt") for size in (1, 2)}


@pytest.fixture(params=[1, 2], ids=["one process", "two processes"])
def steps(request: pytest.FixtureRequest, found_by: dict[int, Found]) -> dict[str, list[dict[str, Any]]]:
    return found_by[request.param]["cases"]


@pytest.mark.parametrize("name", CASES)
def test_verl_takes_the_steps_that_we_would(name: str, steps: dict[str, list[dict[str, Any]]]) -> None:
    case, found = CASES[name], steps[name]
    assert len(found) == case.steps * case.epochs
    for step in found:
        # in float64 but for the model's norms and angles, which are float32: 1e-15 with AVX-512, 2e-6 with AVX2
        assert step["apart"] <= 1e-5 * max(1.0, step["largest"])
        theirs, ours = step["loss"]
        assert theirs == pytest.approx(ours, rel=1e-6, abs=1e-6)  # verl adds losses up in float32
        assert (step["moved"] > 1e-5) is (step["largest"] > 0)
    assert (max(step["largest"] for step in found) > 0.01) is (case.rewards == "mixed")


def test_rows_that_verl_made_up_were_among_them(steps: dict[str, list[dict[str, Any]]]) -> None:
    for name, case in CASES.items():
        rows = [row for step in steps[name] for row in step["rows"]]
        assert sorted(rows) == sorted([*range(12), *[-1] * 4] * case.epochs)


def test_metrics_are_means_over_the_tokens_of_the_step(steps: dict[str, list[dict[str, Any]]]) -> None:
    """One token in a hundred is a 74th of all: 13 of 74 are clipped, whichever micro-batches they are in."""
    (step,) = steps["grpo with KL"]
    metrics = step["metrics"]
    assert metrics["actor/pg_loss"] == pytest.approx(step["loss"][1])
    assert metrics["actor/grpolab/clip_fraction"] * 74 == pytest.approx(13)


def test_whatever_breaks_the_bridge_is_noticed(found_by: dict[int, Found]) -> None:
    broken = found_by[2]["mutations"]

    def is_noticed(step: dict[str, Any]) -> bool:
        return "error" in step or step["apart"] > 1e-3 * step["largest"] > 0 or step["moved"] > 0 == step["largest"]

    assert len(broken) >= 9
    assert [name for name, found in broken.items() if not any(map(is_noticed, found))] == []
