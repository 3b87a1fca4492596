"""Log-probabilities of given tokens, and entropies, from hidden states: no [B, T, V] tensor is formed in float32."""

from collections.abc import Iterator
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_ELEMENTS = 1 << 27
"""Logits that one product forms, in the precision of the weights."""
BLOCK_ELEMENTS: Final = {"cpu": 1 << 18, "other": 1 << 24}
"""Logits held in float32 at a time, by kind of device: on a CPU they stay in its cache and need no fresh pages."""


class _TokenLogps(torch.autograd.Function):
    """Forward keeps the logits, where one chunk holds them all; else backward forms each chunk again."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        temperature: float,
        entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        logps, entropies = (torch.empty(len(tokens), dtype=torch.float32, device=hidden.device) for _ in range(2))
        norms = torch.empty_like(logps)
        chunks = _chunks(hidden, len(weight))
        for chunk in chunks:
            logits = F.linear(hidden[chunk], weight, bias)
            for block, rows in _blocks(logits, chunk):
                scores = _scores(block, temperature)
                norms[rows] = scores.logsumexp(-1)
                logps[rows] = scores.gather(-1, tokens[rows, None])[:, 0] - norms[rows]
                if entropy:
                    probs = torch.exp(scores - norms[rows, None])
                    entropies[rows] = norms[rows] - (probs * scores).sum(-1)
        ctx.save_for_backward(hidden, weight, bias, tokens, norms, entropies)
        ctx.logits = logits if len(chunks) == 1 and any(ctx.needs_input_grad) else None
        ctx.temperature, ctx.entropy = temperature, entropy
        return logps, entropies if entropy else logps.new_empty(0)

    @staticmethod
    def backward(ctx: Any, grad_logps: Tensor, grad_entropies: Tensor) -> tuple[Any, ...]:
        hidden, weight, bias, tokens, norms, entropies = ctx.saved_tensors
        d_hidden = torch.empty_like(hidden)
        d_weight: Tensor | None = None
        d_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        chunks = _chunks(hidden, len(weight))
        for chunk in chunks:
            # in place throughout, and block by block: the chunk of logits becomes that of their gradient
            d_logits = F.linear(hidden[chunk], weight, bias) if ctx.logits is None else ctx.logits
            ctx.logits = None
            for block, rows in _blocks(d_logits, chunk):
                log_probs = _scores(block, ctx.temperature).sub_(norms[rows, None])
                if ctx.entropy:  # dH/dz_v = -p_v * (log p_v + H)
                    slope = (log_probs + entropies[rows, None]).mul_(grad_entropies[rows, None])
                    d_scores = log_probs.exp_().mul_(slope.add_(grad_logps[rows, None]).neg_())
                else:
                    d_scores = log_probs.exp_().mul_(-grad_logps[rows, None])
                d_scores.scatter_add_(-1, tokens[rows, None], grad_logps[rows, None])
                if ctx.temperature != 1:
                    d_scores.div_(ctx.temperature)
                block.copy_(d_scores)
            d_hidden[chunk] = d_logits @ weight
            if ctx.needs_input_grad[1]:
                part = d_logits.T @ hidden[chunk]
                if len(chunks) > 1:  # several chunks add up in float32: bfloat16 would lose the small ones
                    part = part.float()
                d_weight = part if d_weight is None else d_weight.add_(part)
            if d_bias is not None:
                d_bias += d_logits.sum(0)
        if d_weight is not None:
            d_weight = d_weight.to(weight.dtype)
        return d_hidden, d_weight, None if d_bias is None else d_bias.to(bias.dtype), None, None, None


def _slices(rows: int, columns: int, elements: int) -> list[slice]:
    """`rows` cut into runs of at most so many elements, at least one row each."""
    size = max(1, elements // columns)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def _chunks(hidden: Tensor, vocabulary: int) -> list[slice]:
    return _slices(len(hidden), vocabulary, CHUNK_ELEMENTS)


def _blocks(logits: Tensor, chunk: slice) -> Iterator[tuple[Tensor, slice]]:
    """Blocks of a chunk's logits, and where their rows are among all."""
    elements = BLOCK_ELEMENTS["cpu" if logits.device.type == "cpu" else "other"]
    for rows in _slices(len(logits), logits.shape[1], elements):
        yield logits[rows], slice(chunk.start + rows.start, chunk.start + rows.stop)


def _scores(logits: Tensor, temperature: float) -> Tensor:
    """Float32; not a copy where nothing changes."""
    logits = logits.float()
    return logits if temperature == 1 else logits / temperature


def token_logps(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each token under softmax((hidden @ weight.T + bias) / temperature), and its entropy if asked.

    `hidden` [N, h], `weight` [V, h], `tokens` [N] int64; returns float32 [N] and [N] or None, in nats. Differentiable
    in `hidden`, `weight` and `bias`. Memory: one chunk of at most 2^27 logits in the precision of `weight`, and blocks
    in float32, on a CPU of 2^18.
    """
    logps, entropies = _TokenLogps.apply(hidden, weight, bias, tokens, temperature, entropy)  # type: ignore[no-untyped-call]
    return logps, entropies if entropy else None


@torch.no_grad()
def sum_squared_probs(hidden: Tensor, weight: Tensor, *, bias: Tensor | None, temperature: float) -> Tensor:
    """sum_v pi_v^2 of softmax((hidden @ weight.T + bias) / temperature), float32 [N], without gradient.

    `hidden` [N, h], `weight` [V, h]. One chunk of logits is held at a time.
    """
    out = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    for chunk in _chunks(hidden, len(weight)):
        for block, rows in _blocks(F.linear(hidden[chunk], weight, bias), chunk):
            out[rows] = torch.softmax(_scores(block, temperature), -1).square().sum(-1)
    return out
