"""What this process does with memory that tensors have freed."""

import ctypes
import os
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""Their numbers in malloc.h."""
MAPPED: Final = 1 << 25
"""Bytes from which an allocation is the system's own: as far as glibc itself moves that limit."""
KEPT: Final = 1 << 28
"""Freed bytes at the end of the heap that are kept."""
SMALL: Final = 1 << 16
"""Bytes that are not worth giving back."""
VARIABLES: Final = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""By which glibc is told otherwise from outside, as where memory is measured."""


def keep_freed_memory() -> None:
    """Keep what tensors free for the next ones, up to a quarter of a GiB; nothing where the C library is not glibc.

    Nor where one of `VARIABLES` is set.

    Left to itself glibc gives caches and activations back after every rollout and update, and the system hands the
    same memory out again page by page, cleared. Source: mallopt(3).
    """
    if not any(map(os.environ.get, VARIABLES)):
        _set(MAPPED, KEPT)


def give_back_freed_memory() -> None:
    """Give what tensors free back at once, so that what is resident is what is in use; nothing without glibc."""
    _set(SMALL, SMALL)


def _set(mapped: int, kept: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, mapped)
        mallopt(M_TRIM_THRESHOLD, kept)
