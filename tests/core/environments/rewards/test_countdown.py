"""Countdown: exact arithmetic, the given numbers alone, and never eval."""

import itertools
from fractions import Fraction

import pytest

from core import GrpoLabError
from core.environments.rewards.countdown import countdown, evaluate
from core.parts.problems import Problem

PROBLEM = Problem("", "", 0, {"numbers": [3, 5, 7, 7], "target": 22})


@pytest.mark.parametrize(
    ("answer", "correct", "cause"),
    [
        ("3 + 5 + 7 + 7", True, None),
        ("(7+7)+(5+3)", True, None),
        ("7 + 7 + 5 + 3 = 22", True, None),
        (r"$7 + 7 + 5 + 3$", True, None),
        ("7 × 3 + 7 ÷ 7", False, "wrong numbers"),
        ("7*3 + 5 - 7", False, None),
        ("3*5 + 7", False, "wrong numbers"),
        ("22", False, "wrong numbers"),
        ("7 + 7 + 5 + 3 = 21", False, "wrong equation"),
        ("3 + 5 + 7 + 7 + 0", False, "wrong numbers"),
        ("3 * 5 + 7 / (7 - 7)", False, "division by zero"),
        ("3 ** 5 - 7 - 7", False, "unreadable expression"),
        ("3 // 5 + 7 + 7", False, "unreadable expression"),
        ("-3 + 5 + 7 + 7", False, None),
        ("-(3 - 5) + 7 + 7", False, None),
        ("3 + 5 + 7 - -7", False, "unreadable expression"),
        ("+3 + 5 + 7 + 7", False, "unreadable expression"),
        ("3 + 5 + 7 + 7 = " + "2" * 5000, False, "unreadable expression"),
        ("3 5 7 7", False, "unreadable expression"),
        ("7(3) + 5 - 7", False, "unreadable expression"),
        ("sum([3, 5, 7, 7])", False, "unreadable expression"),
        ("3 + 5 + 7 + 7 == 22", False, "unreadable expression"),
        ("07 + 7 + 5 + 3", False, "unreadable expression"),
        ("(" * 400 + "3", False, "unreadable expression"),
        ("", False, "unreadable expression"),
    ],
)
def test_by_hand(answer: str, correct: bool, cause: str | None) -> None:
    score = countdown(PROBLEM, f"<think>3+5</think><answer>{answer}</answer>")
    assert (score.correct, score.lenient, score.cause) == (correct, correct, cause)
    assert score.value == float(correct)


def test_forms_and_leaving_numbers_out() -> None:
    assert countdown(PROBLEM, "3 + 5 + 7 + 7").cause == "no answer in the demanded form"
    assert countdown(PROBLEM, "3 + 5 + 7 + 7").lenient
    assert countdown(PROBLEM, "The answer is 3 + 5 + 7 + 7").lenient
    assert countdown(PROBLEM, "\\boxed{3 + 5 + 7 + 7}", form="boxed").correct
    some = Problem("", "", 0, {"numbers": [3, 5, 7, 7], "target": 15})
    assert countdown(some, "<answer>3 * 5</answer>", use_all=False).correct
    assert not countdown(some, "<answer>3 * 5</answer>").correct
    assert countdown(some, "<answer>5 + 5 + 5</answer>", use_all=False).cause == "wrong numbers"


def test_a_sign_may_begin_a_sum() -> None:
    problem = Problem("", "", 0, {"numbers": [3, 5, 7, 7], "target": 16})
    assert countdown(problem, "<answer>-3 + 5 + 7 + 7</answer>").correct  # 5 + 7 + 7 - 3
    assert countdown(problem, "<answer>7 + 7 + (-3 + 5) = 16</answer>").correct
    assert not countdown(problem, "<answer>3 + 5 + 7 + 7</answer>").correct


def test_empty_forms_before_the_answer_and_thoughts() -> None:
    right = "<answer>3 + 5 + 7 + 7</answer>"
    assert countdown(PROBLEM, f"<answer></answer> {right}").correct
    assert countdown(PROBLEM, f"<answer> ... </answer> {right}").correct
    assert not countdown(PROBLEM, f"{right} <answer></answer>").correct
    assert not countdown(PROBLEM, f"<think>{right}").lenient
    assert not countdown(PROBLEM, f"<think>{right}</think> I give up.").lenient


def test_exact_where_floats_are_not() -> None:
    exact = Problem("", "", 0, {"numbers": [1, 3, 3], "target": 1})
    assert countdown(exact, "<answer>1 / 3 * 3</answer>").correct
    assert evaluate("10 / 4 - 2") == (Fraction(1, 2), [10, 4, 2])


def test_against_python_on_every_expression_of_three_numbers() -> None:
    for one, two in itertools.product("+-*/", repeat=2):
        for text in (f"8 {one} 3 {two} 2", f"8 {one} (3 {two} 2)"):
            assert float(evaluate(text)[0]) == pytest.approx(eval(text))


def test_a_task_without_numbers_is_refused_with_a_message() -> None:
    with pytest.raises(GrpoLabError, match="countdown needs a list of whole numbers"):
        countdown(Problem("", "", 0, {"numbers": "1 2", "target": 3}), "1 + 2")
