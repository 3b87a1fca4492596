"""What a calibration is made of: simulations of many studies, what is counted in each, and how often it should be.

A simulation draws R studies from its own seeds, in chunks, so that a shorter run is the beginning of a longer one and
the result does not depend on how many processes share the work.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Sides: TypeAlias = Literal["both", "more", "less"]
Events: TypeAlias = NDArray[np.bool_]

CHUNK: Final = 250


@dataclass(frozen=True)
class Row:
    """Something counted in every study of a simulation, and the rate it should have.

    `wrong` says which deviations are: "both", or only "more" or "less" than the nominal rate. `width` is how far the
    nominal rate itself may be off: it was measured before, or is documented in few digits.
    """

    item: int
    """The section of the page."""
    counted: str
    nominal: float
    wrong: Sides = "both"
    width: float = 0.0


@dataclass(frozen=True)
class Simulation:
    """R studies; `draw(rng, R)` gives [R, rows]: whether each of `rows` occurred in each study."""

    studied: str
    draw: Callable[[np.random.Generator, int], Events]
    rows: tuple[Row, ...]
    fast: int
    """Studies in every test run; 0: none."""
    slow: int
    """Studies by `make calibrate`."""

    def chunks(self, R: int) -> list[tuple[int, int]]:
        """(number, studies) of every chunk."""
        return [(k, min(CHUNK, R - start)) for k, start in enumerate(range(0, R, CHUNK))]

    def counts(self, chunk: int, R: int) -> list[int]:
        """How often each row occurred in one chunk."""
        rng = np.random.default_rng([zlib.crc32(self.studied.encode()), chunk])
        events = np.asarray(self.draw(rng, R), dtype=np.bool_)
        assert events.shape == (R, len(self.rows)), self.studied
        return [int(count) for count in events.sum(axis=0)]

    def measure(self, R: int) -> list["Measured"]:
        """Every row over R studies."""
        counts = np.sum([self.counts(*chunk) for chunk in self.chunks(R)], axis=0)
        return [Measured(self.studied, row, R, int(count)) for row, count in zip(self.rows, counts, strict=True)]


@dataclass(frozen=True)
class Measured:
    """A row and how often it occurred."""

    studied: str
    row: Row
    R: int
    count: int

    @property
    def rate(self) -> float:
        """The measured rate."""
        return self.count / self.R

    @property
    def error(self) -> float:
        """Its Monte-Carlo standard error."""
        return math.sqrt(self.rate * (1 - self.rate) / self.R)

    @property
    def band(self) -> tuple[float, float]:
        """Where the rate should lie: three standard errors (at the nominal rate) and the row's width around it."""
        p = self.row.nominal
        half = 3 * math.sqrt(p * (1 - p) / self.R) + self.row.width
        low = 0.0 if self.row.wrong == "more" else max(0.0, p - half)
        high = 1.0 if self.row.wrong == "less" else min(1.0, p + half)
        return low, high

    @property
    def inside(self) -> bool:
        """Whether it does."""
        return self.band[0] <= self.rate <= self.band[1]

    def __str__(self) -> str:
        low, high = self.band
        return f"{self.studied}: {self.row.counted}: {self.rate:.4f}, not in [{low:.4f}, {high:.4f}], R = {self.R}"


def each(study: Callable[[np.random.Generator], tuple[bool, ...]]) -> Callable[[np.random.Generator, int], Events]:
    """A `draw` that makes one study after the other."""
    return lambda rng, R: np.array([study(rng) for _ in range(R)], dtype=np.bool_)


def never(item: int, counted: str) -> Row:
    """A row that may not occur at all."""
    return Row(item, counted, 0.0, "more")
