"""What an update holds at two lengths: linear growth passes, and what grows with the square is seen."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from core.loop.allocator import keep_freed_memory
from core.model.policy import Policy
from experiments.doctor.finding import CAVEAT, SKIPPED, WORKS
from experiments.doctor.lengths import check_lengths, judge_lengths
from experiments.doctor.models import CUT_DOWN, make_random_model
from experiments.doctor.ranks import WAYS
from experiments.doctor.visit import Visit
from experiments.study.processes import read_processes

NARROW = {**CUT_DOWN, "vocab_size": 300, "hidden_size": 64, "intermediate_size": 512, "num_hidden_layers": 3}


@pytest.fixture(autouse=True)
def _allocator() -> Iterator[None]:
    yield
    keep_freed_memory()  # as runs have it


def visit_to(folder: Path, **shape: int) -> Visit:
    make_random_model(folder / "model", {**NARROW, **shape})
    return Visit(str(folder), str(folder), str(folder / "model"))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own maximum")
def test_growth_with_the_square_of_the_length_is_a_caveat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visit = visit_to(tmp_path)
    (found,) = check_lengths(visit)
    assert found.result == WORKS, found
    assert found.numbers["tokens"] == 1920
    real = Policy.logps

    def square(self: Policy, *args: Any, width: int, **kwargs: Any) -> Any:
        held = torch.ones(32, width, width)
        found = real(self, *args, width=width, **kwargs)
        del held
        return found

    monkeypatch.setattr(Policy, "logps", square)
    (found,) = check_lengths(visit)
    assert found.result == CAVEAT, found
    assert "grpolab memory --measure" in found.remedy


def test_a_short_context_is_not_tried(tmp_path: Path) -> None:
    (found,) = check_lengths(visit_to(tmp_path, max_position_embeddings=128))
    assert found.result == SKIPPED
    assert "128 tokens" in found.seen


def test_growth_by_hand() -> None:
    assert [judge_lengths("t", 2048, 100, long).result for long in (100, 400, 500, 501)] == [*[WORKS] * 3, CAVEAT]
    seen = judge_lengths("t", 2048, 100 << 20, 300 << 20).seen
    assert "100 MiB for a response of 512 tokens and 300 MiB for one of 2,048: 3.0 times" in seen


def test_two_processes_are_of_configurations_that_are_shipped() -> None:
    ways = {title: read_processes(2, configuration) for title, configuration in WAYS.items()}
    assert {title: way.sharding for title, way in ways.items()} == {
        "two processes": None,
        "two processes, sharded": "sharded",
    }
