"""Keyed randomness: every draw has a key, so no draw depends on how many draws another made.

A key is `(seed, stream, step, round, ...)`. Streams keep purposes apart: a variant that samples more must not shift the
order of prompts. Noise for sampling is a pure function of its key (a counter-based generator), computed on whatever
device holds the keys: the same on every device, for every batch shape and in every order.
"""

import hashlib
import sys
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from core.errors import GrpoLabError

STREAMS: Final[dict[str, "Stream"]] = {}
"""Every purpose that draws are made for, by name."""
_PLACES: Final[dict["Stream", str]] = {}
"""Where each was declared."""


@dataclass(frozen=True)
class Stream:
    """What draws are made for: a name, and numbers for the purposes within it."""

    name: str
    path: tuple[int, ...] = ()

    def part(self, number: int) -> "Stream":
        """Declare a purpose within this one: its keys are `(seed, name, number, ...)`.

        Raises `GrpoLabError` where the number is another's.
        """
        return _declared(Stream(self.name, (*self.path, number)))


def stream(name: str) -> Stream:
    """Declare what draws are made for, once and where they are made: `PASS_RATES = stream("pass_rates")`.

    Raises `GrpoLabError` where the name is another's: their draws would be the same.
    """
    STREAMS[name] = _declared(Stream(name))
    return STREAMS[name]


def _declared(new: Stream) -> Stream:
    """Refuse a stream that another line has declared; the same line may run twice, in a module that is run as main."""
    caller = sys._getframe(2)
    place = f"{caller.f_code.co_filename}:{caller.f_lineno}"
    if _PLACES.setdefault(new, place) != place:
        number = f" with number {', '.join(map(str, new.path))}" if new.path else ""
        raise GrpoLabError(
            f"{place}: the random stream '{new.name}'{number} is that of {_PLACES[new]}: give it another "
            f"{'number' if new.path else 'name'}"
        )
    return new


for _name in ("init", "prompts", "extra_prompts", "sampling", "minibatch", "objective", "reward", "eval"):
    STREAMS[_name] = Stream(_name)
    _PLACES[STREAMS[_name]] = "the machine"

# the constants of SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"), as int64
_GAMMA: Final = 0x9E3779B97F4A7C15 - 2**64
_MIX_1: Final = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2: Final = 0x94D049BB133111EB - 2**64


def key(seed: int, stream: Stream | str, *path: int) -> int:
    """A 63-bit integer that stands for `(seed, stream, *path)`; a stream of the machine's is given by its name."""
    if isinstance(stream, str):
        if stream not in STREAMS:
            raise GrpoLabError(f"unknown random stream '{stream}'; known: {', '.join(STREAMS)}")
        stream = STREAMS[stream]
    digest = hashlib.blake2b(repr((seed, stream.name, *stream.path, *path)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def torch_generator(seed: int, stream: Stream | str, *path: int) -> torch.Generator:
    """A CPU generator at the start of its own sequence, for draws that torch makes."""
    return torch.Generator().manual_seed(key(seed, stream, *path))


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's own keeps the sign)."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser: int64 in, well-mixed int64 out, a bijection."""
    x = _shift(x, 30).bitwise_xor_(x).mul_(_MIX_1)
    x = _shift(x, 27).bitwise_xor_(x).mul_(_MIX_2)
    return _shift(x, 31).bitwise_xor_(x)


def fold(keys: Tensor, index: Tensor | int) -> Tensor:
    """Keys one level down: `(key, index)` for int64 `keys` and `index`, broadcast."""
    # a number stays on the host, wrapped as int64 would: no device is waited for
    step = index * _GAMMA if isinstance(index, Tensor) else (index * _GAMMA + 2**63) % 2**64 - 2**63
    return mix(mix(keys + _GAMMA) + step)


def row_keys(base: int, slots: Tensor, samples: Tensor) -> Tensor:
    """One key per response: `(base, prompt slot, sample)`, int64, broadcast over `slots` and `samples`."""
    return fold(fold(torch.full((), base, device=slots.device), slots), samples)


def turn_keys(keys: Tensor, turns: Tensor | int) -> Tensor:
    """Keys of responses at these turns, broadcast; the first turn's are those of a response that has no other."""
    later = fold(keys, -turns)
    return torch.where(turns == 1, keys, later) if isinstance(turns, Tensor) else keys if turns == 1 else later


def uniform(keys: Tensor) -> Tensor:
    """One float64 in (0, 1) per int64 key, never 0 and never 1."""
    # 52 bits: with 53 the largest would round to 1
    return _shift(mix(keys), 12).double().add_(0.5).mul_(2.0**-52)


def gumbel(keys: Tensor) -> Tensor:
    """One standard Gumbel float32 per int64 key: `-log(-log(u))`."""
    return uniform(keys).log_().neg_().log_().neg_().float()
