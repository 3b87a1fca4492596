"""What this process does with memory that tensors have freed."""

import ctypes
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""Their numbers in malloc.h."""
MAPPED: Final = 1 << 25
"""Bytes from which an allocation is the system's own: as far as glibc itself moves that limit."""
KEPT: Final = 1 << 28
"""Freed bytes at the end of the heap that are kept."""


def keep_freed_memory() -> None:
    """Keep what tensors free for the next ones, up to a quarter of a GiB; nothing where the C library is not glibc.

    Left to itself glibc gives caches and activations back after every rollout and update, and the system hands the
    same memory out again page by page, cleared. Source: mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MAPPED)
        mallopt(M_TRIM_THRESHOLD, KEPT)
