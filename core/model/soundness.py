"""The check at load: packed, cached and repeated, a model computes what it computes plainly, or it is refused.

Distributions are not compared alone: those of a fresh model are nearly flat, whatever its attention does. What is
compared is what every layer hands to attention, attention on inputs that show differences, states relative to their
size, and what becomes of logits that are large.
"""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from core.errors import GrpoLabError, brief, cause_of
from core.model.caching import make_cache
from core.model.packing import ATTENTION, Layout, Packed, attention

PROBE: Final = "grpo_lab_probe"
TOLERANCE: Final = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.1}
"""Largest relative difference that counts as rounding: of float32 about 1e-6, of bfloat16 about 0.02."""
SPREAD: Final = 4.0
"""Standard deviation of the attention scores that are compared: biases, caps and sinks all show."""
LOUD: Final = 100.0
"""Standard deviation of the logits that must come out of the model as they came out of its last layer."""


@torch.no_grad()
def check_trunk(model: PreTrainedModel, where: str) -> None:
    """Switch to packed attention; raise `GrpoLabError` where a trunk would then not compute what it did.

    `where` names the model in messages. Neither weights nor random numbers change.
    """
    with _refusing(model, where):
        _check_configuration(model.config.get_text_config())
        draw = torch.Generator().manual_seed(0)
        most = min(model.config.get_text_config().vocab_size, 1000)
        prompts, responses = (
            [torch.randint(most, (size,), generator=draw).to(model.device) for size in sizes]
            for sizes in ((6, 3), (5, 4, 6))
        )
        owner = (0, 0, 1)
        sequences = [torch.cat([prompts[p], response]) for p, response in zip(owner, responses, strict=True)]
        base: Any = model.base_model
        plain = [base(input_ids=ids[None], use_cache=False).last_hidden_state[0] for ids in sequences]
        model.set_attn_implementation(PROBE)
        packed = _Recorder(Packed(prompts, responses, owner), model)
        states = _states(base, packed.layout.input_ids, packed.layout.positions, packed)
        # its flat places are not its positions
        alone = _Recorder(Packed([sequences[2]]), model)
        base(input_ids=sequences[2][None], use_cache=False, layout=alone)
        _check_layers(packed, alone, [*range(6, 9), *range(18, 24)], model)
        whole = torch.cat([states[:6], states[9:14], states[:6], states[14:18], states[6:9], states[18:24]])
        _compare(whole, torch.cat(plain), model, "other states when sequences are packed")
        model.set_attn_implementation(ATTENTION)
        _check_cache(base, prompts, [responses[0], responses[2]], [plain[0], plain[2]], model)


