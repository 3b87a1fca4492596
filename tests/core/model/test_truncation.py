"""Truncated distributions: by hand, as transformers cuts them, and log-probabilities and gradients of what is left."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation.logits_process import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from core.model import logps
from core.model.logps import sum_squared_probs, support_logmass, token_logps
from core.model.truncation import UNITS, WHOLE, Truncation, in_units, log_mass
from experiments.lens.policy import make_policy

PROBS = torch.tensor([[0.5, 0.3, 0.15, 0.05]])


def kept(truncation: Truncation, probs: Any = PROBS) -> list[int]:
    row = truncation.kept(torch.as_tensor(probs).log())[0]
    return row.nonzero()[:, 0].tolist()


# by hand


def test_the_worked_example() -> None:
    """top_p = 0.9 keeps 0.5 + 0.3 + 0.15 = 0.95; log 0.95 = -0.0513."""
    assert kept(Truncation(top_p=0.9)) == [0, 1, 2]
    mass = log_mass(PROBS.log(), Truncation(top_p=0.9).kept(PROBS.log()))
    assert mass.exp().item() == pytest.approx(0.95)
    assert mass.item() == pytest.approx(-0.0513, abs=5e-5)
    # of 100 such tokens, their product and geometric mean
    assert (100 * mass).exp().item() == pytest.approx(0.0059, abs=5e-5)
    assert (100 * mass / 100).exp().item() == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("truncation", "expected"),
    [
        (Truncation(), [0, 1, 2, 3]),
        (Truncation(min_p=0.2), [0, 1, 2]),  # from 0.2 x 0.5 = 0.1 on
        (Truncation(top_k=2), [0, 1]),
        (Truncation(top_k=9), [0, 1, 2, 3]),
        (Truncation(top_p=0.82), [0, 1, 2]),
        # top-k first: 0.5 and 0.3 are 0.842 of the 0.95 that it leaves
        (Truncation(top_p=0.82, top_k=3), [0, 1]),
        # min-p before top-p, as vLLM has it; transformers has it after, and would keep 0, 1, 2
        (Truncation(top_p=0.82, min_p=0.2), [0, 1]),
        (Truncation(top_k=1, min_p=0.01), [0]),
        # one token at least
        (Truncation(top_p=1e-9), [0]),
        (Truncation(min_p=1.0), [0]),
    ],
)
def test_what_is_kept(truncation: Truncation, expected: list[int]) -> None:
    assert kept(truncation) == expected


@pytest.mark.parametrize("truncation", [Truncation(top_k=2), Truncation(top_p=0.5), Truncation(min_p=0.5)])
def test_what_is_equal_is_kept_together(truncation: Truncation) -> None:
    """0.4 and one of three 0.2 would do; transformers' top-p keeps whichever its sort puts first."""
    assert kept(truncation, [[0.4, 0.2, 0.2, 0.2]]) == [0, 1, 2, 3]


def test_nothing_is_cut_of_a_whole_distribution_exactly() -> None:
    scores = torch.randn(50, 30, generator=torch.Generator().manual_seed(0))
    assert not WHOLE.cuts
    assert torch.equal(log_mass(scores, WHOLE.kept(scores)), torch.zeros(50))
    assert Truncation(top_p=0.9, top_k=20).bound("train") == "train.top_p = 0.9, train.top_k = 20"


# against transformers

SETTINGS = st.builds(
    Truncation,
    top_p=st.one_of(st.just(1.0), st.floats(0.05, 0.99)),
    top_k=st.integers(0, 40),
    min_p=st.one_of(st.just(0.0), st.floats(0.001, 0.9)),
)


