"""What runs inside the sandbox: shuts itself in, then loads the program and answers requests with plain values.

It is handed to the interpreter as text, so it imports nothing of ours. The program shares its interpreter and can
change anything in it: nothing here decides a verdict. It knows no expected value, and what it sends is only ever data.

A frame is a length in 4 bytes and that many bytes. Requests are Python literals from the trusted side; replies are JSON
`[nonce, outcome, value]`, whose value is written by `encode`.
"""

import builtins
import os
import resource
import struct
import sys
from _json import encode_basestring_ascii
from collections.abc import Callable
from types import ModuleType
from typing import Any

LITERALS = {"__builtins__": {}, "set": set, "frozenset": frozenset, "inf": float("inf"), "nan": float("nan")}
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2


def enter(libc: Any, root: str, shown: list[str], emptied: list[str], scratch: int) -> None:
    """Replace the file system by an empty one: `shown` less `emptied`, read-only, and a `/tmp` of `scratch` bytes."""

    def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
        if libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()):
            raise OSError(f"cannot mount {source} on {target}")

    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("none", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=755")
    # before what is shown, which may lie in it
    os.mkdir(root + "/tmp")
    mount("none", root + "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"size={scratch},nr_inodes=4096,mode=1777")
    for path in shown:
        inside = root + path
        if os.path.isdir(path):
            os.makedirs(inside)
        else:
            os.makedirs(os.path.dirname(inside), exist_ok=True)
            os.close(os.open(inside, os.O_CREAT))
        mount(path, inside, "", MS_BIND)
        if not path.startswith("/dev/"):
            mount("none", inside, "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)
    for path in emptied:
        mount("none", root + path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "size=4k,mode=755")
    # the old root is stacked on the new one, and then taken away from above it
    os.chdir(root)
    if libc.pivot_root(b".", b".") or libc.umount2(b".", MNT_DETACH):
        raise OSError("cannot change the root")
    os.chdir("/")
    mount("none", "/", "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)


def supervise() -> None:
    """Go on in a child, and leave this process outside to kill the whole group when the trainer dies.

    Needed without a process space: what a program forks has no parent-death signal.
    """
    import ctypes
    import signal

    trainer = os.getppid()
    pid = os.fork()
    if pid == 0:
        return
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != trainer:
        os.killpg(0, signal.SIGKILL)
    os.closerange(0, 3)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    # it may have ended because the trainer did, which this process learns of later
    while rest := _group():
        for other in rest:
            try:
                os.kill(other, signal.SIGKILL)
            except OSError:
                continue
    os._exit(128 - code if code < 0 else code)


def _group() -> list[int]:
    """The other processes of this one's group that still run."""
    pids = []
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdigit() and os.getpgid(int(entry.name)) == os.getpgrp() and int(entry.name) != os.getpid():
                with open(f"/proc/{entry.name}/stat") as status:
                    pids += [int(entry.name)] if status.read().rpartition(")")[2].split()[0] not in "ZX" else []
        except OSError:
            continue
    return pids


def shut_in(config: dict[str, Any]) -> None:
    """Give up every power that the program must not have; raises where the kernel refuses."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if config["mounts"]:
        enter(libc, **config["mounts"])
    if config["inodes"]:
        # bwrap limits a file system's bytes alone; a security module may refuse this, and then time is the limit
        options = f"size={config['inodes']},nr_inodes=4096"
        libc.mount(b"none", b"/tmp", b"tmpfs", MS_REMOUNT | MS_NOSUID | MS_NODEV, options.encode())
    if config["uid"] is not None:
        if config["owns_scratch"]:
            os.chown(config["scratch"], config["uid"], config["uid"])
        os.setgroups([])
        os.setresgid(config["uid"], config["uid"], config["uid"])
        os.setresuid(config["uid"], config["uid"], config["uid"])
    elif config["mounts"] or config["inodes"]:
        # root of a user namespace of its own: without this, its powers there would outlast the set-up
        for capability in range(64):
            libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
        if libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)):
            raise OSError("cannot drop the capabilities")
    processes = config["processes"]
    if config["count_processes"]:
        processes += sum(_threads_of(os.getuid()))
    for kind, soft, hard in ((resource.RLIMIT_NPROC, processes, processes), *config["rlimits"]):
        resource.setrlimit(kind, (soft, hard))
    libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL; changing the user has cleared it
    libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: none of the user's other processes may look in
    if config["filter"]:
        refuse_calls(libc, config["filter"])
    os.chdir(config["scratch"])
    os.environ.clear()
    for name in [name for name in sys.modules if "ctypes" in name]:
        del sys.modules[name]


def refuse_calls(libc: Any, filter: bytes) -> None:
    """Have the kernel refuse system calls from here on; raises where it takes no filter."""
    import ctypes

    buffer = ctypes.create_string_buffer(filter, len(filter))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(filter) // 8, ctypes.addressof(buffer)))
    # PR_SET_NO_NEW_PRIVS, then PR_SET_SECCOMP with SECCOMP_MODE_FILTER
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel took no system call filter")


def _threads_of(uid: int) -> list[int]:
    """Threads of each process of a user: where the kernel counts those of the whole machine against the limit."""
    counts = []
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                counts.append(len(os.listdir(f"/proc/{entry.name}/task")))
        except OSError:
            continue
    return counts


def encode(value: Any) -> str:
    """A plain value as JSON text: null, booleans and strings as they are, all else a list led by a tag.

    Instances of subclasses are written as what they are underneath, whatever they claim to equal.
    """
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        return encode_basestring_ascii(str.__str__(value))
    if isinstance(value, int):
        return f'["i", "{int.__format__(value, "x")}"]'
    if isinstance(value, float):
        return f'["f", "{float.__repr__(value)}"]'
    if isinstance(value, complex):
        return f'["c", "{float.__repr__(value.real)}", "{float.__repr__(value.imag)}"]'
    if isinstance(value, bytes):
        return f'["b", "{bytes.hex(value)}"]'
    if isinstance(value, dict):
        pairs = [f"[{encode(k)}, {encode(v)}]" for k, v in dict.items(value)]
        return "[" + ", ".join(['"d"', *pairs]) + "]"
    kinds: tuple[tuple[Any, str], ...] = ((list, '"l"'), (tuple, '"t"'), (set, '"S"'), (frozenset, '"S"'))
    for kind, tag in kinds:
        if isinstance(value, kind):
            return "[" + ", ".join([tag, *map(encode, kind.__iter__(value))]) + "]"
    raise TypeError("not a plain value")


class Channel:
    """The pipes to the trusted side, moved away from the standard streams."""

    def __init__(self) -> None:
        self.requests, self.replies = os.dup(0), os.dup(1)
        nothing = os.open("/dev/null", os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)

    def read(self) -> Any:
        """The next request; ends the process when there is none."""
        (length,) = struct.unpack(">I", self._exactly(4))
        return eval(self._exactly(length), LITERALS)  # trusted text: literals alone

    def _exactly(self, count: int) -> bytes:
        parts = []
        while count:
            part = os.read(self.requests, min(count, 1 << 16))
            if not part:
                os._exit(0)
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def write(self, nonce: str, outcome: str, value: str = "null") -> None:
        """Send a reply."""
        text = f'["{nonce}", "{outcome}", {value}]'.encode()
        frame = memoryview(struct.pack(">I", len(text)) + text)
        while frame:
            frame = frame[os.write(self.replies, frame) :]

    def close(self) -> None:
        """Leave the pipes to the parent process."""
        os.close(self.requests)
        os.close(self.replies)


class Streams:
    """Runs a whole program on standard input, in a forked process for each test."""

    def __init__(self, code: Any, output: int) -> None:
        self.code, self.output = code, output

    def run(self, channel: Channel, stdin: str) -> tuple[int, str] | None:
        """Exit status and standard output; None in the forked process, which is to run the program."""
        input_file, output_file = _unlinked("given"), _unlinked("printed")
        rest = memoryview(stdin.encode("utf-8", "surrogatepass"))
        while rest:
            rest = rest[os.write(input_file, rest) :]
        os.lseek(input_file, 0, os.SEEK_SET)
        pid = os.fork()
        if pid == 0:
            os.dup2(input_file, 0)
            os.dup2(output_file, 1)
            for file in (input_file, output_file):
                os.close(file)
            channel.close()
            return None
        _, status = os.waitpid(pid, 0)
        # one byte more than allowed shows the reader that there was too much
        parts, offset = [], 0
        while offset <= self.output and (part := os.pread(output_file, self.output + 1 - offset, offset)):
            parts.append(part)
            offset += len(part)
        for file in (input_file, output_file):
            os.close(file)
        return os.waitstatus_to_exitcode(status), b"".join(parts).decode("utf-8", "surrogateescape")


def _unlinked(name: str) -> int:
    """A new file that has no name any more."""
    file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink(name)
    return file


def find(module: ModuleType, name: str) -> Callable[..., Any]:
    """The function of that name, or the method of a class `Solution`; raises LookupError."""
    function = vars(module).get(name)
    if function is None and "Solution" in vars(module):
        function = getattr(module.Solution(), name, None)
    if function is None:
        raise LookupError(name)
    return function  # type: ignore[no-any-return]


def serve(channel: Channel, output: int) -> Any:
    """Answer requests until there are no more; returns code only in a process forked to run it as a whole."""
    streams: Streams | None = None
    module = ModuleType("solution")
    while True:
        nonce, kind, *rest = channel.read()
        outcome, value = "value", "null"
        try:
            if kind == "load":
                source, whole = rest
                outcome = "uncompiled"
                code = compile(source, "solution.py", "exec", dont_inherit=True)
                outcome = "raised"
                if whole:
                    streams = Streams(code, output)
                else:
                    sys.modules["solution"] = module
                    exec(code, module.__dict__)
                outcome = "value"
            elif kind == "run" and streams is not None:
                ran = streams.run(channel, *rest)
                if ran is None:
                    return streams.code
                value = encode(ran)
            else:
                name, args, kwargs = rest
                outcome = "undefined"
                function = find(module, name)
                outcome = "raised"
                result = function(*args, **kwargs)
                outcome = "not plain"
                value = encode(result)
                outcome = "value"
        except BaseException:  # the program may raise anything, SystemExit too
            value = "null"
        channel.write(nonce, outcome, value)


if __name__ == "__main__":
    config = eval(sys.argv[1], LITERALS)
    if config["supervised"]:
        supervise()
    shut_in(config)
    channel = Channel()
    # what the module `site` adds, which costs too much to load
    vars(builtins).update(exit=sys.exit, quit=sys.exit)
    del sys.argv[1:]
    sys.argv[0] = "solution.py"
    channel.write("", "ready")
    code = serve(channel, config["output"])
    main = sys.modules["__main__"] = ModuleType("__main__")
    # falls off the end like any script: exit status, threads, atexit and flushing are the interpreter's
    exec(code, main.__dict__)
