"""A `python` whose processes are forks of one that has imported everything, for what starts processes of its own.

torchrun and Slurm start `python -m MODULE`, which takes seconds for its imports. A program in its place has a fork run
the module: in its folder and environment, with its arguments and its output. It hands on signals, ends as the fork
ends, and the fork does not outlive it.
"""

import atexit
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil

from experiments.launchers.process_tree import kill
from tests.forked import Forked

FORKED: Final = [
    ["-m", module]
    for module in (
        "experiments.doctor.process",
        "experiments.launchers.rank",
        "submitit.core._submit",
        "tests.core.loop.rank_program",
        "torch.distributed.run",
    )
]
"""What takes seconds for its imports; anything else is left to the real Python."""
PROGRAM: Final = """\
#!{python} -IS
import json, os, signal, socket, struct, sys
words = sys.argv[2:] if sys.argv[1:2] == ["-u"] else sys.argv[1:]
if words[:2] not in {forked!r}:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
link = socket.socket(socket.AF_UNIX)
link.connect({address!r})
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, lambda number, frame: link.sendall(bytes([number])))
asked = json.dumps([words[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(link, [b"."], [0, 1, 2])
link.sendall(struct.pack("i", len(asked)) + asked)
code = struct.unpack("i", link.recv(4))[0]
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@contextmanager
def forking_python(folder: Path) -> Iterator[Path]:
    """The program, in `folder`, for as long as this lasts."""
    address = f"{folder}/forks"
    server = Forked(_serve, address, os.getpid(), folder=folder)
    try:
        while not Path(address).exists():
            assert server.poll() is None, server.end()
            time.sleep(0.01)
        program = folder / "python"
        program.write_text(PROGRAM.format(python=sys.executable, forked=FORKED, address=address))
        program.chmod(0o755)
        yield program
    finally:
        server.end()


def _serve(address: str, owner: int) -> int | None:
    """Fork for every program that asks, for as long as the owner is there."""
    import torch.distributed.run  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who minds a fork is not waited for
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address + ".new")
        listener.listen(16)
        os.rename(address + ".new", address)
        listener.settimeout(5)
        while psutil.pid_exists(owner):
            try:
                link, _ = listener.accept()
            except TimeoutError:
                continue
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                return _mind(link)
            link.close()
    return None


def _mind(link: socket.socket) -> int | None:
    """Have a fork run what is asked for; hand on signals, end it when who asked is gone, and tell how it ended."""
    _, descriptors, _, _ = socket.recv_fds(link, 1, 3)
    (size,) = struct.unpack("i", link.recv(4, socket.MSG_WAITALL))
    words, folder, environment = json.loads(link.recv(size, socket.MSG_WAITALL))
    process = os.fork()
    if process == 0:
        link.close()
        return _become(words, folder, environment, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    ended = os.pidfd_open(process)
    poll = select.poll()
    poll.register(link, select.POLLIN)
    poll.register(ended, select.POLLIN)
    while ended not in (ready := [descriptor for descriptor, _ in poll.poll()]):
        assert ready == [link.fileno()]
        if not (numbers := link.recv(64)):
            kill(process)
            poll.unregister(link)
        for number in numbers:
            os.kill(process, number)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with suppress(OSError):  # nobody asks any more
        link.sendall(struct.pack("i", code))
    os._exit(0)


def _become(words: list[str], folder: str, environment: dict[str, str], descriptors: list[int]) -> int | None:
    """What `python -m` of these words would be."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, given in enumerate(descriptors):
        os.dup2(given, descriptor)
        os.close(given)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, "rw"[n > 0], closefd=False) for n in range(3))
    known: list[Any] = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:0] = [entry for entry in known if entry not in sys.path]
    sys.argv[:] = words
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
    return None