@given(SETTINGS, st.integers(0, 2**31), st.sampled_from([2, 15, 300]), st.floats(0.1, 4))
def test_as_transformers_warpers_in_vllms_order(
    truncation: Truncation, seed: int, vocabulary: int, wide: float
) -> None:
    scores = wide * torch.randn(20, vocabulary, generator=torch.Generator().manual_seed(seed))
    expected: Tensor = scores
    ids: Any = None  # which no warper reads
    if truncation.min_p:
        expected = MinPLogitsWarper(truncation.min_p)(ids, expected)
    if truncation.top_k:
        expected = TopKLogitsWarper(truncation.top_k)(ids, expected)
    if truncation.top_p < 1:
        expected = TopPLogitsWarper(truncation.top_p)(ids, expected)
    assert torch.equal(truncation.kept(scores), expected.isfinite())


@given(SETTINGS, st.integers(0, 2**31))
def test_properties(truncation: Truncation, seed: int) -> None:
    scores = 2 * torch.randn(10, 40, generator=torch.Generator().manual_seed(seed))
    which, probs = truncation.kept(scores), scores.softmax(-1)
    assert which.any(-1).all()
    assert which.gather(-1, scores.argmax(-1, keepdim=True)).all()
    if truncation.top_k:
        assert (which.sum(-1) <= truncation.top_k).all()
    mass = log_mass(scores, which)
    assert (mass <= 0).all()
    torch.testing.assert_close(mass.exp(), (probs * which).sum(-1), rtol=1e-5, atol=1e-6)
    if truncation == Truncation(top_p=truncation.top_p):
        assert (mass.exp() >= truncation.top_p - 1e-5).all()
    assert not (which & (probs < truncation.min_p * probs.amax(-1, keepdim=True) - 1e-6)).any()
    # what is kept is more probable than what is not, and shifting all logits changes nothing
    assert (probs.masked_fill(~which, 2).amin(-1) >= probs.masked_fill(which, -1).amax(-1)).all()
    assert torch.equal(truncation.kept(scores + 1), which) or not torch.equal((scores + 1) - 1, scores)


# the public figure, on a policy that is enumerated


def test_the_mean_ratio_of_a_mixture_is_the_kept_mass() -> None:
    """Whole trainer against truncated sampler at top_p = 0.8: E_pi'[pi / pi'] = S at every prefix."""
    policy = make_policy()
    logits = policy.logits
    which = Truncation(top_p=0.8).kept(logits)
    whole, cut = logits.log_softmax(-1), logits.masked_fill(~which, -math.inf).log_softmax(-1)
    mean_ratio = (cut.exp() * (whole - cut).exp()).where(which, 0.0).sum(-1)
    mass = (whole.exp() * which).sum(-1)
    assert (mass < 0.999).any()
    torch.testing.assert_close(mean_ratio, mass)
    # and it is off by log S at every token alike
    off = (whole - cut)[which]
    torch.testing.assert_close(off, log_mass(logits, which)[..., None].expand_as(which)[which])


# log-probabilities of what is left

N, H, V = 11, 6, 13


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    hidden, weight, bias = (torch.randn(*s, generator=draw).requires_grad_() for s in ((N, H), (V, H), (V,)))
    which = Truncation(top_p=0.8).kept((hidden @ weight.T + bias).detach() / 0.7)
    assert len(set(which.sum(-1).tolist())) > 2
    tokens = torch.multinomial(which.float(), 1, generator=draw)[:, 0]
    return hidden, weight, bias, tokens, which


