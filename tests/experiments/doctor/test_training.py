"""The checks of the loop, on the embedded model: they hold, and they see what is broken on purpose."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from core.parts.registry import config
from experiments.doctor import training
from experiments.doctor.finding import FAILS, SKIPPED, WORKS, Finding
from experiments.doctor.models import Subject
from experiments.doctor.ranks import judge_ranks
from experiments.doctor.training import STEP, check_identical, check_resumed, check_step, name, small_recipe, trained
from experiments.doctor.visit import Visit
from experiments.doctor.weighing import heavy_bindings
from experiments.study.configs import CONFIGS, build, find_config


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Finding:
    folder = str(tmp_path_factory.mktemp("step"))
    (found,) = check_step(Visit(folder, folder))
    return found


@pytest.fixture
def visit(before: Finding, tmp_path: Path) -> Visit:
    return Visit(str(tmp_path), str(tmp_path), earlier={before.name: deepcopy(before.numbers)})


def test_a_step_trains(before: Finding) -> None:
    assert (before.name, before.result) == ("a step of training (embedded model)", WORKS)
    assert len(before.numbers["metrics"]) == 2


def test_weights_that_stay_are_seen(tmp_path: Path, before: Finding, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = {**before.numbers["hashes"], "final_weights": before.numbers["hashes"]["initial_weights"]}
    lines = [{**line, "seconds": {}} for line in before.numbers["metrics"]]
    monkeypatch.setattr(training, "trained", lambda *_: ({"hashes": hashes}, lines))
    (found,) = check_step(Visit(str(tmp_path), ""))
    assert found.result == FAILS
    assert "did not move" in found.seen


def test_a_second_and_a_resumed_run_have_the_same_bits(visit: Visit) -> None:
    results = [found.result for check in (check_identical, check_resumed) for found in check(visit)]
    assert results == [WORKS, WORKS]
    assert not list(Path(visit.scratch).glob("*/checkpoint"))


@pytest.mark.parametrize("broken", ["final_weights", "grad_norm"])
def test_another_bit_is_seen_and_named(
    visit: Visit, broken: str, before: Finding, monkeypatch: pytest.MonkeyPatch
) -> None:
    other: Any = visit.earlier[name(STEP, visit)]
    if broken in other["hashes"]:
        other["hashes"][broken] = "0"
    else:
        other["metrics"][1][broken] *= 1 + 1e-15
    numbers = before.numbers
    monkeypatch.setattr(training, "trained", lambda *_: ({"hashes": numbers["hashes"]}, numbers["metrics"]))
    (found,) = check_identical(visit)
    assert found.result == FAILS
    assert found.numbers["different"] == [broken]
    assert broken in found.seen


def test_without_a_step_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    visit = Visit(str(tmp_path), "")
    for check in (check_identical, check_resumed):
        (found,) = check(visit)
        assert found.result == SKIPPED


def test_a_run_that_is_stopped_is_left_to_be_resumed(tmp_path: Path) -> None:
    assert trained(Visit(str(tmp_path), ""), "stopped", stop_after=1) == ({}, [])
    assert list(tmp_path.glob("*/checkpoint"))


def test_the_step_of_two_processes_beside_that_of_one() -> None:
    hashes = {"prompts": "p", "first_rollout": "r"}
    before = {"hashes": hashes, "metrics": [{"grad_norm": 2.0}]}
    assert judge_ranks("t", before, hashes, {"grad_norm": 2.0001}, "gloo").result == WORKS
    assert judge_ranks("t", before, hashes, {"grad_norm": 1.0}, "gloo").result == FAILS  # as if it were averaged
    assert judge_ranks("t", before, hashes, {"grad_norm": float("nan")}, "gloo").result == FAILS
    assert judge_ranks("t", before, {**hashes, "prompts": "q"}, {"grad_norm": 2.0}, "gloo").result == FAILS
    flipped = judge_ranks("t", before, {**hashes, "first_rollout": "s"}, {"grad_norm": 3.0}, "NCCL")
    assert flipped.result == "works with a caveat"


def test_the_recipes_of_a_gpu_are_built_and_the_last_binding_wins() -> None:
    subject = Subject("embedded", "bfloat16", True)
    small = small_recipe(subject)
    assert (small.policy.dtype, small.policy.gradient_checkpointing, small.prompts) == ("bfloat16", True, 4)
    with config([find_config("embedded")], heavy_bindings(subject), include_from=[CONFIGS]):
        heavy = build("train")
    assert (heavy.prompts, heavy.group_size, heavy.max_tokens, heavy.minibatches) == (16, 8, 256, 1)
