"""Sampling noise keyed by (rollout, prompt slot, sample, position): equal policies give equal text, similar ones stay
coupled.

A token is drawn as argmax(logits / temperature + Gumbel noise). Two policies that see the same noise then differ only
where their probabilities do, nearly as rarely as any coupling allows.
"""

from typing import Final, Protocol

import torch
from torch import Tensor

from core.randomness import fold, gumbel, turn_keys, uniform

SMALL_VOCABULARY: Final = 2048
DRAWN_AT_ONCE: Final = 1 << 16
"""Draws that are made at once, for several positions: one by one, most of the time would go into calls; more would
leave the cache, and most would be of responses that end before."""
MOST_POSITIONS: Final = 16
TABLE_SIZE: Final = 1 << 22


class Noise(Protocol):
    """Gumbel noise for whole vocabularies, of rows that become fewer."""

    def at(self, position: int) -> Tensor:
        """Noise [B, V] for all rows at this position."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone, by where they are among the present ones [b]."""
        ...


class DirectNoise:
    """One draw per (row, position, token): exact, and cheap for a small vocabulary."""

    def __init__(self, keys: Tensor, vocabulary: int) -> None:
        self._keys = keys
        self._tokens = torch.arange(vocabulary, device=keys.device)
        self._first, self._held = 0, torch.empty(0, len(keys), vocabulary, device=keys.device)
        """From which position on noise [N, B, V] is held."""

    def at(self, position: int) -> Tensor:
        """Noise [B, V]; fastest for positions as decoding goes through them."""
        ahead = position - self._first
        held = self._held[ahead:] if ahead >= 0 else self._held[:0]
        self._first, self._held = position, held if len(held) else self._drawn(position)
        return self._held[0]

    def keep(self, rows: Tensor) -> None:
        """See `Noise`."""
        self._keys = self._keys[rows]
        # what was handed out last is done with
        self._first, self._held = self._first + 1, self._held[1:, rows]

    def _drawn(self, position: int) -> Tensor:
        """The noise from `position` on."""
        positions = max(1, min(MOST_POSITIONS, DRAWN_AT_ONCE // max(1, len(self._keys) * len(self._tokens))))
        ahead = torch.arange(position, position + positions, device=self._keys.device)
        return self.draw(fold(self._keys, ahead[:, None]))

    def draw(self, keys: Tensor) -> Tensor:
        """Noise [..., V] by keys [...] of positions."""
        return gumbel(fold(keys[..., None], self._tokens))


class PartialNoise:
    """Noise for some rows and none for others, which are greedy."""

    def __init__(self, noise: Noise, without: Tensor) -> None:
        self._noise, self._without = noise, without[:, None]

    def at(self, position: int) -> Tensor:
        """Noise [B, V], 0 for rows without."""
        return self._noise.at(position).masked_fill(self._without, 0.0)

    def keep(self, rows: Tensor) -> None:
        """See `Noise`."""
        self._noise.keep(rows)
        self._without = self._without[rows]


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

    def at(self, position: int) -> Tensor:
        """Noise [B, V]."""
        return self.draw(fold(self._keys, position))

    def draw(self, keys: Tensor) -> Tensor:
        """Noise [B, V] by keys [B] of positions."""
        offsets = (uniform(keys) * len(self._slices)).long()
        return self._slices[offsets]

    def keep(self, rows: Tensor) -> None:
        """See `Noise`."""
        self._keys = self._keys[rows]


class TurnNoise:
    """Noise of responses in several turns, by turn and position in the turn: a turn's does not depend on how long those
    before it were.
    """

    def __init__(self, keys: Tensor, vocabulary: int, seed: int) -> None:
        self._keys = keys
        self._source = make_noise(keys, vocabulary, seed)

    def at(self, turns: Tensor, positions: Tensor) -> Tensor:
        """Noise [B, V] of every row at its own turn and position in it [B]."""
        turns, positions = (x.to(self._keys.device, non_blocking=True) for x in (turns, positions))
        return self._source.draw(fold(turn_keys(self._keys, turns), positions))

    def keep(self, rows: Tensor) -> None:
        """See `Noise`."""
        self._keys = self._keys[rows]


def make_noise(keys: Tensor, vocabulary: int, seed: int) -> DirectNoise | TableNoise:
    """The cheaper exact source for this vocabulary; `keys` [B], one per row, `seed` the rollout's."""
    if vocabulary <= SMALL_VOCABULARY:
        return DirectNoise(keys, vocabulary)
    return TableNoise(keys, vocabulary, seed)
