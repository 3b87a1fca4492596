"""The native generator: transformers' model, our own cached decoding loop."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from core.generation.base import Generation, Request, check_context
from core.generation.noise import make_noise
from core.model.caching import make_cache
from core.model.packing import Packed
from core.model.policy import Policy
from core.parts.contracts import generator
from core.parts.settings import SHARE
from core.randomness import row_keys

BLOCK_ELEMENTS: Final = 1 << 18
"""Logits that are drawn from at a time on a CPU, in float32."""


@dataclass(frozen=True)
class Native:
    """Prefills each prompt once for all its samples, retires finished rows, samples with keyed noise.

    Finished rows are dropped from the batch when at most `retire_at` of its rows are still alive: dropping copies the
    cache, so it is not done for every single one.
    """

    retire_at: float
    exact = True
    """Its probabilities are the trainer's: same weights, same code."""

    def generate(self, policy: Policy, requests: Sequence[Request]) -> list[Generation]:
        """See `core.generation.Generator`; one request after the other."""
        return [self._answer(policy, request) for request in requests]

    @torch.no_grad()
    def _answer(self, policy: Policy, request: Request) -> Generation:
        check_context(policy, request)
        prompts, samples, max_tokens = request.prompts, request.samples, request.max_tokens
        P, device = len(prompts), policy.device
        if P == 0:
            return Generation.empty(samples, device)
        B = P * samples
        noise = None
        if request.noise_key is not None:
            slots = (request.first_slot + torch.arange(P, device=device)).repeat_interleave(samples)
            keys = row_keys(request.noise_key, slots, torch.arange(samples, device=device).repeat(P))
            noise = make_noise(keys, policy.vocabulary, request.noise_key)
        ends = torch.tensor(policy.end_tokens, device=device)
        step = policy.step(B * max_tokens)

        cache = make_cache(prompts, samples, max_tokens)
        prefill = Packed(prompts, cache=cache)
        hidden = policy.hidden(prefill.input_ids, prefill.positions, prefill)[prefill.prompt_end]
        logits = policy.logits(hidden).repeat_interleave(samples, 0)

        drawn: list[Sequence[Tensor]] = []  # by step: rows, their tokens, log-probs and entropies
        rows = torch.arange(B, device=device)  # which response each row of the batch is
        alive = torch.ones(B, dtype=torch.bool, device=device)
        for t in range(max_tokens):
            next_tokens, *measured = _draw(logits, request.temperature, noise.at(rows, t) if noise else None)
            drawn.append((rows, next_tokens, *measured))
            alive = alive & _differs(next_tokens, ends)
            remaining = int(alive.sum())
            if remaining == 0 or t + 1 == max_tokens:
                break
            if remaining <= self.retire_at * len(rows):
                cache.keep(alive)
                rows, next_tokens, alive = rows[alive], next_tokens[alive], alive[alive]
            logits = step.logits(step.hidden(next_tokens, cache))

        steps = len(drawn)
        places = torch.cat([step_rows * steps + t for t, (step_rows, *_) in enumerate(drawn)])
        tokens, logps, entropy = (
            torch.cat(column).new_zeros(B * steps).index_copy_(0, places, torch.cat(column)).view(B, steps)
            for column in list(zip(*drawn, strict=True))[1:]
        )
        going = _differs(tokens, ends)
        # after its end a row draws on until it is retired: what counts is the first one
        lengths = going.cumprod(1).sum(1).add_(1).clamp_(max=steps)
        truncated = going.all(1)
        T = int(lengths.max())
        mask = torch.arange(T, device=device) < lengths[:, None]
        filled = [torch.where(mask, x[:, :T], torch.zeros_like(x[:, :T])) for x in (tokens, logps, entropy)]
        shaped = [x.view(P, samples, T) for x in (*filled, mask)]
        return Generation(
            tokens=shaped[0],
            logps=shaped[1],
            entropy=shaped[2],
            mask=shaped[3],
            truncated=truncated.view(P, samples),
        )


def _differs(tokens: Tensor, ends: Tensor) -> Tensor:
    """Whether each token is none of `ends`, at least one."""
    going = tokens != ends[0]
    for end in ends[1:]:
        going &= tokens != end
    return going


def _draw(logits: Tensor, temperature: float, noise: Tensor | None) -> Sequence[Tensor]:
    """Next token of each row, its log-probability and the entropy of what it was drawn from, each [b].

    Greedy tokens are reported under the untempered distribution, since at temperature 0 there is none. On a CPU a few
    rows at a time stay in its cache.
    """
    rows = max(1, BLOCK_ELEMENTS // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    starts = range(0, len(logits), rows)
    blocks = [
        _draw_block(logits[i : i + rows].float(), temperature, None if noise is None else noise[i : i + rows])
        for i in starts
    ]
    return blocks[0] if len(blocks) == 1 else [torch.cat(column) for column in zip(*blocks, strict=True)]


def _draw_block(logits: Tensor, temperature: float, noise: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    if noise is not None and temperature != 1:
        logits = logits / temperature
    log_probs = torch.log_softmax(logits, -1)
    chosen = (logits if noise is None else noise + logits).argmax(-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    return chosen, log_probs.gather(-1, chosen[:, None])[:, 0], entropy


@generator(limits={"retire_at": SHARE})
def native(*, retire_at: float = 0.75) -> Native:
    """Decoding inside this process, on the policy's own weights: sampler and trainer agree to rounding."""
    return Native(retire_at)
