"""A server that is not trusted: whatever it sends, a request ends in time, takes little memory and shows no key."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from core import GrpoLabError
from core.web import LateError, RefusedError, check_address, fetch, is_address

Serve = Callable[[Callable[[socket.socket], None]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Servers that answer each connection by a function."""
    over = threading.Event()
    sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def make(answer: Callable[[socket.socket], None]) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        sockets.append(listening)

        def run() -> None:
            with suppress(OSError):
                while not over.is_set():
                    connection, _ = listening.accept()
                    with connection, suppress(OSError):
                        connection.recv(1 << 16)
                        answer(connection)

        thread = threading.Thread(target=run)
        thread.start()
        threads.append(thread)
        return f"http://127.0.0.1:{listening.getsockname()[1]}/"

    yield make
    over.set()
    for each in sockets:
        with suppress(OSError):
            socket.create_connection(each.getsockname()).close()
        each.close()
    for thread in threads:
        thread.join()


def drips(head: bytes) -> Callable[[socket.socket], None]:
    """Sends a head, and then a byte now and then for ever."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(b"1")
            time.sleep(0.02)

    return answer


def floods(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(bytes(1 << 16))


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-A: ",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 500 Error\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000000\r\n\r\n",
    ],
    ids=["status", "header", "body", "error", "length"],
)
def test_a_server_cannot_hold_a_request(head: bytes, serve: Serve) -> None:
    url, started = serve(drips(head)), time.monotonic()
    with pytest.raises((LateError, RefusedError)):
        fetch(url, seconds=0.5, most=1 << 20)
    assert time.monotonic() - started < 60, "for ever otherwise"


def test_a_server_cannot_fill_the_memory(serve: Serve) -> None:
    with pytest.raises(OSError, match="longer than 1000 bytes"):
        fetch(serve(floods), seconds=60, most=1000)


def test_what_is_answered_is_read_whole(serve: Serve) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    assert fetch(serve(answer), seconds=60, most=5) == b"hello"
    with pytest.raises(OSError, match="longer than 4 bytes"):
        fetch(serve(answer), seconds=60, most=4)


def test_a_redirection_is_a_refusal(serve: Serve) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 2\r\n\r\nno")

    with pytest.raises(RefusedError) as refused:
        fetch(serve(answer), b"{}", {"Authorization": "Bearer key"}, seconds=60, most=5)
    assert (refused.value.status, refused.value.message) == (302, "no")


@pytest.mark.parametrize(
    "url",
    [
        "http://me:secret@host/v1",
        "https://host/v1?key=secret",
        "http://host/#secret",
        "HTTP://me:secret@host/v1",
    ],
)
def test_an_address_holds_no_secret(url: str) -> None:
    with pytest.raises(GrpoLabError, match=r"judge\.model: the address of host holds more than host") as refused:
        check_address("judge.model", url)
    assert "secret" not in str(refused.value)
    check_address("judge.model", "http://host:8000/v1")


@pytest.mark.parametrize(
    "url", ["http://[::1/v1", "http://host:port/v1", "http://host:99999/v1", "http:/me:secret@host", "http:///v1"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    assert is_address(url)
    with pytest.raises(GrpoLabError, match=r"judge\.model: that (is no address|address names no host)") as refused:
        check_address("judge.model", url)
    assert "secret" not in str(refused.value)
