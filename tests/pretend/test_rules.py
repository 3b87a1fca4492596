"""The pretend device obeys CUDA's rules, and counts what it is asked to do."""

import pytest

from tests.pretend.operations import REFUSED, TAKEN, UNSTEADY, WAITS, counts, own_arithmetic, refusals
from tests.pretend.process import FailedThereError, on_pretend


def test_what_cuda_refuses_is_refused_and_what_it_takes_is_taken() -> None:
    found = on_pretend(refusals)
    assert [name for name in REFUSED if not found[name]] == []
    assert {name: found[name] for name in TAKEN if found[name]} == {}
    assert "at least two devices, pretend:0 and cpu!" in found["a CPU operand"]


def test_waits_and_unsteady_kernels_are_counted() -> None:
    found = on_pretend(counts)
    assert found["waits"] == {name: number for name, (number, _) in WAITS.items()}
    assert {name for name, n in found["unsteady"].items() if n} == {
        name for name, (is_one, _) in UNSTEADY.items() if is_one
    }


def test_it_is_taken_as_any_accelerator_is() -> None:
    assert on_pretend(own_arithmetic)


def fails() -> None:
    raise ValueError("on purpose")


def test_what_fails_there_fails_here() -> None:
    with pytest.raises(FailedThereError, match="ValueError: on purpose"):
        on_pretend(fails)
