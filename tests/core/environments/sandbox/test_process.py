"""A program in its sandbox: levels, limits, and what is left when the trainer dies."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core import GrpoLabError
from core.environments.sandbox import (
    LEVELS,
    Limits,
    Program,
    ProgramError,
    SandboxError,
    levels,
    probe,
    process,
    sandbox,
)

LEVEL = sandbox().level
needs_sandbox = pytest.mark.skipif(LEVEL is None, reason=str(sandbox()))
ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_keeps_what_it_promises_or_says_why_not(level: str) -> None:
    reason = probe.shortcoming(level)
    if reason is not None:
        pytest.skip(f"{level}: {reason}")
    with Program("import os\ndef f(x): return [x, os.getuid()]", level, Limits()) as program:
        tag, echo, (kind, user) = program.call("f", ((1, "\ud800", float("nan")),), {})
    assert (tag, echo, kind) == ("l", ["t", ["i", "1"], "\ud800", ["f", "nan"]], "i")
    if os.geteuid() == 0 and levels._maps_every_user():
        assert int(user, 16) >= 1 << 30


@needs_sandbox
def test_the_strongest_level_is_in_force_and_reported() -> None:
    assert str(sandbox()).startswith(f"code sandbox: {LEVEL}")
    assert set(sandbox().refused) == set(LEVELS[LEVELS.index(str(LEVEL)) + 1 :])


@pytest.mark.skipif(LEVEL not in ("bubblewrap", "namespaces"), reason=f"needs name spaces; {sandbox()}")
def test_a_sandbox_that_leaks_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [*levels._shown(), "/etc/passwd"]
    monkeypatch.setattr(levels, "_shown", lambda *_: shown)
    assert probe.shortcoming(str(LEVEL)) == "a program sees files"


def test_a_missing_tool_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.environments.sandbox.levels.shutil.which", lambda name: None)
    assert probe.shortcoming("bubblewrap") == "bwrap is not installed"


def test_a_machine_without_a_filter_has_no_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "seccomp_filter", lambda: None)
    sandbox = probe._try_out()
    assert sandbox.level is None
    assert set(sandbox.refused) == set(LEVELS)
    with pytest.raises(GrpoLabError, match=r"^models' programs cannot be run here: .* for Linux on x86_64 or aarch64"):
        probe.require("rlimits")


def test_a_sandbox_that_does_not_start_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "_text", lambda _: "raise SystemExit('broken')")
    with pytest.raises(SandboxError, match="broken"), Program("x = 1", "rlimits", Limits()):
        pass


@needs_sandbox
def test_a_program_is_loaded_once_and_keeps_its_state() -> None:
    source = "calls = []\ndef f(x):\n    calls.append(x)\n    return calls"
    with Program(source, str(LEVEL), Limits()) as program:
        program.call("f", (1,), {})
        assert program.call("f", (2,), {}) == ["l", ["i", "1"], ["i", "2"]]


@needs_sandbox
def test_a_whole_program_starts_anew_for_each_input() -> None:
    source = "import builtins\nprint(getattr(builtins, 'seen', 0), input())\nbuiltins.seen = 1"
    with Program(source, str(LEVEL), Limits(), whole=True) as program:
        assert [program.run("a"), program.run("b\nc")] == ["0 a\n", "0 b\n"]


@needs_sandbox
def test_large_inputs_and_outputs_cross() -> None:
    text = "\u00e9\n" * 500_000
    with Program("import sys\nprint(sys.stdin.read(), end='')", str(LEVEL), Limits(), whole=True) as program:
        assert program.run(text) == text
    with Program("def f(xs): return xs[::-1]", str(LEVEL), Limits()) as program:
        assert len(program.call("f", (list(range(100_000)),), {})) == 100_001


@needs_sandbox
def test_too_much_output_is_a_cause() -> None:
    with Program("print('x' * 2000)", str(LEVEL), Limits(output=1000), whole=True) as program:
        with pytest.raises(ProgramError, match="too much output") as raised:
            program.run("")
        assert not raised.value.final


def test_a_scratch_folder_goes_whatever_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "scratch" / "closed" / "inner").mkdir(parents=True)
    (tmp_path / "kept").mkdir(mode=0o500)
    (tmp_path / "scratch" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "scratch" / "closed").chmod(0)
    process._remove(str(tmp_path / "scratch"))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o500


TRAINER = """
import sys
from core import GrpoLabError
from core.environments.sandbox import Limits, Program
with Program("import time\\ndef f(): time.sleep(900)", sys.argv[1], Limits(wall_seconds=900)) as program:
    print(program._process.pid, flush=True)
    program.call("f", (), {})
"""


@needs_sandbox
def test_programs_die_with_the_trainer() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(LEVEL)], stdout=subprocess.PIPE, env=environment, text=True
    ) as trainer:
        assert trainer.stdout
        outer = int(trainer.stdout.readline())
        inside = [int(word) for word in Path(f"/proc/{outer}/task/{outer}/children").read_text().split()]
        assert inside or LEVEL == "rlimits"
        trainer.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while (alive := [pid for pid in (outer, *inside) if _runs(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive


FORKING = """
import os, time
def f():
    pid = os.fork()
    if pid == 0:
        time.sleep(900)
    return pid
"""


@pytest.mark.skipif(LEVEL is None, reason=str(sandbox()))
def test_what_a_program_has_forked_dies_with_the_trainer_too() -> None:
    """Where no process space ends it: it has no parent-death signal."""
    source = f"""
import sys, time
from core import GrpoLabError
from core.environments.sandbox import Limits, Program
with Program({FORKING!r}, "rlimits", Limits(wall_seconds=900)) as program:
    print(program._process.pid, int(program.call("f", (), {{}})[1], 16), flush=True)
    time.sleep(900)
"""
    with subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True
    ) as trainer:
        assert trainer.stdout
        pids = [int(word) for word in trainer.stdout.readline().split()]
        assert len(pids) == 2
        trainer.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while (alive := [pid for pid in pids if _runs(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _gone(folder: Path) -> None:
    folder.rmdir()


def _linked(folder: Path) -> None:
    folder.rmdir()
    folder.symlink_to(folder.parent / "other")


def _deep(folder: Path) -> None:
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("a", dir_fd=here)
        inner = os.open("a", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


def _closed(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner").chmod(0)
    folder.chmod(0)


@pytest.mark.parametrize("left", [_gone, _linked, _deep, _closed])
def test_whatever_is_left_of_the_scratch_folder_is_removed(left: Callable[[Path], None], tmp_path: Path) -> None:
    """At level rlimits the folder is the program's own, to remove, to close or to replace by a link to another."""
    (tmp_path / "other" / "kept").mkdir(parents=True)
    (tmp_path / "other" / "kept").chmod(0o755)
    (tmp_path / "scratch").mkdir()
    left(tmp_path / "scratch")
    process._remove(str(tmp_path / "scratch"))
    assert os.listdir(tmp_path) == ["other"]
    assert (tmp_path / "other" / "kept").stat().st_mode & 0o777 == 0o755


def test_a_scratch_folder_that_was_moved_is_located() -> None:
    scratch = process.Scratch()
    moved = scratch.path + "-moved"
    os.rename(scratch.path, moved)
    Path(moved, "file").write_text("left")
    Path(scratch.path).symlink_to("/usr")  # and something in its place
    scratch.remove()
    assert not os.path.lexists(moved)
    assert not os.path.lexists(scratch.path)
    gone = process.Scratch()
    os.rmdir(gone.path)
    gone.remove()
