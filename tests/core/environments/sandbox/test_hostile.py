"""Hostile programs score 0 for a stated cause, leave nothing behind, and disturb no honest program beside them."""

import os
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from core.environments.rewards.code import code_tests
from core.environments.sandbox import sandbox
from core.parts.problems import Problem, Score
from tests.core.environments.sandbox.hostile import AROUND, ATTACKS, FORGERIES, STREAMS

LEVEL = sandbox().level
pytestmark = pytest.mark.skipif(LEVEL not in ("bubblewrap", "namespaces"), reason=f"needs name spaces; {sandbox()}")

CALLS = Problem("Add.", "", 0, {"tests": [{"call": "add", "args": [2, 3], "expected": 5}, "assert add(20, 22) == 42"]})
LINES = Problem("Add.", "", 0, {"tests": [{"stdin": "2 3\n", "stdout": "5\n"}, {"stdin": "20 22\n", "stdout": "42\n"}]})
HONEST = "def add(a, b):\n    return a + b"


def graded(problem: Problem, source: str, **limits: Any) -> Score:
    result = code_tests(problem, f"```python\n{source}\n```", **limits)
    assert isinstance(result, Score)
    return result


def left_behind() -> list[str]:
    """Descendants of this process, processes of its sandboxes' users, and scratch folders."""
    parents, users = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent, user = int((entry / "stat").read_text().rpartition(")")[2].split()[1]), entry.stat().st_uid
            except (FileNotFoundError, ProcessLookupError):  # it has ended, perhaps between the two
                continue
            parents[int(entry.name)], users[int(entry.name)] = parent, user
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    own_users = range((1 << 30) + (os.getpid() % (1 << 14) << 16), (1 << 30) + (os.getpid() % (1 << 14) + 1 << 16))
    processes = [pid for pid in parents if (pid in ours and pid != os.getpid()) or users[pid] in own_users]
    folders = Path(tempfile.gettempdir()).glob(f"grpolab-{os.getpid()}-*")
    return [f"process {pid}" for pid in processes] + [str(folder) for folder in folders]


@pytest.fixture(scope="module")
def bait() -> Iterator[dict[str, str]]:
    """Things worth attacking: a listening port, an abstract socket, a file, an environment variable, this process."""
    name = f"grpolab-{os.getpid()}"
    os.environ["BAIT"] = "stands for the expected value"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as unix,
        tempfile.NamedTemporaryFile("w", prefix="bait-") as secret,
    ):
        unix.bind("\0" + name)
        unix.listen()
        os.chmod(secret.name, 0o644)
        secret.write("secret")
        secret.flush()
        yield {
            "PORT": str(server.getsockname()[1]),
            "SOCKET": name,
            "SECRET": secret.name,
            "PARENT": str(os.getpid()),
            "REPOSITORY": str(Path(__file__).parents[4]),
        }
    del os.environ["BAIT"]


def is_contained(problem: Problem, source: str) -> str:
    """Grade a hostile program beside an honest one; check both and what is left; the cause."""
    files, before = len(os.listdir("/proc/self/fd")), set(left_behind())  # other tests may keep processes of theirs
    with ThreadPoolExecutor(2) as pool:
        hostile = pool.submit(graded, problem, source, seconds=1, wall_seconds=1.5)
        honest = pool.submit(graded, CALLS, HONEST, wall_seconds=200)
        assert honest.result() == Score(1.0, correct=True, lenient=True)
        score = hostile.result()
    assert (score.value, score.correct, score.lenient) == (0.0, False, False)
    assert score.cause
    assert set(left_behind()) <= before
    assert len(os.listdir("/proc/self/fd")) == files
    return score.cause


def fill(source: str, bait: dict[str, str]) -> str:
    for name, value in bait.items():
        source = source.replace(name, value)
    return source


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_do_not_work(name: str, bait: dict[str, str]) -> None:
    is_contained(CALLS, fill(AROUND.replace("{attack}", ATTACKS[name]), bait))


@pytest.mark.parametrize("name", FORGERIES)
def test_values_are_judged_outside(name: str, bait: dict[str, str]) -> None:
    is_contained(CALLS, fill(FORGERIES[name], bait))


@pytest.mark.parametrize("name", STREAMS)
def test_output_is_judged_outside(name: str, bait: dict[str, str]) -> None:
    is_contained(LINES, fill(STREAMS[name], bait))


SEARCH = """
import gc, re, sys
def word():
    found = set()
    frame = sys._getframe()
    while frame:
        found |= set(re.findall("ex[p]ected-[0-9]+", str(frame.f_locals)))
        frame = frame.f_back
    for x in gc.get_objects():
        if isinstance(x, (dict, list, tuple)):
            found |= set(re.findall("ex[p]ected-[0-9]+", str(x)))
    return found.pop()
"""


@pytest.mark.parametrize(
    "test", ['assert word() == "expected-7"', {"call": "word", "args": [], "expected": "expected-7"}]
)
def test_the_expected_value_is_nowhere_in_the_programs_memory(test: object, bait: dict[str, str]) -> None:
    problem = Problem("Say it.", "", 0, {"tests": [test]})
    is_contained(problem, SEARCH)
    assert graded(problem, 'WORDS = ["expected-7"]' + SEARCH).value == 1  # it would have found it


def test_an_attack_that_works_would_be_seen() -> None:
    """The frame around the attacks answers rightly once its attack succeeds."""
    assert graded(CALLS, AROUND.replace("{attack}", "def attack(): return os.listdir('/usr/lib')")).value == 1


def test_enough_hostile_programs() -> None:
    assert len(ATTACKS) + len(FORGERIES) + len(STREAMS) >= 60
