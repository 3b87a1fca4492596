"""The system call filter, run as the kernel would run it."""

import ctypes
import ctypes.util
import errno
import struct

import pytest

from core.environments.sandbox.filter import MACHINES, REFUSED, seccomp_filter

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOWED, KILLED = 0x7FFF0000, 0x80000000
REFUSAL = {name: 0x00050000 | number for name, number in (("EPERM", errno.EPERM), ("ENOSYS", errno.ENOSYS))}


def verdict(machine: str, number: int, argument: int = 0, audit: int | None = None, second: int = 0) -> int:
    """What the filter returns for a system call."""
    code = seccomp_filter(machine)
    assert code is not None
    data = struct.pack("<IIQQ", number, AUDIT[machine] if audit is None else audit, 0, argument)
    data += struct.pack("<Q", second) + bytes(32)
    steps = list(struct.iter_unpack("<HBBI", code))
    loaded, place = 0, 0
    while True:
        operation, if_true, if_false, constant = steps[place]
        place += 1
        if operation == 0x06:
            return int(constant)
        if operation == 0x54:
            loaded &= constant
        elif operation == 0x20:
            (loaded,) = struct.unpack_from("<I", data, constant)
        else:
            jumps = {0x15: loaded == constant, 0x35: loaded >= constant, 0x45: bool(loaded & constant)}[operation]
            place += if_true if jumps else if_false


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_listed_is_refused_and_nothing_else(machine: str) -> None:
    refused = {pair[MACHINES.index(machine)] for pair in REFUSED.values()}
    for number in range(460):
        if number in refused:
            assert verdict(machine, number) == REFUSAL["EPERM"]
        elif number == 435:
            assert verdict(machine, number) == REFUSAL["ENOSYS"]
        elif number == (53, 199)[MACHINES.index(machine)]:  # a socketpair of no type
            assert verdict(machine, number) == REFUSAL["EPERM"]
        else:
            assert verdict(machine, number) == ALLOWED


@pytest.mark.parametrize(("machine", "clone", "prlimit"), [("x86_64", 56, 302), ("aarch64", 220, 261)])
def test_calls_that_are_refused_for_their_argument(machine: str, clone: int, prlimit: int) -> None:
    threads = 0x3D0F00  # as the C library makes one
    assert verdict(machine, clone, threads) == ALLOWED
    for flag in (0x8000, 0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(machine, clone, 17 | flag) == REFUSAL["EPERM"]
    assert verdict(machine, prlimit, 0) == ALLOWED
    assert verdict(machine, prlimit, 1234) == REFUSAL["EPERM"]


def test_other_ways_into_the_kernel() -> None:
    assert verdict("x86_64", 41 + 0x40000000) == REFUSAL["EPERM"]
    assert verdict("x86_64", 41, audit=0x40000003) == KILLED  # 32-bit calls
    assert seccomp_filter("riscv64") is None


def test_there_is_none_for_another_kernel_on_the_same_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert seccomp_filter()
    monkeypatch.setattr("sys.platform", "darwin")
    assert seccomp_filter() is None


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_libseccomps(machine: str) -> None:
    path = ctypes.util.find_library("seccomp")
    if path is None:
        pytest.skip("libseccomp is not installed")
    resolve = ctypes.CDLL(path).seccomp_syscall_resolve_name_arch
    resolve.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    for name, pair in REFUSED.items():
        number = pair[MACHINES.index(machine)]
        known = resolve(AUDIT[machine], name.encode())
        assert number == known if number is not None else known < 0, name


@pytest.mark.parametrize(("machine", "fcntl", "ioctl"), [("x86_64", 72, 16), ("aarch64", 25, 29)])
def test_no_signal_by_way_of_a_file(machine: str, fcntl: int, ioctl: int) -> None:
    for number, refused, allowed in (
        (fcntl, (8, 10, 15), (0, 1, 2, 3, 4, 9, 1030)),
        (ioctl, (0x8901, 0x8902), (0x5401,)),
    ):
        assert {verdict(machine, number, second=command) for command in refused} == {REFUSAL["EPERM"]}
        assert {verdict(machine, number, second=command) for command in allowed} == {ALLOWED}


@pytest.mark.parametrize(("machine", "prctl", "socketpair"), [("x86_64", 157, 53), ("aarch64", 167, 199)])
def test_nothing_outlives_the_trainer_or_writes_to_an_address(machine: str, prctl: int, socketpair: int) -> None:
    assert verdict(machine, prctl, 1) == REFUSAL["EPERM"]
    assert {verdict(machine, prctl, option) for option in (0, 3, 15, 38)} == {ALLOWED}
    flags = 0o4000 | 0o2000000  # SOCK_NONBLOCK, SOCK_CLOEXEC
    assert {verdict(machine, socketpair, second=1 | more) for more in (0, flags)} == {ALLOWED}
    assert {verdict(machine, socketpair, second=kind | flags) for kind in (0, 2, 3, 5)} == {REFUSAL["EPERM"]}
