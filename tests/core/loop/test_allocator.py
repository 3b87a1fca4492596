"""Freed memory is kept where the C library is glibc."""

import ctypes
import platform
from types import SimpleNamespace

import pytest

from core.loop import allocator
from core.loop.allocator import VARIABLES, give_back_freed_memory, keep_freed_memory


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """What glibc was told, by the number of the limit."""
    told: dict[int, int] = {}
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=told.__setitem__))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return told


def test_glibc_keeps_what_was_freed(given: dict[int, int]) -> None:
    """Both limits are set: with one alone the other stays at 128 KiB."""
    keep_freed_memory()
    assert given == {allocator.M_MMAP_THRESHOLD: 32 * 2**20, allocator.M_TRIM_THRESHOLD: 256 * 2**20}


@pytest.mark.parametrize("name", VARIABLES)
def test_what_glibc_is_told_from_outside_holds(
    name: str, given: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the memory of a run is measured: what it frees must not count as held."""
    monkeypatch.setenv(name, "65536")
    keep_freed_memory()
    assert given == {}


def test_glibc_gives_back_what_was_freed(given: dict[int, int]) -> None:
    give_back_freed_memory()
    assert set(given.values()) == {65536}


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    keep_freed_memory()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's")
def test_glibc_takes_these_limits() -> None:
    """`mallopt` returns 0 for what it refuses."""
    mallopt = ctypes.CDLL(None).mallopt
    assert mallopt(allocator.M_MMAP_THRESHOLD, allocator.MAPPED)
    assert mallopt(allocator.M_TRIM_THRESHOLD, allocator.KEPT)