@torch.no_grad()
def check_head(model: PreTrainedModel, head: nn.Module, where: str) -> None:
    """Raise `GrpoLabError` where a model's logits are not its linear `head` on its trunk's last states, and no more."""
    with _refusing(model, where):
        if not isinstance(head, nn.Linear):
            raise GrpoLabError(f"has an output layer of type {type(head).__name__}, which is not linear")
        config = model.config.get_text_config()
        # classifiers read the last token that is not padding
        usual = (token for token in range(config.vocab_size) if token != getattr(config, "pad_token_id", None))
        ids = torch.tensor(list(itertools.islice(usual, 5)), device=model.device)
        loud = LOUD * torch.randn(len(ids), head.out_features, generator=torch.Generator().manual_seed(0))
        loud = loud.to(head.weight)[None]
        captured: dict[str, Tensor] = {}

        def replace_output(_: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            captured["states"], captured["output"] = inputs[0], output
            return loud

        hook = head.register_forward_hook(replace_output)
        try:
            layout = Packed([ids])
            logits = model(input_ids=ids[None], use_cache=False, layout=layout).logits
        finally:
            hook.remove()
        states = _states(model.base_model, layout.input_ids, layout.positions, layout)
        _compare(captured["states"][0], states, model, "its output layer other states than its last ones")
        _compare(
            captured["output"], F.linear(captured["states"], head.weight, head.bias), model, "other logits than W h + b"
        )
        if not torch.equal(logits.float().reshape(-1, head.out_features), loud[0, -logits[..., 0].numel() :].float()):
            raise GrpoLabError("does more to its logits than its output layer (scales, caps or masks them)")


@torch.no_grad()
def check_repeats(model: PreTrainedModel, where: str) -> None:
    """Raise `GrpoLabError` where equal passes, with and without a gradient, differ: where some dropout stays on."""
    with _refusing(model, where):
        ids = torch.arange(min(8, model.config.get_text_config().vocab_size), device=model.device)
        layout = Packed([ids])
        once = _states(model.base_model, layout.input_ids, layout.positions, layout)
        with torch.enable_grad():
            twice = _states(model.base_model, layout.input_ids, layout.positions, layout).detach()
        for other, what in (
            (_states(model.base_model, layout.input_ids, layout.positions, layout), "two passes"),
            (twice, "passes with and without a gradient"),
        ):
            _compare(other, once, model, f"other states in {what} over the same tokens: some dropout stays on")


@contextlib.contextmanager
def _refusing(model: PreTrainedModel, where: str) -> Iterator[None]:
    """Raise that a model is not supported, and why."""
    try:
        yield
    except Exception as error:  # whatever a model that was not made for it makes of packed rows
        if cause_of(error) == "infrastructure":
            raise
        reason = brief(error)
        if not isinstance(error, GrpoLabError):
            reason = f"does not take packed sequences: {type(error).__name__}: {reason}"
        raise GrpoLabError(
            f"{where}: {type(model).__name__} {reason}. Supported are transformers with full causal attention and a "
            "plain output layer (Llama, Qwen2, Qwen3, SmolLM3, OLMo and the like)"
        ) from error


# --- configuration ---------------------------------------------------------------------------------------------------


def context_of(config: PreTrainedConfig) -> int:
    """How long a sequence may be.

    Where rotary frequencies change as sequences grow (longrope), what they are computed for at first: beyond, a
    response's probabilities would depend on the longest other one in its pass.
    """
    text = config.get_text_config()
    context = getattr(text, "max_position_embeddings", None)
    if not isinstance(context, int):
        raise GrpoLabError(f"{type(text).__name__} has no max_position_embeddings: how long a sequence may be")
    rope = getattr(text, "rope_parameters", None) or {}
    for one in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if one.get("rope_type") == "longrope":
            context = min(context, int(one.get("original_max_position_embeddings") or context))
    return context


def _check_configuration(config: PreTrainedConfig) -> None:
    """Raise on what a short probe cannot see: windows and chunks shorter than the context, other kinds of layers."""
    context = context_of(config)
    kinds = getattr(config, "layer_types", None)
    if strange := sorted(set(kinds or ()) - {"full_attention", "sliding_attention"}):
        raise GrpoLabError(f"has layers of the kind {strange[0]}")
    window = getattr(config, "sliding_window", None)
    used = "sliding_attention" in kinds if kinds else getattr(config, "use_sliding_window", True)
    if window is not None and used and window < context:
        raise GrpoLabError(f"looks back {window} tokens only (sliding_window), in a context of {context}")
    chunk = getattr(config, "attention_chunk_size", None)
    if chunk is not None and chunk < context:
        raise GrpoLabError(f"attends within chunks of {chunk} tokens (attention_chunk_size), in a context of {context}")
    if getattr(config, "alibi", False):
        raise GrpoLabError("adds ALiBi's biases to its attention scores")


# --- attention -------------------------------------------------------------------------------------------------------


class _Recorder:
    """A layout that keeps what every layer handed to attention."""

    def __init__(self, layout: Packed, model: PreTrainedModel) -> None:
        self.layout = layout
        self.context = context_of(model.config)
        self.layers: list[int] = []
        self.inputs: list[Tensor] = []
        """[N, (H + 2 KV) * D] of each layer: queries, keys and values of every token."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """What the layout itself gives."""
        self.layers.append(layer)
        self.inputs.append(torch.cat([x.flatten(1) for x in (query, key, value)], 1))
        return self.layout.attend(layer, query, key, value, scale)


def _compared(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    *,
    layout: Layout | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Packed attention, after a comparison with the model's own on random queries, keys and values."""
    window = options.get("sliding_window")
    if isinstance(layout, _Recorder) and isinstance(window, int) and window < layout.context:
        raise GrpoLabError(f"looks back {window} tokens only, in a context of {layout.context}")
    out = attention(module, query, key, value, attention_mask, scaling, dropout, layout=layout, **options)
    own: Callable[..., Any] | None = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if own is None:
        raise GrpoLabError("has no plain attention to compare packed attention with")
    draw, N = torch.Generator().manual_seed(0), 12
    q, k, v = (torch.randn(1, x.shape[1], N, x.shape[3], generator=draw).to(query.device) for x in (query, key, value))
    q = q * (SPREAD / (scaling * q.shape[3] ** 0.5))
    causal = torch.full((N, N), torch.finfo(q.dtype).min, device=q.device).triu(1)[None, None]
    expected = own(module, q, k, v, causal, scaling=scaling, dropout=0.0, **options)[0][0]
    ours = Packed([torch.zeros(N, dtype=torch.long, device=q.device)])
    computed = ours.attend(0, q[0].transpose(0, 1), k[0].transpose(0, 1), v[0].transpose(0, 1), scaling)
    if not _relative(computed, expected.reshape_as(computed)) <= TOLERANCE[torch.float32]:
        raise GrpoLabError(f"computes more in {type(module).__name__} than softmax attention")
    return out


AttentionInterface.register(PROBE, _compared)


def _check_layers(packed: _Recorder, alone: _Recorder, places: Sequence[int], model: PreTrainedModel) -> None:
    """Every layer must attend once, in order, to what it would attend to in a sequence of its own."""
    layers = list(range(model.config.get_text_config().num_hidden_layers))
    if packed.layers != layers:
        raise GrpoLabError(
            f"does not attend once in each of its {len(layers)} layers by transformers' attention interface, but "
            f"{len(packed.layers)} times"
        )
    for computed, expected in zip(packed.inputs, alone.inputs, strict=True):
        _compare(
            computed[places], expected, model, "other queries, keys or values when sequences are packed (positions)"
        )


def _check_cache(
    base: nn.Module,
    prompts: Sequence[Tensor],
    responses: Sequence[Tensor],
    plain: Sequence[Tensor],
    model: PreTrainedModel,
) -> None:
    """Two tokens of each response, one by one."""
    steps = 2
    cache = make_cache(prompts, 1, steps + 1)
    prefill = Packed(prompts, cache=cache)
    computed = [_states(base, prefill.input_ids, prefill.positions, prefill)[prefill.prompt_end]]
    for step in range(steps):
        tokens = torch.stack([response[step] for response in responses])
        computed.append(_states(base, tokens[None], cache.positions[None], cache))
        cache.advance()
    expected = [
        torch.stack([states[len(p) - 1 + step] for states, p in zip(plain, prompts, strict=True)])
        for step in range(steps + 1)
    ]
    _compare(torch.cat(computed), torch.cat(expected), model, "other states when its keys and values are cached")


def _states(base: Any, ids: Tensor, positions: Tensor, layout: Layout) -> Tensor:
    states: Tensor = base(input_ids=ids, position_ids=positions, use_cache=False, layout=layout).last_hidden_state[0]
    return states


def _compare(computed: Tensor, expected: Tensor, model: PreTrainedModel, what: str) -> None:
    difference = _relative(computed, expected)
    if not difference <= TOLERANCE.get(model.dtype, 1e-3):  # refuses NaN, too
        raise GrpoLabError(f"gives {what} (relative difference {difference:.2g})")


def _relative(computed: Tensor, expected: Tensor) -> float:
    expected = expected.float()
    return float((computed.float() - expected).norm() / expected.norm().clamp_min(torch.finfo(torch.float32).tiny))
