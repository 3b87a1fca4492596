"""Numbers in words: rounded, but never onto or past a limit that they lie on the other side of."""

import math
from collections.abc import Callable, Iterable

MAX_DIGITS = 17
"""Beyond which a float has no more digits to show."""


def rounded(value: float, digits: int, limits: Iterable[float] = (), *, kind: str = "g", sign: str = "") -> str:
    """`value` with so many significant digits (`kind` g) or decimals (f), and more where a limit takes them.

    The number that is read lies on the side of every limit on which the value is: 0.0500004 is not written as 0.05
    where 0.05 decides. `sign` is that of a format (`+`).
    """
    return shortest(value, limits, lambda more: f"{value:{sign}.{digits + more}{kind}}", float)


def shortest(value: float, limits: Iterable[float], write: Callable[[int], str], read: Callable[[str], float]) -> str:
    """The first of `write(0)`, `write(1)`, ... which, read again, is on the value's side of every limit."""
    sides = {limit: _side(value, limit) for limit in limits}
    for more in range(MAX_DIGITS if math.isfinite(value) else 0):
        text = write(more)
        if all(_side(read(text), limit) == side for limit, side in sides.items()):
            return text
    return write(0)


def _side(value: float, limit: float) -> int:
    return (value > limit) - (value < limit)
