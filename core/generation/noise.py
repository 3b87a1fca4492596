"""Sampling noise keyed by (rollout, prompt slot, sample, position): equal policies give equal text, similar ones stay
coupled.

A token is drawn as argmax(logits / temperature + Gumbel noise). Two policies that see the same noise then differ only
where their probabilities do, nearly as rarely as any coupling allows.
"""

from typing import Final, Protocol

import torch
from torch import Tensor

from core.randomness import fold, gumbel, uniform

SMALL_VOCABULARY: Final = 2048
DRAWN_AT_ONCE: Final = 1 << 20
"""Draws that are made at once, for several positions: one by one, most of the time would go into calls."""
MOST_POSITIONS: Final = 16
TABLE_SIZE: Final = 1 << 22


class Noise(Protocol):
    """Gumbel noise for whole vocabularies."""

    def at(self, rows: Tensor, position: int) -> Tensor:
        """Noise [len(rows), V] for these rows at this position."""
        ...


class DirectNoise:
    """One draw per (row, position, token): exact, and cheap for a small vocabulary."""

    def __init__(self, keys: Tensor, vocabulary: int) -> None:
        self._keys = keys
        self._tokens = torch.arange(vocabulary, device=keys.device)
        self._first, self._held, self._rows = 0, keys.new_empty(0), keys.new_empty(0)
        """From which position on noise [N, b, V] is held, and for which b rows."""
        self._place = torch.full_like(keys, -1)
        """[B]: where each row is among these."""

    def at(self, rows: Tensor, position: int) -> Tensor:
        """Noise [len(rows), V]; fastest for rows and positions as decoding goes through them."""
        if not self._first <= position < self._first + len(self._held):
            self._draw(rows, position)
        noise = self._held[position - self._first]
        if rows is self._rows:
            return noise
        place = self._place[rows]
        if bool((place < 0).any()):
            self._draw(rows, position)
            return self._held[0]
        return noise[place]

    def _draw(self, rows: Tensor, position: int) -> None:
        """Hold the noise of these rows from `position` on."""
        positions = max(1, min(MOST_POSITIONS, DRAWN_AT_ONCE // max(1, len(rows) * len(self._tokens))))
        keys = fold(self._keys[rows], torch.arange(position, position + positions, device=rows.device)[:, None])
        self._held = gumbel(fold(keys[..., None], self._tokens))
        self._first, self._rows = position, rows
        self._place.fill_(-1)
        self._place[rows] = torch.arange(len(rows), device=rows.device)


class PartialNoise:
    """Noise for some rows and none for others, which are greedy."""

    def __init__(self, noise: Noise, without: Tensor) -> None:
        self._noise, self._without = noise, without[:, None]

    def at(self, rows: Tensor, position: int) -> Tensor:
        """Noise [len(rows), V], 0 for rows without."""
        return self._noise.at(rows, position).masked_fill(self._without[rows], 0.0)


class TableNoise:
    """A slice of one table per (row, position), at a keyed offset: a look-up instead of V logarithms.

    The table is drawn afresh for every rollout. Whatever the offset, a slice is V independent Gumbel draws, so each
    token has exactly its probability; two slices of one rollout overlap with probability 2V / 2^22 and then share,
    shifted, the noise of different tokens.
    """

    def __init__(self, keys: Tensor, vocabulary: int, seed: int) -> None:
        self._keys = keys
        size = max(TABLE_SIZE, 4 * vocabulary)
        # drawn in float64: in float32 an exponential is exactly 0 once in 2^24 draws, and its token would always win
        draws = torch.empty(size, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(seed))
        table = -torch.log(draws).float().to(keys.device)
        self._slices = table.unfold(0, vocabulary, 1)

    def at(self, rows: Tensor, position: int) -> Tensor:
        """Noise [len(rows), V]."""
        offsets = (uniform(fold(self._keys[rows], position)) * len(self._slices)).long()
        return self._slices[offsets]


def make_noise(keys: Tensor, vocabulary: int, seed: int) -> Noise:
    """The cheaper exact source for this vocabulary; `keys` [B], one per row, `seed` the rollout's."""
    if vocabulary <= SMALL_VOCABULARY:
        return DirectNoise(keys, vocabulary)
    return TableNoise(keys, vocabulary, seed)
