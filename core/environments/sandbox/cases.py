"""A problem's tests of a program, each judged on the trusted side: the program is given inputs and hands back values.

    {"stdin": "3 4\\n", "stdout": "7\\n"}                      a whole program, from input to output
    {"call": "add", "args": [3, 4], "expected": 7}            a function call; "kwargs" may be given
    "assert add(3, 4) == 7"                                   an assert statement

An assert is taken apart here. Calls of names that are not in `BUILTINS` go to the program, everything else (operators,
comparisons, builtins) is worked out here on the plain values that come back. So an expected value is never where the
program could see it, and `assert` itself never runs beside it. An assert with anything else in it (a lambda, a
comprehension, a method of a value) is refused rather than run under the program's eyes.
"""

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from core.environments.sandbox.process import Program, ProgramError
from core.environments.sandbox.values import decode, is_plain, matches
from core.errors import GrpoLabError

BUILTINS: Final[Mapping[str, Callable[..., Any]]] = {
    function.__name__: function
    for function in (abs, all, any, bool, float, int, len, list, max, min, round, set, sorted, str, sum, tuple)
} | {"isclose": math.isclose}
"""What an assert may apply to the values; a function of the program cannot be tested by an assert under such a name."""

MAX_IN_ASSERT: Final = 1 << 16
"""Characters of a reply that an assert works on: what it does with them may be quadratic in a hostile one."""

_OPERATORS: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARISONS: Final[Mapping[type, Callable[[Any, Any], bool]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda x, y: x in y,
    ast.NotIn: lambda x, y: x not in y,
}
_SIGNS: Final[Mapping[type, Callable[[Any], Any]]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}


@dataclass(frozen=True)
class StdinCase:
    """Standard input and the output it must lead to."""

    stdin: str
    stdout: str

    def passes(self, program: Program, tolerance: float) -> bool:
        """Whether the program prints this; raises `ProgramError` where it prints nothing to judge."""
        return same_output(self.stdout, program.run(self.stdin), tolerance)


@dataclass(frozen=True)
class CallCase:
    """A call and the value it must return."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    expected: Any

    def passes(self, program: Program, tolerance: float) -> bool:
        """Whether the call returns this; raises `ProgramError` where it returns nothing to judge."""
        reply = program.call(self.name, self.args, dict(self.kwargs))
        try:
            return matches(self.expected, reply, tolerance)
        except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
            raise ProgramError("unreadable reply") from None


@dataclass(frozen=True)
class AssertCase:
    """An assert statement's expression, of a form that `_check` lets pass."""

    expression: ast.expr

    def passes(self, program: Program, tolerance: float) -> bool:  # noqa: ARG002 - an assert states its own
        """Whether the expression holds; one that cannot be worked out on what came back does not."""
        try:
            return bool(_evaluate(self.expression, program))
        except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
            return False


Case: TypeAlias = StdinCase | CallCase | AssertCase


def parse_cases(tests: object) -> tuple[Case, ...]:
    """A problem's tests; raises `GrpoLabError` naming the invalid test."""
    if isinstance(tests, str | Mapping) or not isinstance(tests, Sequence) or not tests:
        raise GrpoLabError(
            f'problem.data["tests"] must be a list of at least one test, not {tests!r:.80}; a test is '
            '{"stdin": ..., "stdout": ...}, {"call": ..., "args": [...], "expected": ...} or an assert statement'
        )
    cases = tuple(_parse(number, test) for number, test in enumerate(tests))
    if len({isinstance(case, StdinCase) for case in cases}) > 1:
        raise GrpoLabError('problem.data["tests"] mixes standard input with calls: a program is either run or called')
    return cases


def _parse(number: int, test: object) -> Case:
    if isinstance(test, str):
        return _parse_assert(number, test)
    where = f'problem.data["tests"][{number}]'
    if isinstance(test, Mapping) and test.keys() == {"stdin", "stdout"}:
        if isinstance(test["stdin"], str) and isinstance(test["stdout"], str):
            return StdinCase(test["stdin"], test["stdout"])
        raise GrpoLabError(f"{where}: stdin and stdout must be text")
    if isinstance(test, Mapping) and {"call", "args", "expected"} <= test.keys() <= {
        "call",
        "args",
        "kwargs",
        "expected",
    }:
        name, args, kwargs, expected = test["call"], test["args"], test.get("kwargs", {}), test["expected"]
        if not isinstance(name, str) or not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
            raise GrpoLabError(f"{where}: call must be a name, args a list and kwargs a dictionary")
        if not is_plain(list(args)) or not is_plain(kwargs) or not is_plain(expected):
            raise GrpoLabError(
                f"{where}: arguments and expected value must be plain (None, numbers, strings, and lists, tuples, sets "
                "and dictionaries of them): nothing else crosses into the sandbox"
            )
        return CallCase(name, tuple(args), kwargs, expected)
    raise GrpoLabError(
        f"{where} = {test!r:.80} is not a test; a test has the keys stdin and stdout, or call, args and expected (and "
        "perhaps kwargs), or is an assert statement"
    )


def _parse_assert(number: int, text: str) -> Case:
    where = f'problem.data["tests"][{number}] = {text!r:.80}'
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError) as error:
        raise GrpoLabError(f"{where} is not Python: {error}") from None
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        raise GrpoLabError(f"{where} must be one assert statement")
    expression = body[0].test
    called = _check(where, expression)
    if not called:
        raise GrpoLabError(f"{where} calls no function of the program")
    return _as_call(expression) or AssertCase(expression)


