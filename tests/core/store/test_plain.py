"""A checkpoint is data: whatever somebody has written into it, reading it runs nothing."""

import io
import os
import pickle
import sys
import warnings
from collections import OrderedDict, defaultdict, deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

import core.loop.scoring
from core.errors import GrpoLabError
from core.loop.run_state import RunState
from core.loop.scoring import GraderLog
from core.store.integrity import DamagedError
from core.store.plain import PlainPlanner, PlainReader, refuse_more
from core.store.run_folder import RunStore


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.file}'",)


def written(folder: Path, state: Any) -> RunStore:
    (folder / "checkpoint").mkdir()
    torch.save(state, folder / "checkpoint" / "state.pt")
    return RunStore(folder)


@pytest.mark.parametrize("look", [RunStore.load_checkpoint, lambda store: store.check_checkpoint(1)])
def test_a_checkpoint_that_would_run_something_is_damaged(look: Any, tmp_path: Path) -> None:
    store = written(tmp_path, {"step": 1, "weights": Runs(tmp_path / "ran")})
    with pytest.raises(DamagedError, match=r"it would run posix\.system: it holds more than data"):
        look(store)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Runs(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()  # it would have


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    state: dict[str, Any] = {
        "step": 3,
        "weights": OrderedDict(layer.state_dict()),
        "numbers": [1, 2.5, True, None, (1, {2: {3}})],
        "texts": ["x", b"y"],
        "shape": torch.Size([1]),
        "dtype": torch.bfloat16,
        "empty": {},
        "parameter": layer.weight,
    }
    store = RunStore(tmp_path)
    store.save_checkpoint(state)
    loaded = store.load_checkpoint()
    assert loaded is not None
    assert loaded.pop("files") == {}
    for tensors in (state, loaded):
        assert torch.equal(tensors.pop("parameter"), layer.weight)
        assert torch.equal(tensors.pop("weights")["bias"], layer.bias)
    assert loaded == state


@pytest.mark.parametrize("value", [np.float64(1.0), deque([1]), defaultdict(int), Path("x"), GraderLog(), len])
def test_more_than_data_is_refused_before_it_is_written(value: object, tmp_path: Path) -> None:
    with pytest.raises(GrpoLabError, match=r"but state\['advantage_state'\]\[1\] is of type .*: keep plain values"):
        RunStore(tmp_path).save_checkpoint({"step": 1, "advantage_state": [0, value]})
    assert not (tmp_path / "checkpoint" / "state.pt").exists()
    with pytest.raises(GrpoLabError, match="a key of state"):
        refuse_more({(1, np.int64(2)): 1})


def test_an_old_checkpoint_is_read_once_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It held the log of graders as an object, of a module that has another name now."""
    monkeypatch.setitem(sys.modules, "core.scoring", core.loop.scoring)
    monkeypatch.setattr(GraderLog, "__module__", "core.scoring")
    log = GraderLog(deque([(1, 8), (0, 8)], maxlen=20), "ValueError: boom")
    store = written(tmp_path, {"step": 2, "run": {"grader_log": log, "seconds": 1.5}})
    with pytest.warns(UserWarning, match=r"state\.pt is of an older version: it is read this once"):
        state = store.load_checkpoint()
    assert state is not None
    run = RunState(None, 0, SimpleNamespace(version=7))  # type: ignore[arg-type]
    run.load_state_dict({"advantage_state": None, "hashes": {}, "seconds": 2.0, **state})
    assert (run.grader_log, run.seconds, run.policy.version) == (log, 1.5, 0)
    assert 0 <= run.cpu_seconds < 100  # an older version did not count them
    run.load_state_dict({"advantage_state": None, "hashes": {}, "seconds": 2.0, "cpu_seconds": 1000.0, **state})
    assert 1000 <= run.cpu_seconds < 1100
    assert run.grader_log.recent.maxlen == 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.save_checkpoint({**state, "run": {"grader_log": run.grader_log.state_dict()}})
        again = store.load_checkpoint()
    assert again is not None
    assert again["run"]["grader_log"] == {"recent": [[1, 8], [0, 8]], "first": "ValueError: boom", "by_machine": False}


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_shards_are_data_too(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    state = {"weights": layer.state_dict(), "optimizer": {"lr": 0.5, "betas": (0.9, 0.99)}}
    save(state, checkpoint_id=tmp_path)

    def read() -> dict[str, Any]:
        loaded: dict[str, Any] = {
            "weights": torch.nn.Linear(2, 2).state_dict(),
            "optimizer": {"lr": 0.0, "betas": (0.0, 0.0)},
        }
        load(loaded, storage_reader=PlainReader(tmp_path), planner=PlainPlanner())
        return loaded

    loaded = read()
    assert torch.equal(loaded["weights"]["weight"], layer.weight)
    assert loaded["optimizer"] == state["optimizer"]
    (tmp_path / ".metadata").write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    with pytest.raises(CheckpointException, match=r"it would run posix\.system"):
        read()
    file = io.BytesIO()
    torch.save(Runs(tmp_path / "ran"), file)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError):
        PlainPlanner().load_bytes(None, file)  # type: ignore[arg-type]
    assert not (tmp_path / "ran").exists()
