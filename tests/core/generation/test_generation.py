"""Generation: transformers' own greedy text, keyed noise, and probabilities that are really those sampled from."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from transformers import AutoModelForCausalLM

from core import GrpoLabError
from core.generation import native as native_module
from core.generation import noise as noise_module
from core.generation.base import Generation, Request
from core.generation.native import Native, _draw
from core.generation.noise import SMALL_VOCABULARY, DirectNoise, Noise, TableNoise, make_noise
from core.model.loading import EMBEDDED
from core.model.packing import Packed
from core.model.policy import Policy
from core.parts.problems import Problem
from core.randomness import fold, gumbel, key, row_keys

QUESTIONS = ("1+2=", "9+9+9+9+9+9=", "4+8+7=", "3+1+4+1+5=", "0+0=")
LIMIT = 40


def prompts_of(policy: Policy, questions: Sequence[str] = QUESTIONS) -> list[Tensor]:
    return [policy.tokens(Problem(question, "", 0)) for question in questions]


def respond(
    policy: Policy,
    prompts: Sequence[Tensor],
    *,
    samples: int = 4,
    retire_at: float = 0.75,
    noise: int | None = 11,
    temperature: float = 1.0,
    limit: int = LIMIT,
) -> Generation:
    return Native(retire_at).generate(policy, [Request(prompts, samples, limit, temperature, noise)])[0]


def texts(generation: Generation) -> list[list[list[int]]]:
    """Token ids by prompt and sample."""
    return [
        [row[valid].tolist() for row, valid in zip(*pair, strict=True)]
        for pair in zip(generation.tokens, generation.mask, strict=True)
    ]


# greedy


def test_greedy_equals_transformers(embedded: Policy) -> None:
    native: Any = AutoModelForCausalLM.from_pretrained(EMBEDDED, attn_implementation="eager")
    prompts = prompts_of(embedded)
    responses = texts(respond(embedded, prompts, samples=1, noise=None))
    for prompt, (response,) in zip(prompts, responses, strict=True):
        # the library stops on the end token and keeps it, as we do
        whole = native.generate(
            prompt[None], attention_mask=torch.ones_like(prompt)[None], do_sample=False, max_new_tokens=LIMIT
        )
        assert response == whole[0, len(prompt) :].tolist()


def test_greedy_ignores_the_temperature_and_repeats_itself(embedded: Policy) -> None:
    prompts = prompts_of(embedded)
    first, second = (respond(embedded, prompts, samples=2, noise=None, temperature=t) for t in (1.0, 0.3))
    assert texts(first) == texts(second)
    assert torch.equal(first.logps, second.logps)
    assert all(one == other for one, other in texts(first))


# noise by key: nothing else may change the text


@pytest.mark.parametrize("retire_at", [0.0, 0.5, 1.0])
def test_retiring_finished_rows_changes_nothing(embedded: Policy, retire_at: float) -> None:
    prompts = prompts_of(embedded)
    expected, actual = respond(embedded, prompts), respond(embedded, prompts, retire_at=retire_at)
    assert texts(actual) == texts(expected)
    assert torch.equal(actual.truncated, expected.truncated)
    torch.testing.assert_close(actual.logps, expected.logps, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(actual.entropy, expected.entropy, rtol=1e-4, atol=1e-5)


def test_other_prompts_and_other_samples_change_nothing(embedded: Policy) -> None:
    """Slot and sample are part of the key; how many there are is not."""
    prompts = prompts_of(embedded)
    expected = texts(respond(embedded, prompts, samples=4))
    assert texts(respond(embedded, prompts[:2], samples=4)) == expected[:2]
    more = texts(respond(embedded, [*prompts, *prompts[::-1]], samples=8))
    assert [group[:4] for group in more[:5]] == expected
    others = [prompts[0], *prompts[:0:-1]]
    assert texts(respond(embedded, others))[0] == expected[0]


def test_the_limit_only_cuts(embedded: Policy) -> None:
    prompts = prompts_of(embedded)
    whole, cut = texts(respond(embedded, prompts)), texts(respond(embedded, prompts, limit=6))
    assert [[row[:6] for row in group] for group in whole] == cut


def test_samples_and_slots_and_keys_differ(embedded: Policy) -> None:
    prompt = prompts_of(embedded)[1]
    one = texts(respond(embedded, [prompt] * 8, samples=8))
    rows = [tuple(row) for group in one for row in group]
    assert len(set(rows)) > 8
    assert len({tuple(map(tuple, group)) for group in one}) == 8
    assert texts(respond(embedded, [prompt] * 8, samples=8, noise=12)) != one


def test_similar_policies_stay_coupled(embedded: Policy) -> None:
    """Nearly equal probabilities under the same noise draw nearly always the same token."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 15, generator=draw)
    nearby = logits + 0.02 * torch.randn(4000, 15, generator=draw)
    keys = row_keys(3, torch.arange(4000), torch.zeros(1, dtype=torch.long))
    noise = DirectNoise(keys, 15).at(0)
    other = DirectNoise(row_keys(4, torch.arange(4000), torch.zeros(1, dtype=torch.long)), 15).at(0)
    first = _draw(logits, 1.0, noise)[0]
    assert (first == _draw(nearby, 1.0, noise)[0]).float().mean() > 0.98
    assert (first == _draw(nearby, 1.0, other)[0]).float().mean() < 0.5


