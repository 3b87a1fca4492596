"""A vLLM server on other devices, which reads new weights from a folder that both see."""

import http.client
import json
import secrets
import shutil
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from core import web
from core.distributed import gather, is_main
from core.errors import GrpoLabError, MachineError
from core.generation.vllm.backend import Answer, Sample
from core.model.policy import Policy
from core.printable import printable

IN_FLIGHT: Final = 64
"""Responses that are asked of a server at a time."""
SECONDS: Final = 600.0
"""That the server may take to answer."""
MAX_BYTES: Final = 1 << 30
"""Of an answer."""
UNTOUCHED: Final = {
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Sent with every request: what is left out, a server takes from the model's generation_config.json."""


class Server:
    """A server on other devices that reads weights from a folder."""

    def __init__(self, url: str, folder: Path) -> None:
        self.loaded: tuple[weakref.ref[Policy], int] | None = None
        self._url, self._folder = url, folder
        self._read: str | None = None
        """The folder that the server read last, as far as we know: no other run writes to one of its name."""
        self._model: str = _call(f"{url}/v1/models")["data"][0]["id"]

    def push(self, policy: Policy) -> None:
        """Write the weights, have them read, and forget what was computed with the old ones; all ranks together."""
        weights: dict[str, Tensor] = {}
        for name, weight in policy.weights():
            if is_main():
                weights[name] = weight.detach().to(policy.dtype).cpu().contiguous()
        failure = None
        if is_main():
            try:
                self._read = self._hand_over(weights)
            except GrpoLabError as error:
                failure = error
        # every rank gets the main rank's outcome: the others would wait for ever for one that failed
        self._read, failure = gather([(self._read, failure)])[0]
        if failure is not None:
            raise failure

    def _hand_over(self, weights: Mapping[str, Tensor]) -> str:
        """Have the server read the weights; returns the folder that they were in."""
        folder = self._folder.resolve() / f"weights-{secrets.token_hex(8)}"
        try:
            folder.mkdir(parents=True)
            save_file(dict(weights), folder / "model.safetensors", metadata={"format": "pt"})
            _call(f"{self._url}/collective_rpc", {"method": "read_folder", "args": [str(folder)]})
            _call(f"{self._url}/reset_prefix_cache", {})
        except (OSError, SafetensorError) as error:
            raise MachineError(f"cannot write weights to vllm.sync_folder = '{self._folder}': {error}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return str(folder)

    def rest(self) -> None:
        """Nothing to do: its devices are not the trainer's."""

    def check(self) -> None:
        """Raise where the server has been restarted, or given another run's weights."""
        for folder in _call(f"{self._url}/collective_rpc", {"method": "folder_read"})["results"]:
            if folder != self._read:
                raise MachineError(
                    f"{self._url} has other weights than this run gave it: it was restarted, or serves another run as "
                    "well. Give every run a server of its own, and the same command again"
                )

    def answer(self, samples: Sequence[Sample], end_tokens: Sequence[int]) -> list[Answer]:
        """One request for each response, since each has a seed of its own; the server batches them."""

        def one(sample: Sample) -> Answer:
            choice = _call(
                f"{self._url}/v1/completions",
                {
                    "model": self._model,
                    "prompt": sample.prompt,
                    "max_tokens": sample.max_tokens,
                    "temperature": sample.temperature,
                    "seed": sample.seed,
                    "logprobs": 0,
                    "return_token_ids": True,
                    "stop_token_ids": list(end_tokens),
                    **vars(sample.truncation),
                    **UNTOUCHED,
                },
            )["choices"][0]
            return Answer(
                choice["token_ids"], choice["logprobs"]["token_logprobs"], choice["finish_reason"] == "length"
            )

        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            return list(pool.map(one, samples))


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
    for attempt in range(3):
        try:
            text = web.fetch(url, body, {"Content-Type": "application/json"}, seconds=SECONDS, most=MAX_BYTES)
            return json.loads(text) if text else None
        except web.RefusedError as error:
            hint = "; start it as `grpolab describe vllm` shows" if error.status == 404 else ""
            raise (MachineError if error.status >= 500 else GrpoLabError)(
                f"{url} refused: {error.status} {printable(error.message, lines=False)[:500]}{hint}"
            ) from error
        except (ValueError, RecursionError) as error:
            raise GrpoLabError(f"{url} does not answer with JSON: is vllm.url the address of a vLLM server?") from error
        except (OSError, http.client.HTTPException) as error:
            if attempt == 2:
                raise MachineError(
                    f"{url} does not answer ({error}): is the server that vllm.url names running?"
                ) from error
    raise AssertionError
