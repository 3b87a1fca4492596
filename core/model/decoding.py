"""The logits of the next token of every response, from a cache of what was before.

Any model decodes through transformers' forward pass. With one token a row most of that is no arithmetic, so the blocks
of Llama, Qwen2 and Qwen3 are written out here: the same operations on the same numbers, to the last bit in float32.
In bfloat16 on CPU the weights are laid out once for all steps of a rollout, and rounding differs a little.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.model.caching import Cache, make_cache
from core.model.packing import Packed

Weights: TypeAlias = tuple[Tensor, Tensor | None]
"""Weight and bias of a linear layer."""
Products: TypeAlias = Callable[[Tensor], Sequence[Tensor]]
"""What several linear layers make of one input [B, h]."""
WRITTEN_OUT: Final = {
    f"transformers.models.{name.lower()}.modeling_{name.lower()}.{name}{part}"
    for name in ("Llama", "Qwen2", "Qwen3")
    for part in ("Model", "DecoderLayer", "Attention", "MLP", "RMSNorm", "RotaryEmbedding")
}
"""Classes whose forward passes are written out below."""
LEAVES: Final = (nn.Linear, nn.Embedding, nn.ModuleList)
ROUNDING: Final = {torch.float32: 0.0, torch.bfloat16: 0.02, torch.float16: 0.02}
"""Relative difference to transformers' states up to which a pass counts as written out rightly."""


class Step(Protocol):
    """A model's pass over the newest token of every response."""

    def hidden(self, ids: Tensor, cache: Cache) -> Tensor:
        """Last hidden states [B, h] at the tokens `ids` [B]; the cache goes on to the next column."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [B, V] of what follows, in the model's precision."""
        ...


