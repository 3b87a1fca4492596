"""Islanders: puzzles with one solution, found anew by trying everything; the mixture that its base learned from."""

import itertools
import random
import re

import pytest

from core import GrpoLabError
from core.environments.tasks.islanders import ALPHABET, END, Claim, Puzzle, islanders
from core.environments.tasks.splits import SPLITS as TENTHS
from core.environments.tasks.splits import tenth
from core.parts.problems import Problem
from experiments.bases.islanders_mixture import AT_ONCE, AT_ONCE_RIGHT, blurt_or_follow, worked_solution

SPLITS = ("train", "tune", "test")


def solved(prompt: str) -> list[dict[str, bool]]:
    """All worlds that fit, read off the prompt by a grammar of its own and tried one by one."""
    says = {}
    for statement in prompt.rstrip("?").split(";"):
        speaker, claim = statement.split(":")
        says[speaker] = [(name, letter == "K") for name, letter in re.findall(r"([a-h])([KN])", claim)], "|" in claim
    worlds = [dict(zip(says, row, strict=True)) for row in itertools.product((True, False), repeat=len(says))]

    def fits(world: dict[str, bool]) -> bool:
        for speaker, (claims, either) in says.items():
            truths = [world[name] == knight for name, knight in claims]
            if (any(truths) if either else all(truths)) != world[speaker]:
                return False
        return True

    return [world for world in worlds if fits(world)]


def test_by_hand() -> None:
    # c says a is a knave; a says f is a knight; f says c is a knave or a is a knight
    puzzle = Puzzle("caf", (False, True), (Claim("c", False), Claim("a", True)), "|")
    assert str(puzzle) == "c:aN;a:fK;f:cN|aK?"
    # c a knight: a lies, so f is a knave; its claim is false twice over, which suits a knave
    assert puzzle.suppose(True) == (True, False, False)
    assert puzzle.halves((True, False, False)) == (False, False)
    # c a knave: a is a knight, so is f, and its claim is true: that would suit too, so this is no puzzle
    assert puzzle.suppose(False) == (False, True, True)
    assert puzzle.solutions() == [(True, False, False), (False, True, True)]
    # with "and" and a knave a: c a knave makes f a knight whose claim is half false
    one = Puzzle("caf", (False, True), (Claim("c", False), Claim("a", False)), "&")
    assert one.solutions() == [(True, False, False)]


def test_every_puzzle_has_the_one_solution_that_trying_everything_finds() -> None:
    made = islanders()
    for split in SPLITS:
        for index in range(150):
            problem = made.problem(split, 1, index)
            assert solved(str(problem.prompt)) == [problem.data["islanders"]]
            assert problem.answer == "".join(n + ("K" if k else "N") for n, k in problem.data["islanders"].items())
            assert made.rewards[0](problem, f">{problem.answer}").correct
            assert set(str(problem.prompt) + problem.answer) <= set(ALPHABET)


def test_problems_are_pure_and_splits_disjoint() -> None:
    for split in SPLITS:
        one, other = [[islanders().problem(split, 3, i).prompt for i in range(20)] for _ in range(2)]
        assert one == other
        assert one != [islanders().problem(split, 4, i).prompt for i in range(20)]
    made = islanders()
    for split in SPLITS:
        assert {tenth(str(made.problem(split, 0, i).prompt)) for i in range(200)} == set(TENTHS[split])
    sizes = {split: {str(made.problem(split, 0, i).prompt).count(":") for i in range(100)} for split in SPLITS}
    assert sizes == {"train": {3, 4, 5}, "tune": {3, 4, 5}, "test": {3, 4, 5}}
    with pytest.raises(GrpoLabError, match="islanders has no split 'dev'"):
        made.problem("dev", 0, 0)
    with pytest.raises(GrpoLabError, match=r"islanders\.min_islanders = 2: must be a whole number from 3 to 8"):
        islanders(min_islanders=2)


def test_neither_kind_is_the_better_guess() -> None:
    first = [next(iter(islanders().problem("train", 0, i).data["islanders"].values())) for i in range(1000)]
    assert 0.45 < sum(first) / len(first) < 0.55  # 3 standard errors: 0.05


def test_the_verdict() -> None:
    problem = Problem(
        "c:aN;a:fK;f:cN&aN?", "cKaNfN", 0, {"islanders": {"c": True, "a": False, "f": False}, "kinds": ("K", "N")}
    )
    verdict = islanders().rewards[0]
    assert verdict(problem, ">cKaNfN").correct
    assert verdict(problem, "cKaNfN:01+>fNcKaN").correct
    assert verdict(problem, "cKaNfN:01+").cause == "no answer in the demanded form"
    for wrong, cause in {
        ">cKaNfK": None,
        ">cKaN": "incomplete answer",
        ">": "no answer in the demanded form",
        ">cKaNfNcN": "contradictory",
        ">cKaNf": "unreadable answer",
        "": "no answer in the demanded form",
        ">cKaNfN+": "unreadable answer",
    }.items():
        assert not verdict(problem, wrong).correct
        assert not verdict(problem, wrong).lenient
        assert verdict(problem, wrong).cause == cause


def test_worked_solutions_without_slips_are_right_and_the_mixture_is_what_it_says() -> None:
    rng, made = random.Random(0), islanders()
    problems = [made.problem("train", 0, i) for i in range(2000)]
    for problem in problems[:300]:
        text = worked_solution(problem.data["puzzle"], rng, step_wrong=0)
        assert text.endswith(END)
        assert made.rewards[0](problem, text.rstrip(END)).correct
    texts = [blurt_or_follow(problem, rng) for problem in problems]
    right = [made.rewards[0](p, t.rstrip(END)).correct for p, t in zip(problems, texts, strict=True)]
    at_once = [text.startswith(">") for text in texts]
    blurted = [r for r, a in zip(right, at_once, strict=True) if a]
    worked = [r for r, a in zip(right, at_once, strict=True) if not a]
    assert abs(sum(at_once) / 2000 - AT_ONCE) < 0.035
    # right on purpose, or by chance among 8, 16 or 32 answers
    expected = AT_ONCE_RIGHT + (1 - AT_ONCE_RIGHT) * (1 / 8 + 1 / 16 + 1 / 32) / 3
    assert abs(sum(blurted) / len(blurted) - expected) < 0.035
    assert sum(worked) / len(worked) > 0.75
