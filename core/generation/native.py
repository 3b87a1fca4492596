"""The native generator: transformers' model, our own cached decoding loop."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor

from core.generation.base import PER_TOKEN, Generation, Request, check_context
from core.generation.episodes import Episodes
from core.generation.noise import SMALL_VOCABULARY, Noise, PartialNoise, TurnNoise, make_noise
from core.model.caching import make_cache
from core.model.packing import Packed
from core.model.policy import Policy
from core.model.truncation import NEVER, Truncation, log_mass
from core.parts.contracts import generator
from core.parts.settings import SHARE

BLOCK_ELEMENTS: Final = {"cpu": 1 << 18, "other": 1 << 27}
"""Logits that are drawn from at a time, in float32, by kind of device: on a CPU they stay in its cache, elsewhere a
block and what is made of it take some GiB at the most."""
MANY_NUMBERS: Final = 1 << 24
"""Hidden states of all tokens and layers up to which requests share a batch: keys and values are twice as many."""


@dataclass(frozen=True)
class Native:
    """Prefills each prompt once for all its samples, retires finished rows, samples with keyed noise.

    Finished rows are dropped from the batch when at most `retire_at` of its rows are still alive: dropping copies the
    cache, so it is not done for every single one.
    """

    retire_at: float
    exact = True
    """Its probabilities are the trainer's: same weights, same code."""
    reports_distributions = True
    """See `core.generation.base.reports_distributions`."""
    plays_episodes = True
    """What an environment says is read in the decoding that goes on, a token a step, as other rows write theirs."""

    def generate(self, policy: Policy, requests: Sequence[Request]) -> list[Generation]:
        """See `core.generation.Generator`; small requests about the same prompts in one batch, others one by one."""
        answers: list[Generation] = []
        for batch in _batches(policy, requests):
            answers += self._answer(policy, batch)
        return answers

    @torch.no_grad()
    def _answer(self, policy: Policy, requests: Sequence[Request]) -> list[Generation]:
        """Of requests about the same prompts; the batch has all samples of a prompt side by side."""
        for request in requests:
            check_context(policy, request)
        prompts, max_tokens, temperature = requests[0].prompts, requests[0].max_tokens, requests[0].temperature
        cut, with_support = requests[0].cut, requests[0].with_support
        sizes, device = [request.samples for request in requests], policy.device
        P, samples = len(prompts), sum(sizes)
        if P == 0:
            return [Generation.empty(size, device) for size in sizes]
        B = P * samples
        ends = torch.tensor(policy.end_tokens).to(device, non_blocking=True)
        episodes = requests[0].episodes
        rows_to_end = _Episodes(policy, requests[0], episodes) if episodes else _OneTurn(policy, requests, ends)
        step = policy.step(B * max_tokens)

        cache = make_cache(prompts, samples, max_tokens)
        prefill = Packed(prompts, cache=cache)
        hidden = policy.hidden(prefill.input_ids, prefill.positions, prefill)[prefill.prompt_end]
        logits = step.logits(hidden).repeat_interleave(samples, 0)

        drawn: list[Sequence[Tensor]] = []  # by step: rows, their tokens, log-probs, entropies, and what is kept
        rows = torch.arange(B, device=device)  # which response each row of the batch is
        for t in range(max_tokens):
            taken = rows_to_end.take(_draw(logits, temperature, rows_to_end.noise(t), cut, with_support))
            drawn.append((rows, *taken))
            next_tokens = taken[0]
            left = rows_to_end.left()  # what else is asked of the host needs no answer from the device
            remaining = int(left.sum())
            if remaining == 0 or t + 1 == max_tokens:
                break
            if remaining <= self.retire_at * len(rows):
                kept = left.nonzero()[:, 0]
                cache.keep(kept)
                rows_to_end.keep(kept)
                kept = kept.to(device, non_blocking=True)
                rows, next_tokens = rows[kept], next_tokens[kept]
            logits = step.logits(step.hidden(next_tokens, cache))

        steps = len(drawn)
        places = torch.cat([step_rows * steps + t for t, (step_rows, *_) in enumerate(drawn)])
        ends_at = list(itertools.accumulate(sizes, initial=0))
        whole = [
            x.new_zeros(B * steps, *x.shape[1:]).index_copy_(0, places, x).view(P, samples, steps, *x.shape[1:])
            for x in map(torch.cat, list(zip(*drawn, strict=True))[1:])
        ]
        if episodes:
            return [Generation.of_episodes(episodes, whole)]
        going = _goes_on(whole[0], ends)
        return [_generation([x[:, i:j] for x in whole], going[:, i:j]) for i, j in itertools.pairwise(ends_at)]


