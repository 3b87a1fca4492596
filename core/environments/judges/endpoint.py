"""A judge behind an address that speaks OpenAI's protocol: chat completions of one token."""

import functools
import hashlib
import json
import math
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from core import web
from core.errors import GrpoLabError, MachineError
from core.printable import printable

WAITS: Final = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further attempt."""
MAX_IN_A_ROW: Final = 8
"""Questions that are given up, none answered between them, before the server is taken to be down."""
MAX_LENGTH_OF_WAIT: Final = 60.0
"""That a server may ask for by Retry-After."""
MAX_BYTES: Final = 1 << 20
"""Of an answer, which is one token with its alternatives."""
TOP: Final = 20
"""Alternatives asked for beside the token; OpenAI and vLLM give no more."""
_PASSING: Final = (408, 409, 425, 429)


@dataclass(frozen=True)
class Endpoint:
    """Who is asked, and within what bounds."""

    url: str
    name: str
    key_variable: str
    seconds: float
    parallel: int
    cache: str
    budget: int


class NoAnswerError(Exception):
    """A request that was given up; the message is the last reason."""


class RefusedError(GrpoLabError):
    """The server will not have such a request, however often it is sent."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class EndpointJudge:
    """A served model; gives probabilities where the server reports them, else the verdict itself."""

    def __init__(self, settings: Endpoint) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._asks_logprobs = True
        self.gave_probabilities = False
        """Whether some verdict came with probabilities."""
        self.requests = 0
        """Sent by this process, failed ones included."""

    def prefer(self, questions: Sequence[str], words: Sequence[str]) -> list[float]:
        """P(first) / (P(first) + P(second)) for the two `words`, or 1 and 0; NaN where there was no verdict.

        Verdicts that the cache has cost no request. Raises `GrpoLabError` where the server refuses requests as such,
        `MachineError` when the budget is spent and when the server has gone.
        """
        keys = [self._key(question, words) for question in questions]
        with self._cached() as cache:
            known = cache.read(keys)
            missing = {key: question for key, question in zip(keys, questions, strict=True) if key not in known}
            in_a_row: list[str] = []
            gave_up = threading.Event()

            def one(key: str, question: str) -> None:
                if gave_up.is_set():
                    return
                try:
                    value = self.ask(question, words)
                except NoAnswerError as error:
                    with self._lock:
                        in_a_row.append(str(error))
                        if len(in_a_row) >= MAX_IN_A_ROW:
                            gave_up.set()
                except GrpoLabError:
                    gave_up.set()
                    raise
                else:
                    with self._lock:
                        if not gave_up.is_set():  # else an answer that comes late would take the reason away
                            in_a_row.clear()
                        known[key] = value
                        if not math.isnan(value):
                            cache.write(key, value)

            with ThreadPoolExecutor(self._settings.parallel) as pool:
                try:
                    for finished in [pool.submit(one, *item) for item in missing.items()]:
                        finished.result()
                except BaseException:  # a key press, too: those that wait for their turn are not to be sent
                    gave_up.set()
                    raise
        if gave_up.is_set():
            raise MachineError(
                f"{self._settings.url}: {MAX_IN_A_ROW} questions in a row were not answered; the run stops, "
                f"and the same command goes on from its last checkpoint. The first: {in_a_row[0]}"
            )
        return [known.get(key, math.nan) for key in keys]

    def ask(self, question: str, words: Sequence[str]) -> float:
        """One question, past the cache; raises `NoAnswerError` when the server does not answer it."""
        choice = self._complete(question)
        try:
            tops = ((choice.get("logprobs") or {}).get("content") or [{}])[0].get("top_logprobs") or []
            masses = [
                math.fsum(math.exp(top["logprob"]) for top in tops if _is_verdict(top["token"], word)) for word in words
            ]
            if sum(masses) > 0:
                self.gave_probabilities = True
                return masses[0] / sum(masses)
            text = choice["message"]["content"]
            matches = [_is_verdict(text, word) for word in words]
        except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError):
            raise NoAnswerError(f"an answer in another form: {self._sanitized(choice)}") from None
        return float(matches[0]) if any(matches) else math.nan

    def _complete(self, question: str) -> Any:
        """The first choice of a completion."""
        content: dict[str, Any] = {
            "model": self._settings.name,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": 1,
            "temperature": 0,
        }
        if self._asks_logprobs:
            try:
                return self._post({**content, "logprobs": True, "top_logprobs": TOP})
            except RefusedError as error:
                if error.code not in (400, 422):
                    raise
                # some servers refuse to report them; if it was something else, it is refused once more
                choice = self._post(content)
                self._asks_logprobs = False
                return choice
        return self._post(content)

    def _post(self, content: Mapping[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._settings.key_variable:
            headers["Authorization"] = f"Bearer {_api_key(self._settings.key_variable)}"
        url, seconds = f"{self._settings.url}/chat/completions", self._settings.seconds
        body, reason = json.dumps(content).encode(), ""
        for wait in (*WAITS, None):
            self._count()
            retry_after = 0.0
            try:
                return json.loads(web.fetch(url, body, headers, seconds=seconds, most=MAX_BYTES))["choices"][0]
            except web.RefusedError as error:
                reason = f"{error.status} {self._sanitized(error.message)}"
                if error.status < 500 and error.status not in _PASSING:
                    raise RefusedError(
                        f"{url} refused: {reason}. Look at judge.name = {self._settings.name!r} and at the key in "
                        f"judge.key_variable = {self._settings.key_variable!r}",
                        error.status,
                    ) from None
                retry_after = _seconds(error.retry_after)
            except (OSError, HTTPException) as error:
                reason = f"{type(error).__name__}: {self._sanitized(error)}"
            except (ValueError, LookupError, TypeError, RecursionError) as error:
                reason = f"no completion ({type(error).__name__}: {self._sanitized(error)})"
            if wait is not None:
                time.sleep(min(max(wait, retry_after), MAX_LENGTH_OF_WAIT))
        raise NoAnswerError(f"{len(WAITS) + 1} attempts, the last: {reason}")

    def _sanitized(self, message: object) -> str:
        """A server's message, as it may be shown: without the key, in one line of text, and not too long."""
        text = str(message)
        key = os.environ.get(self._settings.key_variable, "").strip() if self._settings.key_variable else ""
        for spelling in {key, json.dumps(key)[1:-1], quote(key, safe="")} - {""}:
            text = text.replace(spelling, "***")
        return printable(text, lines=False)[:300]

    def _count(self) -> None:
        with self._lock:
            if self.requests >= self._settings.budget:
                raise MachineError(
                    f"the judge at {self._settings.url} was sent {self.requests} requests, which is judge.budget: the "
                    "run stops. The same command goes on from its last checkpoint with as many again, and verdicts in "
                    "the cache cost none"
                )
            self.requests += 1

    def _key(self, question: str, words: Sequence[str]) -> str:
        """Digest of all that a verdict depends on."""
        content = json.dumps([self._settings.url, self._settings.name, question, list(words), self._asks_logprobs])
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    @contextmanager
    def _cached(self) -> "Iterator[_Cache]":
        cache = _Cache(self._settings.cache)
        try:
            yield cache
        finally:
            cache.close()


class _Cache:
    """Verdicts on disk by the digest of the question; several processes may use the file at a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            if path:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            # threads take turns by the judge's lock; every statement is a transaction of its own
            self._base = sqlite3.connect(path or ":memory:", timeout=60, isolation_level=None, check_same_thread=False)
            self._base.execute("CREATE TABLE IF NOT EXISTS verdicts (question TEXT PRIMARY KEY, value REAL NOT NULL)")
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error

    def read(self, keys: Sequence[str]) -> dict[str, float]:
        """Those verdicts that are there."""
        verdicts: dict[str, float] = {}
        try:
            for key in dict.fromkeys(keys):
                row = self._base.execute("SELECT value FROM verdicts WHERE question = ?", (key,)).fetchone()
                if row:
                    verdicts[key] = row[0]
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return verdicts

    def write(self, key: str, value: float) -> None:
        """Keep a verdict; one that another process has written meanwhile stays."""
        try:
            self._base.execute("INSERT OR IGNORE INTO verdicts VALUES (?, ?)", (key, value))
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        self._base.close()

    def _unusable(self, error: Exception) -> MachineError:
        return MachineError(
            f"judge.cache = {self._path!r} cannot be used: {error}; give another file, or '' for no cache"
        )


@functools.lru_cache(maxsize=8)
def endpoint(settings: Endpoint) -> EndpointJudge:
    """The judge there; its budget is counted for the whole process."""
    return EndpointJudge(settings)


@functools.lru_cache(maxsize=8)
def check_endpoint(settings: Endpoint, words: tuple[str, str]) -> str:
    """What its verdicts are; raises `GrpoLabError` when a first question is not answered."""
    if not settings.name:
        raise GrpoLabError(f"judge.name is not set: which of the models at {settings.url} is to judge")
    if settings.key_variable:
        _api_key(settings.key_variable)
    judge = endpoint(settings)
    try:
        judge.ask(f"Is 2 + 2 = 4? Answer with {words[0]} or {words[1]}.", words)
    except NoAnswerError as error:
        raise GrpoLabError(f"judge.model = {settings.url!r} does not answer: {error}") from None
    return f"verdicts {'with' if judge.gave_probabilities else 'without'} probabilities"


def _api_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise GrpoLabError(f"judge.key_variable = {variable!r}: that environment variable is not set")
    if not re.fullmatch(r"[!-~]+", key):
        raise GrpoLabError(
            f"judge.key_variable = {variable!r}: what that environment variable holds is no key: it has blanks, line "
            "ends or letters beyond ASCII in it"
        )
    return key


def _is_verdict(text: str, word: str) -> bool:
    """Whether a token is this verdict; blanks do not matter, nor do capitals but in letters."""
    text = text.strip()
    return text == word or (len(word) > 1 and text.casefold() == word.casefold())


def _seconds(header: str | None) -> float:
    """Of a Retry-After in seconds; 0 for a date or none."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0
