"""How long each phase of a step took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds of wall-clock by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time what runs inside."""
        start = time.perf_counter()
        yield
        self.seconds[phase] = round(time.perf_counter() - start, 4)
