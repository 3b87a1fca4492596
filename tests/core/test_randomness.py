"""Keyed randomness: streams that do not touch each other, and draws that are uniform and Gumbel."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import GrpoLabError
from core.randomness import STREAMS, fold, gumbel, key, mix, row_keys, torch_generator, uniform

int64 = st.integers(-(2**63), 2**63 - 1)


def test_keys_are_what_they_have_always_been() -> None:
    """A change here changes every run: these numbers may only change on purpose."""
    assert key(0, "prompts") == key(0, "prompts")
    assert key(0, "sampling", 1, 0) != key(0, "sampling", 0, 1)
    assert 0 <= key(0, "sampling", 1, 0) < 2**63
    # SplitMix64 started at 0 gives 0xE220A8397B1DCDAF first
    assert mix(torch.tensor([0x9E3779B97F4A7C15 - 2**64])).item() == 0xE220A8397B1DCDAF - 2**64


def test_every_seed_stream_and_step_has_a_key_of_its_own() -> None:
    keys = [
        key(s, stream, *path)
        for s, stream in product(range(20), STREAMS)
        for path in ((), (0,), (1,), (0, 0), (0, 1), (1, 0), (10,), (1, 0, 0))
    ]
    assert len(set(keys)) == len(keys)


def test_unknown_streams_are_refused() -> None:
    with pytest.raises(GrpoLabError, match=r"unknown random stream 'promts'; known: init, prompts"):
        key(0, "promts")


def test_no_draw_depends_on_how_many_draws_another_stream_made() -> None:
    alone = torch.rand(4, generator=torch_generator(0, "minibatch", 3))
    other = torch_generator(0, "objective", 3)
    torch.rand(1000, generator=other)
    torch.rand(1000)
    assert torch.equal(torch.rand(4, generator=torch_generator(0, "minibatch", 3)), alone)
    assert not torch.equal(torch.rand(4, generator=torch_generator(0, "objective", 3)), alone)


def unmix(value: int) -> int:
    """The int64 that `mix` maps to `value`, in Python's integers."""
    M = 2**64

    def unshift(y: int, bits: int) -> int:
        x = y
        for _ in range(64 // bits + 1):
            x = y ^ (x >> bits)
        return x

    x = unshift(value % M, 31) * pow(0x94D049BB133111EB, -1, M) % M
    x = unshift(x, 27) * pow(0xBF58476D1CE4E5B9, -1, M) % M
    x = unshift(x, 30)
    return x - M if x >= 2**63 else x


@given(int64)
def test_mixing_is_a_bijection(value: int) -> None:
    assert mix(torch.tensor([unmix(value)])).item() == value


@pytest.mark.parametrize("mixed", [0, -1, 1, 2**63 - 1, -(2**63), 2047, -2048])
def test_uniform_is_never_0_or_1_even_at_the_extreme_keys(mixed: int) -> None:
    extreme = torch.tensor([unmix(mixed)])
    assert 0 < uniform(extreme).item() < 1
    assert gumbel(extreme).isfinite()


@given(st.lists(int64, min_size=1, max_size=50))
def test_uniform_lies_between_0_and_1(keys: list[int]) -> None:
    values = uniform(torch.tensor(keys))
    assert values.dtype == torch.float64
    assert ((values > 0) & (values < 1)).all()


def moments(values: Tensor) -> tuple[float, float]:
    return values.double().mean().item(), values.double().var().item()


@pytest.mark.parametrize("base", [0, 1, key(5, "sampling", 7, 0)])
def test_uniform_and_gumbel_have_their_moments(base: int) -> None:
    """A million draws: mean 1/2 and variance 1/12; 0.57722 and pi^2 / 6; within five standard errors."""
    keys = fold(fold(torch.tensor(base), torch.arange(1000))[:, None], torch.arange(1000))
    mean, variance = moments(uniform(keys))
    assert mean == pytest.approx(1 / 2, abs=0.0015)
    assert variance == pytest.approx(1 / 12, abs=0.0005)
    mean, variance = moments(gumbel(keys))
    assert mean == pytest.approx(0.577216, abs=0.006)
    assert variance == pytest.approx(math.pi**2 / 6, abs=0.02)


def test_every_tenth_of_the_range_is_equally_likely() -> None:
    counts = torch.histc(uniform(fold(torch.tensor(3), torch.arange(100_000))), 10, 0, 1)
    assert ((counts - 10_000).abs() < 400).all()  # four standard deviations are 380


def test_neighbouring_keys_are_unrelated() -> None:
    """Along slots, samples, positions and tokens alike."""
    keys = row_keys(9, torch.arange(300)[:, None], torch.arange(300))
    values = uniform(keys)
    for one, other in ((values[1:], values[:-1]), (values[:, 1:], values[:, :-1]), (values, values.T)):
        pairs = torch.stack([one.flatten(), other.flatten()])
        if one is values:
            pairs = pairs[:, one.flatten() != other.flatten()]
        assert abs(torch.corrcoef(pairs)[0, 1]) < 0.02


def test_folding_does_not_collide() -> None:
    """400 slots x 250 samples; and positions of one row; and (a, b) against (b, a)."""
    keys = row_keys(key(0, "sampling", 1, 0), torch.arange(400)[:, None], torch.arange(250))
    assert len(set(keys.flatten().tolist())) == 100_000
    assert len(set(fold(keys[3, 7], torch.arange(100_000)).tolist())) == 100_000
    square = row_keys(5, torch.arange(300)[:, None], torch.arange(300))
    assert len(set(square.flatten().tolist())) == 90_000


def test_folding_an_integer_equals_folding_a_tensor() -> None:
    keys = torch.arange(5)
    assert torch.equal(fold(keys, 3), fold(keys, torch.tensor(3)))
    assert torch.equal(fold(keys, 3), fold(keys, torch.full((5,), 3)))


def test_a_draw_does_not_depend_on_the_shape_or_order_of_its_batch() -> None:
    keys = row_keys(2, torch.arange(6)[:, None], torch.arange(4))
    assert torch.equal(uniform(keys).flatten().flip(0), uniform(keys.flatten().flip(0)))
    assert uniform(keys[3, 2]) == uniform(keys)[3, 2]
