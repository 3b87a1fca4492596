"""One request to a server that is not trusted: within one deadline, up to so many bytes, and to that address alone."""

import http.client
import re
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from core.errors import GrpoLabError

MAX_OF_ERROR: Final = 1 << 12
"""Bytes that are read of the body of an error."""


class LateError(OSError):
    """The deadline has passed, whatever the server was still sending."""


class RefusedError(Exception):
    """An answer with another status than 200; `args` are the status, the server's message, and Retry-After."""

    def __init__(self, status: int, message: str, retry_after: str | None) -> None:
        super().__init__(status, message, retry_after)
        self.status, self.message, self.retry_after = status, message, retry_after


def fetch(
    url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, *, seconds: float, most: int
) -> bytes:
    """What is answered to GET, or to POST of `body`.

    Raises `RefusedError`, `OSError` (`LateError` among them) or `http.client.HTTPException`. Redirections are refusals:
    a key is for one address alone.
    """
    watch = _Watch(seconds)
    request = urllib.request.Request(url, body, dict(headers or {}))
    opener = urllib.request.build_opener(_NoRedirects, _Http(watch), _Https(watch))
    with watch:
        try:
            with opener.open(request, timeout=seconds) as response:
                read: bytes = response.read(most + 1)
        except urllib.error.HTTPError as error:
            message = b""
            with error, suppress(OSError, http.client.HTTPException):
                message = error.read(MAX_OF_ERROR)
            raise RefusedError(error.code, message.decode(errors="replace"), error.headers.get("Retry-After")) from None
        except (OSError, http.client.HTTPException):
            if watch.over:
                raise LateError(f"not answered within {seconds:g} s") from None
            raise
    if watch.over:
        raise LateError(f"not answered within {seconds:g} s")
    if len(read) > most:
        raise OSError(f"the answer is longer than {most} bytes")
    return read


def is_address(text: str) -> bool:
    """Whether it begins as an address of a server does, however that is spelt."""
    return re.match(r"https?:/", text, re.IGNORECASE) is not None


def check_address(setting: str, url: str) -> None:
    """Refuse an address with a password or another secret in it, which would go into every record of a run."""
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise GrpoLabError(f"{setting}: that is no address: {error}; write it as http://host:port/path") from None
    if not parts.hostname:
        raise GrpoLabError(f"{setting}: that address names no host; write it as http://host:port/path")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise GrpoLabError(
            f"{setting}: the address of {parts.hostname} holds more than host, port and path (a user's name, a "
            "password, a query). An address is shown and stored: leave that out, and have a key in the environment"
        )


class _Watch:
    """Shuts the connection down at the deadline; a time-out of the socket's own starts again with each byte."""

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            if self._connection is not None:
                self._connection.close()

    def connect(self, *arguments: Any, **more: Any) -> socket.socket:
        """A connection that is watched."""
        connection = socket.create_connection(*arguments, **more)
        with self._lock:
            self._connection = connection.dup()
            if self.over:
                self._shut()
        return connection

    def _end(self) -> None:
        with self._lock:
            self.over = True
            self._shut()

    def _shut(self) -> None:
        if self._connection is not None:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)


class _Http(urllib.request.HTTPHandler):
    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Open a connection that is watched."""
        return self.do_open(_watched(http.client.HTTPConnection, self._watch), request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Open a connection that is watched."""
        return self.do_open(_watched(http.client.HTTPSConnection, self._watch), request)


def _watched(kind: Any, watch: _Watch) -> Any:
    def make(*arguments: Any, **more: Any) -> Any:
        connection = kind(*arguments, **more)
        connection._create_connection = watch.connect
        return connection

    return make


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Take a redirection as a refusal."""
