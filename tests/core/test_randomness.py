"""Keyed randomness: streams that do not touch each other, and draws that are uniform and Gumbel."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import GrpoLabError, randomness
from core.randomness import STREAMS, fold, gumbel, key, mix, row_keys, torch_generator, uniform
from experiments.feedback import judge_agreement, pass_rates, preferences, reward_model

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


OF_SEED_7 = {
    "init": (3160537680509367002, 2872281163024579181),
    "prompts": (3522575573161310339, 7807115011899029424),
    "extra_prompts": (4513180906989489597, 1438294781245517653),
    "sampling": (1658937946653804975, 7114504042568657287),
    "minibatch": (4466234225133299606, 1983527589919591025),
    "objective": (843556487274824388, 2739484899060038922),
    "reward": (8943590426147861260, 4344283516493279064),
    "eval": (369314181118423008, 5508192610330738370),
    "pass_rates": (3237583836913749527, 3203546381681401727),
    "judge": (8881714506272282021, 6761440422370058235),
    "preferences": (1711531334172189516, 5120498812029115880),
    "stored": (7993730484508073002, 4052752135052779417),
    "reevaluation": (169493853053345880, 1117944567654176756),
}
"""The keys of `(7, stream)` and of `(7, stream, 3, 1)`."""
OF_PREFERENCES = {
    preferences.PROMPTS: 8617218464837761532,
    preferences.ANNOTATOR: 2109097869960967388,
    preferences.SAMPLING: 1473551262305110567,
    reward_model.HELD_OUT: 4801400975113425676,
    reward_model.EPOCHS: 7768513259470837912,
}


def test_every_stream_has_the_keys_that_it_always_had() -> None:
    assert {
        name: (key(7, stream), key(7, stream, 3, 1)) for name, stream in STREAMS.items() if name in OF_SEED_7
    } == OF_SEED_7
    assert key(7, pass_rates.PASS_RATES, 3, 1) == key(7, "pass_rates", 3, 1) == OF_SEED_7["pass_rates"][1]
    assert key(7, judge_agreement.JUDGE) == OF_SEED_7["judge"][0]
    assert {stream: key(7, stream) for stream in OF_PREFERENCES} == OF_PREFERENCES
    assert key(7, reward_model.EPOCHS, 2) == key(7, preferences.PREFERENCES, 4, 2)
    drawn = torch.rand(2, generator=torch_generator(7, reward_model.HELD_OUT))
    assert torch.equal(drawn, torch.rand(2, generator=torch.Generator().manual_seed(4801400975113425676)))


def test_a_stream_is_declared_where_it_is_drawn_from_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomness, "STREAMS", dict(STREAMS))
    monkeypatch.setattr(randomness, "_PLACES", dict(randomness._PLACES))
    for _ in range(2):  # a module that is run as main may be imported too
        own = randomness.stream("own_of_a_test")
        third = own.part(3)
    assert key(1, third, 5) == key(1, own, 3, 5) == key(1, "own_of_a_test", 3, 5)
    message = r"test_randomness.py:\d+: the random stream 'own_of_a_test' is that of .*test_randomness.py:\d+: give it "
    with pytest.raises(GrpoLabError, match=message + "another name"):
        randomness.stream("own_of_a_test")
    with pytest.raises(GrpoLabError, match=r"'own_of_a_test' with number 3 is that of .*: give it another number"):
        own.part(3)
    with pytest.raises(GrpoLabError, match="'prompts' is that of the machine"):
        randomness.stream("prompts")
    with pytest.raises(GrpoLabError, match=r"'preferences' with number 4 is that of .*reward_model\.py:"):
        preferences.PREFERENCES.part(4)


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
