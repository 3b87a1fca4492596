"""Log-probs from hidden states: values and gradients of a plain log-softmax, a chunk of logits at a time."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from core.model import logps
from core.model.logps import token_logps

N, H, V = 11, 6, 13


def inputs(dtype: torch.dtype = torch.float32, *, biased: bool = True) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    draw = torch.Generator().manual_seed(0)
    hidden, weight, bias = (torch.randn(*s, generator=draw).to(dtype) for s in ((N, H), (V, H), (V,)))
    tokens = torch.randint(V, (N,), generator=draw)
    leaves = [x.requires_grad_() for x in (hidden, weight, bias)]
    return leaves[0], leaves[1], leaves[2] if biased else None, tokens


def plain(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    logits = hidden.double() @ weight.double().T + (0 if bias is None else bias.double())
    log_probs = torch.log_softmax(logits / temperature, -1)
    return log_probs.gather(1, tokens[:, None])[:, 0], -(log_probs.exp() * log_probs).sum(-1)


def test_by_hand() -> None:
    """Logits 0 and log 3: probabilities 1/4 and 3/4, entropy log 4 - 3/4 log 3."""
    hidden, weight = torch.ones(2, 1), torch.tensor([[0.0], [math.log(3)]])
    values, entropies = token_logps(hidden, weight, torch.tensor([0, 1]), entropy=True)
    torch.testing.assert_close(values.exp(), torch.tensor([0.25, 0.75]))
    assert entropies is not None
    assert entropies.tolist() == pytest.approx([math.log(4) - 0.75 * math.log(3)] * 2)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("chunk", "block"), [(1 << 24, 1 << 24), (1 << 24, 4 * V), (3 * V, 2 * V), (1, 1)])
@pytest.mark.parametrize("entropy", [True, False])
def test_values_and_gradients_equal_a_plain_log_softmax(
    monkeypatch: pytest.MonkeyPatch, temperature: float, biased: bool, chunk: int, block: int, entropy: bool
) -> None:
    """In one chunk, in four, and token by token; in as many blocks."""
    monkeypatch.setattr(logps, "CHUNK_ELEMENTS", {"cpu": chunk})
    monkeypatch.setattr(logps, "BLOCK_ELEMENTS", {"cpu": block})
    hidden, weight, bias, tokens = inputs(biased=biased)
    leaves = [x for x in (hidden, weight, bias) if x is not None]
    draw = torch.Generator().manual_seed(1)
    w_logps, w_entropy = torch.randn(2, N, generator=draw)
    values, entropies = token_logps(hidden, weight, tokens, bias=bias, temperature=temperature, entropy=entropy)
    expected = plain(hidden, weight, bias, tokens, temperature)
    torch.testing.assert_close(values.double(), expected[0], rtol=1e-5, atol=1e-5)
    loss, expected_loss = (values * w_logps).sum(), (expected[0] * w_logps).sum()
    if entropy:
        assert entropies is not None
        torch.testing.assert_close(entropies.double(), expected[1], rtol=1e-5, atol=1e-5)
        loss, expected_loss = loss + (entropies * w_entropy).sum(), expected_loss + (expected[1] * w_entropy).sum()
    else:
        assert entropies is None
    for actual, expected_gradient in zip(
        torch.autograd.grad(loss, leaves), torch.autograd.grad(expected_loss, leaves), strict=True
    ):
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual, expected_gradient, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_the_entropy_alone() -> None:
    hidden, weight, bias, tokens = inputs()
    _, entropies = token_logps(hidden, weight, tokens, bias=bias, entropy=True)
    assert entropies is not None
    _, expected = plain(hidden, weight, bias, tokens, 1.0)
    actual, expected_gradient = (torch.autograd.grad(e.sum(), hidden)[0] for e in (entropies, expected))
    torch.testing.assert_close(actual, expected_gradient, rtol=1e-4, atol=1e-6)


def test_gradients_agree_with_finite_differences() -> None:
    """Weights in float64; the log-probabilities are float32 by design, so differences are taken over wide steps."""
    hidden, weight, bias, tokens = inputs(torch.float64)

    assert bias is not None

    def loss(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
        values, entropies = token_logps(h, w, tokens, bias=b, temperature=0.8, entropy=True)
        assert entropies is not None
        return torch.stack([values.sum(), entropies.sum()]).double()

    assert torch.autograd.gradcheck(loss, (hidden, weight, bias), eps=1e-2, atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize(
    ("chunk", "forward", "backward"),
    [(3 * V + 1, [3 * V, 3 * V, 3 * V, 2 * V], [3 * V, 3 * V, 3 * V, 2 * V]), (N * V, [N * V], [])],
)
def test_logits_are_formed_a_chunk_at_a_time_and_once_where_one_chunk_holds_them(
    monkeypatch: pytest.MonkeyPatch, chunk: int, forward: list[int], backward: list[int]
) -> None:
    sizes: list[int] = []
    original = functional.linear

    def recorded(*args: Tensor) -> Tensor:
        logits = original(*args)
        sizes.append(logits.numel())
        return logits

    monkeypatch.setattr(functional, "linear", recorded)
    monkeypatch.setattr(logps, "CHUNK_ELEMENTS", {"cpu": chunk})
    hidden, weight, bias, tokens = inputs()
    values, _ = token_logps(hidden, weight, tokens, bias=bias)
    assert sizes == forward
    first = torch.autograd.grad(values.sum(), weight, retain_graph=True)[0]
    assert sizes == forward + backward
    # the logits that were kept have become their gradient: a second pass forms them again
    torch.testing.assert_close(torch.autograd.grad(values.sum(), weight)[0], first)


def test_float32_logits_are_held_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = logps._scores

    def recorded(*args: Any) -> Tensor:
        scores: Tensor = original(*args)
        sizes.append(scores.numel())
        return scores

    monkeypatch.setattr(logps, "_scores", recorded)
    monkeypatch.setattr(logps, "BLOCK_ELEMENTS", {"cpu": 4 * V})
    hidden, weight, _, tokens = inputs(torch.bfloat16)
    values, _ = token_logps(hidden, weight, tokens)
    torch.autograd.backward(values.sum())
    assert sizes == 2 * [4 * V, 4 * V, 3 * V]


def test_nothing_as_large_as_all_logits_is_kept_beside_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logps, "CHUNK_ELEMENTS", {"cpu": V})
    kept: list[int] = []
    hidden, weight, _, tokens = inputs()

    def pack(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        token_logps(hidden, weight, tokens, entropy=True)
    assert max(kept) <= max(N * H, V * H) < N * V


def test_chunks_are_those_of_the_kind_of_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logps, "CHUNK_ELEMENTS", {"cpu": 4 * V, "other": 6 * V})
    for device, sizes in (("cpu", [4, 4, 3]), ("meta", [6, 5])):
        assert [s.stop - s.start for s in logps._chunks(torch.empty(N, H, device=device), V)] == sizes


def test_gradients_of_several_chunks_add_up_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 256 + 1 is 256: chunks of size one after a large one would all be lost."""
    monkeypatch.setattr(logps, "CHUNK_ELEMENTS", {"cpu": 1})
    draw = torch.Generator().manual_seed(0)
    hidden = torch.ones(257, 1)
    hidden[0] = 256
    weight = torch.randn(2, 1, generator=draw).mul(1e-4).bfloat16().requires_grad_()
    values, _ = token_logps(hidden.bfloat16(), weight, torch.zeros(257, dtype=torch.long))
    gradient = torch.autograd.grad(values.sum(), weight)[0]
    # each token adds (1 - 1/2) * hidden to the row of token 0, minus as much to the other: 256/2 + 256 * 1/2
    assert gradient.dtype == torch.bfloat16
    assert gradient.flatten().tolist() == pytest.approx([256, -256], rel=0.02)


def test_low_precision_weights_give_float32_results() -> None:
    hidden, weight, bias, tokens = inputs(torch.bfloat16)
    values, entropies = token_logps(hidden, weight, tokens, bias=bias, entropy=True)
    assert values.dtype == torch.float32
    assert entropies is not None
    assert entropies.dtype == torch.float32
    expected, _ = plain(hidden, weight, bias, tokens, 1.0)
    torch.testing.assert_close(values.double(), expected, rtol=0.02, atol=0.05)
    assert all(g.dtype == torch.bfloat16 for g in torch.autograd.grad(values.sum(), (hidden, weight)))
