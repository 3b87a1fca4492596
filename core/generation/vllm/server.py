"""A vLLM server on other devices, which reads new weights from a folder that both see."""

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save_file

from core.errors import GrpoLabError
from core.generation.vllm.backend import Answer, Asked
from core.policy import Policy
from core.ranks import is_main, wait_for_all

IN_FLIGHT: Final = 64
"""Responses that are asked of a server at a time."""


class Server:
    """A server on other devices that reads weights from a folder."""

    def __init__(self, url: str, folder: Path) -> None:
        self.holds: tuple[Policy, int] | None = None
        self._url, self._folder, self._pushed = url, folder, 0
        self._model: str = _call(f"{url}/v1/models")["data"][0]["id"]

    def push(self, policy: Policy) -> None:
        """Write the weights, have them read, and forget what was computed with the old ones; all ranks together."""
        weights = {name: weight.detach().to(policy.dtype).cpu().contiguous() for name, weight in policy.weights()}
        if is_main():
            self._pushed += 1
            folder = self._folder / f"weights-{self._pushed:06d}"
            folder.mkdir(parents=True, exist_ok=True)
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
            _call(f"{self._url}/collective_rpc", {"method": "read_folder", "args": [str(folder.resolve())]})
            _call(f"{self._url}/reset_prefix_cache", {})
            shutil.rmtree(folder)
        wait_for_all()

    def answer(self, asked: Sequence[Asked], end_tokens: Sequence[int]) -> list[Answer]:
        """One request for each response, since each has a seed of its own; the server batches them."""

        def one(a: Asked) -> Answer:
            choice = _call(
                f"{self._url}/v1/completions",
                {
                    "model": self._model, "prompt": a.prompt, "max_tokens": a.max_tokens, "temperature": a.temperature,
                    "seed": a.seed, "logprobs": 0, "return_token_ids": True, "stop_token_ids": list(end_tokens),
                },
            )["choices"][0]  # fmt: skip
            return Answer(
                choice["token_ids"], choice["logprobs"]["token_logprobs"], choice["finish_reason"] == "length"
            )

        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            return list(pool.map(one, asked))


_servers: dict[tuple[str, str], Server] = {}


def server_at(url: str, folder: str) -> Server:
    """The server, asked for its model once."""
    if (url, folder) not in _servers:
        _servers[url, folder] = Server(url, Path(folder))
    return _servers[url, folder]


def server_version(url: str) -> str:
    """What answers there; raises `GrpoLabError` when nothing does."""
    return f"vLLM {_call(f'{url}/version')['version']}"


def _call(url: str, content: Any = None) -> Any:
    """The JSON that the server answers; `content` is posted. Raises `GrpoLabError` when it does not answer."""
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    for attempt in range(3):
        try:
            with urllib.request.urlopen(request, timeout=600) as response:
                text = response.read()
                return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            raise GrpoLabError(f"{url} refused: {error.code} {error.read().decode()[:500]}") from error
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            if attempt == 2:
                raise GrpoLabError(
                    f"{url} does not answer ({error}): is the server that vllm.url names running?"
                ) from error
    raise AssertionError
