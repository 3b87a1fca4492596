"""Precisions that are not what they say: slower than float32, or wrong."""

from typing import Any

import pytest
import torch

from experiments.doctor.finding import CAVEAT, FAILS, WORKS
from experiments.doctor.precisions import ONES, check_precisions, judge_precision, rate, wrong_value
from experiments.doctor.visit import Visit


def test_a_precision_that_multiplies_more_slowly_than_float32_is_emulated() -> None:
    slow = judge_precision(torch.bfloat16, "cpu", 1e9, 50e9)
    assert slow.result == CAVEAT
    assert "0.02 times float32: it is emulated" in slow.seen
    assert "policy.dtype = 'float32'" in slow.remedy
    assert judge_precision(torch.bfloat16, "cpu", 90e9, 50e9).result == WORKS
    assert judge_precision(torch.float32, "cpu", 50e9, 50e9).result == WORKS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_values_are_right_here(dtype: torch.dtype) -> None:
    assert wrong_value(dtype, "cpu") is None


def lying(monkeypatch: pytest.MonkeyPatch, lie: Any) -> None:
    """Products in bfloat16 go through `lie`."""
    product = torch.Tensor.__matmul__

    def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = product(a, b)
        return lie(made) if a.dtype == torch.bfloat16 else made

    monkeypatch.setattr(torch.Tensor, "__matmul__", matmul)


def test_sums_that_are_kept_in_bfloat16_stop_at_256_and_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    one = torch.tensor(1.0, dtype=torch.bfloat16)
    assert 256 * one + one == 256 * one
    lying(monkeypatch, lambda made: made.clamp(max=256))
    assert wrong_value(torch.bfloat16, "cpu") == f"{ONES} ones add up to 256"
    found = judge_precision(torch.bfloat16, "cpu", 1e12, 1e9)  # however fast
    assert found.result == FAILS
    assert found.remedy.startswith("Do not bind policy.dtype = 'bfloat16' here")
    assert judge_precision(torch.float32, "cpu", 1e9, 1e9).result == WORKS


def test_products_with_a_sign_lost_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lying(monkeypatch, torch.abs)
    assert wrong_value(torch.bfloat16, "cpu") == "products of small whole numbers are wrong"


def test_every_precision_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.doctor.precisions.rate", lambda dtype, _: 3e9 if dtype.itemsize == 2 else 1e9)
    rows = list(check_precisions(Visit("", "")))
    assert [(row.name, row.result) for row in rows] == [("float32", WORKS), ("bfloat16", WORKS), ("float16", WORKS)]
    assert rows[1].numbers == {"rate": 3e9, "device": "cpu"}


def test_a_rate_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.doctor.precisions.SECONDS", 0.0)
    assert rate(torch.float32, "cpu") > 0
