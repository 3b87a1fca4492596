"""Log-probabilities of given tokens, and entropies, from hidden states: no [B, T, V] tensor is formed in float32."""

from collections.abc import Iterator
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from core.model.truncation import NEVER, Truncation, log_mass

CHUNK_ELEMENTS: Final = {"cpu": 1 << 27, "other": 1 << 28}
"""Logits that one product forms, in the precision of the weights, by kind of device.

Constants, not shares of what is free there: chunks decide in which order gradients add up, and equal runs must have
equal bits. Of every further chunk a GPU reads and writes the whole gradient of the output layer.
"""
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
        kept: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        logps, entropies = (torch.empty(len(tokens), dtype=torch.float32, device=hidden.device) for _ in range(2))
        norms = torch.empty_like(logps)
        chunks = _chunks(hidden, len(weight))
        for chunk in chunks:
            logits = F.linear(hidden[chunk], weight, bias)
            for block, rows in _blocks(logits, chunk):
                scores = _scores(block, temperature, kept, rows)
                norms[rows] = scores.logsumexp(-1)
                logps[rows] = scores.gather(-1, tokens[rows, None])[:, 0] - norms[rows]
                if entropy:
                    probs = torch.exp(scores - norms[rows, None])
                    entropies[rows] = norms[rows] - (probs * scores).sum(-1)
        ctx.save_for_backward(hidden, weight, bias, tokens, norms, entropies, kept)
        ctx.logits = logits if len(chunks) == 1 and any(ctx.needs_input_grad) else None
        ctx.temperature, ctx.entropy = temperature, entropy
        return logps, entropies if entropy else logps.new_empty(0)

    @staticmethod
    def backward(ctx: Any, grad_logps: Tensor, grad_entropies: Tensor) -> tuple[Any, ...]:
        hidden, weight, bias, tokens, norms, entropies, kept = ctx.saved_tensors
        d_hidden = torch.empty_like(hidden)
        d_weight: Tensor | None = None
        d_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        chunks = _chunks(hidden, len(weight))
        for chunk in chunks:
            # in place throughout, and block by block: the chunk of logits becomes that of their gradient
            d_logits = F.linear(hidden[chunk], weight, bias) if ctx.logits is None else ctx.logits
            ctx.logits = None
            for block, rows in _blocks(d_logits, chunk):
                scores = _scores(block, ctx.temperature, kept, rows)
                log_probs = scores.sub_(norms[rows, None])
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
        return d_hidden, d_weight, None if d_bias is None else d_bias.to(bias.dtype), None, None, None, None


def _slices(rows: int, columns: int, elements: int) -> list[slice]:
    """`rows` cut into runs of at most so many elements, at least one row each."""
    size = max(1, elements // columns)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def _kind(x: Tensor) -> str:
    return "cpu" if x.device.type == "cpu" else "other"


def _chunks(hidden: Tensor, vocabulary: int) -> list[slice]:
    return _slices(len(hidden), vocabulary, CHUNK_ELEMENTS[_kind(hidden)])


def _blocks(logits: Tensor, chunk: slice) -> Iterator[tuple[Tensor, slice]]:
    """Blocks of a chunk's logits, and where their rows are among all."""
    elements = BLOCK_ELEMENTS[_kind(logits)]
    for rows in _slices(len(logits), logits.shape[1], elements):
        yield logits[rows], slice(chunk.start + rows.start, chunk.start + rows.stop)


def _scores(logits: Tensor, temperature: float, kept: Tensor | None = None, rows: slice = slice(0)) -> Tensor:
    """Float32, of these rows of `kept` [N, V] without what is not kept; not a copy where nothing changes."""
    logits = logits.float()
    scores = logits if temperature == 1 else logits / temperature
    return scores if kept is None else scores.masked_fill(~kept[rows], NEVER)


def token_logps(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    entropy: bool = False,
    kept: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each token under softmax((hidden @ weight.T + bias) / temperature), and its entropy if asked.

    `hidden` [N, h], `weight` [V, h], `tokens` [N] int64; returns float32 [N] and [N] or None, in nats. With `kept`
    [N, V], bool, both are of that distribution cut down to these tokens and renormalised, pi' = pi / S, whose gradient
    is grad log pi - grad log S; every token must be among its kept ones. Differentiable in `hidden`, `weight` and
    `bias`. Memory: one chunk of logits in the precision of `weight`, at most 2^27 on a CPU and 2^28 elsewhere, and
    blocks in float32, of 2^18 and 2^24.
    """
    logps, entropies = _TokenLogps.apply(hidden, weight, bias, tokens, temperature, entropy, kept)  # type: ignore[no-untyped-call]
    return logps, entropies if entropy else None


@torch.no_grad()
def sum_squared_probs(
    hidden: Tensor, weight: Tensor, *, bias: Tensor | None, temperature: float, kept: Tensor | None = None
) -> Tensor:
    """sum_v pi_v^2 of softmax((hidden @ weight.T + bias) / temperature), float32 [N], without gradient.

    `hidden` [N, h], `weight` [V, h]; with `kept` [N, V] of that distribution cut down to these tokens. One chunk of
    logits is held at a time.
    """
    out = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    for block, rows in _all_blocks(hidden, weight, bias):
        scores = _scores(block, temperature, kept, rows)
        out[rows] = torch.softmax(scores, -1).square().sum(-1)
    return out


@torch.no_grad()
def support_logmass(
    hidden: Tensor, weight: Tensor, *, bias: Tensor | None, temperature: float, truncation: Truncation
) -> Tensor:
    """log S of what a truncation keeps of softmax((hidden @ weight.T + bias) / temperature), float32 [N], in nats.

    `hidden` [N, h], `weight` [V, h]. One chunk of logits is held at a time.
    """
    out = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    for block, rows in _all_blocks(hidden, weight, bias):
        scores = _scores(block, temperature)
        out[rows] = log_mass(scores, truncation.kept(scores))
    return out


def _all_blocks(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Iterator[tuple[Tensor, slice]]:
    """Blocks of all logits, and where their rows are, a chunk after the other."""
    for chunk in _chunks(hidden, len(weight)):
        yield from _blocks(F.linear(hidden[chunk], weight, bias), chunk)
