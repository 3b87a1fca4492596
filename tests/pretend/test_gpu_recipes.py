"""The recipes for GPUs on the pretend device: tiny random weights of the same architecture, the native sampler.

Each is one process here. What data parallel and sharded runs do beside is between processes: NCCL, which the device
does not have.
"""

from pathlib import Path
from typing import Final

import pytest

from experiments.study.configs import CONFIGS
from tests.experiments.study.test_gpu_recipes import SIZES, SMALLER, make_stand_in, write_questions
from tests.pretend.process import on_pretend
from tests.pretend.runs import trained
from tests.pretend.test_loop import check_steady, check_waits
from tests.pretend.test_recipes import REWARDED

pytestmark = pytest.mark.slow

SMALL: Final = (
    *(binding for binding in SMALLER if "answer_length" not in binding),
    *REWARDED,
    "train.steps = 3",
    "evaluation.every = 100",
)
"""The second step has no evaluation."""


def test_every_recipe_is_here() -> None:
    shared = {"qwen2_5", "one_gpu"}
    assert {file.stem for file in (CONFIGS / "gpu").glob("*.gin")} == SIZES.keys() | shared


@pytest.mark.parametrize("name", SIZES)
def test_a_recipe_trains_and_waits_as_often_as_any(name: str, tmp_path: Path) -> None:
    heads, kv_heads, tied = SIZES[name]
    bindings = (
        f"policy.model = '{make_stand_in(tmp_path / 'model', heads, kv_heads, tied=tied)}'",
        f"files.path = '{write_questions(tmp_path)}'",
    )
    found = on_pretend(trained, *SMALL, *bindings, config=f"gpu/{name}")
    assert all(line["grad_norm"] > 0 and 0 < line["correction"] < 2 for line in found.lines)
    assert found.hashes["final_weights"] != found.hashes["initial_weights"]
    assert found.launches > 1000
    check_waits(found)
    check_steady(found)
