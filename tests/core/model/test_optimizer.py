"""The optimizer: schedules by hand, float32 masters, and a bad gradient that does no harm."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core import GrpoLabError
from core.model.optimizer import Optimizer, OptimizerSettings, adamw


def settings(**more: Any) -> OptimizerSettings:
    made: OptimizerSettings = adamw(**more)
    return made


def make(weights: Tensor, **more: Any) -> tuple[nn.Parameter, Optimizer]:
    parameter = nn.Parameter(weights)
    return parameter, Optimizer([parameter], settings(**more))


def give(optimizer: Optimizer, parameter: nn.Parameter, gradient: Tensor) -> None:
    """One micro-batch, of this gradient."""
    optimizer.backward((parameter * gradient.to(parameter.dtype)).sum())


# schedules


def test_warm_up_is_linear_and_then_constant() -> None:
    optimizer = settings(learning_rate=1.0, warmup_steps=4)
    assert [optimizer.rate(step, 10) for step in range(1, 8)] == [0.25, 0.5, 0.75, 1, 1, 1, 1]


def test_linear_by_hand() -> None:
    optimizer = settings(learning_rate=2.0, schedule="linear")
    assert [optimizer.rate(step, 4) for step in range(1, 5)] == [2, 1.5, 1, 0.5]
    warm = settings(learning_rate=2.0, schedule="linear", warmup_steps=2)
    assert [warm.rate(step, 6) for step in range(1, 7)] == [1, 2, 2, 1.5, 1, 0.5]


def test_cosine_by_hand() -> None:
    optimizer = settings(learning_rate=2.0, schedule="cosine")
    half = math.sqrt(0.5)
    assert [optimizer.rate(step, 4) for step in range(1, 5)] == pytest.approx([2, 1 + half, 1, 1 - half])


def test_a_warm_up_as_long_as_the_run_is_fine() -> None:
    optimizer = settings(learning_rate=1.0, warmup_steps=4, schedule="linear")
    assert [optimizer.rate(step, 4) for step in range(1, 5)] == [0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"schedule": "step"}, r"adamw\.schedule = 'step'"),
        ({"learning_rate": -1e-6}, "learning_rate = -1e-06: must be a number from 0 up"),
        ({"max_grad_norm": -1.0}, "max_grad_norm = -1.0: must be a number above 0"),
    ],
)
def test_what_cannot_work_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(GrpoLabError, match=message):
        settings(**more)


# steps


def test_a_first_step_is_the_rate_in_the_direction_of_the_sign() -> None:
    """AdamW's first update is g / |g|; weight decay takes lr * decay * w off besides."""
    weight, optimizer = make(torch.tensor([1.0, -2.0]), weight_decay=0.1, max_grad_norm=100.0)
    give(optimizer, weight, torch.tensor([3.0, -4.0]))
    assert optimizer.step(0.01) == pytest.approx(5)
    expected = [1 - 0.001 - 0.01, -2 + 0.002 + 0.01]
    assert weight.tolist() == pytest.approx(expected, abs=1e-6)


def test_a_rate_of_zero_is_the_untrained_control() -> None:
    weight, optimizer = make(torch.tensor([1.0, -2.0]), learning_rate=0.0, weight_decay=0.1)
    give(optimizer, weight, torch.tensor([3.0, -4.0]))
    optimizer.step(settings(learning_rate=0.0).rate(1, 4))
    assert weight.tolist() == [1.0, -2.0]


def test_gradients_are_cleared_and_the_rate_of_each_step_is_used() -> None:
    weight, optimizer = make(torch.zeros(1))
    give(optimizer, weight, torch.ones(1))
    optimizer.step(0.5)
    assert weight.grad is None or weight.grad.eq(0).all()
    assert weight.item() == pytest.approx(-0.5)
    give(optimizer, weight, torch.ones(1))
    assert optimizer.step(0.25) == pytest.approx(1)
    assert weight.item() == pytest.approx(-0.75, abs=1e-6)


