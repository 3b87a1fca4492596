"""Somebody else's scorer that runs the answer: hostile answers reach nothing, change no later verdict, and get none."""

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from core.environments.sandbox import Scorer, levels, sandbox
from core.environments.sandbox.worker import is_sum
from tests.core.environments.sandbox.hostile import AROUND, ATTACKS, FORGERIES
from tests.core.environments.sandbox.test_hostile import bait, fill, left_behind  # noqa: F401

LEVEL: Final = str(sandbox().level)
pytestmark = pytest.mark.skipif(LEVEL not in ("bubblewrap", "namespaces"), reason=f"needs name spaces; {sandbox()}")

PACKAGE: Final = '''
class Grader:
    """Runs the answer, as some do, and believes what comes of it."""

    def score(self, answer, gold):
        space = {}
        exec(answer, space)
        return float(space["add"](2, 3) == gold)

    def evaluate(self, answer, gold):
        return float(eval(answer) == gold)

    def remember(self, answer, gold):
        self.seen = getattr(self, "seen", 0) + 1
        return self.seen

def broken():
    raise LookupError("no such data set")
'''
HONEST: Final = "def add(a, b):\n    return a + b"
BY_DESIGN: Final = {"import installed packages", "read the repository", "frames below"}
"""The scorer's packages are there to be read, and may lie in a checkout; what it compares with lies beside the answer,
which is why an answer must not be run in the first place."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    folder = tmp_path_factory.mktemp("somebody_else")
    folder.chmod(0o755)
    (folder / "grading_package.py").write_text(PACKAGE)
    sys.path.append(str(folder))
    import grading_package  # type: ignore[import-not-found]

    yield grading_package
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def unguarded(package: object) -> Iterator[Scorer]:
    """The walls alone: without the guard that ends a process before it runs an answer."""
    text = levels._text

    def without_guard(path: Path) -> str:
        return text(path).replace("sys.addaudithook(hook)", "pass")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(levels, "_text", without_guard)
        made = Scorer(LEVEL, package.Grader, method="score")  # type: ignore[attr-defined]
        assert made.score(5.0, answer=HONEST, gold=5) == (1.0, None)
    yield made
    made.end()


@pytest.fixture(scope="module")
def guarded(package: object) -> Iterator[Scorer]:
    made = Scorer(LEVEL, package.Grader, method="evaluate", names=("sqrt", "abs"))  # type: ignore[attr-defined]
    yield made
    made.end()


@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - BY_DESIGN))
def test_an_answer_that_is_run_reaches_nothing(name: str, unguarded: Scorer, bait: dict[str, str]) -> None:  # noqa: F811
    files = len(os.listdir("/proc/self/fd"))
    marks, cause = unguarded.score(0.3, answer=fill(AROUND.replace("{attack}", ATTACKS[name]), bait), gold=5)
    assert (marks, cause) == (0.0, cause)
    assert unguarded.score(5.0, answer=HONEST, gold=5) == (1.0, None)
    assert unguarded.score(5.0, answer=HONEST, gold=6) == (0.0, None)
    assert len(os.listdir("/proc/self/fd")) == files


@pytest.mark.parametrize("name", FORGERIES)
def test_an_answer_that_is_run_changes_no_later_verdict(name: str, unguarded: Scorer) -> None:
    unguarded.score(0.3, answer=FORGERIES[name], gold=5)
    assert unguarded.score(5.0, answer=HONEST, gold=5) == (1.0, None)
    assert unguarded.score(5.0, answer=HONEST, gold=6) == (0.0, None)


PROGRAMS: Final = [
    "__import__('os').system('true')",
    "().__class__",
    "exec('1')",
    "eval('2+3')",
    "setattr(abs, 'x', 1)",
    "open('/')",
    "(lambda: 5)()",
    "[x for x in (5,)][0]",
    "(y := print)",
    "f'{sqrt.real}'",
    "__builtins__",
    "'5'.strip()",
    "abs.real",
    "compile('5', '/usr/lib/python3/os.py', 'eval')",
    "breakpoint()",
    "getattr(5, 'real')",
    "type(5)",
    "vars()",
]


@pytest.mark.parametrize("answer", [*PROGRAMS, *(f"exec({source!r}) or 5" for source in FORGERIES.values())])
def test_an_answer_that_is_more_than_a_sum_is_not_run(answer: str, guarded: Scorer) -> None:
    assert guarded.score(5.0, answer=answer, gold=5) == (0.0, "would run as a program")


def test_sums_are_scored(guarded: Scorer) -> None:
    for answer, marks in (("2+3", 1.0), ("abs(-5)", 1.0), ("(1,2)[1]+3", 1.0), ("4", 0.0), ("[5]", 0.0)):
        assert guarded.score(5.0, answer=answer, gold=5) == (marks, None)
    assert guarded.score(5.0, answer="1+", gold=5) == (0.0, "the scorer failed on it")
    assert guarded.score(0.2, answer="9**9**9", gold=5) == (0.0, "too slow to check")
    assert guarded.score(5.0, answer="'a'*10**10", gold=5) == (0.0, "too large to check")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1+2*x", False), ("sqrt(2)", True), ("sqrt(2).real", False), ("[sqrt(i) for i in (1,)]", False), ("7", True)],
)
def test_a_sum_is_made_of_names_that_are_allowed(text: str, expected: bool) -> None:
    assert is_sum(compile(text, "<string>", "eval"), frozenset({"sqrt"})) is expected


def test_each_answer_finds_the_scorer_as_it_was_made(package: object) -> None:
    scorer = Scorer(LEVEL, package.Grader, method="remember")  # type: ignore[attr-defined]
    marks: list[float] = []
    threads = [threading.Thread(target=lambda: marks.append(scorer.score(5.0, answer="", gold=0)[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert marks == [1.0] * 8
    scorer.end()
    assert not [path for path in left_behind() if "grpolab" in path]
