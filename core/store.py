"""A run on disk: nothing is half-written, and a killed run goes on from its last checkpoint.

manifest.json              versions, hashes, status, the operative gin config
metrics.jsonl              one line a step; appended and synced
eval/<suite>/step=000005.json   one file per evaluation and test suite
rollouts/step=000005.json  a few groups' responses with rewards and advantages
checkpoint/                state to go on from; after the last step, the model as transformers saves it
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import GrpoLabError, MachineError
from core.policy import Policy


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: to a neighbour first, synced, then renamed."""
    unfinished = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise MachineError(
            f"cannot write {path}: {error.strerror or error}; choose another folder with --out"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises `GrpoLabError` naming the file when it is none."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise GrpoLabError(f"{path} cannot be read: {error}; restore it, or remove its folder to start anew") from error
    if not isinstance(value, dict):
        raise GrpoLabError(f"{path} holds no JSON object; restore it, or remove its folder to start anew")
    return value


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def hash_tensors(tensors: Iterable[Tensor]) -> str:
    """A short digest of tensors' bytes and shapes."""
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        data = tensor.detach().cpu().contiguous()
        digest.update(repr((tuple(data.shape), str(data.dtype))).encode())
        digest.update(data.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class RunStore:
    """The folder of one run."""

    patience = 120.0
    """Seconds to wait for another process that is writing to the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = self._read_manifest()

    def _read_manifest(self) -> dict[str, Any]:
        path = self.folder / "manifest.json"
        return read_json(path) if path.is_file() else {}

    @property
    def is_finished(self) -> bool:
        """Whether the run has been completed."""
        return self.manifest.get("status") == "finished"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run's folder for this process alone; raises when another process is writing to it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / ".lock").open("w")
        except OSError as error:
            raise MachineError(
                f"cannot write to {self.folder}: {error.strerror}; choose another folder with --out"
            ) from error
        with file:
            # a worker whose parent was killed goes on to the end of its step before it notices
            deadline = time.monotonic() + self.patience
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise MachineError(f"another process is running {self.folder}; wait for it or end it") from None
                    time.sleep(0.2)
            self.manifest = self._read_manifest()
            yield

    def update_manifest(self, **fields: Any) -> None:
        """Set fields of the manifest and write it."""
        self.manifest |= fields
        write_json(self.folder / "manifest.json", self.manifest)

    def refuse_other(self, identity: Mapping[str, Any]) -> None:
        """Raise when what is on disk was made by something else than `identity`, saying what differs."""
        before = self.manifest.get("identity")
        if before is None:
            return
        different = [name for name in sorted({*identity, *before}) if identity.get(name) != before.get(name)]
        if different:
            name = different[0]
            raise GrpoLabError(
                f"{self.folder} cannot be resumed: its {' and '.join(different)} changed since it was started "
                f"({name}: {_difference(before.get(name), identity.get(name))}); "
                "give another folder with --out, or remove this one"
            )

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Append one step's line and sync it."""
        try:
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(record, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            path = self.folder / "metrics.jsonl"
            raise MachineError(f"cannot write {path}: {error.strerror}; the run can be resumed") from error

    def write_evaluation(self, record: Mapping[str, Any]) -> None:
        """Store one suite's evaluation."""
        write_json(self.folder / "eval" / record["split"] / f"step={record['step']:06d}.json", record)

    def write_rollout(self, step: int, record: Any) -> None:
        """Store a sample of a step's responses."""
        write_json(self.folder / "rollouts" / f"step={step:06d}.json", record)

    def forget_after(self, step: int) -> None:
        """Remove everything after `step`, so that it can be replayed."""
        metrics = self.folder / "metrics.jsonl"
        if metrics.is_file():
            lines = [line for line in metrics.read_text().splitlines(keepends=True) if line.endswith("\n")]
            write_text(metrics, "".join(lines[:step]))
        for file in [*self.folder.glob("eval/*/step=*.json"), *self.folder.glob("rollouts/step=*.json")]:
            if int(file.stem.removeprefix("step=")) > step:
                file.unlink()

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Write the state to go on from, replacing the one before."""
        folder = self.folder / "checkpoint"
        try:
            folder.mkdir(exist_ok=True)
            torch.save(dict(state), folder / "state.tmp")
            with (folder / "state.tmp").open("rb") as file:
                os.fsync(file.fileno())
            os.replace(folder / "state.tmp", folder / "state.pt")
        except (OSError, RuntimeError) as error:
            with suppress(OSError):
                (folder / "state.tmp").unlink()
            raise MachineError(f"cannot write a checkpoint to {folder}: {error}") from error

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last state, or None. It is a pickle of our own making: do not resume a folder from somebody else."""
        path = self.folder / "checkpoint" / "state.pt"
        if not path.is_file():
            return None
        state: dict[str, Any] = torch.load(path, weights_only=False, map_location="cpu")
        return state

    def finish(self, policy: Policy, **fields: Any) -> None:
        """Swap the state for the finished model, as transformers saves it, and mark the run finished."""
        final = self.folder / "checkpoint.tmp"
        shutil.rmtree(final, ignore_errors=True)
        try:
            policy.model.save_pretrained(final)
            policy.tokenizer.save_pretrained(final)
        except (OSError, RuntimeError) as error:  # safetensors reports a full disk as the latter
            shutil.rmtree(final, ignore_errors=True)
            raise MachineError(f"cannot write the model to {final}: {error}; the run can be resumed") from error
        # first marked, then swapped: killed in between, the run counts as finished and keeps its state
        self.update_manifest(status="finished", **fields)
        shutil.rmtree(self.folder / "checkpoint", ignore_errors=True)
        os.replace(final, self.folder / "checkpoint")


def hash_weights(model: nn.Module) -> str:
    """A short digest of all weights."""
    return hash_tensors(parameter for _, parameter in sorted(model.named_parameters()))


def _difference(before: Any, after: Any) -> str:
    """The first line in which two values differ."""
    old, new = (json.dumps(x, indent=1, sort_keys=True).splitlines() if not isinstance(x, str) else x.splitlines()
                for x in (before, after))  # fmt: skip
    for a, b in zip(old, new, strict=False):
        if a != b:
            return f"was {a.strip()!r}, is {b.strip()!r}"
    extra = (old[len(new) :] or new[len(old) :] or ["nothing"])[0].strip()
    return f"{extra!r} was {'removed' if len(old) > len(new) else 'added'}"
