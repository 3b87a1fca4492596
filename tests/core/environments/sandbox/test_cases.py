"""Tests taken apart on the trusted side: asserts hold when Python's own would, outputs agree as readers would say."""

import json
import math
from typing import Any, cast

import pytest

from core.environments.sandbox.cases import AssertCase, CallCase, parse_cases, same_output
from core.environments.sandbox.harness import encode
from core.environments.sandbox.process import Program

FUNCTIONS = """
def f(*args): return args[0] if args else None
def double(x): return x * 2
def pair(x): return (x, [x])
def half(x): return x / 2
def numbers(n): return [3, 1, 2][:n]
def root(x): return x ** .5
"""
NAMES: dict[str, Any] = {"math": math, "isclose": math.isclose}
exec(FUNCTIONS, NAMES)


class Here:
    """A program whose functions are at hand."""

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], most: int | None = None) -> Any:
        return json.loads(encode(NAMES[name](*args, **kwargs)))


@pytest.mark.parametrize(
    "text",
    [
        "assert double(2) == 4",
        "assert double(2) == 5",
        "assert 4 == double(2)",
        "assert 5 == double(2)",
        "assert f(True)",
        "assert f(0)",
        "assert not f(0)",
        "assert not f(1)",
        "assert f() is None",
        "assert f(0) is None",
        "assert f(1) != 2",
        "assert f(2) != 2",
        "assert f(2) > 1 and f(0) < 1",
        "assert f(0) or f('')",
        "assert 1 < f(2) < 3",
        "assert 1 < f(3) < 3",
        "assert f('b') in ['a', 'b']",
        "assert f('c') in ('a', 'b')",
        "assert f('a') not in 'abc'",
        "assert pair(1) == (1, [1])",
        "assert pair(1) == [1, [1]]",
        "assert pair(1)[0] == 1",
        "assert pair(1)[-1] == [1]",
        "assert pair(1)[1][0] == 2",
        "assert pair(1)[5] == 2",
        "assert set(numbers(3)) == {1, 2, 3}",
        "assert set(numbers(2)) == set([1, 2])",
        "assert sorted(numbers(3)) == [1, 2, 3]",
        "assert sorted(numbers(3), reverse=True) == [3, 2, 1]",
        "assert len(numbers(2)) == 2",
        "assert sum(numbers(3)) == 7",
        "assert max(numbers(3)) == 3",
        "assert tuple(numbers(1)) == (3,)",
        "assert list(f('ab')) == ['a', 'b']",
        "assert abs(half(1) - 0.5) < 1e-9",
        "assert abs(half(1) - 0.6) < 1e-9",
        "assert math.isclose(half(3), 1.5, rel_tol=1e-3)",
        "assert isclose(half(3), 1.6, abs_tol=0.05)",
        "assert round(half(1.2345), 2) == 0.62",
        "assert double(double(3)) == 12",
        "assert double(-3) == -6",
        "assert f(2 ** 31 - 1) == 2147483647",
        "assert f(10 ** 2) // 7 % 4 == 2",
        "assert f({'a': [1, (2, 3)]}) == {'a': [1, (2, 3)]}",
        "assert f({'a': 1}) == {'a': 2}",
        "assert f(set()) == set()",
        "assert f(float('inf')) == float('inf')",
        "assert abs(root(-4) - 2j) < 1e-9",
        "assert str(f(12)) == '12'",
        "assert f(None) == None",
        "assert f('a') + f('b') == 1",
        "assert f(1), 'a message'",
        "assert all(numbers(3))",
        "assert f(1) == True",
        "assert f('1') == 1",
        "assert f(1.0) == 1",
        "assert double('ab') == 'abab'",
    ],
)
def test_asserts_hold_when_pythons_own_would(text: str) -> None:
    try:
        exec(text, dict(NAMES))
        passes = True
    except (AssertionError, TypeError, IndexError):
        passes = False
    (case,) = parse_cases([text])
    assert case.passes(cast(Program, Here()), 1e-9) == passes


def test_a_plain_comparison_becomes_a_call() -> None:
    assert parse_cases(["assert f(1, x=[2]) == {'a': (3,)}"]) == (CallCase("f", (1,), {"x": [2]}, {"a": (3,)}),)
    assert parse_cases(["assert Solution().f(1) == 2"]) == (CallCase("f", (1,), {}, 2),)
    assert isinstance(parse_cases(["assert set(f(1)) == {2}"])[0], AssertCase)


@pytest.mark.parametrize(
    "text",
    [
        "assert f('%999999999d') % 1 == ''",
        "assert f(9) ** f(9 ** 20) == 1",
        "assert double('ab') * 10 ** 12 == ''",
        "assert float(f(10 ** 400)) == 1",
        "assert int(f('9' * 3)) == f([])",
        "assert pair(1)[0][0] == 1",
    ],
)
def test_what_cannot_be_worked_out_does_not_hold(text: str) -> None:
    (case,) = parse_cases([text])
    assert not case.passes(cast(Program, Here()), 1e-9)


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        ("7\n", "7", True),
        ("7", "7 \n\n", True),
        ("7", "\n7", False),
        ("1\n2", "1 2", False),
        ("a b", "a  b", False),
        ("  *\n ***", "*\n***", False),
        ("1.5", "1.50", True),
        ("1.5", "1.5000000000001", True),
        ("1.5", "1.51", False),
        ("x 1.5 y", "x 1.500 y", True),
        ("7", "7.0", False),
        ("1.0", "1", True),
        ("1.5", "nan", False),
        ("", "", True),
        ("", "x", False),
        ("YES", "yes", False),
    ],
)
def test_outputs_by_hand(expected: str, actual: str, same: bool) -> None:
    assert same_output(expected, actual, 1e-9) is same
