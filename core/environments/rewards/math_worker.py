"""The checker of mathematical equality, run as a program of its own by `core.environments.rewards.math_checker`.

It imports sympy once and forks a child per question, whose exit status is the verdict. The child's alarms have no
handlers, so the kernel ends it at the deadline wherever it is, in C code too, and no child sees another's state.
One line of JSON comes in per question, [gold, given, processor seconds, seconds by the clock], and, where it is asked
whether an equal answer has been worked out, a list of the question's formulas and one of its tasks; a word and the
processor seconds taken go out.

Parsing is latex2sympy's grammar, which builds expressions and evaluates no text.
"""

import json
import logging
import os
import resource
import signal
import sys
import warnings
from contextlib import suppress
from typing import Any, Final

import sympy
from latex2sympy2_extended import NormalizationConfig, latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from latex2sympy2_extended.logic import And
from math_verify import verify
from math_verify.grader import should_treat_as_complex
from sympy.core.relational import Relational

MEMORY: Final = 1 << 30
"""Bytes of address space that a child may use."""
WORDS: Final = ("equal", "different", "unparsable", "gold unparsable", "too large", "worked out", "not worked out")
"""What exit status 0, 1, 2 ... of a child means."""
ALARMS: Final = (signal.SIGALRM, signal.SIGPROF)
DIGITS: Final = 60

# units, boxes and hedges are dealt with before: what is left is to be taken as it stands
PLAIN: Final = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
)

CASED: Final = ConversionConfig(lowercase_symbols=False)


def parse(text: str, is_real: bool) -> Any:
    """A sympy object; decimals become exact, so that 0.333333 is not a third."""
    expression = latex2sympy(
        text, is_real=is_real, convert_degrees=False, normalization_config=PLAIN, conversion_config=CASED
    )
    if not isinstance(expression, sympy.Basic | sympy.MatrixBase):
        raise TypeError(f"parsed to {type(expression).__name__}")
    if not is_real:  # with cased names, i is read as a name
        expression = expression.xreplace({name: sympy.I for name in expression.atoms(sympy.Symbol) if name.name == "i"})
    return expression.xreplace({f: sympy.Rational(str(f)) for f in expression.atoms(sympy.Float)})


def vanishes(difference: Any) -> bool:
    """Whether an expression is 0: by simplification, or, for a constant, to 60 digits."""
    simple = sympy.simplify(difference)
    if simple == 0:
        return True
    return bool(simple.is_number and simple.is_finite and abs(simple.evalf(DIGITS)) < sympy.Float(10) ** (10 - DIGITS))


def same_value(gold: Any, answer: Any) -> bool:
    """Two scalars, or two matrices entry by entry.

    math-verify compares constants to 15 digits, which some different ones share; hence the second look.
    """
    if isinstance(gold, sympy.MatrixBase) or isinstance(answer, sympy.MatrixBase):
        alike = (
            isinstance(gold, sympy.MatrixBase) and isinstance(answer, sympy.MatrixBase) and gold.shape == answer.shape
        )
        return alike and all(same_value(a, b) for a, b in zip(gold, answer, strict=True))
    if not isinstance(gold, sympy.Expr) or not isinstance(answer, sympy.Expr):
        return False
    gold, answer = gold.doit(), answer.doit()
    if gold == answer:
        return True
    return verify(gold, answer, timeout_seconds=None) and vanishes(gold - answer)


def relations(relation: Any) -> list[tuple[str, Any]]:
    """A relation, or a chain of them, as (kind, expression) with every inequality as expression > 0 or >= 0."""
    if isinstance(relation, And | sympy.And):
        return [part for arg in getattr(relation, "_unsorted_args", relation.args) for part in relations(arg)]
    left, right = relation.lhs.doit(), relation.rhs.doit()
    swap = isinstance(relation, sympy.StrictLessThan | sympy.LessThan)
    kind = {
        sympy.StrictLessThan: ">",
        sympy.StrictGreaterThan: ">",
        sympy.LessThan: ">=",
        sympy.GreaterThan: ">=",
        sympy.Equality: "=",
        sympy.Unequality: "!=",
    }[type(relation)]
    return [(kind, right - left if swap else left - right)]


