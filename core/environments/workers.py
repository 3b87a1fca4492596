"""Helper processes that are kept: started when needed, taken by one thread at a time, ended with the process of ours.

A forked child starts its own: it must not talk through its parent's pipes. They are started by threads that stay: a
process that is to die with its parent (prctl's PR_SET_PDEATHSIG) dies with the thread that has started it.
"""

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Final, Generic, Protocol, TypeVar


class Worker(Protocol):
    """A process and its pipes."""

    def kill(self) -> None:
        """End it with all that it started, and reap it."""
        ...

    def disown(self) -> None:
        """In a forked child: close the pipes; the process is the parent's to wait for."""
        ...


W = TypeVar("W", bound=Worker)
_ALL: Final["weakref.WeakSet[Pool[Worker]]"] = weakref.WeakSet()
_starters: Final = [ThreadPoolExecutor(4)]


class Pool(Generic[W]):
    """The workers that `make` starts, `most` at a time; those that wait have a turn each."""

    def __init__(self, make: Callable[[], W], most: int) -> None:
        self._make, self._most = make, most
        self._begin()
        _ALL.add(self)  # type: ignore[arg-type]

    def _begin(self) -> None:
        self._turns = threading.BoundedSemaphore(self._most)
        self._idle: list[W] = []
        self.all: set[W] = set()

    @contextmanager
    def one(self) -> Iterator[W]:
        """A worker for this thread alone; one that is left by an exception is killed: its answer may still come."""
        with self._turns:
            worker = self._take()
            try:
                yield worker
            except BaseException:
                self.all.discard(worker)
                worker.kill()
                raise
            self._idle.append(worker)

    def _take(self) -> W:
        with suppress(IndexError):
            return self._idle.pop()
        started = _starters[0].submit(self._make)
        try:
            worker = started.result()
        except BaseException:  # of its own, or a key press, after which it may still come
            started.add_done_callback(lambda late: late.exception() or late.result().kill())
            raise
        self.all.add(worker)
        return worker

    def end(self) -> None:
        """Kill every worker; the next question starts a new one."""
        self._idle.clear()
        while self.all:
            self.all.pop().kill()

    def forget(self) -> None:
        """In a forked child: the workers are the parent's, and turns are held by threads that are not here."""
        for worker in self.all:
            worker.disown()
        self._begin()


@atexit.register
def _end_all() -> None:
    for pool in list(_ALL):
        pool.end()


def _forget_all() -> None:
    _starters[0] = ThreadPoolExecutor(4)  # whose threads are not here
    for pool in list(_ALL):
        pool.forget()


os.register_at_fork(after_in_child=_forget_all)
