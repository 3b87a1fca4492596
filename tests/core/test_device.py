"""Which device a run computes on: an accelerator that can, else the CPU, with a line that says so."""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from core import device, distributed
from core.device import VARIABLE, device_note, forget_decision, missing_capability, takes_cpu
from core.errors import GrpoLabError
from core.generation.vllm.engine import _isolated


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(VARIABLE, raising=False)
    with forget_decision():
        yield


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with an accelerator whose tensors are on the CPU."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cpu"))


@pytest.fixture
def no_float64(accelerator: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a Mac."""

    def double(_: Tensor) -> Tensor:
        raise TypeError(
            "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.\nMore"
        )

    real, calls = Tensor.double, [0]

    def only_on_cpu(tensor: Tensor) -> Tensor:
        calls[0] += 1
        return real(tensor) if calls[0] == 1 else double(tensor)  # the first are the expected numbers

    monkeypatch.setattr(Tensor, "double", only_on_cpu)


def test_without_an_accelerator_it_is_the_cpu_and_nothing_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert takes_cpu()
    assert device_note() is None


@pytest.mark.parametrize(("dtype", "has_kernels"), [("bfloat16", True), ("float32", False), ("float16", False)])
def test_a_precision_that_the_processor_has_kernels_for_is_not_remarked_on(
    dtype: str, has_kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "multiplies_bfloat16", lambda: has_kernels)
    assert device.precision_note(dtype) is None


def test_bfloat16_without_kernels_is_remarked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "takes_cpu", lambda: True)
    monkeypatch.setattr(device, "multiplies_bfloat16", lambda: False)
    assert "bind policy.dtype = 'float32'" in (device.precision_note("bfloat16") or "")
    monkeypatch.setattr(device, "takes_cpu", lambda: False)
    assert device.precision_note("bfloat16") is None


def test_an_accelerator_that_can_is_taken(accelerator: None) -> None:
    assert not takes_cpu()
    assert device_note() is None


def test_one_without_float64_is_left_alone_and_a_line_says_so(no_float64: None) -> None:
    assert takes_cpu()
    assert device_note() == (
        "runs compute on the CPU: cpu lacks what they need (Cannot convert a MPS Tensor to float64 dtype as the MPS "
        "framework doesn't support float64.)"
    )


def test_a_device_that_cannot_give_numbers_lacks_them() -> None:
    assert missing_capability(torch.device("meta"))
    assert missing_capability(torch.device("cpu")) is None


def test_one_whose_arithmetic_is_other_is_left_alone(accelerator: None, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter([torch.tensor(0.5), torch.tensor(0.25)])
    monkeypatch.setattr("core.device.uniform", lambda _: next(numbers))
    assert takes_cpu()
    assert "other numbers than the CPU's" in str(device_note())


def test_the_variable_chooses(accelerator: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("meta"))
    monkeypatch.setenv(VARIABLE, "cpu")
    assert takes_cpu()
    assert device_note() == f"meta is not used: {VARIABLE}=cpu"
    monkeypatch.setenv(VARIABLE, "cuda")
    with pytest.raises(GrpoLabError, match=r"GRPOLAB_DEVICE=cuda: this machine has only cpu and meta"):
        takes_cpu()
    monkeypatch.setenv(VARIABLE, "meta")
    with pytest.raises(GrpoLabError, match=r"GRPOLAB_DEVICE=meta: meta lacks what a run needs \(.*\); use cpu"):
        takes_cpu()


def test_what_is_not_here_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setenv(VARIABLE, "cuda")
    with pytest.raises(GrpoLabError, match="this machine has no accelerator, only cpu"):
        takes_cpu()


def test_random_states_are_kept_of_the_cpu_and_of_the_one_device_in_use(
    accelerator: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of no other: forking all of a machine's GPUs makes a context on each, and warns."""
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 3)
    monkeypatch.setattr(device, "missing_capability", lambda _: None)
    forked: list[dict[str, Any]] = []

    def fork_rng(**options: Any) -> nullcontext[None]:
        forked.append(options)
        return nullcontext()

    monkeypatch.setattr(torch.random, "fork_rng", fork_rng)
    with device.keeping_random_state(), _isolated():
        pass
    assert forked == 2 * [{"devices": [3], "device_type": "cuda"}]


def test_the_cpu_draws_on_as_if_nothing_had_been_drawn() -> None:
    torch.manual_seed(0)
    with device.keeping_random_state():
        drawn = torch.rand(3)
    assert torch.equal(torch.rand(3), drawn)


def test_cublas_is_told_to_add_up_in_one_order_before_anything_is_computed(
    accelerator: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str | None] = []

    def probe(_: torch.device) -> None:
        told.append(os.environ.get("CUBLAS_WORKSPACE_CONFIG"))

    monkeypatch.setattr(device, "missing_capability", probe)
    for kind, set_before in (("xpu", ""), ("cuda", ""), ("cuda", ":16:8")):
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", set_before)
        if not set_before:
            monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda kind=kind: torch.device(kind))
        with forget_decision():
            assert not takes_cpu()
    assert told == [None, ":4096:8", ":16:8"]


@pytest.mark.parametrize(("kind", "asked"), [("cuda", True), ("cpu", False)])
def test_runs_on_cuda_ask_torch_for_the_same_bits_every_time(
    kind: str, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process's setting, so it is put back; filling new tensors would cost a pass over each."""
    made = SimpleNamespace(
        device=torch.device(kind), num_processes=1, mixed_precision="no", gradient_accumulation_steps=1
    )
    given: dict[str, Any] = {}

    def accelerator(**options: Any) -> Any:
        given.update(options)
        return made

    monkeypatch.setattr(distributed, "Accelerator", accelerator)
    memory: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    try:
        distributed.init()
        assert torch.are_deterministic_algorithms_enabled() == asked
        assert memory.fill_uninitialized_memory != asked
        # one rank that grades for longer than NCCL's ten minutes does not end the run
        assert [each.timeout for each in given["kwargs_handlers"]] == [timedelta(minutes=30)]
    finally:
        torch.use_deterministic_algorithms(before[0])
        memory.fill_uninitialized_memory = before[1]
