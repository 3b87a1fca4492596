"""A run on disk: nothing is half-written, damage is noticed, and what was started by something else is refused."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.state_dict_saver import save

from core import GrpoLabError
from core.errors import MachineError
from core.model.sharding import hash_weights
from core.store.files import (
    write_json,
    write_text,
)
from core.store.integrity import (
    DamagedError,
    find_damage,
    fingerprints,
    hash_tensors,
    refuse_damaged_model,
)
from core.store.lock import (
    lock,
    quarantine,
)
from core.store.run_folder import (
    NonMainStore,
    RunStore,
)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "file.json"
    write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    assert path.stat().st_mode & 0o777 == 0o644

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_number_that_is_not_finite_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(GrpoLabError, match=r"cannot write .*choose another folder with --out"):
        write_text(tmp_path / "file" / "manifest.json", "{}")
    with (
        pytest.raises(GrpoLabError, match=r"cannot write to .*choose another folder"),
        RunStore(tmp_path / "file" / "run").locked(),
    ):
        pass


def filled(folder: Path, steps: int = 6) -> RunStore:
    """A run's folder after some steps, with an evaluation at every second one."""
    store = RunStore(folder)
    store.update_manifest(status="running", identity={"config": "a = 1\nb = 2\n", "source": "abc"})
    for step in range(1, steps + 1):
        store.append_metrics({"step": step, "reward": step / 10})
        store.write_rollout(step, [])
        if step % 2 == 0:
            for split in ("test", "test_long"):
                store.write_evaluations([{"step": step, "split": split}])
    store.write_evaluations([{"step": 0, "split": "test"}])
    return store


def steps_in(folder: Path) -> dict[str, list[int]]:
    metrics = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    files = {
        kind: sorted(int(f.stem.removeprefix("step=")) for f in folder.glob(f"{kind}/step=*.json"))
        for kind in ("eval/test", "eval/test_long", "rollouts")
    }
    return {"metrics": metrics, **files}


