"""The system call filter: what no honest answer to a programming problem calls, refused by the kernel.

A list of refusals, not of permissions, so that it outlives the next interpreter. Behind the namespaces it takes away
most of what an attack on the kernel starts from; where there are none it still takes away network, signals and shared
memory, and keeps every process in the group that is killed at the end.
"""

import platform
import struct
import sys
from typing import Final

# system call: its number on x86_64, on aarch64 (None: not there)
REFUSED: Final[dict[str, tuple[int, int | None]]] = {
    # network; a socketpair of streams stays, event loops need it
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "process_madvise": (440, 440),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "setsid": (112, 157),
    "setpgid": (109, 154),
    # file systems and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262),
    # memory that no limit on a process counts
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # the kernel itself
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_setup": (206, 0),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "syslog": (103, 116),
    "personality": (135, 92),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "vhangup": (153, 58),
    "lookup_dcookie": (212, 18),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "ustat": (136, None),
}
MACHINES: Final = ("x86_64", "aarch64")

_AUDIT: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE: Final = {"x86_64": 56, "aarch64": 220}
_PRCTL: Final = {"x86_64": 157, "aarch64": 167}
_SOCKETPAIR: Final = {"x86_64": 53, "aarch64": 199}
_PRLIMIT64: Final = {"x86_64": 302, "aarch64": 261}
_FCNTL: Final = {"x86_64": 72, "aarch64": 25}
_IOCTL: Final = {"x86_64": 16, "aarch64": 29}
_CLONE3: Final = 435
_CLONE_FLAGS: Final = 0x7E020080 | 0x8000
"""Every CLONE_NEW... flag, and CLONE_PARENT, which makes a child that is another's to wait for."""
_FIRST_X32: Final = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _EPERM, _ENOSYS, _KILL = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38, 0x80000000
_NUMBER, _MACHINE, _ARGUMENT_0, _ARGUMENT_1 = 0, 4, 16, 24  # offsets into struct seccomp_data


def seccomp_filter(machine: str | None = None) -> bytes | None:
    """The filter as the kernel takes it, for this machine or the named one; None where the numbers are not known."""
    machine = machine or (platform.machine() if sys.platform == "linux" else "")
    if machine not in MACHINES:
        return None
    numbers = [pair[MACHINES.index(machine)] for pair in REFUSED.values()]
    code = [
        _step(_LOAD, _MACHINE),
        _step(_EQUAL, _AUDIT[machine], 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        # x32 calls have numbers of their own
        _step(_AT_LEAST, _FIRST_X32, 0, 1),
        _step(_RETURN, _EPERM),
        # its flags lie in memory where a filter cannot look; at the error that there is none, the C library uses clone
        _step(_EQUAL, _CLONE3, 0, 1),
        _step(_RETURN, _ENOSYS),
    ]
    for number in numbers:
        if number is not None:
            code += [_step(_EQUAL, number, 0, 1), _step(_RETURN, _EPERM)]
    return b"".join([*code, *_refused_arguments(machine)])


def _refused_arguments(machine: str) -> list[bytes]:
    """Refusals by argument: of calls that are needed with other arguments; the last step allows what is left."""
    return [
        _step(_EQUAL, _CLONE[machine], 0, 4),
        _step(_LOAD, _ARGUMENT_0),
        _step(_ANY_BIT, _CLONE_FLAGS, 0, 1),
        _step(_RETURN, _EPERM),
        _step(_RETURN, _ALLOW),
        # who is sent a signal when a file is ready, which may be any process, and which signal: F_SETOWN, F_SETSIG,
        # F_SETOWN_EX; FIOSETOWN, SIOCSPGRP
        _step(_EQUAL, _FCNTL[machine], 0, 6),
        _step(_LOAD, _ARGUMENT_1),
        _step(_EQUAL, 8, 2, 0),
        _step(_EQUAL, 10, 1, 0),
        _step(_EQUAL, 15, 0, 1),
        _step(_RETURN, _EPERM),
        _step(_RETURN, _ALLOW),
        _step(_EQUAL, _IOCTL[machine], 0, 5),
        _step(_LOAD, _ARGUMENT_1),
        _step(_EQUAL, 0x8901, 1, 0),
        _step(_EQUAL, 0x8902, 0, 1),
        _step(_RETURN, _EPERM),
        _step(_RETURN, _ALLOW),
        # PR_SET_PDEATHSIG: nothing outlives the trainer
        _step(_EQUAL, _PRCTL[machine], 0, 4),
        _step(_LOAD, _ARGUMENT_0),
        _step(_EQUAL, 1, 0, 1),
        _step(_RETURN, _EPERM),
        _step(_RETURN, _ALLOW),
        # a datagram can be sent to any address; SOCK_STREAM is 1, below flags
        _step(_EQUAL, _SOCKETPAIR[machine], 0, 5),
        _step(_LOAD, _ARGUMENT_1),
        _step(_AND, 0xF),
        _step(_EQUAL, 1, 1, 0),
        _step(_RETURN, _EPERM),
        _step(_RETURN, _ALLOW),
        # limits of other processes; 0 is oneself
        _step(_EQUAL, _PRLIMIT64[machine], 0, 3),
        _step(_LOAD, _ARGUMENT_0),
        _step(_EQUAL, 0, 1, 0),
        _step(_RETURN, _EPERM),
        _step(_RETURN, _ALLOW),
    ]


def _step(operation: int, constant: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One instruction: operation, where to go on relative to the next one, constant."""
    return struct.pack("HBBI", operation, if_true, if_false, constant)