def test_gradients_are_clipped_to_the_norm() -> None:
    """Adam ignores a common factor, so it shows in the second step, against plain Adam on clipped gradients."""
    weight, optimizer = make(torch.zeros(2), max_grad_norm=1.0)
    plain = nn.Parameter(torch.zeros(2))
    adam = torch.optim.AdamW([plain], lr=0.1, weight_decay=0.0)
    for gradient, clipped in (([3.0, 4.0], [0.6, 0.8]), ([0.3, -0.4], [0.3, -0.4])):
        give(optimizer, weight, torch.tensor(gradient))
        assert optimizer.step(0.1) == pytest.approx(math.hypot(*gradient))
        plain.grad = torch.tensor(clipped)
        adam.step()
    assert weight.tolist() == pytest.approx(plain.tolist(), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_leaves_everything_alone(dtype: torch.dtype, bad: float) -> None:
    weight, optimizer = make(torch.tensor([1.0, 2.0], dtype=dtype))
    give(optimizer, weight, torch.tensor([1.0, 1.0]))
    optimizer.step(0.01)
    before, state = weight.detach().clone(), copy.deepcopy(optimizer.state_dict())
    give(optimizer, weight, torch.tensor([1.0, bad]))
    assert not math.isfinite(optimizer.step(0.01))
    assert torch.equal(weight, before)
    assert repr(optimizer.state_dict()) == repr(state)
    # and it is forgotten: the next good gradient is taken
    give(optimizer, weight, torch.tensor([1.0, 1.0]))
    assert optimizer.step(0.01) == pytest.approx(math.sqrt(2))
    assert not torch.equal(weight, before)


# precision


def test_small_steps_move_bfloat16_weights_through_their_masters() -> None:
    """Next to 1, bfloat16 has steps of 2^-7: without masters, steps of 1e-5 are lost."""
    weight, optimizer = make(torch.ones(4, dtype=torch.bfloat16))
    pure = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    adam = torch.optim.AdamW([pure], lr=1e-5, weight_decay=0.0)
    for _ in range(1000):
        give(optimizer, weight, torch.ones(4))
        optimizer.step(1e-5)
        pure.grad = torch.ones(4, dtype=torch.bfloat16)
        adam.step()
    assert pure.tolist() == [1] * 4
    # 1 - 1000 * 1e-5 = 0.99, and the nearest bfloat16 is 0.98828125 (steps of 2^-8 below 1)
    assert weight.tolist() == [0.98828125] * 4
    assert weight.dtype == torch.bfloat16
    masters = optimizer.state_dict()["masters"]
    assert masters[0].dtype == torch.float32
    assert masters[0].tolist() == pytest.approx([0.99] * 4, abs=1e-4)


def test_micro_batches_add_up_in_float32() -> None:
    """256 and then 256 times 1: in bfloat16 the ones would vanish one by one."""
    weight, optimizer = make(torch.zeros(1, dtype=torch.bfloat16))
    for gradient in (256.0, *[1.0] * 256):
        give(optimizer, weight, torch.tensor([gradient]))
        assert weight.grad is None
    assert optimizer.step(0.1) == 512


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_is_one_kernel_on_every_device(dtype: torch.dtype) -> None:
    """The fused AdamW, which torch does not choose by itself; of masters as of weights."""
    optimizer = Optimizer([torch.nn.Parameter(torch.ones(3, dtype=dtype))], settings())
    assert [group["fused"] for group in optimizer.adam.param_groups] == [True]
    assert all(master.dtype == torch.float32 for group in optimizer.adam.param_groups for master in group["params"])


def test_float32_weights_have_no_second_copy() -> None:
    weight, optimizer = make(torch.zeros(3))
    assert optimizer.state_dict()["masters"] == []
    give(optimizer, weight, torch.ones(3))
    assert weight.grad is not None


def test_weights_that_are_frozen_are_left_out() -> None:
    frozen, free = nn.Parameter(torch.ones(1), requires_grad=False), nn.Parameter(torch.ones(1))
    optimizer = Optimizer([frozen, free], settings())
    free.grad = torch.ones(1)
    optimizer.step(0.1)
    assert frozen.item() == 1
    assert free.item() == pytest.approx(0.9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_restored_optimizer_goes_on_bit_for_bit(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    gradients = torch.randn(6, 5, generator=draw)
    start = torch.randn(5, generator=draw).to(dtype)
    weight, optimizer = make(start.clone())
    for step, gradient in enumerate(gradients):
        if step == 3:
            saved, weights = copy.deepcopy(optimizer.state_dict()), weight.detach().clone()
        give(optimizer, weight, gradient)
        optimizer.step(0.01)
    restored, other = make(weights)
    other.load_state_dict(saved)
    for gradient in gradients[3:]:
        give(other, restored, gradient)
        other.step(0.01)
    assert torch.equal(restored, weight)
