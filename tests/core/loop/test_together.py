"""Rewards that see a whole rollout at once, and responses that come from elsewhere with rewards of their own."""

import math
from collections.abc import Sequence

import pytest
import torch

from core import GrpoLabError, reward
from core.loop.scoring import score
from core.parts.problems import Problem, Score

PROBLEMS = [Problem("1+1=", "2", 0), Problem("2+2=", "4", 1)]
TEXTS = [[">2.", ">3."], [">4.", ">44."]]


def by_length(problems: Sequence[Problem], responses: Sequence[Sequence[str]]) -> list[list[float]]:
    """How far a response is longer than the mean of its group."""
    return [[len(text) - sum(map(len, group)) / len(group) for text in group] for group in responses]


def is_right(problem: Problem, response: str) -> bool:
    """Whether the answer is in it."""
    return f">{problem.answer}." in response


def test_scores_stand_in_the_order_of_the_rewards_whichever_kind_they_are_of() -> None:
    both = [reward(together=True)(by_length), reward(is_right)]
    scores = score(both, PROBLEMS, TEXTS)
    assert scores.parts.tolist() == [[[0.0, 1.0], [0.0, 0.0]], [[-0.5, 1.0], [0.5, 0.0]]]
    # the verdict is the first reward's
    assert scores.correct.tolist() == [[False, False], [False, False]]
    swapped = score(both[::-1], PROBLEMS, TEXTS)
    assert swapped.correct.tolist() == [[True, False], [True, False]]
    assert swapped.parts.flip(-1).tolist() == scores.parts.tolist()


def test_a_response_that_cannot_be_graded_costs_its_group() -> None:
    def unsure(problems: Sequence[Problem], responses: Sequence[Sequence[str]]) -> list[list[Score]]:
        """NaN for what is too long."""
        return [[Score(math.nan if len(t) > 3 else 1.0, correct=True) for t in group] for group in responses]

    scores = score([reward(together=True)(unsure)], PROBLEMS, TEXTS)
    assert scores.failed == (1,)
    assert scores.failure is not None
    assert "'unsure'" in scores.failure
    assert ">44." in scores.failure
    assert torch.equal(scores.parts[0], torch.ones(2, 1))


@pytest.mark.parametrize("mistake", ["raises", "too few"])
def test_a_reward_that_fails_is_asked_once_more_and_then_costs_every_group(mistake: str) -> None:
    calls = []

    def broken(problems: Sequence[Problem], responses: Sequence[Sequence[str]]) -> list[list[float]]:
        """Raise, or forget a response."""
        calls.append(1)
        if mistake == "raises":
            raise ValueError("no such model")
        return [[1.0], [1.0]]

    scores = score([reward(together=True)(broken)], PROBLEMS, TEXTS)
    assert scores.failed == (0, 1)
    assert len(calls) == (2 if mistake == "raises" else 1)
    assert ("no such model" if mistake == "raises" else "one score for each response") in (scores.failure or "")


def test_the_signature_is_the_one_declared() -> None:
    with pytest.raises(GrpoLabError, match=r"must take \(problems, responses\)"):
        reward(together=True)(is_right)
    with pytest.raises(GrpoLabError, match=r"must take \(problem, response\)"):
        reward(by_length)
