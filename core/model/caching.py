"""Keys and values of responses that are being decoded, one token a step."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK: Final = 16
"""Columns that buffers grow by, or an eighth of what they hold where that is more: little of them is ever empty."""
MANY_COLUMNS: Final = 1 << 16
"""Columns of all prompts, counted once a response, from which they are held once a prompt."""


class Cache(ABC):
    """Keys and values of B responses; every row writes its next token to the same column of buffers that grow."""

    def __init__(self, prompts: Sequence[Tensor], samples: int, max_tokens: int) -> None:
        device = prompts[0].device
        lengths = torch.tensor([len(p) for p in prompts])
        self._width = int(lengths.max())
        start = lengths.cumsum(0) - lengths
        column = torch.arange(self._width) - (self._width - lengths)[:, None]  # prompts are stored right-aligned
        self._prompt_index = (start[:, None] + column.clamp(min=0)).to(device, non_blocking=True)
        self._bias = torch.zeros(len(prompts), 1, 1, self._width).masked_fill_(
            (column < 0)[:, None, None], float("-inf")
        )
        self._bias = self._bias.repeat_interleave(samples, 0).to(device, non_blocking=True)
        """[B, 1, 1, W]: added to scores of the prompts' columns."""
        self._samples, self._max_tokens = samples, max_tokens
        self._filled = 0
        """Columns of the buffers that hold something."""
        self._held: list[Tensor] = []
        """By layer, keys and values [2, B, KV, N, D]."""
        self.positions = lengths.repeat_interleave(samples).to(device, non_blocking=True)
        """[B]: position of the next token of each row."""

    def fill(self, layer: int, key_value: Tensor, heads: int) -> None:
        """Store the prompts' keys and values, side by side [N, 2KV*D], of one layer."""
        assert layer == len(self._held), "layers run in order"
        P, width = self._prompt_index.shape
        padded = F.embedding(self._prompt_index, key_value).view(P, width, 2, heads, -1)
        self._fill(padded.permute(2, 0, 3, 1, 4))

    @abstractmethod
    def _fill(self, prompts: Tensor) -> None:
        """Store a layer's keys and values [2, P, KV, W, D]."""

    @abstractmethod
    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """One new token for each of B rows: [B, H, D]."""

    def advance(self) -> None:
        """Go on to the next column, once every layer has written the present one."""
        self._filled += 1
        self.positions.add_(1)

    def keep(self, rows: Tensor) -> None:
        """Retire all rows but these [b], given on the host, so that later steps cost what the live rows cost."""
        rows = rows.to(self.positions.device, non_blocking=True)
        self._held = [x.index_select(1, rows) for x in self._held]
        self._bias = self._bias[rows]
        self.positions = self.positions[rows]

    def _write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write the present column, [B, KV, D] each; returns all columns so far, [B * KV, N, D] each."""
        held, N = self._held[layer], self._filled
        if held.shape[3] == N:
            held = self._held[layer] = _widened(held, min(max(BLOCK, N // 8), self._max_tokens))
        torch.stack((key, value), out=held[:, :, :, N])
        keys, values = held.flatten(1, 2)[:, :, : N + 1].unbind(0)
        return keys, values


def _widened(x: Tensor, more: int) -> Tensor:
    """Keys and values [..., N, D] with room for more columns; nothing is written there yet."""
    *outer, N, D = x.shape
    wide = x.new_empty(*outer, N + more, D)
    wide[..., :N, :] = x
    return wide


class RowCache(Cache):
    """Prompts are copied for each response: two products a layer.

    For one query and grouped heads they are several times faster on CPU than the fused attention kernel.
    """

    def __init__(self, prompts: Sequence[Tensor], samples: int, max_tokens: int) -> None:
        super().__init__(prompts, samples, max_tokens)
        self._filled = self._width

    def _fill(self, prompts: Tensor) -> None:
        rows = prompts[:, :, None].expand(-1, -1, self._samples, -1, -1, -1)
        self._held.append(_widened(rows, min(BLOCK, self._max_tokens)).flatten(1, 2))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `Cache`."""
        B, H, D = query.shape
        KV = key.shape[1]
        keys, values = self._write(layer, key, value)
        q = (query * scale).reshape(B * KV, H // KV, D)
        scores = torch.bmm(q, keys.transpose(1, 2)).view(B, KV, H // KV, -1).float()
        scores[..., : self._width].add_(self._bias)
        weights = torch.softmax(scores, -1).to(value.dtype)
        return torch.bmm(weights.view(B * KV, H // KV, -1), values).view(B, H, D)


class GroupCache(Cache):
    """Prompts are held once: all responses to one attend to it in one product, and each to its own tokens."""

    def __init__(self, prompts: Sequence[Tensor], samples: int, max_tokens: int) -> None:
        super().__init__(prompts, samples, max_tokens)
        self._prompts: list[Tensor] = []
        """By layer, keys and values [2, P, KV, W, D]."""
        self._group(torch.arange(len(prompts)).repeat_interleave(samples))

    def _group(self, prompt_of: Tensor) -> None:
        """Lay the rows, of which each answers `prompt_of` [B], ascending, out by prompt: [P, S], padded.

        All on the host, so that no device is waited for.
        """
        self._prompt_of, device = prompt_of, self.positions.device
        counts = prompt_of.bincount()
        self._shape = len(counts), int(counts.max())
        first = counts.cumsum(0) - counts
        rows = torch.arange(len(prompt_of))
        place = prompt_of * self._shape[1] + rows - first[prompt_of]
        row = torch.zeros(self._shape[0] * self._shape[1], dtype=torch.long)
        row[place] = rows
        self._place = place.to(device, non_blocking=True)
        """[B]: where each row lies in the layout."""
        self._row = row.to(device, non_blocking=True)
        """[P * S]: which row lies there."""

    def _fill(self, prompts: Tensor) -> None:
        self._prompts.append(prompts.contiguous())
        self._held.append(prompts.new_empty(2, len(self._prompt_of), prompts.shape[2], 0, prompts.shape[4]))

    def _of_prompts(self, x: Tensor, prompts: Tensor) -> Tensor:
        """Products of rows x [B, KV, R, m] with what belongs to their prompts [P, KV, m, n]: [B, KV, R, n]."""
        (P, S), (_, KV, R, m) = self._shape, x.shape
        grouped = x[self._row].view(P, S, KV, R, m).transpose(1, 2).reshape(P * KV, S * R, m)
        out = torch.bmm(grouped, prompts.flatten(0, 1)).view(P, KV, S, R, -1)
        return out.transpose(1, 2).reshape(P * S, KV, R, -1)[self._place]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `Cache`."""
        B, H, D = query.shape
        KV, W = key.shape[1], self._width
        prompt_keys, prompt_values = self._prompts[layer]
        keys, values = self._write(layer, key, value)
        q = (query * scale).view(B, KV, H // KV, D)
        of_prompt = self._of_prompts(q, prompt_keys.transpose(2, 3)).float() + self._bias
        own = torch.bmm(q.flatten(0, 1), keys.transpose(1, 2)).view(B, KV, H // KV, -1).float()
        weights = torch.softmax(torch.cat([of_prompt, own], -1), -1).to(value.dtype)
        out = torch.bmm(weights[..., W:].flatten(0, 1), values).view(B, KV, H // KV, D)
        return (out + self._of_prompts(weights[..., :W], prompt_values)).view(B, H, D)

    def keep(self, rows: Tensor) -> None:
        """See `Cache`; prompts that no row answers any more are dropped."""
        super().keep(rows)
        prompts, prompt_of = torch.unique(self._prompt_of[rows], return_inverse=True)
        if len(prompts) < self._shape[0]:
            prompts = prompts.to(self.positions.device, non_blocking=True)
            self._prompts = [x[:, prompts] for x in self._prompts]
        self._group(prompt_of)


def make_cache(prompts: Sequence[Tensor], samples: int, max_tokens: int) -> Cache:
    """For `samples` responses to each prompt, of at most `max_tokens` tokens: the faster one of these sizes."""
    columns = samples * len(prompts) * max(map(len, prompts))
    return (GroupCache if samples > 1 and columns > MANY_COLUMNS else RowCache)(prompts, samples, max_tokens)