class LibraryStep:
    """Through transformers' forward pass."""

    def __init__(self, model: PreTrainedModel, head: Weights) -> None:
        self._base: Any = model.base_model
        self._head = head

    def hidden(self, ids: Tensor, cache: Cache) -> Tensor:
        """See `Step`."""
        output = self._base(input_ids=ids[None], position_ids=cache.positions[None], use_cache=False, layout=cache)
        cache.advance()
        states: Tensor = output.last_hidden_state[0]
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Step`."""
        return F.linear(hidden, *self._head)


class BlockStep:
    """Through blocks that are written out.

    x += W_o attention(rotate(W_q n), rotate(W_k n), W_v n),   n = norm(x)
    x += W_down (act(W_gate n) * W_up n),                      n = norm(x)
    """

    def __init__(self, model: PreTrainedModel, head: Weights, *, laid_out: bool) -> None:
        base: Any = model.base_model
        self._base = base
        make = _laid_out if laid_out else _plain

        def products(*layers: nn.Linear) -> Products:
            return make([(layer.weight, layer.bias) for layer in layers])

        self._products = [
            (
                products(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                products(layer.self_attn.o_proj),
                products(layer.mlp.gate_proj, layer.mlp.up_proj),
                products(layer.mlp.down_proj),
            )
            for layer in base.layers
        ]
        self._head = make([head])

    def hidden(self, ids: Tensor, cache: Cache) -> Tensor:
        """See `Step`."""
        base = self._base
        x = F.embedding(ids, base.embed_tokens.weight)
        cos, sin = (each[0][:, None] for each in base.rotary_emb(x[None], cache.positions[None]))
        half = sin.shape[-1] // 2
        sin = torch.cat([-sin[..., :half], sin[..., half:]], -1)
        for index, (layer, products) in enumerate(zip(base.layers, self._products, strict=True)):
            project, output, widen, narrow = products
            query, key, value = _heads(layer.self_attn, project(_norm(layer.input_layernorm, x)), cos, sin)
            attended = cache.attend(index, query, key, value, layer.self_attn.scaling)
            x = output(attended.flatten(1))[0].add_(x)
            gate, up = widen(_norm(layer.post_attention_layernorm, x))
            x = narrow(layer.mlp.act_fn(gate).mul_(up))[0].add_(x)
        cache.advance()
        return _norm(base.norm, x)

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Step`."""
        return self._head(hidden)[0]


def _heads(attention: Any, products: Sequence[Tensor], cos: Tensor, sin: Tensor) -> Sequence[Tensor]:
    """Queries [B, H, D], keys and values [B, KV, D]; the first two normalised where the model does that, and rotated.

    `sin` carries the sign of the half that comes over from the other side.
    """
    query, key, value = (x.reshape(len(x), -1, attention.head_dim) for x in products)
    if hasattr(attention, "q_norm"):
        query, key = _norm(attention.q_norm, query), _norm(attention.k_norm, key)
    both = torch.cat([query, key], 1)
    both = both.roll(both.shape[-1] // 2, -1).mul_(sin).add_(both.mul_(cos))
    return both[:, : query.shape[1]], both[:, query.shape[1] :], value


def _norm(norm: Any, x: Tensor) -> Tensor:
    """w * x / sqrt(mean(x^2) + eps) over the last dimension, in float32 but for the weight."""
    if x.device.type == "cpu" and x.dtype == torch.float32:  # the same operations in one call
        return F.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)
    y = x.float()
    y = y * y.pow(2).mean(-1, keepdim=True).add_(norm.variance_epsilon).rsqrt_()
    scaled: Tensor = norm.weight * y.to(x.dtype)
    return scaled


def _plain(layers: Sequence[Weights]) -> Products:
    return lambda x: [F.linear(x, weight, bias) for weight, bias in layers]


def _laid_out(layers: Sequence[Weights]) -> Products:
    """One product for all layers, its weights in the order in which oneDNN reads them."""
    weight = torch.ops.mkldnn._reorder_linear_weight(torch.cat([weight for weight, _ in layers]).detach())
    biases = [bias.detach() for _, bias in layers if bias is not None]
    bias = torch.cat(biases) if biases else None
    sizes = [len(weight) for weight, _ in layers]
    product = torch.ops.mkldnn._linear_pointwise.default
    return lambda x: product(x, weight, bias, "none", [], "").split(sizes, -1)


def can_lay_out(device: str, dtype: torch.dtype) -> bool:
    """Whether a device multiplies faster by weights in a layout of its own, of which a rollout then holds a copy."""
    if device != "cpu" or dtype != torch.bfloat16:
        return False
    return bool(torch._C._has_mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_known_blocks(model: PreTrainedModel) -> bool:
    """Whether a model's blocks are of the classes that are written out here, weights aside.

    Not where a layer is another one (an adapter, a quantised one) or has hooks.
    """
    for name, module in model.base_model.named_modules():
        kind = type(module)
        known = kind in LEAVES or f"{kind.__module__}.{kind.__qualname__}" in WRITTEN_OUT or name.endswith(".act_fn")
        if not known or module._forward_hooks or module._forward_pre_hooks:
            return False
    return True


@torch.no_grad()
def is_written_out(model: PreTrainedModel, head: Weights) -> bool:
    """Whether a model's blocks are known and give what transformers' forward pass gives."""
    if not has_known_blocks(model):
        return False
    theirs = _probe(model, LibraryStep(model, head))
    difference = (_probe(model, BlockStep(model, head, laid_out=False)) - theirs).norm() / theirs.norm()
    return bool(difference <= ROUNDING[model.dtype])


def _probe(model: PreTrainedModel, step: Step) -> Tensor:
    """States of two tokens after each of two prompts."""
    device, base = model.device, model.base_model
    prompts = [torch.arange(n, device=device) % model.config.vocab_size for n in (3, 2)]
    cache = make_cache(prompts, 1, 3)
    prefill = Packed(prompts, cache=cache)
    base(input_ids=prefill.input_ids, position_ids=prefill.positions, use_cache=False, layout=prefill)
    tokens = torch.tensor([[1, 0], [0, 1]], device=device)
    return torch.cat([step.hidden(ids, cache) for ids in tokens]).float()
