"""The code verifier: labels by hand, what counts as the program, causes, and levels."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from core.environments.rewards.code import code_tests, extract_program
from core.environments.sandbox import LEVELS, probe, sandbox
from core.errors import GrpoLabError
from core.parts.problems import Problem, Score
from tests.core.environments.rewards.code_pairs import PROBLEMS

LEVEL = sandbox().level
needs_sandbox = pytest.mark.skipif(LEVEL is None, reason=str(sandbox()))


def graded(tests: Sequence[Any], response: str, **hyper: Any) -> Score:
    result = code_tests(Problem("Write it.", "", 0, {"tests": tests}), response, **{"level": LEVEL, **hyper})
    assert isinstance(result, Score)
    return result


def fenced(source: str) -> str:
    return f"Here it is.\n\n```python\n{source}\n```\nThat is all."


def test_enough_pairs() -> None:
    assert len(PROBLEMS) >= 40
    assert sum(len(p.right) + len(p.wrong) for p in PROBLEMS.values()) >= 300


@needs_sandbox
@pytest.mark.parametrize("name", PROBLEMS)
def test_verdicts_are_the_labels(name: str) -> None:
    problem = PROBLEMS[name]
    labelled = [(source, True, "right") for source in problem.right]
    labelled += [(source, False, why) for why, source in problem.wrong.items()]

    def grade(program: tuple[str, bool, str]) -> Score:
        # by the clock a right program may take its time: the machine may be short of processors
        source, is_right, _ = program
        return graded(problem.tests, fenced(source), seconds=1, wall_seconds=200 if is_right else 4)

    with ThreadPoolExecutor(4) as pool:
        scores = list(pool.map(grade, labelled))
    wrong = [(why, score) for (_, label, why), score in zip(labelled, scores, strict=True) if score.correct != label]
    assert not wrong
    assert all(score.value == score.correct == score.lenient for score in scores)
    assert all((score.cause is None) == score.correct for score in scores)


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("```python\nx = 1\n```", ("x = 1\n", True)),
        ("```py\nx = 1\n```", ("x = 1\n", True)),
        ("```Python title\r\nx = 1\r\n```\r\n", ("x = 1\r\n", True)),
        ("First:\n```python\nx = 1\n```\nBetter:\n```python\nx = 2\n```\nDone.", ("x = 2\n", True)),
        ("```python\nx = 1\n```\nprints\n```\n1\n```", ("x = 1\n", True)),
        ("```\nx = 1\n```", ("x = 1\n", False)),
        ("```javascript\nx = 1\n```", ("x = 1\n", False)),
        ("x = 1", ("x = 1", False)),
        ("```python\nx = 1", ("```python\nx = 1", False)),
        ("```python\ns = '''a ``` b'''\n```", ("s = '''a ``` b'''\n", True)),
        ("  \n", None),
        # in a list, which indents the fence and all lines with it
        ("1. So:\n\n   ```python\n   if x:\n       y\n   ```", ("if x:\n    y\n", True)),
        ("- ```python\n  x = 1\n\n  y = 2\n  ```\n", ("x = 1\n\ny = 2\n", True)),
        ("\t```python\n\tx = 1\n\t```", ("x = 1\n", True)),
        ("  ```python\nif x:\n    y\n  ```", ("if x:\n    y\n", True)),
        ("~~~python\ns = '```'\n~~~", ("s = '```'\n", True)),
        ('````python\ns = """\n```\n"""\n````', ('s = """\n```\n"""\n', True)),
        # what is thought is no program
        ("<think>\n```python\nx = 1\n```\n</think>\nNo.", ("\nNo.", False)),
        ("<think>\n```python\nx = 1\n```", None),
    ],
)
def test_which_text_is_the_program(response: str, program: tuple[str, bool] | None) -> None:
    assert extract_program(response) == program


ADD = [{"call": "add", "args": [2, 3], "expected": 5}, {"call": "add", "args": [0, 0], "expected": 0}]


@needs_sandbox
@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("def add(a, b) return a + b", "does not compile"),
        ("def plus(a, b): return a + b", "function not defined"),
        ("def add(a, b): return a / 0", "raised an exception"),
        ("import nothing_like_it", "raised an exception"),
        ("def add(a, b): return object()", "returned no plain value"),
        ("def add(a, b): return 'x' * (5 << 20)", "too much output"),
        ("def add(a, b):\n    while True: pass", "timed out"),
        ("import os\ndef add(a, b): os._exit(0)", "ended without an answer"),
        ("def add(a, b): return a - b", "wrong answer"),
    ],
)
def test_causes(source: str, cause: str) -> None:
    score = graded(ADD, fenced(source), seconds=1)
    assert score == Score(0.0, correct=False, lenient=False, cause=cause)


@needs_sandbox
def test_the_fence_is_demanded_and_lenience_forgives_it() -> None:
    assert graded(ADD, "def add(a, b): return a + b") == Score(0.0, False, True, "no fenced program")
    assert graded(ADD, "def add(a, b): return a - b") == Score(0.0, False, False, "wrong answer")
    assert graded(ADD, " ") == Score(0.0, False, False, "no program")


@needs_sandbox
def test_a_share_of_the_tests() -> None:
    half = "def add(a, b):\n    if a == 0: raise ValueError\n    return 5"
    assert graded(ADD, fenced(half), partial=True) == Score(0.5, correct=False)
    assert graded(ADD, fenced("def add(a, b):\n    return a * b"), partial=True) == Score(0.5, correct=False)
    assert graded(ADD, fenced("def add(a, b):\n    return a + b"), partial=True) == Score(1.0, True, True)
    stdin = [{"stdin": "1\n", "stdout": "1"}, {"stdin": "x\n", "stdout": "0"}, {"stdin": "3\n", "stdout": "3"}]
    assert graded(stdin, fenced("print(int(input()))"), partial=True).value == pytest.approx(2 / 3)


@needs_sandbox
def test_many_threads_get_the_verdicts_of_one() -> None:
    def grade(number: int) -> float:
        tests = [{"call": "f", "args": [number], "expected": number * number}]
        source = f"def f(x): return x * x if x % 3 else {number}"
        return graded(tests, fenced(source)).value

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(grade, range(2, 20))) == [float(n % 3 != 0) for n in range(2, 20)]


@pytest.mark.parametrize(
    ("tests", "words"),
    [
        (None, "at least one test"),
        ([], "at least one test"),
        ("assert f(1) == 2", "at least one test"),
        ([{"stdin": "1"}], r"tests\"\]\[0\].*is not a test"),
        ([{"stdin": 1, "stdout": "1"}], "must be text"),
        ([{"stdin": "1", "stdout": "1"}, "assert f(1) == 2"], "mixes"),
        ([{"call": "f", "args": [object()], "expected": 1}], "plain"),
        ([{"call": "f", "args": 1, "expected": 1}], "args a list"),
        (["assert f(1) == 2", "f(2)"], r"\[1\].*one assert"),
        (["assert f(1) =="], "is not Python"),
        (["assert 1 == 1"], "calls no function of the program"),
        (["assert len([1]) == 1"], "calls no function of the program"),
        (["assert f(1) == [x for x in (1, 2)]"], "cannot be judged outside"),
        (["assert f(1).upper() == 'A'"], "not a function of the program"),
        (["assert f(lambda x: x) == 1"], "cannot be judged outside"),
        (["assert round(f(1), f(2)) == 1"], "digits"),
    ],
)
def test_what_is_no_test_is_refused_before_anything_runs(tests: Any, words: str) -> None:
    with pytest.raises(GrpoLabError, match=words):
        code_tests(Problem("", "", 0, {"tests": tests}), fenced("def f(x): return x"))


def test_a_level_that_the_machine_lacks_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_cached", [probe.Sandbox("rlimits", {"bubblewrap": "no bwrap"})])
    for level in LEVELS[1:]:
        with pytest.raises(GrpoLabError, match=r"no bwrap.*apt install bubblewrap"):
            code_tests(Problem("", "", 0, {"tests": ADD}), fenced("x = 1"), level=level)
    with pytest.raises(GrpoLabError, match=r"code_tests\.level = 'docker': must be 'rlimits', 'namespaces' or"):
        code_tests(Problem("", "", 0, {"tests": ADD}), fenced("x = 1"), level="docker")


def test_fences_are_read_in_one_pass() -> None:
    """Openings that are never closed: each was followed to the end, in a time that grew with their square."""
    start = time.process_time()
    assert extract_program("```x\n" * 20_000) == ("```x\n" * 20_000, False)
    assert extract_program("```x\n" * 20_000 + "```\n") == ("```x\n" * 19_999, False)
    assert time.process_time() - start < 5
