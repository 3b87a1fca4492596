"""A headless Chromium for tests: the few DevTools commands that they need, over a pipe."""

import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One page; `problems` collects what the console, the log and uncaught exceptions say."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        from_us, to_us = os.pipe(), os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4
        script = f'exec "$@" 3<&{from_us[0]} 4>&{to_us[1]}'
        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run")
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", CHROMIUM, *flags, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(from_us[0], to_us[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(from_us[0])
        os.close(to_us[1])
        self._commands, self._answers = os.fdopen(from_us[1], "wb"), os.fdopen(to_us[0], "rb")
        self._ids, self._read = itertools.count(1), self._messages()
        self._session: str | None = None
        self._seen: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._commands.close()  # which ends Chromium
        self._answers.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        number = next(self._ids)
        session = {"sessionId": self._session} if self._session else {}
        self._commands.write(json.dumps({"id": number, "method": method, "params": parameters, **session}).encode())
        self._commands.write(b"\0")
        self._commands.flush()
        for message in self._read:
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                result: dict[str, Any] = message["result"]
                return result
            self._seen.append(message)
        raise AssertionError(f"Chromium ended before it answered {method}")

    def open(self, page: Path, *, width: int = 1280, height: int = 900) -> None:
        """Show a file in a window of this size and wait until it has loaded and been drawn."""
        self._seen.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(message.get("method") == "Page.loadEventFired" for message in self._seen):
            self._seen.append(next(self._read))
        # and until it has been drawn: what the page's script does at its size follows that
        drawn = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
        self.call("Runtime.evaluate", expression=drawn, awaitPromise=True)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    @property
    def problems(self) -> list[str]:
        """Errors and console output since the page was opened."""
        self.value("0")  # all events before it have then arrived
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(message["params"]) for message in self._seen if message.get("method") in kinds]

    def _messages(self) -> Iterator[dict[str, Any]]:
        pending = b""
        while chunk := os.read(self._answers.fileno(), 1 << 16):
            *complete, pending = (pending + chunk).split(b"\0")
            yield from map(json.loads, complete)
