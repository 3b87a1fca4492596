"""Truncated sampling by the native generator: what it draws, and what it reports of it."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from core.generation import native as native_module
from core.generation.base import Generation, Request
from core.generation.native import Native
from core.generation.vllm import _samples
from core.model.packing import Packed
from core.model.policy import Policy
from core.model.truncation import WHOLE, Truncation
from core.parts.problems import Problem

QUESTIONS = ("1+2=", "9+9+9+9+9+9=", "4+8+7=")
CUTS = [Truncation(top_p=0.8), Truncation(top_k=3), Truncation(min_p=0.3), Truncation(0.9, 6, 0.05)]


@pytest.fixture
def request_of(embedded: Policy) -> Any:
    prompts = [embedded.tokens(Problem(question, "", 0)) for question in QUESTIONS]

    def make(truncation: Truncation = WHOLE, **changes: Any) -> Request:
        return replace(Request(prompts, 8, 30, 1.0, 11, truncation=truncation, with_support=truncation.cuts), **changes)

    return make


def answer(policy: Policy, request: Request) -> Generation:
    return Native(0.75).generate(policy, [request])[0]


def scores_of(policy: Policy, request: Request, generation: Generation) -> Tensor:
    """Logits [N, V] at every token, after the temperature, from a pass of the trainer's."""
    rows, mask = generation.tokens.flatten(0, 1), generation.mask.flatten(0, 1)
    responses = [row[valid] for row, valid in zip(rows, mask, strict=True)]
    owner = [p for p in range(len(request.prompts)) for _ in range(request.samples)]
    with torch.no_grad():
        hidden, _ = policy.predicting(request.prompts, responses, owner, mask.shape[1])
        return policy.logits(hidden) / request.temperature


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_what_is_reported_is_the_truncated_distribution(
    embedded: Policy, request_of: Any, cut: Truncation, temperature: float
) -> None:
    """log pi', its entropy, log S and the kept set, as worked out anew from the trainer's logits."""
    request = request_of(cut, temperature=temperature)
    generation = answer(embedded, request)
    assert generation.support is not None
    assert generation.support_logmass is not None
    mask, scores = generation.mask, scores_of(embedded, request, generation)
    kept = generation.support[mask]
    assert kept.gather(-1, generation.tokens[mask][:, None]).all()
    # a token on the very threshold may be on either side of it after another order of summation
    same = (kept == cut.kept(scores)).all(-1)
    assert same.float().mean() > 0.99
    cut_off = scores.masked_fill(~kept, float("-inf")).log_softmax(-1)
    logps = cut_off.gather(-1, generation.tokens[mask][:, None])[:, 0]
    torch.testing.assert_close(generation.logps[mask], logps, rtol=1e-4, atol=1e-4)
    entropy = torch.special.entr(cut_off.exp()).sum(-1)
    torch.testing.assert_close(generation.entropy[mask], entropy, rtol=1e-3, atol=1e-3)
    mass = (scores.softmax(-1) * kept).sum(-1)
    torch.testing.assert_close(generation.support_logmass[mask].exp(), mass, rtol=1e-4, atol=1e-4)
    assert mass.min() < 0.999
    for x in (generation.support_logmass, generation.logps, generation.support):
        assert x[~mask].eq(0).all()


@pytest.mark.parametrize("cut", CUTS)
def test_first_tokens_follow_the_truncated_softmax(embedded: Policy, request_of: Any, cut: Truncation) -> None:
    prompt = request_of().prompts[0]
    packed = Packed([prompt])
    with torch.no_grad():
        logits = embedded.logits(embedded.hidden(packed.input_ids, packed.positions, packed))[-1:]
    kept = cut.kept(logits)
    probs = (logits.double().softmax(-1) * kept / (logits.double().softmax(-1) * kept).sum())[0]
    drawn = answer(embedded, request_of(cut, prompts=[prompt] * 4, samples=2000, max_tokens=1)).tokens
    counts = torch.bincount(drawn.flatten(), minlength=embedded.vocabulary).double()
    assert counts[~kept[0]].eq(0).all()
    cells = (probs * counts.sum()) >= 5
    rare = counts[~cells].sum()
    assert rare <= 60
    if cells.sum() > 1:
        expected = probs[cells] / probs[cells].sum() * counts[cells].sum()
        assert chisquare(counts[cells].tolist(), expected.tolist()).pvalue > 1e-3


