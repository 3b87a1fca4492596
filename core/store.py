"""A run on disk: nothing is half-written, a killed run goes on from its last checkpoint, and damage is noticed.

manifest.json              versions, hashes, status, the operative gin config, a seal; at the end, `files`
metrics.jsonl              one line a step; appended and synced
eval/<suite>/step=000005.json   one file per evaluation and test suite; <suite>-reevaluated: what the final model was
                           asked afterwards
rollouts/step=000005.json  a few groups' responses with rewards and advantages
checkpoint/                state to go on from, with sharded weights a folder of shards beside it; after the last
                           step, the model as transformers saves it, or adapters as peft saves them
.lock, .tmp-*              whose the folder is at present, and what a killed process left unfinished

`files` are the fingerprints of the three kinds of results as they were written, not as they are found at the end: a
checkpoint carries those up to its step, the manifest of a finished run all, and those of the model's files, which are
looked at when it is used as `policy.model`: results can be judged without it.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException

from core.errors import GrpoLabError, MachineError
from core.files import write_whole
from core.plain import read_plain, refuse_more
from core.ranks import wait_for_all
from core.sharding import whole

PATIENCE: Final = 120.0
"""Seconds to wait for another process that is writing to a run's folder."""

REMEDY: Final = "remove the folder of this run, or give the same command again: it will run this seed again, no other"
"""What to do about a damaged run."""

METRICS: Final = "metrics.jsonl"
CHECKPOINT: Final = "checkpoint"
REEVALUATED: Final = "-reevaluated"
"""How the suites end whose questions were put to a finished run's model afterwards."""
_STEP_FILE: Final = re.compile(r"step=(\d+)\.json")


class DamagedError(MachineError):
    """A file of a run is not as the run wrote it: the run has to be made again."""


class Savable(Protocol):
    """A model that a run ends with."""

    def save(self, folder: Path) -> None:
        """Write model and tokenizer."""
        ...


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; raises `MachineError`."""
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise MachineError(
            f"cannot write {path}: {error.strerror or error}; choose another folder with --out"
        ) from error


def parse_json(text: str | bytes) -> Any:
    """What JSON says; raises ValueError for all that cannot be read, brackets in brackets without end too."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises `GrpoLabError` naming the file when it is none."""
    try:
        value = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise GrpoLabError(f"{path} cannot be read: {error}; restore it, or remove its folder to start anew") from error
    if not isinstance(value, dict):
        raise GrpoLabError(f"{path} holds no JSON object; restore it, or remove its folder to start anew")
    return value


def write_json(path: Path, value: Any) -> str:
    """Write JSON whole or not at all; returns the text."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    write_text(path, text)
    return text


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
    found: dict[str, Fingerprint] = {}
    metrics = folder / METRICS
    if metrics.is_file():
        data = metrics.read_bytes() if step is None else b"".join(_whole_lines(metrics)[:step])
        found[METRICS] = Fingerprint(data)
    for file, written_at in _step_files(folder):
        if step is None or written_at <= step:
            found[str(file.relative_to(folder))] = Fingerprint(file.read_bytes())
    return found


def find_damage(folder: Path, recorded: Mapping[str, str], step: int | None = None) -> str | None:
    """The first result file that is not as `recorded`, and what is the matter with it; None when all are."""
    recorded = {name: fingerprint for name, fingerprint in recorded.items() if not name.startswith(f"{CHECKPOINT}/")}
    found = fingerprints(folder, step)
    return _difference_of_files(folder, recorded, {n: f for n, f in found.items() if not is_left_over(n, recorded)})


def is_left_over(name: str, recorded: Container[str]) -> bool:
    """Whether a file of a run is a re-evaluation that was killed before the manifest knew it: it counts for nothing."""
    return Path(name).parent.name.endswith(REEVALUATED) and name not in recorded


def refuse_damaged_model(folder: Path, said: str) -> None:
    """Raise `GrpoLabError` where `folder` holds the model that a run ended with, and a file is not as it was written.

    What runs from before models were fingerprinted left, and what was copied elsewhere, is taken as it is.
    """
    manifest = folder.resolve().parent / "manifest.json"
    if folder.resolve().name != CHECKPOINT or not manifest.is_file():
        return
    files = read_json(manifest).get("files", {})
    recorded = {name: fingerprint for name, fingerprint in files.items() if name.startswith(f"{CHECKPOINT}/")}
    found = {name: each for name, each in _of_model(folder).items() if name in recorded}
    if damage := _difference_of_files(folder.parent, recorded, found):
        raise GrpoLabError(
            f"{said}: {damage}: it is not the model that the run ended with. Restore it, train it again, or copy the "
            "folder elsewhere if it was changed on purpose"
        )


def _of_model(folder: Path) -> dict[str, Fingerprint]:
    """The files of a saved model, by the place in a run's folder that they have or will have."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {f"{CHECKPOINT}/{file.relative_to(folder)}": _of_file(file) for file in files}


