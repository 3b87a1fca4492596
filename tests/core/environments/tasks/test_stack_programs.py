"""Stack programs: answers that compute what a stack machine computes, and tests that reject wrong programs."""

import random
from typing import Any

import pytest

from core import GrpoLabError
from core.environments.tasks.splits import SPLITS as TENTHS
from core.environments.tasks.splits import tenth
from core.environments.tasks.stack_programs import ALPHABET, END, HEAD, infix, postfix, stack_programs
from core.parts.problems import Problem, Score
from experiments.bases.stack_programs_mixture import AT_ONCE, blurt_or_name, slipped, worked_solution

SPLITS = ("train", "tune", "test")


def machine(prompt: str, x: int, y: int) -> int:
    """What the prompt means: a stack machine."""
    stack: list[int] = []
    for sign in prompt.rstrip("="):
        if sign in "+-*":
            right, left = stack.pop(), stack.pop()
            stack.append({"+": left + right, "-": left - right, "*": left * right}[sign])
        else:
            stack.append({"x": x, "y": y}[sign] if sign in "xy" else int(sign))
    (result,) = stack
    return result


def passes(problem: Problem, program: str) -> bool:
    """Python's own opinion of a program that we have written ourselves."""
    names: dict[str, Any] = {}
    exec(program, names)
    return all(names[test["call"]](*test["args"]) == test["expected"] for test in problem.data["tests"])


def test_by_hand() -> None:
    tree = ("*", ("-", "x", "3"), ("-", "y", ("+", "x", "1")))
    assert postfix(tree) == "x3-yx1+-*"
    assert infix(tree) == "(x-3)*(y-(x+1))"
    assert infix(("+", "x", ("*", "y", ("*", "x", "2")))) == "x+y*x*2"
    assert infix(("-", ("-", "x", "y"), "1")) == "x-y-1"
    assert worked_solution(tree, random.Random(0), step_slip=0) == HEAD + "a=x-3;b=x+1;c=y-b;return a*c" + END
    assert machine("x3-yx1+-*=", 5, 4) == (5 - 3) * (4 - (5 + 1))


def test_tests_and_answers_are_what_the_stack_machine_says() -> None:
    made = stack_programs()
    for split in SPLITS:
        for index in range(100):
            problem = made.problem(split, 1, index)
            for test in problem.data["tests"]:
                assert test["call"] == "f"
                assert test["expected"] == machine(str(problem.prompt), *test["args"])
            assert passes(problem, problem.answer)
            worked = worked_solution(problem.data["tree"], random.Random(0), step_slip=0)
            assert passes(problem, worked.rstrip(END))
            assert set(str(problem.prompt) + problem.answer + worked) <= set(ALPHABET + END)
            assert len(worked) <= 56


def test_wrong_programs_fail_the_tests() -> None:
    """A slip changes the function or it does not, which many more points than the tests have show."""
    made, rng, wrong = stack_programs(), random.Random(0), 0
    points = [(rng.randint(-99, 99), rng.randint(-99, 99)) for _ in range(30)]
    for index in range(400):
        problem = made.problem("test", 0, index)
        other = slipped(problem.data["tree"], rng, 0.15)
        differs = any(machine(postfix(other), x, y) != machine(str(problem.prompt), x, y) for x, y in points)
        assert passes(problem, f"{HEAD}return {infix(other)}") == (not differs)
        wrong += differs
    assert wrong > 100


def test_problems_are_pure_and_splits_disjoint() -> None:
    for split in SPLITS:
        one, other = [[stack_programs().problem(split, 3, i) for i in range(20)] for _ in range(2)]
        assert one == other
        assert one != [stack_programs().problem(split, 4, i) for i in range(20)]
    made = stack_programs()
    sizes = {}
    for split in SPLITS:
        prompts = [str(made.problem(split, 0, i).prompt) for i in range(200)]
        assert {tenth(prompt) for prompt in prompts} == set(TENTHS[split])
        sizes[split] = {sum(prompt.count(sign) for sign in "+-*") for prompt in prompts}
    assert sizes == {"train": {2, 3, 4}, "tune": {2, 3, 4}, "test": {2, 3, 4}}
    with pytest.raises(GrpoLabError, match="stack_programs has no split 'dev'"):
        made.problem("dev", 0, 0)
    with pytest.raises(GrpoLabError, match=r"stack_programs\.min_operations = 3 is more than"):
        stack_programs(min_operations=3, max_operations=2)


def test_the_mixture_is_mostly_wrong_at_once_and_mostly_right_worked_out() -> None:
    made, rng = stack_programs(), random.Random(0)
    right: dict[bool, list[bool]] = {True: [], False: []}
    for index in range(2000):
        problem = made.problem("train", 0, index)
        text = blurt_or_name(problem, rng).rstrip(END)
        assert len(text) < 56
        right[";" not in text].append(passes(problem, text))
    assert abs(len(right[True]) / 2000 - AT_ONCE) < 0.035
    assert 0.05 < sum(right[True]) / len(right[True]) < 0.25
    assert sum(right[False]) / len(right[False]) > 0.8


def test_the_reward_is_that_of_code_tests_without_a_fence() -> None:
    made = stack_programs()
    (tests,) = made.rewards
    problem = made.problem("test", 0, 0)
    assert tests(problem, problem.answer) == Score(1.0, correct=True, lenient=True)
    assert tests(problem, f"{HEAD}return 0").cause == "wrong answer"
    assert not tests(problem, "return x").correct
    assert not tests(problem, "").correct
