"""The rounds: deadlines, deaths, interruptions, and what is kept of them."""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from core import GrpoLabError
from experiments.doctor import rounds as module
from experiments.doctor.checks import CHECKS, by_name, models_of
from experiments.doctor.finding import CAVEAT, FAILS, SKIPPED, WORKS, Finding
from experiments.doctor.process import guarded
from experiments.doctor.rounds import Rounds, given_model, in_a_process, make_rounds
from experiments.doctor.visit import EMBEDDED, RANDOM, Check, Visit

PRINTS = f"import json; print(json.dumps({Finding('first', WORKS, 'seen').to_json()}), flush=True)\n"


def ran(code: str, seconds: float = 60) -> list[Finding]:
    found: list[Finding] = []
    in_a_process([sys.executable, "-c", code], "title", seconds, found)
    return found


def test_what_a_process_finds_is_read() -> None:
    assert ran(PRINTS) == [Finding("first", WORKS, "seen")]


@pytest.mark.parametrize(
    ("code", "seen", "remedy"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was killed, often for a lack of memory", "Free memory"),
        ("import os; os.abort()", "SIGABRT", "Report it"),
        ("raise SystemExit('gone')", "exit code 1: gone", "Report it"),
        ("import no_such_module", "No module named 'no_such_module'", "Install grpo-lab anew"),
    ],
)
def test_a_process_that_dies_keeps_what_it_found_and_says_how(code: str, seen: str, remedy: str) -> None:
    first, died = ran(PRINTS + code)
    assert first.result == WORKS
    assert died.result == FAILS
    assert seen in died.seen
    assert died.remedy.startswith(remedy)


def test_half_a_line_of_a_process_that_was_killed_is_left_out() -> None:
    line = json.dumps(Finding("first", WORKS, "seen").to_json())
    assert [found.name for found in module._read(f"{line}\n{line[:9]}")] == ["first"]