def _of_file(file: Path) -> Fingerprint:
    found = Fingerprint()
    with file.open("rb") as opened:
        while data := opened.read(1 << 24):
            found.add(data)
    return found


def _difference_of_files(
    folder: Path, recorded: Mapping[str, str], fingerprints: Mapping[str, Fingerprint]
) -> str | None:
    found = {name: str(fingerprint) for name, fingerprint in fingerprints.items()}
    for name in sorted({*recorded, *found}):
        if name not in found:
            return f"{folder / name}: missing"
        if name not in recorded:
            return f"{folder / name}: not written by this run"
        if found[name] != recorded[name]:
            now, then = (each[name].split(":")[0] for each in (found, recorded))
            return f"{folder / name}: " + ("altered" if now == then else f"{now} bytes where {then} were written")
    return None


def seal(record: Mapping[str, Any]) -> str:
    """Digest of a record that keeps it as its own `seal`."""
    content = {name: value for name, value in record.items() if name != "seal"}
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()


def is_altered(record: Mapping[str, Any]) -> bool:
    """Whether a record differs from what was sealed; those without a seal are older than seals."""
    return "seal" in record and record["seal"] != seal(record)


@contextmanager
def lock(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Hold a run's folder for this process alone; raises when another has it for longer than `patience` seconds."""
    # a worker whose parent was killed goes on to the end of its step before it notices
    deadline = time.monotonic() + patience
    while True:
        try:
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
            file = _open_locked(folder / ".lock")
        except OSError as error:
            raise MachineError(
                f"cannot write to {folder}: {error.strerror}; choose another folder with --out"
            ) from error
        if file is not None:
            break
        if time.monotonic() > deadline:
            raise MachineError(f"another process is running {folder}; wait for it or end it")
        time.sleep(0.2)
    with file:
        yield


def _open_locked(path: Path) -> IO[str] | None:
    """The file at `path`, locked; None when another process has it, or the folder was set aside meanwhile."""
    with suppress(BlockingIOError, FileNotFoundError), ExitStack() as opened:
        file = opened.enter_context(path.open("w"))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            opened.pop_all()
            return file
    return None


def set_aside(folder: Path) -> Path:
    """Rename the folder of a damaged run, to which `lock` must be held; returns the first free name."""
    n = 1
    while (aside := folder.with_name(f"{folder.name}.corrupt-{n}")).exists():
        n += 1
    try:
        os.rename(folder, aside)
    except OSError as error:
        raise MachineError(f"cannot rename {folder}: {error.strerror}; {REMEDY}") from error
    return aside


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
        if is_altered(manifest):
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

    def tidy(self) -> None:
        """Clear away what a killed process left unfinished, and swap in the model of a run that finished."""
        for file in [*self.folder.rglob(".tmp-*"), self.folder / "checkpoint" / "state.tmp"]:
            file.unlink(missing_ok=True)
        if self.is_finished and (self.folder / "checkpoint.tmp").is_dir():
            self._swap_in_model()
        shutil.rmtree(self.folder / "checkpoint.tmp", ignore_errors=True)

    def meet(self) -> None:
        """Let the other ranks look at the folder, now that it is held and tidy; all ranks together."""
        wait_for_all()

    def update_manifest(self, **fields: Any) -> None:
        """Set fields of the manifest and write it."""
        self.manifest |= fields
        self.manifest = {name: value for name, value in self.manifest.items() if name != "seal"}
        self.manifest["seal"] = seal(self.manifest)
        write_json(self.folder / "manifest.json", self.manifest)

    @property
    def is_broken(self) -> bool:
        """Whether the run failed for its code, settings or data: once they are mended, it may be made of others."""
        return self.manifest.get("status") == "failed" and self.manifest.get("failure") == "code"

    def discard_broken(self, identity: Mapping[str, Any]) -> None:
        """Begin a broken run anew where it is no longer what it was; `locked` must be held."""
        if self.is_broken and _different(self.manifest.get("identity") or {}, identity):
            for name in ("checkpoint", "eval", "rollouts"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
            for name in (METRICS, "manifest.json"):
                (self.folder / name).unlink(missing_ok=True)
            self.manifest = {}

    def refuse_other(self, identity: Mapping[str, Any]) -> None:
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

    def refuse_changed(self, said: Mapping[str, str]) -> None:
        """Raise when what a run learns from is not what the manifest says of it; `said` by name."""
        before = self.manifest.get("rewards") or {}
        for name, words in said.items():
            if before.get(name, words) != words:
                raise GrpoLabError(
                    f"{self.folder} cannot be resumed: its {name} changed since it was started (was {before[name]!r}, "
                    f"is {words!r}); give another folder with --out, or remove this one"
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

    def write_evaluation(self, record: Mapping[str, Any]) -> None:
        """Store one suite's evaluation."""
        self._write_result(_evaluation_file(record), record)

    def add_reevaluation(self, record: Mapping[str, Any]) -> None:
        """Store what the model of a finished run answered afterwards, in place of an earlier part; `locked` is held.

        Killed at any instant the run is whole: a re-evaluation that the manifest does not list is not read.
        """
        name = _evaluation_file(record)
        files = self.manifest.get("files") or {name: str(each) for name, each in fingerprints(self.folder).items()}
        files = {listed: fingerprint for listed, fingerprint in files.items() if listed != name}
        if name in self.manifest.get("files", {}):
            self.update_manifest(files=files)
        self._write_result(name, record)
        self.update_manifest(files={**files, name: self.files[name]})

    def write_rollout(self, step: int, record: Any) -> None:
        """Store a sample of a step's responses."""
        self._write_result(f"rollouts/step={step:06d}.json", record)

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
            write_text(metrics, b"".join(_whole_lines(metrics)[:step]).decode())
        for file, written_at in _step_files(self.folder):
            if state is None or written_at > step:
                file.unlink()
        self._files = fingerprints(self.folder)

    def save_checkpoint(self, state: Mapping[str, Any], save_shards: Callable[[Path], None] | None = None) -> None:
        """Write the state to go on from, replacing the one before.

        `save_shards` writes every rank's part into a folder that the state names: all are there before it is.
        """
        folder = self.folder / "checkpoint"
        try:
            folder.mkdir(exist_ok=True)
            shards = _write_shards(folder, state["step"], save_shards)
            kept = {"shards": shards, "shard_sizes": _sizes(folder / shards)} if shards else {}
            torch.save(refuse_more({**state, "files": self.files, **kept}), folder / "state.tmp")
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

    def load_checkpoint(self, *, mapped: bool = False) -> dict[str, Any] | None:
        """The last state, or None; with `mapped` its tensors stay on disk until they are used.

        It is read as plain data, and nothing in it is run. Raises `DamagedError`.
        """
        path = self.folder / "checkpoint" / "state.pt"
        if not path.is_file():
            return None
        try:
            # torch writes checksums and does not read them
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged:
                raise ValueError(f"the checksum of {damaged} is another")
            state: dict[str, Any] = read_plain(path, mapped=mapped)
        except Exception as error:  # which one depends on the byte that is wrong
            raise DamagedError(f"{path}: no checkpoint of ours ({error}); {REMEDY}") from error
        if "shards" in state:
            folder, found = path.parent / state["shards"], _sizes(path.parent / state["shards"])
            for name, size in state.get("shard_sizes", {}).items():
                if (now := found.get(name, 0)) != size:
                    raise DamagedError(f"{folder / name}: {now} bytes where {size} were written; {REMEDY}")
        return state

    def check_checkpoint(self, every: int) -> None:
        """Raise `DamagedError` unless an unfinished run, which saves every so many steps, can go on to its result."""
        state = self.load_checkpoint(mapped=True)
        if state is not None:
            self._refuse_damaged(state)
            return
        metrics = self.folder / METRICS
        if metrics.is_file() and len(_whole_lines(metrics)) > every:
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
            files = {**self.files, **{name: str(each) for name, each in _of_model(final).items()}}
        except Exception as error:  # a full disk is an error of another type with every library that writes
            shutil.rmtree(final, ignore_errors=True)
            raise MachineError(f"cannot write the model to {final}: {error}; the run can be resumed") from error
        # first marked, then swapped: killed in between, the run is finished and `tidy` swaps
        self.update_manifest(status="finished", files=files, **fields)
        self._swap_in_model()

    def _swap_in_model(self) -> None:
        shutil.rmtree(self.folder / "checkpoint", ignore_errors=True)
        os.replace(self.folder / "checkpoint.tmp", self.folder / "checkpoint")


class OnlookerStore(RunStore):
    """The folder of a run for its other ranks: they read what the main one writes, and add their shards only."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The main rank holds the folder for all."""
        yield

    def meet(self) -> None:
        """Wait for the main rank, and read the manifest."""
        wait_for_all()
        self.manifest = self._read_manifest()

    def tidy(self) -> None:
        """Left to the main rank, like all that follows."""

    def discard_broken(self, identity: Mapping[str, Any]) -> None:  # noqa: D102
        pass

    def update_manifest(self, **fields: Any) -> None:  # noqa: D102
        pass

    def append_metrics(self, record: Mapping[str, Any]) -> None:  # noqa: D102
        pass

    def _write_result(self, name: str, record: Any) -> None:
        pass

    def rewind(self, state: Mapping[str, Any] | None) -> None:  # noqa: D102
        pass

    def save_checkpoint(self, state: Mapping[str, Any], save_shards: Callable[[Path], None] | None = None) -> None:
        """Write this rank's shards, if there are any."""
        _write_shards(self.folder / "checkpoint", state["step"], save_shards)

    def finish(self, model: Savable, **_: Any) -> None:
        """Hand over this rank's part of the weights."""
        model.save(self.folder)


def _write_shards(folder: Path, step: int, save_shards: Callable[[Path], None] | None) -> str | None:
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


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file in a folder; torch's shards carry no checksum."""
    return {file.name: file.stat().st_size for file in sorted(folder.iterdir())} if folder.is_dir() else {}


def hash_weights(model: nn.Module) -> str:
    """A short digest of all weights; all ranks together, where weights are spread over them."""
    return hash_tensors(whole(parameter) for _, parameter in sorted(model.named_parameters()))


def _different(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two identities."""
    return [name for name in sorted({*now, *before}) if (now.get(name) or None) != (before.get(name) or None)]


def _evaluation_file(record: Mapping[str, Any]) -> str:
    """Where an evaluation lies in a run's folder."""
    return f"eval/{record['split']}/step={record['step']:06d}.json"


def _step_files(folder: Path) -> list[tuple[Path, int]]:
    """Evaluations and rollouts, each with its step."""
    files = [*folder.glob("eval/**/step=*.json"), *folder.glob("rollouts/step=*.json")]
    return [(file, int(match[1])) for file in files if (match := _STEP_FILE.fullmatch(file.name))]


def _whole_lines(file: Path) -> list[bytes]:
    """The lines of a file, without a last one that a killed process left unfinished."""
    return [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _difference(before: Any, after: Any) -> str:
    """The first line in which two values differ."""
    old, new = (json.dumps(x, indent=1, sort_keys=True).splitlines() if not isinstance(x, str) else x.splitlines()
                for x in (before, after))  # fmt: skip
    for a, b in zip(old, new, strict=False):
        if a != b:
            return f"was {a.strip()!r}, is {b.strip()!r}"
    extra = (old[len(new) :] or new[len(old) :] or ["nothing"])[0].strip()
    return f"{extra!r} was {'removed' if len(old) > len(new) else 'added'}"
