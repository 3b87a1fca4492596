"""W&B's local folders: a file that its client 0.31 wrote offline, read with as much of its schema as is asked for."""

import json
import struct
import sys
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from experiments.results.tables.engines.wandb import RunFiles
from experiments.results.tables.sheets import TableError
from experiments.results.tables.tables import read_tables
from tests.experiments.results.tables.engines import recorded

RECORDED = next((Path(__file__).resolve().parents[4] / "data" / "wandb").glob("*/run-x1y2z3a4.wandb"))
MESSAGES: dict[str, list[tuple[str, int, str]]] = {
    "Item": [("key", 1, ""), ("nested_key", 2, "*"), ("value_json", 16, "")],
    "History": [("item", 1, "*Item")],
    "Config": [("update", 1, "*Item")],
    "Run": [("config", 4, "Config"), ("run_group", 6, ""), ("display_name", 8, "")],
    "Record": [("history", 2, "?History"), ("config", 5, "?Config"), ("run", 17, "?Run")],
}
"""Field names, numbers and types (text unless named; * several, ? one of several) of W&B's wandb_internal.proto."""


@pytest.fixture(autouse=True)
def schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's package, which is large and not among the tests' own, as far as it is used."""
    file = descriptor_pb2.FileDescriptorProto(name="w.proto", package="w", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        if name == "Record":
            message.oneof_decl.add(name="record_type")
        for field, number, kind in fields:
            added = message.field.add(name=field, number=number, label=3 if kind[:1] == "*" else 1)
            added.type = 11 if kind.strip("*?") else 9
            if kind.strip("*?"):
                added.type_name = f".w.{kind.strip('*?')}"
            if kind[:1] == "?":
                added.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    package = ModuleType("wandb.proto.wandb_internal_pb2")
    package.Record = message_factory.GetMessageClass(pool.FindMessageTypeByName("w.Record"))  # type: ignore[attr-defined]
    proto = ModuleType("wandb.proto")
    proto.wandb_internal_pb2 = package  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    monkeypatch.setitem(sys.modules, "wandb.proto", proto)


def copied(folder: Path, data: bytes) -> Path:
    file = folder / RECORDED.parent.name / RECORDED.name
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    return file


def test_a_recorded_run_has_its_numbers_its_name_and_its_seed() -> None:
    assert RunFiles().recognises(RECORDED)
    (log,) = RunFiles().read(RECORDED)
    assert (log.title, log.settings.arm, log.settings.seed) == ("fluent-sun-3", "grpo", 3)
    evaluated = [(line.step, line.values["eval/accuracy"]) for line in log.lines if "eval/accuracy" in line.values]
    assert evaluated == [(0, 0.30), (50, 0.37), (100, 0.41)]  # by train/global_step, not by calls of log
    assert log.lines[-1].values["lengths.mean"] == 90.0
    assert str(log.lines[-1].values["eval/loss"]) == "nan"


def test_a_name_that_w_and_b_made_up_is_no_arm_and_seed(tmp_path: Path) -> None:
    """fluent-sun-3 is seed 3 by chance: were its configuration silent, the last number would be the seed."""
    copied(tmp_path, RECORDED.read_bytes())
    only = read_tables([tmp_path / RECORDED.parent.name], metric="eval/accuracy")
    assert [(run.arm, run.seed) for run in only.runs] == [("grpo", 3)]
    curve = only.runs[0].curves["eval/accuracy"]
    assert curve.spent == {"steps": [0, 50, 100], "tokens": [0, 50_000, 100_000], "seconds": [0, 100, 200]}
    assert any(note.startswith("grpo, seed 3: read from ") and "run-x1y2z3a4.wandb" in note for note in only.notes)


def test_a_summary_beside_a_whole_run_is_not_read(tmp_path: Path) -> None:
    file = copied(tmp_path, RECORDED.read_bytes())
    (file.parent / "files").mkdir()
    (file.parent / "files" / "wandb-summary.json").write_text('{"_step": 9, "eval/accuracy": 1.0}')
    (run,) = read_tables([tmp_path], metric="eval/accuracy").runs
    assert run.curves["eval/accuracy"].values == [0.30, 0.37, 0.41]


@pytest.mark.parametrize("lost", [1, 8, 30])
def test_a_last_record_that_is_torn_is_left_out_and_noted(lost: int, tmp_path: Path) -> None:
    file = copied(tmp_path, RECORDED.read_bytes()[:-lost])
    table = read_tables([tmp_path], metric="eval/accuracy")
    assert table.runs[0].curves["eval/accuracy"].values == [0.30, 0.37, 0.41]
    assert f"{file}: the last record is torn, as of a run that was killed; not read." in table.notes


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty; the run that should have written it has logged nothing"),
        (b"step,acc\n", "not a file of W&B's; copy it anew"),
        (RECORDED.read_bytes()[:7], "nothing was logged; take the file out"),
        (RECORDED.read_bytes()[:7] + b"\0\0\0\0\x04\0\x01\xff\xff\xff\xff", "record 1: not W&B's"),
    ],
)
def test_what_is_no_run_of_w_and_b_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    copied(tmp_path, data)
    with pytest.raises(TableError, match=message):
        read_tables([tmp_path], metric="eval/accuracy")


def framed(messages: list[bytes]) -> bytes:
    """Messages in blocks of 32,768 bytes: one that does not fit is cut, and a rest below 7 bytes is padding."""
    data = b":W&B\xe1\xbe\0"
    for message in messages:
        rest, first = message, True
        while rest or first:
            left = 32768 - len(data) % 32768
            if left < 7:
                data += b"\0" * left
                continue
            part, rest = rest[: left - 7], rest[left - 7 :]
            kind = (2 if rest else 1) if first else (3 if rest else 4)
            data += struct.pack("<IHB", 0, len(part), kind) + part
            first = False
    return data


def test_records_may_go_on_in_the_next_block(tmp_path: Path) -> None:
    """A configuration of 100,000 characters between evaluations: its record lies in four blocks."""
    Record = sys.modules["wandb.proto"].wandb_internal_pb2.Record
    messages = []
    for step, size in ((0, 10), (50, 100_000), (100, 32_000), (150, 700), (200, 0)):
        record = Record()
        for key, value in (("_step", step), ("acc", step / 1000), ("note", "x" * size)):
            item = record.history.item.add(value_json=json.dumps(value))
            item.nested_key.append(key)
        messages.append(record.SerializeToString())
    fitted = Record()
    fitted.history.item.add(key="note")
    short = 32765 - len(framed([fitted.SerializeToString()])) % 32768
    fitted.history.item[0].value_json = "y" * (short - 9)  # its own name and lengths take nine
    assert len(framed([fitted.SerializeToString()])) % 32768 == 32765, "three bytes are left of the block"
    messages.insert(0, fitted.SerializeToString())
    file = copied(tmp_path, framed(messages))
    (log,) = RunFiles().read(file)
    assert [(line.step, line.values["acc"]) for line in log.lines] == [(k * 50, k * 50 / 1000) for k in range(5)]
    assert log.notes == ()


def test_without_its_package_w_and_bs_own_files_are_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb.proto", None)
    copied(tmp_path, RECORDED.read_bytes())
    with pytest.raises(TableError, match=r"run-x1y2z3a4\.wandb: to read .* pip install 'grpo-lab\[wandb\]'; or export"):
        read_tables([tmp_path], metric="eval/accuracy")


def test_of_a_run_that_was_downloaded_the_summary_is_read(tmp_path: Path) -> None:
    for arm, seed, points in recorded.runs():
        folder = tmp_path / f"run-{arm}{seed}" / "files"
        folder.mkdir(parents=True)
        (folder / "wandb-summary.json").write_text(
            f'{{"_step": 7, "_runtime": 90.5, "train/global_step": {points[-1][0]}, "eval/accuracy": {points[-1][1]}}}'
        )
        (folder / "config.yaml").write_text(
            f"wandb_version: 1\nseed:\n  desc: null\n  value: {seed}\narm:\n  value: {arm}\n"
        )
    table = read_tables([tmp_path], metric="eval/accuracy")
    assert {(run.arm, run.seed): run.curves["eval/accuracy"].values for run in table.runs} == {
        (arm, seed): [points[-1][1]] for arm, seed, points in recorded.runs()
    }
    assert table.runs[0].curves["eval/accuracy"].spent["steps"] == [100]
    assert any("all that is left of this run are the last values" in note for note in table.notes)
