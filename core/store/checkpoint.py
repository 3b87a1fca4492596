"""A checkpoint on disk: one file of plain data, replaced whole, and a folder of shards where weights are spread.

state.pt           what `RunStore.save_checkpoint` was given, with the fingerprints of the results so far
shards-000020/     every rank's part of weights and optimizer, as torch or DeepSpeed writes them
"""

import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch.distributed.checkpoint.api import CheckpointException

from core.errors import MachineError
from core.store.integrity import REMEDY, DamagedError
from core.store.plain import read_plain, refuse_more

SaveShards: TypeAlias = Callable[[Path], None]
"""Writes this rank's part into a folder; all ranks together."""


def write_checkpoint(folder: Path, state: Mapping[str, Any], save_shards: SaveShards | None = None) -> None:
    """Replace the checkpoint in `folder` by `state`, which is of `state["step"]`; raises `MachineError`."""
    try:
        folder.mkdir(exist_ok=True)
        shards = write_shards(folder, state["step"], save_shards)
        sharded = {"shards": shards, "shard_sizes": _sizes(folder / shards)} if shards else {}
        torch.save(refuse_more({**state, **sharded}), folder / "state.tmp")
        with (folder / "state.tmp").open("rb") as file:
            os.fsync(file.fileno())
        os.replace(folder / "state.tmp", folder / "state.pt")
        for old in folder.glob("shards-*"):
            if old.name != shards:
                shutil.rmtree(old)
    except (OSError, RuntimeError) as error:
        with suppress(OSError):
            (folder / "state.tmp").unlink()
        raise MachineError(f"cannot write a checkpoint to {folder}: {error}") from error


def write_shards(folder: Path, step: int, save_shards: SaveShards | None) -> str | None:
    """Have the shards written; returns the name of their folder."""
    if save_shards is None:
        return None
    name = f"shards-{step:06d}"
    try:
        save_shards(folder / name)
    except CheckpointException as error:  # torch's, of any rank, and no Exception: nothing else would catch it
        cause = next((failure[0] for failure in error.failures.values()), error)
        raise MachineError(f"cannot write a checkpoint to {folder}: {cause}") from error
    return name


def read_checkpoint(folder: Path, *, mapped: bool = False) -> dict[str, Any] | None:
    """The state in `folder`, or None; with `mapped` its tensors stay on disk. Raises `DamagedError`."""
    path = folder / "state.pt"
    if not path.is_file():
        return None
    try:
        # torch writes checksums and does not read them
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"the checksum of {damaged} differs")
        state: dict[str, Any] = read_plain(path, mapped=mapped)
    except Exception as error:  # which one depends on the byte that is wrong
        raise DamagedError(f"{path}: not a valid checkpoint ({error}); {REMEDY}") from error
    if "shards" in state:
        sizes = _sizes(folder / state["shards"])
        for name, size in state.get("shard_sizes", {}).items():
            if (now := sizes.get(name, 0)) != size:
                raise DamagedError(
                    f"{folder / state['shards'] / name}: {now} bytes where {size} were written; {REMEDY}"
                )
    return state


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file in a folder; torch's shards carry no checksum."""
    return {file.name: file.stat().st_size for file in sorted(folder.iterdir())} if folder.is_dir() else {}
