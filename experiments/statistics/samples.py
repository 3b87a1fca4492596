"""What every statistic here starts from: a checked sample, and differences free of rounding noise."""

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.float64]
Interval: TypeAlias = tuple[float, float]

# Scores such as accuracies tie exactly on paper but not in floats: 0.3 - 0.2 != 0.2 - 0.1. Relative to the
# largest difference, a gap below TIE is a tie; relative to the two scores, one below ROUNDING is zero.
TIE = 1e-9
ROUNDING = 1e-12
UNDERFLOW = 1e-150  # below it, squares are 0


def sample(values: ArrayLike, *, least: int = 1, what: str = "differences") -> Array:
    """Return `values` as a float array [n]; ValueError unless n >= `least` and all are finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{what}: expected one number per seed, got an array of shape {array.shape}")
    if array.size < least:
        raise ValueError(f"{what}: need at least {least} values, got {array.size}; run more seeds")
    if not np.isfinite(array).all():
        where = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"{what}: value {where} is {array[where]}; replace or leave out failed runs first")
    return array


def differences(x: Array, y: Array) -> Array:
    """Return x - y elementwise (broadcasting), with differences that are mere rounding set to exactly 0."""
    d: Array = x - y
    d[np.abs(d) <= ROUNDING * np.maximum(np.abs(x), np.abs(y))] = 0.0
    return d


def mean_difference(d: Array) -> float:
    """The mean of differences d [n]; one that is nothing but rounding is 0."""
    mean = float(d.mean())
    return 0.0 if abs(mean) <= TIE * np.abs(d).max() else mean


def is_constant(d: Array) -> bool:
    """Whether all values of d [n] agree up to rounding, so that their spread carries no information."""
    return bool(np.ptp(d) <= max(TIE * np.abs(d).max(), UNDERFLOW))


def check_level(name: str, value: float, low: float = 0.0, high: float = 1.0) -> None:
    """ValueError unless low < value < high."""
    if not low < value < high:
        raise ValueError(f"{name} = {value}: must lie strictly between {low:g} and {high:g}")


def within(interval: Interval | None, largest: float) -> Interval | None:
    """The part of an interval of a difference that is possible, [-largest, largest]; it covers as often as the whole.

    An interval with an infinite end is returned as it is: it says that nothing is known yet.
    """
    if interval is None or not all(map(math.isfinite, interval)):
        return interval
    low, high = (min(max(end, -largest), largest) for end in interval)
    return low, high