def test_a_process_that_does_not_end_is_ended_with_all_that_it_started() -> None:
    before = set(psutil.Process().children(recursive=True))
    sleeper = "[sys.executable, '-c', 'import time; time.sleep(600)']"
    (late,) = ran(f"import subprocess, sys\nsubprocess.run({sleeper})\n", 0.2)
    assert (late.name, late.result) == ("title", FAILS)
    assert "--minutes" in late.remedy
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.fixture(autouse=True)
def _idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Three checks, none of which runs: the second is of a model and finds a GPU in vain, the third is not quick."""
    visits: list[dict[str, Any]] = []

    def run(_: Visit) -> Iterator[Finding]:
        raise AssertionError

    checks = (
        Check("device", "", 10, run, quick=True),
        Check("step", "", 10, run, "each", quick=True),
        Check("memory", "", 10, run, "heavy"),
    )

    def pretend(command: Sequence[str], title: str, seconds: float, found: list[Finding]) -> None:
        visits.append(json.loads(command[-1]) | {"check": command[-2]})
        found.append(Finding(title, WORKS, "", numbers={"accelerator": "cuda", "seconds": seconds}))

    monkeypatch.setattr(module, "CHECKS", checks)
    monkeypatch.setattr(module, "in_a_process", pretend)
    return visits


def rounds_of(**options: Any) -> Rounds:
    given: dict[str, Any] = {"model": None, "quick": False, "seconds": 100.0} | options
    return make_rounds(**given, begin=lambda *_: None, tell=lambda *_: None)


def test_checks_go_in_order_and_know_what_was_measured_before(planted: list[dict[str, Any]]) -> None:
    found = rounds_of()
    # a GPU was found: every check of a model is made of random weights too
    assert [(v["check"], v["model"]) for v in planted] == [
        ("device", EMBEDDED),
        ("step", EMBEDDED),
        ("step", RANDOM),
        ("memory", RANDOM),
    ]
    assert [list(v["earlier"]) for v in planted][:3] == [[], ["device"], ["device", "step (embedded model)"]]
    assert found.finished
    assert not found.failed
    assert [finding.numbers["seconds"] for finding in found.findings] == [10.0] * 4


def test_on_a_busy_machine_checks_have_more_time(
    planted: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (6.0, 0.0, 0.0))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    first, *_ = rounds_of(quick=True).findings
    assert first.numbers["seconds"] == 30.0


def test_quick_rounds_leave_out_the_rest(planted: list[dict[str, Any]]) -> None:
    rounds_of(quick=True)
    assert {v["check"] for v in planted} == {"device", "step"}
    assert all(v["quick"] for v in planted)


def test_what_no_time_is_left_for_is_not_tried(planted: list[dict[str, Any]]) -> None:
    found = rounds_of(seconds=1.0)
    assert not planted
    assert {finding.result for finding in found.findings} == {SKIPPED}
    assert "--minutes" in found.findings[0].seen


def test_interrupted_rounds_have_told_what_they_had(
    planted: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(command: Sequence[str], title: str, seconds: float, found: list[Finding]) -> None:
        found.append(Finding(title, WORKS, "half"))
        if command[-2] == "step":
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "in_a_process", stop)
    kept: list[dict[str, Any]] = []
    with pytest.raises(KeyboardInterrupt):
        make_rounds(
            model=None,
            quick=False,
            seconds=100,
            begin=lambda *_: None,
            tell=lambda rounds, _: kept.append(rounds.to_json()),
        )
    assert [finding["name"] for finding in kept[-1]["findings"]] == ["device", "step (embedded model)"]
    assert kept[-1]["finished"] is False


def test_the_file_has_a_schema_and_nothing_private(
    planted: list[dict[str, Any]],
) -> None:
    found = rounds_of()
    found.findings.append(Finding("x", FAILS, "lost /home/ada/a.bin", "Report /root/it."))
    plain = found.to_json()
    assert (plain["schema"], plain["finished"], plain["model given"]) == (1, True, False)
    assert plain["findings"][-1]["seen"] == "lost .../a.bin"
    assert "/root" not in json.dumps(plain)
    assert found.failed


def test_no_folder_for_temporary_files_is_said(planted: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**_: Any) -> None:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", none)
    with pytest.raises(GrpoLabError, match="TMPDIR"):
        rounds_of()


def test_an_exception_in_a_check_is_a_finding() -> None:
    def raising(error: Exception) -> Check:
        def run(_: Visit) -> Iterator[Finding]:
            yield Finding("first", CAVEAT, "seen", "Do it.")
            raise error

        return Check("step", "", 10, run, "each")

    for error, seen, remedy in (
        (GrpoLabError("bind it"), "bind it", "Do as the message says."),
        (RuntimeError("CUDA out of memory."), "out of memory", "Free memory"),
        (ImportError("no torch"), "no torch", "Install grpo-lab anew"),
        (ZeroDivisionError("x"), "ZeroDivisionError: x", "Report it"),
    ):
        first, failed = guarded(raising(error), Visit("", ""))
        assert first.result == CAVEAT
        assert (failed.name, failed.result) == ("step (embedded model)", FAILS)
        assert seen in failed.seen
        assert failed.remedy.startswith(remedy)


def test_a_caveat_or_a_failure_without_a_remedy_is_a_mistake() -> None:
    for result in (CAVEAT, FAILS):
        with pytest.raises(ValueError, match="remedy"):
            Finding("x", result, "seen")
    Finding("x", SKIPPED, "seen")


def test_models_by_hand() -> None:
    step, memory, disk, ranks = (by_name(name) for name in ("step", "memory", "disk", "ranks"))
    assert models_of(disk, "m", on_gpu=True) == [EMBEDDED]
    assert models_of(step, None, on_gpu=False) == [EMBEDDED]
    assert models_of(step, "m", on_gpu=True) == ["m", RANDOM]
    assert models_of(ranks, None, on_gpu=True) == [EMBEDDED]
    assert models_of(ranks, "m", on_gpu=True) == ["m"]
    assert models_of(memory, None, on_gpu=False) == [RANDOM]
    assert models_of(memory, "m", on_gpu=False) == ["m"]
    assert models_of(memory, "m", on_gpu=True) == ["m", RANDOM]


def test_all_checks_have_names_of_their_own_and_fit_into_the_time() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert [check.name for check in CHECKS if check.models == "none"] == [check.name for check in CHECKS[:7]]


def test_a_folder_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    assert given_model("mine") == str(tmp_path / "mine")
    with pytest.raises(GrpoLabError, match="no such folder"):
        given_model("an/id")
    assert given_model(EMBEDDED) is None
    assert given_model(None) is None
