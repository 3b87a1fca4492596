"""Scores answers inside the sandbox by a library's function: a forked child for each, under its own limits.

It is handed to the interpreter as text, like the harness, whose `shut_in` it uses. Such a function may evaluate an
answer as code. So each answer has a process of its own, which can start none, write nothing and outlive nothing, and
code made from text runs there only if it is a sum: names that are allowed, constants and operators. An answer that
would do more ends its process, so that it can neither change the function nor its verdict.

Requests are pickles from the trusted side: first (function, args, kwargs, method) to make the scorer, then (kwargs,
processor seconds, seconds by the clock). A reply is [word, marks, processor seconds] as JSON.
"""

import ctypes
import gc
import json
import os
import pickle
import resource
import select
import signal
import struct
import sys
from collections.abc import Callable, Mapping
from types import CodeType, ModuleType
from typing import Any, Final

WORDS: Final = ("scored", "raised", "too large", "code", "broken")
"""What exit status 0, 1, 2 ... of a child means."""
ALARMS: Final = (signal.SIGPROF, signal.SIGXCPU)


def is_sum(code: CodeType, names: frozenset[str]) -> bool:
    """Whether code is made of constants, operators and these names alone; attributes are names, too."""
    return names.issuperset(code.co_names) and not any(isinstance(value, CodeType) for value in code.co_consts)


def guard(names: frozenset[str], path: tuple[str, ...]) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that ends the process before it runs code that is neither a module's nor a sum."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "exec":
            (code,) = arguments
            is_module = code.co_filename.startswith(("<frozen ", *path))
            if not is_module and not is_sum(code, names):
                os._exit(WORDS.index("code"))

    return hook


def score(function: Callable[..., Any], kwargs: Mapping[str, Any], answer: int) -> int:
    """The status to exit with; marks are written to `answer`."""
    try:
        marks = float(function(**kwargs))
        os.write(answer, struct.pack("d", marks))
    except MemoryError:
        return WORDS.index("too large")
    except BaseException:  # a library's function may raise anything
        return WORDS.index("raised")
    return WORDS.index("scored")


def main() -> None:
    """Answer requests until the channel closes."""
    config: dict[str, Any] = eval(sys.argv[1], {"__builtins__": {}})  # trusted text: literals alone
    libc = ctypes.CDLL(None, use_errno=True)
    harness = ModuleType("harness")
    exec(config["harness"], harness.__dict__)
    if config["supervised"]:
        harness.supervise()
    del sys.argv[1:]
    for alarm in ALARMS:
        signal.signal(alarm, signal.SIG_DFL)
    channel = harness.Channel()

    def receive() -> Any:
        (length,) = struct.unpack(">I", channel._exactly(4))
        return pickle.loads(channel._exactly(length))

    def send(*reply: Any) -> None:
        text = json.dumps(reply).encode()
        os.write(channel.replies, struct.pack(">I", len(text)) + text)

    send("ready")
    # a child starts no thread
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    sys.path += config["path"]
    try:
        # before it is shut in: at level rlimits the other user may not reach the packages
        function, args, kwargs, method = receive()
        scorer = getattr(function(*args, **kwargs), method)
        harness.shut_in(config)
        sys.modules["ctypes"] = ctypes  # which it has removed
    except BaseException as error:  # shown to the user
        send(f"{type(error).__name__}: {error}"[:500])
        return
    gc.freeze()  # or the first collection in every child would touch, and so copy, all memory
    send("made")
    library = tuple(os.path.dirname(module.__file__) for module in (os, ctypes) if module.__file__)
    hook = guard(frozenset(config["names"]), (*library, *config["path"]))

    def shut_in(seconds: float) -> None:
        limit_child(seconds)
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG, which a fork clears
        harness.refuse_calls(libc, config["child_filter"])
        sys.addaudithook(hook)

    while True:
        question, seconds, clock = receive()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = WORDS.index("broken")
            try:
                channel.close()
                os.close(reader)
                shut_in(seconds)
                status = score(scorer, question, writer)
            finally:
                os._exit(status)
        os.close(writer)
        send(*outcome(pid, reader, seconds, clock))


def limit_child(seconds: float) -> None:
    """Let this process start none and write nothing, and end after so many seconds of processor time."""
    backstop = int(seconds) + 2  # for a child that does without its alarm
    for kind, limit in ((resource.RLIMIT_NPROC, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CPU, backstop)):
        resource.setrlimit(kind, (limit, limit))
    signal.setitimer(signal.ITIMER_PROF, seconds)


def outcome(pid: int, reader: int, seconds: float, clock: float) -> tuple[str, float, float]:
    """Wait for a child, for `clock` seconds at most; its word, its marks and the processor seconds it took."""
    end = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(end, select.POLLIN)
    in_time = bool(poll.poll(clock * 1000))
    if not in_time:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    marks = os.read(reader, 8)
    for file in (end, reader):
        os.close(file)
    code, used = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
    word = WORDS[code] if 0 <= code < len(WORDS) and in_time else "died"
    if not in_time or -code in ALARMS or (code == -signal.SIGKILL and used > seconds):
        word = "too slow"
    if word == "scored" and len(marks) != 8:
        word = "died"
    return word, struct.unpack("d", marks)[0] if word == "scored" else 0.0, used


if __name__ == "__main__":
    main()