@pytest.mark.parametrize(("chunk", "block"), [(1 << 24, 1 << 24), (3 * V, 2 * V), (1, 1)])
@pytest.mark.parametrize("entropy", [True, False])
def test_values_and_gradients_equal_a_masked_log_softmax(
    monkeypatch: pytest.MonkeyPatch, chunk: int, block: int, entropy: bool
) -> None:
    monkeypatch.setattr(logps, "CHUNK_ELEMENTS", {"cpu": chunk})
    monkeypatch.setattr(logps, "BLOCK_ELEMENTS", {"cpu": block})
    hidden, weight, bias, tokens, which = inputs()
    options: dict[str, Any] = {"bias": bias, "temperature": 0.7, "entropy": entropy}
    values, entropies = token_logps(hidden, weight, tokens, **options, kept=which)
    scores = (hidden.double() @ weight.double().T + bias.double()) / 0.7
    log_probs = scores.masked_fill(~which, -math.inf).log_softmax(-1)
    expected = log_probs.gather(-1, tokens[:, None])[:, 0]
    w_logps, w_entropy = torch.randn(2, N, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(values.double(), expected, rtol=1e-5, atol=1e-5)
    loss, expected_loss = (values * w_logps).sum(), (expected * w_logps).sum()
    if entropy:
        assert entropies is not None
        finite = log_probs.masked_fill(~which, 0.0)
        expected_entropy = -(finite.exp() * finite).where(which, 0.0).sum(-1)
        torch.testing.assert_close(entropies.double(), expected_entropy, rtol=1e-5, atol=1e-5)
        loss, expected_loss = loss + (entropies * w_entropy).sum(), expected_loss + (expected_entropy * w_entropy).sum()
    leaves = [hidden, weight, bias]
    for actual, wanted in zip(
        torch.autograd.grad(loss, leaves), torch.autograd.grad(expected_loss, leaves), strict=True
    ):
        assert actual.isfinite().all()
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5)
    squares = sum_squared_probs(hidden, weight, bias=bias, temperature=0.7, kept=which)
    torch.testing.assert_close(squares.double(), (2 * log_probs).exp().sum(-1), rtol=1e-5, atol=1e-6)


def test_the_gradient_is_that_of_the_whole_less_that_of_the_mass() -> None:
    """grad log pi' = grad log pi - grad log S, with the kept set as it was in sampling."""
    hidden, weight, bias, tokens, which = inputs()
    cut, _ = token_logps(hidden, weight, tokens, bias=bias, kept=which)
    whole, _ = token_logps(hidden, weight, tokens, bias=bias)
    log_s = log_mass(hidden @ weight.T + bias, which)
    gradients = [torch.autograd.grad(x.sum(), hidden)[0] for x in (cut, whole, log_s)]
    torch.testing.assert_close(cut, whole - log_s, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1] - gradients[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("entropy", [True, False])
def test_where_all_is_kept_nothing_changes_bit_for_bit(entropy: bool) -> None:
    hidden, weight, bias, tokens, which = inputs()
    results = []
    for among in (None, torch.ones_like(which)):
        values, entropies = token_logps(hidden, weight, tokens, bias=bias, entropy=entropy, kept=among)
        total = values.sum() + (0 if entropies is None else entropies.sum())
        results.append([values, *torch.autograd.grad(total, [hidden, weight, bias])])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("chunk", [1 << 24, 3 * V])
def test_the_mass_from_hidden_states(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(logps, "CHUNK_ELEMENTS", {"cpu": chunk})
    hidden, weight, bias, _, which = inputs()
    mass = support_logmass(hidden, weight, bias=bias, temperature=0.7, truncation=Truncation(top_p=0.8))
    probs = ((hidden @ weight.T + bias) / 0.7).softmax(-1)
    torch.testing.assert_close(mass.exp(), (probs * which).sum(-1), rtol=1e-5, atol=1e-6)


# elsewhere than on a CPU


def test_sums_in_units_by_hand() -> None:
    """1/2, 1/4 and 2^-41, which is rounded to even, 0."""
    assert in_units(torch.tensor([0.5, 0.25, 2.0**-41])).tolist() == [2**39, 2**38, 0]
    assert in_units(PROBS).cumsum(-1)[0] / UNITS == pytest.approx([0.5, 0.8, 0.95, 1.0], abs=1e-7)


def test_a_device_adds_up_integers_and_on_a_cpu_nothing_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA refuses running sums of floating-point numbers where every run is to have the same bits."""
    added: list[torch.dtype] = []
    cumsum = Tensor.cumsum

    def noted(x: Tensor, dim: int) -> Tensor:
        added.append(x.dtype)
        return cumsum(x, dim)

    monkeypatch.setattr(Tensor, "cumsum", noted)
    for device in ("meta", "cpu"):
        Truncation(top_p=0.9).kept(PROBS.log().to(device))
    assert added == [torch.int64, torch.float32]
