"""One token more: blocks that are written out compute what transformers' forward pass computes, or it is taken."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from core.generation.base import Request
from core.generation.native import native
from core.model import decoding, policy
from core.model.adapters import LoraSettings, add_adapters
from core.model.caching import Cache, make_cache
from core.model.decoding import BlockStep, LibraryStep, Step, can_lay_out, is_written_out
from core.model.packing import Packed
from core.model.policy import Policy
from core.model.soundness import check_trunk
from tests.core.model.test_soundness import tiny_model

KINDS = ("llama", "qwen2", "qwen3")


def packed_model(kind: str, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    """A random model, loud enough that a wrong sign anywhere shows, ready for packed rows."""
    model = tiny_model(kind, initializer_range=0.5, **settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:
                parameter.add_(torch.rand(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    check_trunk(model, "tiny")
    return model.to(dtype)


def head_of(model: Any) -> tuple[Tensor, Tensor | None]:
    head = model.get_output_embeddings()
    return head.weight, head.bias


def decoded(model: Any, step: Step, samples: int = 3, tokens: int = 20) -> Tensor:
    """Logits along given tokens; after the fifth, half of the rows are retired."""
    prompts = [torch.tensor([1, 2, 3]), torch.tensor([4])]
    cache: Cache = make_cache(prompts, samples, tokens)
    prefill = Packed(prompts, cache=cache)
    draw, rows, out = torch.Generator().manual_seed(0), 2 * samples, []
    with torch.no_grad():
        model.base_model(input_ids=prefill.input_ids, position_ids=prefill.positions, use_cache=False, layout=prefill)
        for t in range(tokens):
            if t == 5:
                alive = torch.arange(0, rows, 2)
                cache.keep(alive)
                rows = len(alive)
            hidden = step.hidden(torch.randint(15, (rows,), generator=draw), cache)
            out.append(step.logits(hidden).float().flatten())
    return torch.cat(out)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heads", [1, 2])
def test_blocks_give_the_same_bits_in_float32(kind: str, heads: int) -> None:
    model = packed_model(kind, num_key_value_heads=heads)
    theirs = decoded(model, LibraryStep(model, head_of(model)))
    assert torch.equal(decoded(model, BlockStep(model, head_of(model), laid_out=False)), theirs)
    assert is_written_out(model, head_of(model))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_laid_out_give_the_same_but_for_rounding(kind: str) -> None:
    model = packed_model(kind, torch.bfloat16)
    if not can_lay_out("cpu", torch.bfloat16):
        pytest.skip("this machine has no products of bfloat16")
    theirs = decoded(model, LibraryStep(model, head_of(model)))
    ours = decoded(model, BlockStep(model, head_of(model), laid_out=True))
    assert (ours - theirs).norm() < 0.05 * theirs.norm()
    assert is_written_out(model, head_of(model))


def test_only_bfloat16_on_a_cpu_is_laid_out() -> None:
    assert not can_lay_out("cpu", torch.float32)
    assert not can_lay_out("cuda", torch.bfloat16)


def adapted(model: Any) -> Any:
    add_adapters(model, LoraSettings(2, 4, ("q_proj",)), "tiny")
    return model


def hooked(model: Any) -> Any:
    model.base_model.layers[1].mlp.register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize("change", [adapted, hooked])
def test_other_layers_go_through_the_library(change: Callable[[Any], Any]) -> None:
    model = packed_model("llama")
    assert is_written_out(model, head_of(model))
    assert not is_written_out(change(model), head_of(model))


def test_an_architecture_that_is_not_written_out_goes_through_the_library() -> None:
    model = packed_model("olmo2")
    assert not is_written_out(model, head_of(model))


def test_a_block_that_computes_something_else_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a change of transformers' own."""
    model = packed_model("llama")
    heads = decoding._heads
    monkeypatch.setattr(decoding, "_heads", lambda attention, products, cos, sin: heads(attention, products, cos, -sin))
    assert not is_written_out(model, head_of(model))


def test_a_policy_lays_weights_out_for_many_tokens_only(tiny: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []

    class Recorded(BlockStep):
        def __init__(self, *arguments: Any, laid_out: bool) -> None:
            made.append(laid_out)

    monkeypatch.setattr(policy, "BlockStep", Recorded)
    monkeypatch.setattr(policy, "can_lay_out", lambda *_: True)
    tiny.step(policy.MANY_TOKENS - 1)
    tiny.step(policy.MANY_TOKENS)
    assert made == [False, True]
    tiny.__dict__["_written_out"] = False
    assert isinstance(tiny.step(policy.MANY_TOKENS), LibraryStep)


def test_responses_are_the_same_either_way_and_follow_the_weights(embedded: Policy) -> None:
    model = embedded.frozen_copy()
    prompts = [torch.tensor([3, 11, 4]), torch.tensor([5, 11, 6, 11, 7])]
    request = Request(prompts, samples=4, max_tokens=30, noise_key=7)

    def respond() -> tuple[Tensor, Tensor]:
        (generation,) = native().generate(model, [request])
        return generation.tokens, generation.logps

    assert model._written_out
    ours = respond()
    model.__dict__["_written_out"] = False
    assert all(torch.equal(one, other) for one, other in zip(respond(), ours, strict=True))
    model.__dict__["_written_out"] = True
    with torch.no_grad():
        dict(model.model.named_parameters())["model.layers.0.mlp.down_proj.weight"].mul_(0.5)
    assert not torch.equal(respond()[1][:, :, 0], ours[1][:, :, 0])


def test_columns_that_are_not_written_yet_are_not_read() -> None:
    """Buffers grow without being cleared; in this mode torch fills them with NaN."""
    model = packed_model("llama")
    step = BlockStep(model, head_of(model), laid_out=False)
    expected = decoded(model, step, tokens=40)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.equal(decoded(model, step, tokens=40), expected)
    finally:
        torch.use_deterministic_algorithms(False)