def test_steps_after_the_checkpoint_are_removed(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.rewind({"step": 3})
    assert steps_in(tmp_path) == {
        "metrics": [1, 2, 3],
        "eval/test": [0, 2],
        "eval/test_long": [2],
        "rollouts": [1, 2, 3],
    }
    assert store.files.keys() == {
        "metrics.jsonl",
        "eval/test/step=000000.json",
        "eval/test/step=000002.json",
        "eval/test_long/step=000002.json",
        "rollouts/step=000001.json",
        "rollouts/step=000002.json",
        "rollouts/step=000003.json",
    }
    store.rewind(None)
    assert steps_in(tmp_path) == {"metrics": [], "eval/test": [], "eval/test_long": [], "rollouts": []}


def test_a_line_that_a_killed_process_left_unfinished_is_removed(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    files = store.files
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "rew')
    store.rewind({"step": 2, "files": files})
    assert steps_in(tmp_path)["metrics"] == [1, 2]
    assert store.files == files


def test_rewinding_an_empty_folder_is_fine(tmp_path: Path) -> None:
    RunStore(tmp_path).rewind(None)
    assert list(tmp_path.iterdir()) == []


def test_fingerprints_are_of_what_was_written(tmp_path: Path) -> None:
    """Size and blake2b of the bytes on disk, for a file that grows too."""
    store = filled(tmp_path, 2)
    for name, fingerprint in store.files.items():
        data = (tmp_path / name).read_bytes()
        assert fingerprint == f"{len(data)}:{hashlib.blake2b(data, digest_size=16).hexdigest()}"
    assert store.files == {name: str(fingerprint) for name, fingerprint in fingerprints(tmp_path).items()}
    assert len(store.files) == 1 + 3 + 2  # metrics, evaluations, rollouts


def damages(file: Path) -> Iterator[str]:
    """Damage a file in every small way, one after the other; it is whole again after the last."""
    data = file.read_bytes()
    for place in range(len(data)):
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        yield f"{file.name}: bit flipped in byte {place}"
    for length in range(0, len(data), 7):
        file.write_bytes(data[:length])
        yield f"{file.name}: cut after {length} bytes"
    file.write_bytes(data + b"\n")
    yield f"{file.name}: longer"
    file.unlink()
    yield f"{file.name}: missing"
    file.write_bytes(data)


def test_no_byte_of_a_result_can_change_unnoticed(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    for name in store.files:
        for how in damages(tmp_path / name):
            damage = find_damage(tmp_path, store.files)
            assert damage, how
            assert damage.startswith(f"{tmp_path / name}: "), how
    assert find_damage(tmp_path, store.files) is None
    shutil.copy(tmp_path / "rollouts" / "step=000001.json", tmp_path / "rollouts" / "step=000009.json")
    assert find_damage(tmp_path, store.files) == f"{tmp_path}/rollouts/step=000009.json: not written by this run"


def test_kinds_of_damage_are_distinguished(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    file, size = tmp_path / "rollouts" / "step=000002.json", len("[]\n")
    file.write_text("[]")
    assert find_damage(tmp_path, store.files) == f"{file}: {size - 1} bytes where {size} were written"
    file.write_text("{}\n")
    assert find_damage(tmp_path, store.files) == f"{file}: altered"
    file.unlink()
    assert find_damage(tmp_path, store.files) == f"{file}: missing"


def test_what_a_checkpoint_builds_on_must_be_as_it_was_written(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    store.save_checkpoint({"step": 2})
    for step in (3, 4):
        store.append_metrics({"step": step, "reward": 9.0})
    store.write_evaluations([{"step": 4, "split": "test"}])
    (tmp_path / "eval" / "test" / "step=000004.json").write_text("after the checkpoint: will be written again")
    store.check_checkpoint(every=2)
    for name in store.files:
        if name != "eval/test/step=000004.json":
            data = (tmp_path / name).read_bytes()
            (tmp_path / name).write_bytes(b"x" + data[1:])
            with pytest.raises(DamagedError, match=rf"{name}: altered; remove the folder .*or give the same command"):
                store.check_checkpoint(every=2)
            with pytest.raises(DamagedError, match=f"{name}: altered"):
                store.rewind(store.load_checkpoint())
            (tmp_path / name).write_bytes(data)
    store.rewind(store.load_checkpoint())
    assert steps_in(tmp_path)["metrics"] == [1, 2]


def test_no_bit_of_a_checkpoint_can_change_unnoticed(tmp_path: Path) -> None:
    """Each is refused, or makes no difference (a byte of the padding, say)."""
    store = RunStore(tmp_path)
    state = {"step": 1, "weights": torch.arange(4.0), "grader_log": {"failed": 3}}
    store.save_checkpoint(state)
    file = tmp_path / "checkpoint" / "state.pt"
    data = file.read_bytes()
    refused = 0
    for place in range(0, len(data), 3):
        file.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])
        try:
            checkpoint = store.load_checkpoint()
        except DamagedError:
            refused += 1
        else:
            assert checkpoint is not None
            assert checkpoint.keys() == {*state, "files"}
            assert torch.equal(checkpoint["weights"], torch.arange(4.0))
            assert (checkpoint["step"], checkpoint["grader_log"], checkpoint["files"]) == (1, {"failed": 3}, {})
    assert refused > 100
    for length in (0, 1, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:length])
        with pytest.raises(DamagedError, match=rf"{file}: not a valid checkpoint \(.*remove the folder"):
            store.load_checkpoint()


def test_a_checkpoint_that_must_have_been_is_missed(tmp_path: Path) -> None:
    """Saved after every second step: two lines may be of a run that was killed before its first, three not."""
    filled(tmp_path, 2).check_checkpoint(every=2)
    filled(tmp_path, 1).check_checkpoint(every=3)
    with pytest.raises(DamagedError, match=r"state\.pt: missing; remove the folder"):
        RunStore(tmp_path).check_checkpoint(every=2)


def test_no_byte_of_a_manifest_can_change_its_meaning_unnoticed(tmp_path: Path) -> None:
    filled(tmp_path).update_manifest(status="finished", seconds=1.5)
    file = tmp_path / "manifest.json"
    before = {name: value for name, value in RunStore(tmp_path).manifest.items() if name != "seal"}
    refused = 0
    for how in damages(file):
        try:
            manifest = RunStore(tmp_path).manifest
        except GrpoLabError:
            refused += 1
        else:
            # white space, and the seal's own name
            assert not manifest or {name: manifest[name] for name in before} == before, how
    assert refused > file.stat().st_size / 2


def test_a_manifest_that_is_older_than_seals_is_read(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"status": "finished"}')
    assert RunStore(tmp_path).is_finished


def test_a_damaged_run_is_set_aside_and_nothing_deleted(tmp_path: Path) -> None:
    run = tmp_path / "seed=3"
    for n in (1, 2):
        filled(run)
        with lock(run):
            assert quarantine(run) == tmp_path / f"seed=3.corrupt-{n}"
        assert not run.exists()
        assert steps_in(tmp_path / f"seed=3.corrupt-{n}")["metrics"] == [1, 2, 3, 4, 5, 6]


def test_what_a_killed_process_left_unfinished_is_cleared_away(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    store.save_checkpoint({"step": 2})
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for name in (".tmp-1-manifest.json", "eval/test/.tmp-1-step=000004.json", "checkpoint/state.tmp"):
        (tmp_path / name).write_text("{")
    (tmp_path / "checkpoint.tmp").mkdir()
    (tmp_path / "checkpoint.tmp" / "config.json").write_text("{")
    store.recover()
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert not (tmp_path / "checkpoint.tmp").exists()


def test_the_model_of_a_run_that_was_killed_after_its_mark_is_swapped_in(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    store.save_checkpoint({"step": 2})
    (tmp_path / "checkpoint.tmp").mkdir()
    (tmp_path / "checkpoint.tmp" / "model.safetensors").write_text("the model")
    store.update_manifest(status="finished")
    for _ in range(2):
        RunStore(tmp_path).recover()
        assert [file.name for file in (tmp_path / "checkpoint").iterdir()] == ["model.safetensors"]
        assert not (tmp_path / "checkpoint.tmp").exists()


def test_what_something_else_started_is_refused_saying_what_differs(tmp_path: Path) -> None:
    filled(tmp_path)
    store = RunStore(tmp_path)
    store.check_identity({"config": "a = 1\nb = 2\n", "source": "abc"})
    with pytest.raises(GrpoLabError, match=r"its config changed since .*was 'b = 2', is 'b = 3'.*--out") as refused:
        store.check_identity({"config": "a = 1\nb = 3\n", "source": "abc"})
    assert str(tmp_path) in str(refused.value)
    with pytest.raises(GrpoLabError, match=r"config and source changed .*'c = 3' was added"):
        store.check_identity({"config": "a = 1\nb = 2\nc = 3\n", "source": "xyz"})
    with pytest.raises(GrpoLabError, match=r"'b = 2' was removed"):
        store.check_identity({"config": "a = 1\n", "source": "abc"})
    with pytest.raises(GrpoLabError, match="versions changed"):
        store.check_identity({"config": "a = 1\nb = 2\n", "source": "abc", "versions": {"torch": "2.9"}})


@pytest.mark.parametrize("written_as", ["preflight", "rewards"])
def test_a_run_goes_on_with_the_data_that_it_began_with(tmp_path: Path, written_as: str) -> None:
    """The descriptions of its parts are in the manifest, where older versions called it `rewards`."""
    store = RunStore(tmp_path)
    store.update_manifest(**{written_as: {"source": "7 pairs", "judge": "a model"}})
    store.check_data_identity({"source": "7 pairs"})
    store.check_data_identity({"other": "not recorded then"})
    with pytest.raises(GrpoLabError, match=r"its source changed since it was started \(was '7 pairs', is '8 pairs'\)"):
        store.check_data_identity({"source": "8 pairs"})


def test_a_new_folder_refuses_nothing(tmp_path: Path) -> None:
    RunStore(tmp_path).check_identity({"config": "a = 1"})


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        lock(tmp_path / "run"),
        pytest.raises(GrpoLabError, match="another process is running"),
        lock(tmp_path / "run", patience=0),
    ):
        pass
    with RunStore(tmp_path / "run").locked():
        pass


def test_the_lock_of_a_folder_that_was_set_aside_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went with the folder: held, it would keep no process out of the new one."""
    run, locked = tmp_path / "seed=0", fcntl.flock

    def flock(file: Any, operation: int) -> None:
        if not (tmp_path / "seed=0.corrupt-1").exists():
            quarantine(run)
        locked(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock(run):
        with pytest.raises(GrpoLabError, match="another process is running"), lock(run, patience=0):
            pass
        assert (tmp_path / "seed=0.corrupt-1" / ".lock").is_file()


def test_the_manifest_keeps_what_is_not_overwritten(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.update_manifest(status="finished")
    again = RunStore(tmp_path)
    assert again.is_finished
    assert again.manifest["identity"]["source"] == "abc"
    assert not RunStore(tmp_path / "other").is_finished


def test_a_checkpoint_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RunStore(tmp_path)
    assert store.load_checkpoint() is None
    store.save_checkpoint({"step": 1, "weights": torch.ones(2)})

    def broken(*_: Any) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr("torch.save", broken)
    with pytest.raises(GrpoLabError, match=r"cannot write a checkpoint to .*disk full"):
        store.save_checkpoint({"step": 2})
    state = store.load_checkpoint()
    assert state is not None
    assert state["step"] == 1
    assert torch.equal(state["weights"], torch.ones(2))


def test_shards_that_are_not_as_they_were_written_are_missed(tmp_path: Path) -> None:
    store = RunStore(tmp_path)

    def save(folder: Path) -> None:
        folder.mkdir()
        for rank in range(2):
            (folder / f"__{rank}_0.distcp").write_bytes(b"12345678")

    store.save_checkpoint({"step": 2}, save)
    assert store.load_checkpoint() is not None
    shard = tmp_path / "checkpoint" / "shards-000002" / "__1_0.distcp"
    shard.write_bytes(b"1234")
    with pytest.raises(DamagedError, match=r"__1_0.distcp: 4 bytes where 8 were written; remove the folder"):
        store.load_checkpoint()
    shard.unlink()
    with pytest.raises(DamagedError, match=r"__1_0.distcp: 0 bytes where 8 were written"):
        store.load_checkpoint()


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.parametrize("kind", [RunStore, NonMainStore])
def test_shards_that_cannot_be_written_are_the_machines_doing(kind: type[RunStore], tmp_path: Path) -> None:
    """What torch raises there is no Exception."""

    def full(folder: Path) -> None:
        folder.parent.mkdir(exist_ok=True)
        folder.write_text("in the way")
        save({"weights": torch.ones(2)}, checkpoint_id=folder)

    with pytest.raises(MachineError, match=r"cannot write a checkpoint to .*File exists"):
        kind(tmp_path).save_checkpoint({"step": 2}, full)


def test_a_folder_is_tidied_without_waiting_for_other_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands do it too, each with the folder's lock, before any rank has begun."""
    monkeypatch.setattr("core.store.run_folder.barrier", lambda: pytest.fail("waits"))
    RunStore(tmp_path).recover()


def test_digests_see_values_shapes_and_types() -> None:
    tensors = [
        torch.zeros(2, 3),
        torch.zeros(3, 2),
        torch.zeros(6),
        torch.zeros(2, 3).bfloat16(),
        torch.zeros(2, 3, dtype=torch.long),
        torch.ones(2, 3),
        torch.zeros(0),
        torch.tensor(0.0),
    ]
    digests = [hash_tensors([t]) for t in tensors]
    assert len(set(digests)) == len(tensors)
    assert hash_tensors(tensors) == hash_tensors([t.clone() for t in tensors])
    assert hash_tensors([torch.arange(4), torch.arange(4)]) != hash_tensors([torch.arange(8)])
    assert hash_tensors([torch.arange(6).view(2, 3).T]) == hash_tensors([torch.arange(6).view(2, 3).T.contiguous()])


def test_weights_are_distinguished_by_a_single_bit() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    before = hash_weights(layer)
    with torch.no_grad():
        layer.weight[1, 2] = torch.nextafter(layer.weight[1, 2], torch.tensor(9.0))
    assert hash_weights(layer) != before


class OneFile:
    """A model of one file."""

    def save(self, folder: Path) -> None:
        """Write it."""
        folder.mkdir()
        (folder / "weights").write_bytes(b"0123")


def test_the_model_that_a_run_ended_with_is_verified_when_it_is_used(tmp_path: Path) -> None:
    """Cut, changed or gone; results are judged without it, and a copy elsewhere is anybody's."""
    run = tmp_path / "run"
    store = filled(run)
    store.finish(OneFile())
    file = run / "checkpoint" / "weights"
    assert store.manifest["files"]["checkpoint/weights"].startswith("4:")
    refuse_damaged_model(run / "checkpoint", "policy.model = 'x'")
    for damage, message in ((b"012", "3 bytes where 4 were written"), (b"0124", "altered"), (None, "missing")):
        file.write_bytes(damage) if damage else file.unlink()
        with pytest.raises(
            GrpoLabError, match=rf"policy.model = 'x': {file}: {message}: it is not the model that the run"
        ):
            refuse_damaged_model(run / "checkpoint", "policy.model = 'x'")
        assert find_damage(run, store.manifest["files"]) is None
    shutil.copytree(run / "checkpoint", tmp_path / "copy")
    refuse_damaged_model(tmp_path / "copy", "policy.model = 'x'")


@pytest.mark.parametrize(
    "error", [OSError(28, "full"), Exception("No space left on device (os error 28)"), KeyError("x")]
)
def test_whatever_a_writer_of_models_raises_is_the_machines_and_the_run_can_go_on(
    tmp_path: Path, error: Exception
) -> None:
    class Full:
        def save(self, folder: Path) -> None:
            folder.mkdir()
            raise error

    store = filled(tmp_path / "run", 2)
    store.save_checkpoint({"step": 2})
    with pytest.raises(MachineError, match=r"cannot write the model to .*; the run can be resumed"):
        store.finish(Full())
    assert not store.is_finished
    assert not (tmp_path / "run" / "checkpoint.tmp").exists()
    assert store.load_checkpoint() is not None


def test_a_run_does_not_go_on_on_another_kind_of_device(tmp_path: Path) -> None:
    """Its bits would be others; one without a checkpoint begins again, and of older versions' runs it is not known."""
    store = RunStore(tmp_path)
    store.check_device("cuda")
    store.update_manifest(device="cuda")
    store.check_device("cpu")
    store.save_checkpoint({"step": 1})
    store.check_device("cuda")
    with pytest.raises(MachineError, match=r"begun on cuda, and on cpu would end otherwise; give GRPOLAB_DEVICE=cuda"):
        store.check_device("cpu")
    store.update_manifest(device=None)
    del store.manifest["device"]
    store.check_device("cpu")
