"""A run on disk: nothing is half-written, a killed run goes on from its last checkpoint, and damage is noticed.

manifest.json              versions, hashes, status, the operative gin config, a seal; at the end, `files`
metrics.jsonl              one line a step; appended and synced
eval/<suite>/step=000005.json   one file per evaluation and test suite; <suite>-reevaluated: what the final model was
                           asked afterwards
rollouts/step=000005.json  a few groups' responses with rewards and advantages
checkpoint/                state to go on from, with sharded weights a folder of shards beside it; after the last
                           step, the model as transformers saves it, or adapters as peft saves them, and models/
models/step=000005.safetensors   trained weights of the last evaluations before the end, while the run goes on
.lock, .tmp-*              whose the folder is at present, and what a killed process left unfinished

`files` are the fingerprints of the three kinds of results as they were written, not as they are found at the end: a
checkpoint carries those up to its step, the manifest of a finished run all, and those of the model's files, which are
verified when it is used as `policy.model`: results can be judged without it.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import save
from torch import Tensor

from core.distributed import barrier
from core.errors import GrpoLabError, MachineError
from core.store.checkpoint import SaveShards, read_checkpoint, write_checkpoint, write_shards
from core.store.files import read_json, write_json, write_text, write_whole
from core.store.integrity import (
    KEPT_MODELS,
    METRICS,
    REMEDY,
    DamagedError,
    Fingerprint,
    checksum,
    checksum_differs,
    evaluation_file,
    find_damage,
    fingerprints,
    model_fingerprints,
    step_files,
    whole_lines,
)
from core.store.lock import lock


class Savable(Protocol):
    """A model that a run ends with."""

    def save(self, folder: Path) -> None:
        """Write model and tokenizer."""
        ...


class RunStore:
    """The folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = self._read_manifest()
        self._files: dict[str, Fingerprint] = {}

    def _read_manifest(self) -> dict[str, Any]:
        path = self.folder / "manifest.json"
        if not path.is_file():
            return {}
        manifest = read_json(path)
        if checksum_differs(manifest):
            raise DamagedError(f"{path}: altered; {REMEDY}")
        return manifest

    @property
    def is_finished(self) -> bool:
        """Whether the run has been completed."""
        return self.manifest.get("status") == "finished"

    @property
    def files(self) -> dict[str, str]:
        """Fingerprints of what this process, and those it goes on from, have written."""
        return {name: str(fingerprint) for name, fingerprint in sorted(self._files.items())}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run's folder for this process alone, with the manifest as it is by then."""
        with lock(self.folder):
            self.manifest = self._read_manifest()
            yield

    def recover(self) -> None:
        """Clear away what a killed process left unfinished, and swap in the model of a run that finished."""
        for file in [*self.folder.rglob(".tmp-*"), self.folder / "checkpoint" / "state.tmp"]:
            file.unlink(missing_ok=True)
        if self.is_finished and (self.folder / "checkpoint.tmp").is_dir():
            self._swap_in_model()
        shutil.rmtree(self.folder / "checkpoint.tmp", ignore_errors=True)
        if self.is_finished:
            shutil.rmtree(self.folder / KEPT_MODELS, ignore_errors=True)

    def sync_ranks(self) -> None:
        """Let the other ranks look at the folder, now that it is held and tidy; all ranks together."""
        barrier()

    def update_manifest(self, **fields: Any) -> None:
        """Set fields of the manifest and write it."""
        self.manifest |= fields
        self.manifest = {name: value for name, value in self.manifest.items() if name != "seal"}
        self.manifest["seal"] = checksum(self.manifest)
        write_json(self.folder / "manifest.json", self.manifest)

    @property
    def is_broken(self) -> bool:
        """Whether the run failed for its code, settings or data: once they are mended, it may be made of others."""
        return self.manifest.get("status") == "failed" and self.manifest.get("failure") == "code"

    def discard_broken(self, identity: Mapping[str, Any]) -> None:
        """Restart a broken run where it is no longer what it was; `locked` must be held."""
        if self.is_broken and _different(self.manifest.get("identity") or {}, identity):
            for name in ("checkpoint", "eval", "rollouts", KEPT_MODELS):
                shutil.rmtree(self.folder / name, ignore_errors=True)
            for name in (METRICS, "manifest.json"):
                (self.folder / name).unlink(missing_ok=True)
            self.manifest = {}

    def check_identity(self, identity: Mapping[str, Any]) -> None:
        """Raise when what is on disk was made by something else than `identity`, saying what differs.

        A broken run is passed over: see `discard_broken`.
        """
        before = self.manifest.get("identity")
        if before is None or self.is_broken:
            return
        if different := _different(before, identity):
            name = different[0]
            raise GrpoLabError(
                f"{self.folder} cannot be resumed: its {' and '.join(different)} changed since it was started "
                f"({name}: {_difference(before.get(name), identity.get(name))}); "
                "give another folder with --out, or remove this one"
            )

    def check_data_identity(self, descriptions: Mapping[str, str]) -> None:
        """Raise when what a run learns from, described by name, is not what the manifest records."""
        before = self.manifest.get("preflight") or self.manifest.get("rewards") or {}  # what older versions call it
        for name, description in descriptions.items():
            if before.get(name, description) != description:
                raise GrpoLabError(
                    f"{self.folder} cannot be resumed: its {name} changed since it was started (was {before[name]!r}, "
                    f"is {description!r}); give another folder with --out, or remove this one"
                )

    def check_device(self, device: str) -> None:
        """Raise where a run that goes on was begun on another kind of device; of older versions' that is not known."""
        before = self.manifest.get("device", device)
        if before != device and (self.folder / "checkpoint").is_dir():
            raise MachineError(
                f"{self.folder} cannot be resumed: it was begun on {before}, and on {device} would end otherwise; give "
                f"GRPOLAB_DEVICE={before} where there is one, or remove this folder to start the run again"
            )

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Append one step's line and sync it."""
        line = json.dumps(record, allow_nan=False) + "\n"
        path = self.folder / METRICS
        try:
            with path.open("a") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise MachineError(f"cannot write {path}: {error.strerror}; the run can be resumed") from error
        self._files.setdefault(METRICS, Fingerprint()).add(line.encode())

    def write_evaluations(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Store evaluations, one a suite."""
        for record in records:
            self._write_result(evaluation_file(record), record)

    def add_reevaluation(self, record: Mapping[str, Any]) -> None:
        """Store what the model of a finished run answered afterwards, in place of an earlier part; `locked` is held.

        Killed at any instant the run is whole: a re-evaluation that the manifest does not list is not read.
        """
        name = evaluation_file(record)
        files = self.manifest.get("files") or {name: str(each) for name, each in fingerprints(self.folder).items()}
        files = {listed: fingerprint for listed, fingerprint in files.items() if listed != name}
        if name in self.manifest.get("files", {}):
            self.update_manifest(files=files)
        self._write_result(name, record)
        self.update_manifest(files={**files, name: self.files[name]})

    def write_rollout(self, step: int, record: Any) -> None:
        """Store a sample of a step's responses."""
        self._write_result(f"rollouts/step={step:06d}.json", record)

    def keep_model(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Keep the trained weights of a step, to be put into the finished run's checkpoint."""
        path = self.folder / KEPT_MODELS / f"step={step:06d}.safetensors"
        try:
            write_whole(path, save({name: each.detach().cpu().contiguous() for name, each in weights.items()}))
        except OSError as error:
            raise MachineError(f"cannot write {path}: {error.strerror}; the run can be resumed") from error

    def _write_result(self, name: str, record: Any) -> None:
        self._files[name] = Fingerprint(write_json(self.folder / name, record).encode())

    def rewind(self, state: Mapping[str, Any] | None) -> None:
        """Remove all results after the checkpoint `state`, or all when there is none, so that they can be replayed.

        Raises `DamagedError` when those up to it are not as they were written.
        """
        step = 0 if state is None else state["step"]
        if state is not None:
            self._refuse_damaged(state)
        metrics = self.folder / METRICS
        if metrics.is_file():
            write_text(metrics, b"".join(whole_lines(metrics)[:step]).decode())
        for file, written_at in step_files(self.folder):
            if state is None or written_at > step:
                file.unlink()
        self._files = fingerprints(self.folder)

    def save_checkpoint(self, state: Mapping[str, Any], save_shards: SaveShards | None = None) -> None:
        """Write the state to go on from, replacing the one before.

        `save_shards` writes every rank's part into a folder that the state names: all are there before it is.
        """
        write_checkpoint(self.folder / "checkpoint", {**state, "files": self.files}, save_shards)

    def load_checkpoint(self, *, mapped: bool = False) -> dict[str, Any] | None:
        """The last state, or None; with `mapped` its tensors stay on disk until they are used.

        It is read as plain data, and nothing in it is run. Raises `DamagedError`.
        """
        return read_checkpoint(self.folder / "checkpoint", mapped=mapped)

    def check_checkpoint(self, every: int) -> None:
        """Raise `DamagedError` unless an unfinished run, which saves every so many steps, can go on to its result."""
        state = self.load_checkpoint(mapped=True)
        if state is not None:
            self._refuse_damaged(state)
            return
        metrics = self.folder / METRICS
        if metrics.is_file() and len(whole_lines(metrics)) > every:
            raise DamagedError(f"{self.folder / 'checkpoint' / 'state.pt'}: missing; {REMEDY}")

    def _refuse_damaged(self, state: Mapping[str, Any]) -> None:
        if "files" in state and (damage := find_damage(self.folder, state["files"], state["step"])):
            raise DamagedError(f"{damage}; {REMEDY}")

    def finish(self, model: Savable, **fields: Any) -> None:
        """Swap the state for the finished model, as transformers saves it, and mark the run finished."""
        final = self.folder / "checkpoint.tmp"
        shutil.rmtree(final, ignore_errors=True)
        try:
            model.save(final)
            if (self.folder / KEPT_MODELS).is_dir():
                shutil.copytree(self.folder / KEPT_MODELS, final / KEPT_MODELS)
            files = {**self.files, **{name: str(each) for name, each in model_fingerprints(final).items()}}
        except Exception as error:  # a full disk is an error of another type with every library that writes
            shutil.rmtree(final, ignore_errors=True)
            raise MachineError(f"cannot write the model to {final}: {error}; the run can be resumed") from error
        # first marked, then swapped: killed in between, the run is finished and `recover` swaps
        self.update_manifest(status="finished", files=files, **fields)
        self._swap_in_model()

    def _swap_in_model(self) -> None:
        shutil.rmtree(self.folder / "checkpoint", ignore_errors=True)
        os.replace(self.folder / "checkpoint.tmp", self.folder / "checkpoint")
        shutil.rmtree(self.folder / KEPT_MODELS, ignore_errors=True)


class NonMainStore(RunStore):
    """The folder of a run for its other ranks: they read what the main one writes, and add their shards only."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The main rank holds the folder for all."""
        yield

    def sync_ranks(self) -> None:
        """Wait for the main rank, and read the manifest."""
        barrier()
        self.manifest = self._read_manifest()

    def recover(self) -> None:
        """Left to the main rank, like all that follows."""

    def discard_broken(self, identity: Mapping[str, Any]) -> None:  # noqa: D102
        pass

    def update_manifest(self, **fields: Any) -> None:  # noqa: D102
        pass

    def append_metrics(self, record: Mapping[str, Any]) -> None:  # noqa: D102
        pass

    def keep_model(self, step: int, weights: Mapping[str, Tensor]) -> None:  # noqa: D102
        pass

    def _write_result(self, name: str, record: Any) -> None:
        pass

    def rewind(self, state: Mapping[str, Any] | None) -> None:  # noqa: D102
        pass

    def save_checkpoint(self, state: Mapping[str, Any], save_shards: SaveShards | None = None) -> None:
        """Write this rank's shards, if there are any."""
        write_shards(self.folder / "checkpoint", state["step"], save_shards)

    def finish(self, model: Savable, **_: Any) -> None:
        """Hand over this rank's part of the weights."""
        model.save(self.folder)


def _different(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two identities."""
    return [name for name in sorted({*now, *before}) if (now.get(name) or None) != (before.get(name) or None)]


def _difference(before: Any, after: Any) -> str:
    """The first line in which two values differ."""
    old, new = (
        json.dumps(x, indent=1, sort_keys=True).splitlines() if not isinstance(x, str) else x.splitlines()
        for x in (before, after)
    )
    for a, b in zip(old, new, strict=False):
        if a != b:
            return f"was {a.strip()!r}, is {b.strip()!r}"
    extra = (old[len(new) :] or new[len(old) :] or ["nothing"])[0].strip()
    return f"{extra!r} was {'removed' if len(old) > len(new) else 'added'}"