def same_relation(gold: Any, answer: Any) -> bool:
    """Two relations, or chains of them in any order, each a multiple of its counterpart.

    math-verify also compares their solutions, and takes two equations without any for the same.
    """

    def alike(a: tuple[str, Any], b: tuple[str, Any]) -> bool:
        if a[0] != b[0] or a[1] == 0 or b[1] == 0:
            return a == b
        factor = sympy.simplify(a[1] / b[1])
        return bool(factor.is_number and factor.is_nonzero and (a[0] in ("=", "!=") or factor.is_positive))

    unmatched = relations(answer)
    for part in relations(gold):
        match = next((other for other in unmatched if alike(part, other)), None)
        if match is None:
            return False
        unmatched.remove(match)
    return not unmatched


def equal(gold: Any, answer: Any) -> bool:
    """Whether two parsed answers are the same."""
    kinds = (Relational, And, sympy.And)
    if isinstance(gold, kinds) or isinstance(answer, kinds):
        return isinstance(gold, kinds) and isinstance(answer, kinds) and same_relation(gold, answer)
    if isinstance(gold, sympy.Set) or isinstance(answer, sympy.Set):
        if not isinstance(gold, sympy.Set) or not isinstance(answer, sympy.Set):
            return False
        gold, answer = gold.doit(), answer.doit()
        return bool(gold == answer or gold.symmetric_difference(answer).is_empty is True)
    return same_value(gold, answer)


def judge(gold: str, answer: str) -> int:
    """The verdict as an index of `WORDS`."""
    is_real = not (should_treat_as_complex(gold) or should_treat_as_complex(answer))
    try:
        gold_expression = parse(gold, is_real)
    except Exception:
        return 3
    try:
        answer_expression = parse(answer, is_real)
    except MemoryError:
        return 4
    except Exception:  # a grammar and sympy's constructors: anything may come
        return 2
    try:
        return 0 if equal(gold_expression, answer_expression) else 1
    except MemoryError:
        return 4
    except Exception:  # sympy has no rule for it, so nothing was shown
        return 1


# --- has the answer been worked out? ---------------------------------------------------------------------------------


def as_written(tree: Any) -> Any:
    """A tree without + 0, times 1, to the power 1, brackets and the order of terms and factors; nested tuples."""
    if isinstance(tree, sympy.Add | sympy.Mul):
        kind, idle = ("+", 0) if isinstance(tree, sympy.Add) else ("*", 1)
        parts = list[Any]()
        for part in map(as_written, tree.args):
            parts.extend(part[1] if isinstance(part, tuple) and part[0] == kind else [part])
        signs = 1
        if kind == "*":
            signs = (-1) ** sum(isinstance(part, sympy.Integer) and int(part) < 0 for part in parts)
            parts = [abs(part) if isinstance(part, sympy.Integer) else part for part in parts]
        parts = [part for part in parts if part != idle and part != ("^", sympy.Integer(1), sympy.Integer(-1))]
        if signs < 0:
            parts.append(sympy.Integer(-1))
        if not parts:
            return sympy.Integer(idle)
        return parts[0] if len(parts) == 1 else (kind, sorted(parts, key=str))
    if isinstance(tree, sympy.Pow):
        base, exponent = map(as_written, tree.args)
        return base if exponent == 1 else ("^", base, exponent)
    if not isinstance(tree, sympy.Basic) or not tree.args or isinstance(tree, sympy.Rational):
        return tree
    parts = list(map(as_written, tree.args))
    return (type(tree).__name__, *(sorted(parts, key=str) if isinstance(tree, sympy.Equality) else parts))


def is_expanded(tree: Any) -> bool:
    """Whether nothing multiplies a sum, nor a whole power is taken of one."""
    for part in sympy.preorder_traversal(tree):
        if isinstance(part, sympy.Mul) and any(isinstance(factor, sympy.Add) for factor in part.args):
            return False
        if isinstance(part, sympy.Pow) and isinstance(part.base, sympy.Add) and part.exp.is_Integer and part.exp > 1:
            return False
    return True


def factors(written: Any, *, numeric: bool) -> int:
    """How many factors a product is written with, a power counted as often as it says; numbers only if asked for."""
    if isinstance(written, tuple) and written[0] == "*":
        return sum(factors(part, numeric=numeric) for part in written[1])
    if isinstance(written, tuple) and written[0] == "^" and written[2] in range(2, 1000):
        return int(written[2]) * factors(written[1], numeric=numeric)
    return int(numeric and written not in (1, -1)) if isinstance(written, sympy.Rational) else 1


