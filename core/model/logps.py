"""Log-probabilities of given tokens, and entropies, straight from hidden states: no [B, T, V] tensor is ever formed."""

from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 24
"""Logits held at a time, in float32: 64 MiB."""


class _TokenLogps(torch.autograd.Function):
    """Forward keeps the log-normalisers only; backward forms each chunk of logits again."""

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
        for rows in _chunks(len(tokens), len(weight)):
            logits = _logits(hidden[rows], weight, bias, temperature)
            norms[rows] = logits.logsumexp(-1)
            logps[rows] = logits.gather(-1, tokens[rows, None])[:, 0] - norms[rows]
            if entropy:
                probs = torch.exp(logits - norms[rows, None])
                entropies[rows] = norms[rows] - (probs * logits).sum(-1)
        ctx.save_for_backward(hidden, weight, bias, tokens, norms, entropies)
        ctx.temperature, ctx.entropy = temperature, entropy
        return logps, entropies if entropy else logps.new_empty(0)

    @staticmethod
    def backward(ctx: Any, grad_logps: Tensor, grad_entropies: Tensor) -> tuple[Any, ...]:
        hidden, weight, bias, tokens, norms, entropies = ctx.saved_tensors
        d_hidden = torch.empty_like(hidden)
        d_weight: Tensor | None = None
        d_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        chunks = _chunks(len(tokens), len(weight))
        for rows in chunks:
            # in place throughout: a chunk is the largest tensor of the whole backward pass
            log_probs = _logits(hidden[rows], weight, bias, ctx.temperature).sub_(norms[rows, None])
            if ctx.entropy:  # dH/dz_v = -p_v * (log p_v + H)
                slope = (log_probs + entropies[rows, None]).mul_(grad_entropies[rows, None])
                d_logits = log_probs.exp_().mul_(slope.add_(grad_logps[rows, None]).neg_())
            else:
                d_logits = log_probs.exp_().mul_(-grad_logps[rows, None])
            d_logits.scatter_add_(-1, tokens[rows, None], grad_logps[rows, None])
            if ctx.temperature != 1:
                d_logits.div_(ctx.temperature)
            d_logits = d_logits.to(weight.dtype)
            d_hidden[rows] = d_logits @ weight
            if ctx.needs_input_grad[1]:
                part = d_logits.T @ hidden[rows]
                if len(chunks) > 1:  # several chunks add up in float32: bfloat16 would lose the small ones
                    part = part.float()
                d_weight = part if d_weight is None else d_weight.add_(part)
            if d_bias is not None:
                d_bias += d_logits.sum(0)
        if d_weight is not None:
            d_weight = d_weight.to(weight.dtype)
        return d_hidden, d_weight, None if d_bias is None else d_bias.to(bias.dtype), None, None, None


def _chunks(tokens: int, vocabulary: int) -> list[slice]:
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    return [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)]


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias).float()
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
    in
    `hidden`, `weight` and `bias`. Memory: one chunk of at most 2^24 logits, and a few of its size in the backward pass.
    """
    logps, entropies = _TokenLogps.apply(hidden, weight, bias, tokens, temperature, entropy)  # type: ignore[no-untyped-call]
    return logps, entropies if entropy else None


@torch.no_grad()
def sum_squared_probs(hidden: Tensor, weight: Tensor, *, bias: Tensor | None, temperature: float) -> Tensor:
    """sum_v pi_v^2 of softmax((hidden @ weight.T + bias) / temperature), float32 [N], without gradient.

    `hidden` [N, h], `weight` [V, h]. One chunk of logits is held at a time.
    """
    out = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    for rows in _chunks(len(hidden), len(weight)):
        out[rows] = torch.softmax(_logits(hidden[rows], weight, bias, temperature), -1).square().sum(-1)
    return out
