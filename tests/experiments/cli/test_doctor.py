"""`grpolab doctor` as a user meets it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from core.errors import MachineError
from core.store import files
from experiments.cli.main import main
from experiments.doctor import rounds as module
from experiments.doctor.finding import CAVEAT, FAILS, SKIPPED, WORKS, Finding
from experiments.doctor.models import CUT_DOWN, make_random_model
from experiments.doctor.rounds import Rounds

HEALTHY = (
    Finding("disk", WORKS, "9 GiB free"),
    Finding("bfloat16", CAVEAT, "it is emulated", "Bind policy.dtype = 'float32'."),
    Finding("vllm", SKIPPED, "not installed"),
)
ILL = Finding("step", FAILS, "nothing moves", "Report it.")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def pretend(monkeypatch: pytest.MonkeyPatch, *found: Finding, stop: bool = False) -> None:
    """Rounds that find this."""

    def make_rounds(*, tell: Any, **_: Any) -> Rounds:
        rounds = Rounds(quick=True, given=False)
        for each in found:
            rounds.findings.append(each)
            tell(rounds, [each])
        if stop:
            raise KeyboardInterrupt
        rounds.finished = True
        tell(rounds, [])
        return rounds

    monkeypatch.setattr(module, "make_rounds", make_rounds)


def test_a_table_with_remedies_a_file_and_exit_code_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, *HEALTHY)
    assert main(["doctor", "--quick"]) == 0
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "→ Bind policy.dtype = 'float32'." in shown
    assert "1 works, 1 works with a caveat, 1 not tried" in shown
    written = json.loads(Path("grpolab-doctor.json").read_text())
    assert (written["schema"], written["finished"], len(written["findings"])) == (1, True, 3)


def test_what_does_not_work_ends_with_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, *HEALTHY, ILL)
    assert main(["doctor", "--out", "other.json"]) == 1
    assert json.loads(Path("other.json").read_text())["findings"][-1]["remedy"] == "Report it."


def test_ctrl_c_keeps_and_shows_what_was_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, *HEALTHY, stop=True)
    assert main(["doctor"]) == 130
    assert "1 works with a caveat" in capsys.readouterr().out
    written = json.loads(Path("grpolab-doctor.json").read_text())
    assert (written["finished"], len(written["findings"])) == (False, 3)


def test_on_a_full_disk_the_table_is_shown_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, _: Any) -> str:
        raise MachineError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(files, "write_json", full)
    pretend(monkeypatch, ILL)
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "No space left on device" in shown
    assert "nothing moves" in shown
    assert "to attach" not in shown


def test_a_mistake_in_the_options_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--minutes", "0"]) == 2
    assert "--minutes" in capsys.readouterr().err
    assert main(["doctor", "--out", "/"]) == 2
    assert main(["doctor", "--model", "/no/such/folder"]) == 2
    assert "no such folder" in capsys.readouterr().err


def doctor(*options: str, path: str | None = None) -> tuple[int, dict[str, Any]]:
    """The real command in a process of its own."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)} | ({"PATH": path} if path else {})
    command = [sys.executable, "-m", "experiments.cli.main", "doctor", "--minutes", "60", *options]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(Path("grpolab-doctor.json").read_text())


OF_MODELS: Final = (
    "a step of training",
    "two runs bit-identical",
    "a resumed run bit-identical",
    "packed against alone",
    "sampler against trainer",
    "native against vLLM",
)
HEAVY: Final = ("memory as forecast", "long responses", "speed against matrix products")
OF_MACHINES: Final = ("libraries", "processor and memory", "disk, current folder", "disk, temporary files")
OF_DEVICES: Final = ("other programs", "device", "noise", "float32", "bfloat16", "float16", "grading programs")
RANKS: Final = ("two processes", "two processes, sharded")


def check_whole(code: int, written: dict[str, Any], own: str, heavy: str) -> None:
    """Every row is there once and in order, with a remedy where it needs one, and nothing private in the file."""
    rows = {finding["name"]: finding for finding in written["findings"]}
    assert list(rows) == [
        *OF_MACHINES,
        *OF_DEVICES,
        *(f"{name} ({own})" for name in OF_MODELS),
        *(f"{name} ({heavy})" for name in HEAVY),
        *(f"{name} ({own})" for name in RANKS),
    ]
    assert code == 0, written["findings"]
    assert {row["result"] for row in rows.values()} <= {WORKS, CAVEAT, SKIPPED}
    assert all(row["remedy"] for row in rows.values() if row["result"] == CAVEAT)
    assert {name for name, row in rows.items() if row["result"] == SKIPPED} <= {f"native against vLLM ({own})"}
    for name in (*OF_MODELS[:4], *RANKS):
        assert rows[f"{name} ({own})"]["result"] == WORKS
    assert (written["schema"], written["quick"], written["finished"]) == (1, False, True)
    assert written["model given"] == (own == "the given model")
    assert written["cpu_seconds"] > 0
    assert all(isinstance(seconds, float) for seconds in written["seconds"].values())
    text = json.dumps(written)
    assert str(Path.home()) not in text
    assert str(Path.cwd()) not in text


@pytest.mark.slow
def test_every_check_is_carried_out_here() -> None:
    check_whole(*doctor(), "embedded model", "random weights")


@pytest.mark.slow
def test_every_check_is_carried_out_on_a_model_that_is_given(tmp_path: Path, forks: None) -> None:
    make_random_model(tmp_path / "mine", {**CUT_DOWN, "vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 2})
    code = main(["doctor", "--minutes", "60", "--model", "mine"])
    check_whole(code, json.loads(Path("grpolab-doctor.json").read_text()), *["the given model"] * 2)


@pytest.mark.slow
def test_on_a_machine_without_bubblewrap_that_is_said_and_the_rest_works(tmp_path: Path) -> None:
    for program in filter(None, map(shutil.which, ("unshare", "setpriv", "git"))):
        (tmp_path / Path(program).name).symlink_to(program)
    code, written = doctor("--quick", path=str(tmp_path))
    (grading,) = (finding for finding in written["findings"] if finding["name"] == "grading programs")
    assert (code, grading["result"]) == (0, CAVEAT)
    assert "bubblewrap" in grading["remedy"]