class _Rows(Protocol):
    """What a batch's rows draw with, and which of them go on."""

    def noise(self, t: int) -> Tensor | None:
        """Noise [b, V] for the next token, the t-th of the longest response; None where all are greedy."""
        ...

    def take(self, drawn: Sequence[Tensor]) -> Sequence[Tensor]:
        """What `_draw` gave, as the rows go on with it."""
        ...

    def left(self) -> Tensor:
        """[b], bool, on the host: which of the rows go on."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone, by where they are among the present ones [b], on the host."""
        ...


class _OneTurn:
    """Responses that are over with the first end of sequence."""

    def __init__(self, policy: Policy, requests: Sequence[Request], ends: Tensor) -> None:
        self._noise, self._ends = _noise(policy, requests), ends
        rows = sum(len(request.prompts) * request.samples for request in requests)
        self._alive = torch.ones(rows, dtype=torch.bool, device=policy.device)

    def noise(self, t: int) -> Tensor | None:
        """See `_Rows`."""
        return self._noise.at(t) if self._noise else None

    def take(self, drawn: Sequence[Tensor]) -> Sequence[Tensor]:
        """See `_Rows`."""
        self._alive = self._alive & _goes_on(drawn[0], self._ends)
        return drawn

    def left(self) -> Tensor:
        """See `_Rows`."""
        return self._alive.cpu()

    def keep(self, rows: Tensor) -> None:
        """See `_Rows`."""
        rows = rows.to(self._alive.device, non_blocking=True)
        if self._noise:
            self._noise.keep(rows)
        self._alive = self._alive[rows]


class _Episodes:
    """Responses of several turns: where an environment has spoken, its tokens come instead of drawn ones."""

    def __init__(self, policy: Policy, request: Request, episodes: Episodes) -> None:
        self._episodes, self._device = episodes, policy.device
        self._rows = torch.arange(len(request.prompts) * request.samples)
        keys = request.noise_keys(policy.device).flatten()
        drawn = request.noise_key is not None
        self._noise = TurnNoise(keys, policy.vocabulary, request.noise_key or 0) if drawn else None
        self._left = torch.ones(len(self._rows), dtype=torch.bool)

    def noise(self, t: int) -> Tensor | None:  # noqa: ARG002 - every row has a position of its own
        """See `_Rows`."""
        return self._noise.at(*self._episodes.places(self._rows)) if self._noise else None

    def take(self, drawn: Sequence[Tensor]) -> Sequence[Tensor]:
        """See `_Rows`."""
        tokens, *measured = drawn
        if forced := self._episodes.forced(self._rows):
            reads, ids = (x.to(self._device, non_blocking=True) for x in forced)
            tokens = torch.where(reads, ids, tokens)
            # of a mask of kept tokens all: a distribution cut down to none has no logarithms
            measured = [x.masked_fill(reads.view(-1, *(1,) * (x.ndim - 1)), x.dtype == torch.bool) for x in measured]
        self._left = self._episodes.take(self._rows, tokens.cpu())
        return [tokens, *measured]

    def left(self) -> Tensor:
        """See `_Rows`."""
        return self._left

    def keep(self, rows: Tensor) -> None:
        """See `_Rows`."""
        self._rows, self._left = self._rows[rows], self._left[rows]
        if self._noise:
            self._noise.keep(rows.to(self._device, non_blocking=True))


def _batches(policy: Policy, requests: Sequence[Request]) -> list[list[Request]]:
    """Requests by turns, those together that may be: what a step takes beside its products is then taken once.

    Of a small vocabulary, where every row has noise of its own; at a temperature of 1, which greedy rows share; and
    while keys and values are few.
    """
    batches: list[list[Request]] = []
    for request in requests:
        last = batches[-1] if batches else []
        if last and policy.vocabulary <= SMALL_VOCABULARY and _alike(last[0], request):
            config = policy.model.config.get_text_config()
            columns = max(map(len, request.prompts), default=0) + request.max_tokens
            most = most_samples(len(request.prompts), columns, config.num_hidden_layers, config.hidden_size)
            if sum(each.samples for each in [*last, request]) <= most:
                last.append(request)
                continue
        batches.append([request])
    return batches