def test_a_token_that_is_kept_is_drawn_by_the_same_noise(embedded: Policy, request_of: Any) -> None:
    """The argmax over all tokens is that over fewer where it is among them."""
    whole = answer(embedded, request_of(max_tokens=1, samples=200)).tokens
    cut = answer(embedded, request_of(Truncation(top_k=3), max_tokens=1, samples=200))
    assert cut.support is not None
    kept = cut.support.gather(-1, whole[..., None])[..., 0]
    assert 0 < (~kept).sum() < len(whole.flatten()) / 2
    assert torch.equal(whole[kept], cut.tokens[kept])


def test_off_is_what_it_was(embedded: Policy, request_of: Any) -> None:
    off = answer(embedded, request_of())
    assert off.support is None
    assert off.support_logmass is None
    kept_all = answer(embedded, request_of(Truncation(top_k=10_000), with_support=False))
    assert kept_all.support_logmass is not None
    assert kept_all.support_logmass.eq(0).all()
    for name in ("tokens", "mask", "logps", "entropy", "truncated"):
        assert torch.equal(getattr(off, name), getattr(kept_all, name)), name


def test_greedy_responses_are_the_same_with_any(embedded: Policy, request_of: Any) -> None:
    one, other = (answer(embedded, request_of(cut, noise_key=None)) for cut in (WHOLE, Truncation(top_k=1)))
    for field in fields(Generation):
        x, y = getattr(one, field.name), getattr(other, field.name)
        assert (x is None and y is None) or torch.equal(x, y)


def test_requests_share_a_batch_where_they_are_cut_alike(
    embedded: Policy, request_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = Truncation(top_p=0.8)
    requests = [request_of(cut), request_of(cut, noise_key=12, samples=3)]
    others = [request_of(), request_of(cut, noise_key=None), request_of(Truncation(top_p=0.7))]
    batches = native_module._batches(embedded, [*requests, *others])
    assert [len(batch) for batch in batches] == [2, 2, 1]  # what is whole and what is greedy go together
    together = Native(0.75).generate(embedded, [*requests, *others])
    for request, one in zip([*requests, *others], together, strict=True):
        alone = answer(embedded, request)
        assert torch.equal(one.tokens, alone.tokens)
        torch.testing.assert_close(one.logps, alone.logps, rtol=1e-3, atol=1e-4)
        if one.support_logmass is not None:
            torch.testing.assert_close(one.support_logmass, alone.support_logmass, rtol=1e-3, atol=1e-4)


def test_rows_are_drawn_in_blocks_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, noise = torch.randn(2, 7, 30, generator=torch.Generator().manual_seed(0))
    whole = native_module._draw(logits, 0.7, noise, Truncation(top_p=0.8), True)
    assert len(whole) == 5
    monkeypatch.setattr(native_module, "BLOCK_ELEMENTS", {"cpu": 3 * 30})
    blocks = native_module._draw(logits, 0.7, noise, Truncation(top_p=0.8), True)
    assert all(torch.equal(one, other) for one, other in zip(blocks, whole, strict=True))


def test_parts_of_a_rollout_are_joined_with_what_was_kept(embedded: Policy, request_of: Any) -> None:
    cut = answer(embedded, request_of(Truncation(top_p=0.8)))
    few = answer(embedded, request_of(Truncation(top_p=0.8), max_tokens=5))
    joined = Generation.concat([cut, Generation.empty(8, embedded.device), few])
    for name in ("support", "support_logmass"):
        whole = getattr(joined, name)
        assert torch.equal(whole[:3], getattr(cut, name))
        assert torch.equal(whole[3:, :, :5], getattr(few, name))
        assert whole[3:, :, 5:].eq(0).all()
    assert joined.to("cpu").support is not None


def test_vllm_gets_them_for_what_is_sampled(embedded: Policy, request_of: Any) -> None:
    cut = Truncation(0.9, 20, 0.05)
    (sample, *_) = _samples(request_of(cut), embedded.vocabulary)
    assert vars(sample.truncation) == {"top_p": 0.9, "top_k": 20, "min_p": 0.05}
    (greedy, *_) = _samples(request_of(cut, noise_key=None), embedded.vocabulary)
    assert greedy.truncation == WHOLE
