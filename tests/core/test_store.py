"""A run on disk: nothing is half-written, and what was started by something else is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from core import GrpoLabError
from core.store import RunStore, hash_tensors, hash_weights, write_json, write_text


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
                store.write_evaluation({"step": step, "split": split})
    store.write_evaluation({"step": 0, "split": "test"})
    return store


def steps_in(folder: Path) -> dict[str, list[int]]:
    metrics = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    files = {
        kind: sorted(int(f.stem.removeprefix("step=")) for f in folder.glob(f"{kind}/step=*.json"))
        for kind in ("eval/test", "eval/test_long", "rollouts")
    }
    return {"metrics": metrics, **files}


def test_steps_after_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.forget_after(3)
    assert steps_in(tmp_path) == {
        "metrics": [1, 2, 3], "eval/test": [0, 2], "eval/test_long": [2], "rollouts": [1, 2, 3],
    }  # fmt: skip
    store.forget_after(0)
    assert steps_in(tmp_path) == {"metrics": [], "eval/test": [0], "eval/test_long": [], "rollouts": []}


def test_a_line_that_a_killed_process_left_unfinished_is_forgotten(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "rew')
    store.forget_after(5)
    assert steps_in(tmp_path)["metrics"] == [1, 2]


def test_forgetting_in_an_empty_folder_is_fine(tmp_path: Path) -> None:
    RunStore(tmp_path).forget_after(0)
    assert list(tmp_path.iterdir()) == []


def test_what_something_else_started_is_refused_saying_what_differs(tmp_path: Path) -> None:
    filled(tmp_path)
    store = RunStore(tmp_path)
    store.refuse_other({"config": "a = 1\nb = 2\n", "source": "abc"})
    with pytest.raises(GrpoLabError, match=r"its config changed since .*was 'b = 2', is 'b = 3'.*--out") as refused:
        store.refuse_other({"config": "a = 1\nb = 3\n", "source": "abc"})
    assert str(tmp_path) in str(refused.value)
    with pytest.raises(GrpoLabError, match=r"config and source changed .*'c = 3' was added"):
        store.refuse_other({"config": "a = 1\nb = 2\nc = 3\n", "source": "xyz"})
    with pytest.raises(GrpoLabError, match=r"'b = 2' was removed"):
        store.refuse_other({"config": "a = 1\n", "source": "abc"})
    with pytest.raises(GrpoLabError, match="versions changed"):
        store.refuse_other({"config": "a = 1\nb = 2\n", "source": "abc", "versions": {"torch": "2.9"}})


def test_a_new_folder_refuses_nothing(tmp_path: Path) -> None:
    RunStore(tmp_path).refuse_other({"config": "a = 1"})


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        RunStore(tmp_path / "run").locked(),
        pytest.raises(GrpoLabError, match="another process is running"),
        RunStore(tmp_path / "run").locked(),
    ):
        pass
    with RunStore(tmp_path / "run").locked():
        pass


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


def test_digests_see_values_shapes_and_types() -> None:
    tensors = [torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(6), torch.zeros(2, 3).bfloat16(),
               torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3), torch.zeros(0), torch.tensor(0.0)]  # fmt: skip
    digests = [hash_tensors([t]) for t in tensors]
    assert len(set(digests)) == len(tensors)
    assert hash_tensors(tensors) == hash_tensors([t.clone() for t in tensors])
    assert hash_tensors([torch.arange(4), torch.arange(4)]) != hash_tensors([torch.arange(8)])
    assert hash_tensors([torch.arange(6).view(2, 3).T]) == hash_tensors([torch.arange(6).view(2, 3).T.contiguous()])


def test_weights_are_told_apart_by_a_single_bit() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    before = hash_weights(layer)
    with torch.no_grad():
        layer.weight[1, 2] = torch.nextafter(layer.weight[1, 2], torch.tensor(9.0))
    assert hash_weights(layer) != before