def most_samples(prompts: int, columns: int, layers: int, hidden: int) -> int:
    """Samples a prompt up to which requests share a batch, of at most so many columns."""
    return MANY_NUMBERS // max(1, prompts * columns * layers * hidden)


def _alike(one: Request, other: Request) -> bool:
    same = len(one.prompts) == len(other.prompts) and all(
        a is b for a, b in zip(one.prompts, other.prompts, strict=True)
    )
    return (
        same
        and one.episodes is other.episodes is None
        and one.temperature == other.temperature == 1
        and (one.max_tokens, one.slot_numbers) == (other.max_tokens, other.slot_numbers)
        and one.cut == other.cut
        and (one.cut is None or one.with_support == other.with_support)
    )


def _noise(policy: Policy, requests: Sequence[Request]) -> Noise | None:
    """Of every row by its own request's key; none for greedy ones."""
    drawn = [request.noise_key for request in requests if request.noise_key is not None]
    if not drawn:
        return None
    keys = [each.noise_keys(policy.device) for each in requests]
    noise = make_noise(torch.cat(keys, 1).flatten(), policy.vocabulary, drawn[0])
    if len(drawn) == len(requests):
        return noise
    greedy = [torch.full_like(row, each.noise_key is None) for row, each in zip(keys, requests, strict=True)]
    return PartialNoise(noise, torch.cat(greedy, 1).flatten().bool())


def _generation(drawn: Sequence[Tensor], going: Tensor) -> Generation:
    """Of one request, what `_draw` gave at N steps, [P, S, N] each; `going` is False at tokens that end a response.

    After its end a row draws on until it is retired: what counts is the first one.
    """
    lengths = going.cumprod(-1).sum(-1).add_(1).clamp_(max=going.shape[-1])
    T = int(lengths.max())
    mask = torch.arange(T, device=going.device) < lengths[..., None]
    filled = {
        name: x[:, :, :T].masked_fill(~mask.view(*mask.shape, *(1,) * (x.ndim - 3)), 0)
        for name, x in zip(PER_TOKEN, drawn, strict=False)
    }
    return Generation(**filled, mask=mask, truncated=going.all(-1))


def _goes_on(tokens: Tensor, ends: Tensor) -> Tensor:
    """Whether each token is none of `ends`, at least one."""
    going = tokens != ends[0]
    for end in ends[1:]:
        going &= tokens != end
    return going


def _draw(
    logits: Tensor,
    temperature: float,
    noise: Tensor | None,
    cut: Truncation | None = None,
    with_support: bool = False,
) -> Sequence[Tensor]:
    """Next token of each row, its log-probability and the entropy of what it was drawn from, each [b].

    Greedy tokens are reported under the untempered distribution, since at temperature 0 there is none. Where
    something is cut, also log S of what is kept [b], and with `with_support` which tokens are [b, V]. A block of rows
    at a time.
    """
    rows = max(1, BLOCK_ELEMENTS["cpu" if logits.device.type == "cpu" else "other"] // logits.shape[1])
    starts = range(0, len(logits), rows)
    blocks = [
        _draw_block(
            logits[i : i + rows].float(), temperature, None if noise is None else noise[i : i + rows], cut, with_support
        )
        for i in starts
    ]
    return blocks[0] if len(blocks) == 1 else [torch.cat(column) for column in zip(*blocks, strict=True)]


def _draw_block(
    logits: Tensor, temperature: float, noise: Tensor | None, cut: Truncation | None, with_support: bool
) -> Sequence[Tensor]:
    if noise is not None and temperature != 1:
        logits = logits / temperature
    of_cut: list[Tensor] = []
    if cut is not None:
        kept = cut.kept(logits)
        of_cut = [log_mass(logits, kept), kept][: 1 + with_support]
        logits = logits.masked_fill(~kept, NEVER)
    log_probs = torch.log_softmax(logits, -1)
    chosen = (logits if noise is None else noise + logits).argmax(-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    return chosen, log_probs.gather(-1, chosen[:, None])[:, 0], entropy, *of_cut


@generator(limits={"retire_at": SHARE})
def native(*, retire_at: float = 0.75) -> Native:
    """Decoding inside this process, on the policy's own weights: sampler and trainer agree to rounding."""
    return Native(retire_at)