# what is reported


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_reported_log_probs_are_the_trainers(embedded: Policy, temperature: float) -> None:
    prompts = prompts_of(embedded)
    generation = respond(embedded, prompts, temperature=temperature)
    rows, mask = generation.tokens.flatten(0, 1), generation.mask.flatten(0, 1)
    owner = [p for p in range(len(prompts)) for _ in range(4)]
    with torch.no_grad():
        logps, entropy = embedded.logps(
            prompts,
            [row[valid] for row, valid in zip(rows, mask, strict=True)],
            owner,
            width=mask.shape[1],
            temperature=temperature,
            entropy=True,
        )
    assert entropy is not None
    torch.testing.assert_close(generation.logps.flatten(0, 1), logps, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(generation.entropy.flatten(0, 1), entropy, rtol=1e-4, atol=2e-5)


def test_responses_end_with_the_end_token_or_are_cut(embedded: Policy) -> None:
    generation = respond(embedded, prompts_of(embedded), samples=8, limit=12)
    assert generation.truncated.any()
    assert not generation.truncated.all()
    for p, group in enumerate(texts(generation)):
        for g, row in enumerate(group):
            assert 1 <= len(row) <= 12
            assert 0 not in row[:-1]
            assert bool(generation.truncated[p, g]) == (row[-1] != 0)
            assert len(row) == 12 or not generation.truncated[p, g]
    # the mask is a prefix, and nothing but zeros lies beyond it
    lengths = generation.mask.sum(-1, keepdim=True)
    assert torch.equal(generation.mask, torch.arange(generation.mask.shape[-1]) < lengths)
    assert generation.mask.shape[-1] == int(lengths.max())
    for values in (generation.tokens, generation.logps, generation.entropy):
        assert values[~generation.mask].eq(0).all()


def test_a_response_that_ends_at_the_limit_is_not_truncated(embedded: Policy) -> None:
    prompts = prompts_of(embedded)
    whole = respond(embedded, prompts, samples=8)
    length = int(whole.mask.sum(-1)[~whole.truncated].min())
    at_limit = respond(embedded, prompts, samples=8, limit=length)
    ends = (whole.mask.sum(-1) == length) & ~whole.truncated
    assert ends.any()
    assert torch.equal(~at_limit.truncated, ends)


def test_any_of_several_end_tokens_ends_a_response(embedded: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    digit = int(embedded.tokenizer("3")["input_ids"][0])
    monkeypatch.setattr(embedded, "end_tokens", (0, digit))
    for row in (row for group in texts(respond(embedded, prompts_of(embedded))) for row in group):
        assert digit not in row[:-1]


def test_low_temperatures_come_close_to_greedy(embedded: Policy) -> None:
    prompts = prompts_of(embedded)
    cold = respond(embedded, prompts, temperature=1e-4)
    assert texts(cold) == [group * 4 for group in texts(respond(embedded, prompts, samples=1, noise=None))]
    entropies = [float(respond(embedded, prompts, temperature=t, limit=1).entropy.mean()) for t in (0.5, 1.0, 2.0)]
    assert entropies == sorted(entropies)


def test_prompts_that_leave_no_room_are_named(embedded: Policy) -> None:
    long = torch.ones(217, dtype=torch.long)
    with pytest.raises(GrpoLabError, match=r"prompt 1 has 217 tokens.*max_tokens = 40.*216.*context of 256"):
        respond(embedded, [torch.ones(216, dtype=torch.long), long], noise=None)
    with pytest.raises(GrpoLabError, match="prompt 0 has 0 tokens"):
        respond(embedded, [torch.ones(0, dtype=torch.long)])


# frequencies


def first_token_probs(policy: Policy, prompt: Tensor, temperature: float) -> Tensor:
    packed = Packed([prompt])
    with torch.no_grad():
        logits = policy.logits(policy.hidden(packed.input_ids, packed.positions, packed))[-1]
    return torch.softmax(logits.double() / temperature, -1)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_first_tokens_follow_the_softmax(embedded: Policy, temperature: float) -> None:
    prompt = prompts_of(embedded)[0]
    generation = respond(embedded, [prompt] * 4, samples=2000, limit=1, temperature=temperature)
    counts = torch.bincount(generation.tokens.flatten(), minlength=15).double()
    expected = first_token_probs(embedded, prompt, temperature) * counts.sum()
    assert p_value(counts, expected) > 1e-3


def p_value(counts: Tensor, expected: Tensor) -> float:
    """Of a chi-square test; rare tokens are put together, so that every cell expects five or more."""
    order = expected.argsort(descending=True)
    frequent = order[expected[order] >= 5]
    rest = order[expected[order] < 5]
    cells = [torch.cat([x[frequent], x[rest].sum()[None]]).tolist() for x in (counts, expected)]
    if cells[1][-1] < 5:
        cells = [[*c[:-2], c[-2] + c[-1]] for c in cells]
    return float(chisquare(cells[0], cells[1]).pvalue)


def noises(vocabulary: int, rows: int) -> dict[str, Noise]:
    keys = row_keys(key(0, "sampling", 1, 0), torch.arange(rows), torch.zeros(1, dtype=torch.long))
    return {"direct": DirectNoise(keys, vocabulary), "table": TableNoise(keys, vocabulary, 5)}


@pytest.mark.parametrize("kind", ["direct", "table"])
def test_large_vocabularies_follow_the_softmax(kind: str) -> None:
    """3,000 tokens, some of them common: 20,000 draws over rows and positions."""
    V, rows, positions = 3000, 200, 100
    logits = torch.linspace(0, 6, V).square().flip(0) / 6
    counts = torch.zeros(V)
    noise = noises(V, rows)[kind]
    for position in range(positions):
        drawn, _, _ = _draw(logits.expand(rows, V), 1.0, noise.at(position))
        counts += torch.bincount(drawn, minlength=V)
    assert counts.sum() == rows * positions
    assert p_value(counts.double(), torch.softmax(logits.double(), 0) * rows * positions) > 1e-3


@pytest.mark.parametrize("kind", ["direct", "table"])
def test_noise_is_gumbel(kind: str) -> None:
    """Mean 0.5772 and variance pi^2 / 6, no draw missing."""
    values = noises(3000, 200)[kind].at(7)
    assert values.shape == (200, 3000)
    assert values.dtype == torch.float32
    assert values.isfinite().all()
    assert values.mean().item() == pytest.approx(0.5772, abs=0.02)
    assert values.var().item() == pytest.approx(math.pi**2 / 6, abs=0.05)


@pytest.mark.parametrize("kind", ["direct", "table"])
def test_noise_depends_on_row_and_position_alone(kind: str) -> None:
    noise, fresh = noises(300, 6)[kind], noises(300, 6)[kind]
    whole = noise.at(3)
    assert not torch.equal(noise.at(4), whole)
    assert torch.equal(noise.at(3), whole)  # back
    assert len({tuple(row) for row in whole.tolist()}) == 6
    noise.at(40)
    noise.keep(torch.tensor([1, 2, 4]))
    for position, further in ((41, [1, 2, 4]), (42, [1, 2, 4]), (90, [1, 2, 4]), (41, [1, 2, 4])):
        assert torch.equal(noise.at(position), fresh.at(position)[further])
    noise.keep(torch.tensor([0, 2]))
    noise.keep(torch.tensor([1]))
    for position in (42, 41, 3):
        assert torch.equal(noise.at(position), fresh.at(position)[[4]])


def test_direct_noise_is_its_formula_for_any_number_of_positions_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = row_keys(5, torch.arange(4), torch.zeros(1, dtype=torch.long))
    expected = [gumbel(fold(fold(keys, t)[:, None], torch.arange(7))) for t in range(40)]
    for at_once in (1, 3 * 4 * 7, 1 << 20):
        monkeypatch.setattr(noise_module, "DRAWN_AT_ONCE", at_once)
        noise = DirectNoise(keys, 7)
        assert all(torch.equal(noise.at(t), expected[t]) for t in range(40))


@pytest.mark.parametrize("sampled", [True, False])
def test_rows_are_drawn_in_blocks_as_all_at_once(monkeypatch: pytest.MonkeyPatch, sampled: bool) -> None:
    logits, noise = torch.randn(2, 7, 30, generator=torch.Generator().manual_seed(0))
    whole = _draw(logits, 0.7, noise if sampled else None)
    for elements in (1, 3 * 30, 7 * 30):
        monkeypatch.setattr(native_module, "BLOCK_ELEMENTS", {"cpu": elements})
        for one, other in zip(_draw(logits, 0.7, noise if sampled else None), whole, strict=True):
            assert torch.equal(one, other)


def test_texts_are_those_of_transformers(embedded: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    responses = [torch.tensor([3, 11, 4, 0]), torch.tensor([], dtype=torch.long), torch.tensor([12, 5])]
    expected = embedded.tokenizer.batch_decode([[3, 11, 4], [], [12, 5]], skip_special_tokens=False)
    assert embedded.texts(responses) == expected
    # what cleans spaces up is left to transformers
    monkeypatch.setattr(embedded.tokenizer, "clean_up_tokenization_spaces", True)
    monkeypatch.setattr(embedded.tokenizer, "batch_decode", lambda rows, **_: ["cleaned"] * len(rows))
    assert embedded.texts(responses) == ["cleaned"] * 3


def test_tables_of_two_rollouts_differ() -> None:
    keys = torch.arange(3)
    assert not torch.equal(TableNoise(keys, 300, 1).at(0), TableNoise(keys, 300, 2).at(0))


def test_small_vocabularies_are_drawn_directly() -> None:
    keys = torch.arange(3)
    assert isinstance(make_noise(keys, SMALL_VOCABULARY, 0), DirectNoise)
    assert isinstance(make_noise(keys, SMALL_VOCABULARY + 1, 0), TableNoise)


def requests_of(prompts: Sequence[Tensor]) -> list[Request]:
    """As an evaluation makes them: sampled, greedy, and further samples."""
    return [
        Request(prompts, samples=2, max_tokens=30, noise_key=7),
        Request(prompts, samples=1, max_tokens=30),
        Request(prompts, samples=3, max_tokens=30, noise_key=8),
    ]


def test_requests_in_one_batch_are_answered_as_one_by_one(embedded: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = requests_of(prompts_of(embedded))
    assert [len(batch) for batch in native_module._batches(embedded, requests)] == [3]
    together = Native(0.75).generate(embedded, requests)
    monkeypatch.setattr(native_module, "MANY_NUMBERS", 0)
    assert [len(batch) for batch in native_module._batches(embedded, requests)] == [1, 1, 1]
    for one, other in zip(together, Native(0.75).generate(embedded, requests), strict=True):
        for name in ("tokens", "mask", "truncated"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        torch.testing.assert_close(one.logps, other.logps, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(one.entropy, other.entropy, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "change", [{"temperature": 0.5}, {"max_tokens": 29}, {"slots": range(1, 6)}, {"prompts": (torch.tensor([3]),) * 5}]
)
def test_requests_that_differ_are_answered_apart(embedded: Policy, change: dict[str, Any]) -> None:
    first, second, third = requests_of(prompts_of(embedded))
    batches = native_module._batches(embedded, [first, replace(second, **change), third])
    assert [len(batch) for batch in batches] == [1, 1, 1]


def test_large_vocabularies_have_one_table_a_request(embedded: Policy) -> None:
    large = embedded.frozen_copy()
    large.vocabulary = SMALL_VOCABULARY + 1
    assert [len(batch) for batch in native_module._batches(large, requests_of(prompts_of(embedded)))] == [1, 1, 1]


def test_on_a_device_too_a_block_of_rows_is_drawn_from_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """7 rows of 30 tokens in blocks of at most 100 numbers: what is made in float32 does not grow with the rows."""
    blocks: list[int] = []

    def draw(logits: Tensor, *_: Any) -> Sequence[Tensor]:
        blocks.append(len(logits))
        return [logits[:, 0]]

    monkeypatch.setattr(native_module, "BLOCK_ELEMENTS", {"cpu": 1, "other": 100})
    monkeypatch.setattr(native_module, "_draw_block", draw)
    (drawn,) = native_module._draw(torch.zeros(7, 30, device="meta"), 1.0, None)
    assert blocks == [3, 3, 1]
    assert len(drawn) == 7
