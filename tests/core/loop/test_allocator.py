"""Freed memory is kept where the C library is glibc."""

import ctypes
import platform
from types import SimpleNamespace

import pytest

from core.loop import allocator
from core.loop.allocator import keep_freed_memory


def test_glibc_keeps_what_was_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both limits are set: with one alone the other stays at 128 KiB."""
    given: dict[int, int] = {}
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=given.__setitem__))
    keep_freed_memory()
    assert given == {allocator.M_MMAP_THRESHOLD: 32 * 2**20, allocator.M_TRIM_THRESHOLD: 256 * 2**20}


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    keep_freed_memory()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's")
def test_glibc_takes_these_limits() -> None:
    """`mallopt` returns 0 for what it refuses."""
    mallopt = ctypes.CDLL(None).mallopt
    assert mallopt(allocator.M_MMAP_THRESHOLD, allocator.MAPPED)
    assert mallopt(allocator.M_TRIM_THRESHOLD, allocator.KEPT)
