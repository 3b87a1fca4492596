"""What a run's files were when they were written, and how damage to them is noticed."""

import hashlib
import json
import re
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from core.errors import GrpoLabError, MachineError
from core.store.files import (
    read_json,
)

REMEDY: Final = "remove the folder of this run, or give the same command again: it will run this seed again, no other"
"""What to do about a damaged run."""
METRICS: Final = "metrics.jsonl"
CHECKPOINT: Final = "checkpoint"
KEPT_MODELS: Final = "models"
"""Where weights of evaluations before the last are kept: in the run's folder, and with the final model in the end."""
REEVALUATED: Final = "-reevaluated"
"""How the suites end whose questions were put to a finished run's model afterwards."""
_STEP_FILE: Final = re.compile(r"step=(\d+)\.json")


class DamagedError(MachineError):
    """A file of a run is not as the run wrote it: the run has to be made again."""


def hash_tensors(tensors: Iterable[Tensor]) -> str:
    """A short digest of tensors' bytes and shapes."""
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        data = tensor.detach().cpu().contiguous()
        digest.update(repr((tuple(data.shape), str(data.dtype))).encode())
        digest.update(data.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Fingerprint:
    """Size and digest of a file, kept up as the file grows."""

    def __init__(self, data: bytes = b"") -> None:
        self._size, self._digest = 0, hashlib.blake2b(digest_size=16)
        self.add(data)

    def add(self, data: bytes) -> None:
        """Take in what was appended."""
        self._size += len(data)
        self._digest.update(data)

    def __str__(self) -> str:
        return f"{self._size}:{self._digest.hexdigest()}"


def fingerprints(folder: Path, step: int | None = None) -> dict[str, Fingerprint]:
    """The result files of the run in `folder` by their place in it; with `step`, as they were when it had ended."""
    by_name: dict[str, Fingerprint] = {}
    metrics = folder / METRICS
    if metrics.is_file():
        data = metrics.read_bytes() if step is None else b"".join(whole_lines(metrics)[:step])
        by_name[METRICS] = Fingerprint(data)
    for file, written_at in step_files(folder):
        if step is None or written_at <= step:
            by_name[str(file.relative_to(folder))] = Fingerprint(file.read_bytes())
    return by_name


def find_damage(folder: Path, recorded: Mapping[str, str], step: int | None = None) -> str | None:
    """The first result file that is not as `recorded`, and what is the matter with it; None when all are."""
    recorded = {name: fingerprint for name, fingerprint in recorded.items() if not name.startswith(f"{CHECKPOINT}/")}
    present = fingerprints(folder, step)
    return _difference_of_files(folder, recorded, {n: f for n, f in present.items() if not is_left_over(n, recorded)})


def is_left_over(name: str, recorded: Container[str]) -> bool:
    """Whether a file of a run is a re-evaluation that was killed before the manifest knew it: it counts for nothing."""
    return Path(name).parent.name.endswith(REEVALUATED) and name not in recorded


def refuse_damaged_model(folder: Path, setting: str) -> None:
    """Raise `GrpoLabError` where `folder` holds the model that a run ended with, and a file is not as it was written.

    What runs from before models were fingerprinted left, and what was copied elsewhere, is taken as it is.
    """
    manifest = folder.resolve().parent / "manifest.json"
    if folder.resolve().name != CHECKPOINT or not manifest.is_file():
        return
    files = read_json(manifest).get("files", {})
    recorded = {name: fingerprint for name, fingerprint in files.items() if name.startswith(f"{CHECKPOINT}/")}
    present = {name: each for name, each in model_fingerprints(folder).items() if name in recorded}
    # those of earlier evaluations may be removed: the final model is whole without
    kept = f"{CHECKPOINT}/{KEPT_MODELS}/"
    recorded = {name: each for name, each in recorded.items() if name in present or not name.startswith(kept)}
    if damage := _difference_of_files(folder.parent, recorded, present):
        raise GrpoLabError(
            f"{setting}: {damage}: it is not the model that the run ended with. Restore it, train it again, or copy "
            "the folder elsewhere if it was changed on purpose"
        )


def model_fingerprints(folder: Path) -> dict[str, Fingerprint]:
    """The files of a saved model, by the place in a run's folder that they have or will have."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {f"{CHECKPOINT}/{file.relative_to(folder)}": _of_file(file) for file in files}


def _of_file(file: Path) -> Fingerprint:
    fingerprint = Fingerprint()
    with file.open("rb") as opened:
        while data := opened.read(1 << 24):
            fingerprint.add(data)
    return fingerprint


def _difference_of_files(
    folder: Path, recorded: Mapping[str, str], fingerprints: Mapping[str, Fingerprint]
) -> str | None:
    present = {name: str(fingerprint) for name, fingerprint in fingerprints.items()}
    for name in sorted({*recorded, *present}):
        if name not in present:
            return f"{folder / name}: missing"
        if name not in recorded:
            return f"{folder / name}: not written by this run"
        if present[name] != recorded[name]:
            now, then = (each[name].split(":")[0] for each in (present, recorded))
            return f"{folder / name}: " + ("altered" if now == then else f"{now} bytes where {then} were written")
    return None


def checksum(record: Mapping[str, Any]) -> str:
    """Digest of a record that keeps it as its own `seal`."""
    content = {name: value for name, value in record.items() if name != "seal"}
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()


def checksum_differs(record: Mapping[str, Any]) -> bool:
    """Whether a record differs from what was sealed; those without a seal are older than seals."""
    return "seal" in record and record["seal"] != checksum(record)


def evaluation_file(record: Mapping[str, Any]) -> str:
    """Where an evaluation lies in a run's folder."""
    return f"eval/{record['split']}/step={record['step']:06d}.json"


def step_files(folder: Path) -> list[tuple[Path, int]]:
    """Evaluations and rollouts, each with its step."""
    files = [*folder.glob("eval/**/step=*.json"), *folder.glob("rollouts/step=*.json")]
    return [(file, int(match[1])) for file in files if (match := _STEP_FILE.fullmatch(file.name))]


def whole_lines(file: Path) -> list[bytes]:
    """The lines of a file, without a last one that a killed process left unfinished."""
    return [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