def _check(where: str, node: ast.expr) -> bool:
    """Refuse an expression that is more than can be worked out here; whether it calls the program."""
    match node:
        case ast.Constant():
            return False
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts) | ast.BoolOp(values=parts):
            pass
        case ast.Dict(keys=keys, values=values) if None not in keys:
            parts = [part for part in (*keys, *values) if part is not None]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _SIGNS:
            parts = [operand]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            parts = [left, right]
        case ast.Compare(left=left, ops=ops, comparators=comparators) if all(type(op) in _COMPARISONS for op in ops):
            parts = [left, *comparators]
        case ast.Subscript(value=value, slice=ast.Constant() | ast.UnaryOp() as index):
            parts = [value, index]
        case ast.Call(args=args, keywords=keywords) if all(keyword.arg for keyword in keywords):
            parts = [*args, *(keyword.value for keyword in keywords)]
            name = _name(where, node)
            # a number of digits from the program could be any size
            if name == "round" and not all(isinstance(p, ast.Constant) for p in parts[1:]):
                raise GrpoLabError(f"{where}: the digits of round must be a number")
            inner = [_check(where, part) for part in parts]
            return name not in BUILTINS or any(inner)
        case _:
            raise GrpoLabError(
                f"{where} cannot be judged outside the program, because of '{ast.unparse(node):.60}'; rewrite it as "
                "calls of the program's functions on plain values, compared with plain values"
            )
    calls = [_check(where, part) for part in parts]  # all of them, even after the first that calls
    return any(calls)


def _name(where: str, node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id="math"), attr="isclose"):
            return "isclose"
        case ast.Attribute(value=ast.Call(func=ast.Name(id="Solution"), args=[], keywords=[]), attr=name):
            return name
    raise GrpoLabError(f"{where}: '{ast.unparse(node.func):.60}' is not a function of the program")


def _as_call(expression: ast.expr) -> CallCase | None:
    """`f(literals) == literal`, either way round: compared along the expected value, whatever its size."""
    if not isinstance(expression, ast.Compare) or len(expression.ops) != 1 or not isinstance(expression.ops[0], ast.Eq):
        return None
    for call, other in ((expression.left, expression.comparators[0]), (expression.comparators[0], expression.left)):
        if isinstance(call, ast.Call) and (name := _name("", call)) not in BUILTINS:
            try:
                args = tuple(ast.literal_eval(part) for part in call.args)
                kwargs = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
                expected = ast.literal_eval(other)
            except ValueError:
                return None
            if is_plain(args) and is_plain(kwargs) and is_plain(expected):
                return CallCase(name, args, kwargs, expected)
    return None


def _evaluate(node: ast.expr, program: Program) -> Any:
    """The value of a checked expression."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.List(elts=parts):
            return [_evaluate(part, program) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(_evaluate(part, program) for part in parts)
        case ast.Set(elts=parts):
            return {_evaluate(part, program) for part in parts}
        case ast.Dict(keys=keys, values=values):
            return {_evaluate(k, program): _evaluate(v, program) for k, v in zip(keys, values, strict=True) if k}
        case ast.UnaryOp(op=op, operand=operand):
            return _SIGNS[type(op)](_evaluate(operand, program))
        case ast.BinOp(left=left, op=op, right=right):
            return _arithmetic(op, _evaluate(left, program), _evaluate(right, program))
        case ast.BoolOp(op=op, values=parts):
            return (all if isinstance(op, ast.And) else any)(_evaluate(part, program) for part in parts)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            value = _evaluate(left, program)
            for comparison, comparator in zip(ops, comparators, strict=True):
                other = _evaluate(comparator, program)
                if not _COMPARISONS[type(comparison)](value, other):
                    return False
                value = other
            return True
        case ast.Subscript(value=inner, slice=index):
            return _evaluate(inner, program)[_evaluate(index, program)]
        case ast.Call(args=parts, keywords=keywords):
            args = tuple(_evaluate(part, program) for part in parts)
            kwargs = {str(keyword.arg): _evaluate(keyword.value, program) for keyword in keywords}
            name = _name("", node)
            if name in BUILTINS:
                return BUILTINS[name](*args, **kwargs)
            if not is_plain(args) or not is_plain(kwargs):
                raise TypeError("only plain values go in")
            return decode(program.call(name, args, kwargs, most=MAX_IN_ASSERT))
    raise AssertionError(ast.dump(node))


def _arithmetic(op: ast.operator, left: Any, right: Any) -> Any:
    """An operation on numbers alone, small ones for a power: `'%9999999999d' % 1` is no sum."""
    if not isinstance(left, bool | int | float | complex) or not isinstance(right, bool | int | float | complex):
        raise TypeError("no number")
    if isinstance(op, ast.Pow) and (abs(left) > 1 << 64 or abs(right) > 64):
        raise ValueError("too large a power")
    return _OPERATORS[type(op)](left, right)


def same_output(expected: str, actual: str, tolerance: float) -> bool:
    """Whether two outputs agree line by line, apart from trailing white space.

    A number that is expected with a decimal point may be missed by `tolerance`, relative or absolute.
    """
    lines, others = ([line.rstrip() for line in text.rstrip().split("\n")] for text in (expected, actual))
    return len(lines) == len(others) and all(_same_line(x, y, tolerance) for x, y in zip(lines, others, strict=True))


def _same_line(expected: str, actual: str, tolerance: float) -> bool:
    if expected == actual:
        return True
    # the white space between words is kept: it is part of a drawing
    words, others = re.split(r"(\s+)", expected), re.split(r"(\s+)", actual)
    return len(words) == len(others) and all(
        x == y or _close(x, y, tolerance) for x, y in zip(words, others, strict=True)
    )


def _close(expected: str, actual: str, tolerance: float) -> bool:
    if "." not in expected:
        return False
    try:
        return math.isclose(float(expected), float(actual), rel_tol=tolerance, abs_tol=tolerance)
    except ValueError:
        return False