def can_be_reduced(product: Any) -> bool:
    """Whether a fraction has a factor with a symbol both above and below."""
    above, below = list[Any](), list[Any]()
    waiting: list[tuple[Any, bool]] = [(product, False)]
    while waiting:
        part, turned = waiting.pop()
        if isinstance(part, sympy.Mul):
            waiting += [(factor, turned) for factor in part.args]
        elif isinstance(part, sympy.Pow) and part.exp.is_negative:
            waiting.append(
                (sympy.Pow(part.base, -part.exp, evaluate=False) if part.exp != -1 else part.base, not turned)
            )
        else:
            (below if turned else above).append(part)
    if not any(part.free_symbols for part in below):
        return False
    try:
        return bool(sympy.gcd(sympy.Mul(*above), sympy.Mul(*below)).free_symbols)
    except sympy.PolynomialError:
        return False


def can_be_simplified(tree: Any) -> bool:
    """Whether it has like terms, several numbers in a sum or product, a root of a multiple of a square, or a fraction
    whose ends share a factor.
    """
    for part in sympy.preorder_traversal(tree):
        if isinstance(part, sympy.Add | sympy.Mul):
            kinds = [term.as_coeff_Mul()[1] for term in part.args] if isinstance(part, sympy.Add) else list(part.args)
            kinds = [sympy.Integer(1) if isinstance(kind, sympy.Integer) and abs(kind) != 1 else kind for kind in kinds]
            kinds = [kind for kind in kinds if isinstance(part, sympy.Add) or kind not in (-1,)]
            if len(set(kinds)) < len(kinds) or (isinstance(part, sympy.Mul) and can_be_reduced(part)):
                return True
        root = isinstance(part, sympy.Pow) and part.base.is_Integer and not part.exp.is_Integer
        if root and any(part.base % (number * number) == 0 for number in range(2, 1000)):
            return True
    return False


def worked_out(gold: str, answer: str, question: list[str], tasks: list[str]) -> bool:
    """Whether an answer that equals the gold one has the form asked for, and is no formula of the question."""
    gold_tree, answer_tree = parse(gold, is_real=True), parse(answer, is_real=True)
    gold_written, written = as_written(gold_tree), as_written(answer_tree)
    if gold_written == written:
        return True
    if "expand" in tasks and is_expanded(gold_tree) and not is_expanded(answer_tree):
        return False
    if "factor" in tasks:
        most, many = (factors(tree, numeric=not gold_tree.free_symbols) for tree in (gold_written, written))
        if many < most > 1:
            return False
    if "simplify" in tasks and can_be_simplified(answer_tree) and not can_be_simplified(gold_tree):
        return False
    for text in question:
        try:
            copied = as_written(parse(text, is_real=True))
        except Exception:  # what stands between dollars need not be a formula
            continue
        if copied == written:
            return False
    return True


def child(
    gold: str,
    answer: str,
    seconds: float,
    clock: float,
    question: list[str] | None = None,
    tasks: list[str] | None = None,
) -> None:
    """Judge under limits; does not return."""
    status = 1
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, clock)
        with suppress(ValueError):  # macOS refuses it, and under a lower limit it is not needed
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if question is None or tasks is None:
            status = judge(gold, answer)
        else:
            try:
                status = 5 if worked_out(gold, answer, question, tasks) else 6
            except MemoryError:
                raise
            except Exception:  # it was read a moment ago, so it has a form that is none of these
                status = 5
    except MemoryError:
        status = 4
    finally:
        os._exit(status)


def main() -> None:
    """Answer questions until standard input ends."""
    for alarm in ALARMS:
        signal.signal(alarm, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no answer
    # the grammar's tables and sympy's rules are filled at their first use: once here, not in every child
    for text in ("\\frac{1}{2}+\\sqrt{2}x^{2}", "2x+3y=6", "x<\\pi", "(1,2]\\cup[3,4)", "\\sin(x)^{2}", "\\log_{2}(8)"):
        judge(text, "\\sqrt{8}-\\frac{x}{2}")
        judge(text, text)
    print("ready", file=answers)
    for line in sys.stdin:
        question = json.loads(line)
        process = os.fork()
        if process == 0:
            child(*question)
        _, status, usage = os.wait4(process, 0)
        code = os.waitstatus_to_exitcode(status)
        word = WORDS[code] if 0 <= code < len(WORDS) else "too slow" if -code in ALARMS else "died"
        print(word, usage.ru_utime + usage.ru_stime, sep="\t", file=answers)


if __name__ == "__main__":
    main()
