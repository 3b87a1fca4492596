"""Checkpoints as plain data: what they may hold, and readers that run nothing from the file."""

import io
import pickle
import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import ReadItem

from core.errors import GrpoLabError

_PLAIN: Final = (
    type(None),
    bool,
    int,
    float,
    str,
    bytes,
    Tensor,
    nn.Parameter,
    torch.Size,
    torch.dtype,
    torch.device,
)


class _OldLog:
    """What older versions kept of failed graders as an object of theirs: its attributes are all that is read."""


_OLD: Final[list[Any]] = [
    (_OldLog, "core.scoring.GraderLog"),
    (lambda items=(), _=None: list(items), "collections.deque"),
]
"""What checkpoints of older versions have beside plain data, and how it is read."""


def refuse_more(value: Any, place: str = "state") -> Any:
    """The value, if it is made of what `read_plain` reads back; raises `GrpoLabError` naming the place."""
    kind = type(value)
    if kind in (dict, OrderedDict):
        for key, inner in value.items():
            refuse_more(key, f"a key of {place}")
            refuse_more(inner, f"{place}[{key!r}]")
    elif kind in (list, tuple, set):
        for number, inner in enumerate(value):
            refuse_more(inner, f"{place}[{number}]")
    elif kind not in _PLAIN:
        raise GrpoLabError(
            f"a checkpoint holds numbers, texts, tensors, lists, tuples and dictionaries alone, but {place} is of type "
            f"{kind.__module__}.{kind.__qualname__}: keep plain values in the state"
        )
    return value


def read_plain(path: Path, *, mapped: bool) -> dict[str, Any]:
    """What a file holds, unpickled by torch's reader of plain data, which runs nothing."""
    try:
        return torch.load(path, weights_only=True, map_location="cpu", mmap=mapped)  # type: ignore[no-any-return]
    except pickle.UnpicklingError as error:
        with torch.serialization.safe_globals(_OLD):
            try:
                state = torch.load(path, weights_only=True, map_location="cpu", mmap=mapped)
            except pickle.UnpicklingError:
                named = re.search(r"GLOBAL (\S+)", str(error))
                raise ValueError(f"it would run {named[1] if named else 'code'}: it holds more than data") from None
    warnings.warn(
        f"{path} is of an older version: it is read this once, and the next checkpoint replaces it", stacklevel=2
    )
    return state  # type: ignore[no-any-return]


_IN_METADATA: Final = {
    "torch.distributed.checkpoint.metadata",
    "torch.distributed.checkpoint.filesystem._StorageInfo",
    "torch.Size",
    "torch.serialization._get_layout",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "collections.OrderedDict",
}


class _Metadata(pickle.Unpickler):
    """Reads where the parts of a sharded checkpoint lie, and runs nothing else that is in it."""

    def find_class(self, module: str, name: str) -> Any:
        """A class that belongs there; raises `UnpicklingError` for another."""
        value = super().find_class(module, name) if _IN_METADATA & {module, f"{module}.{name}"} else None
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            value = getattr(torch, name)
        if value is None or (module.endswith(".metadata") and value.__module__ != module):
            raise pickle.UnpicklingError(f"it would run {module}.{name}: it holds more than data")
        return value


class PlainReader(FileSystemReader):
    """Torch's reader of sharded checkpoints, of plain data alone."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Where the parts lie."""
        with open(self._get_metadata_path(kwargs.get("rank")), "rb") as file:
            _Metadata(file).load()  # raises, or torch may read it
        return super().read_metadata(*args, **kwargs)


class PlainPlanner(DefaultLoadPlanner):
    """Torch's way of putting the parts in place, of plain data alone."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Put what is no tensor in place."""
        torch.load(value, weights_only=True)  # raises, or torch may read it
        value.seek(0)
        super().load_bytes(read_item, value)
