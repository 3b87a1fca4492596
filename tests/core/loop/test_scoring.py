"""Scoring: a failing grader is tried again, then its group is dropped whole; when that is the rule, the run stops."""

import math
import threading
from collections import Counter
from typing import Any

import pytest
import torch

from core import GrpoLabError, Part, reward
from core.environments.tasks.chain_sums import final_digit
from core.loop.scoring import GraderError, GraderLog, alarm, grade, score, start
from core.parts.problems import Problem, Score

PROBLEMS = [Problem(f"{i}=", str(i), i) for i in range(3)]


def grader(name: str, answers: dict[str, Any], calls: Counter[str]) -> Part:
    """A reward that answers by response: a value, an exception to raise, or a list of these, call after call."""

    def judge(problem: Problem, response: str) -> Any:
        """As constructed."""
        calls[response] += 1
        answer = answers[response]
        if isinstance(answer, list):
            answer = answer[min(calls[response], len(answer)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    judge.__name__ = name
    return reward(judge)


def test_plain_values_become_scores() -> None:
    assert Score.of(1) == Score(1.0, correct=True, lenient=True)
    assert Score.of(True) == Score(1.0, correct=True, lenient=True)
    assert Score.of(0.5) == Score(0.5, correct=False, lenient=False)
    assert Score.of(False) == Score(0.0, correct=False, lenient=False)
    own = Score(0.2, correct=True, cause="late")
    assert Score.of(own) == own


def test_every_response_through_every_reward() -> None:
    calls: Counter[str] = Counter()
    first = grader("first_of_two", {"a": Score(1.0, True), "b": Score(0.0, False, True, "form"), "c": 0.25}, calls)
    second = grader("second_of_two", {"a": 3.0, "b": 1.0, "c": Score(0.0, False, cause="slow")}, calls)
    scores = score([first, second], PROBLEMS[:2], [["a", "b"], ["c", "a"]])
    assert scores.parts.tolist() == [[[1, 3], [0, 1]], [[0.25, 0], [1, 3]]]
    # the verdict is the first function's; what is strictly right is also leniently right
    assert scores.correct.tolist() == [[True, False], [False, True]]
    assert scores.lenient.tolist() == [[True, True], [False, True]]
    assert scores.causes == {"form": 1, "slow": 1}
    assert scores.failed == ()
    assert scores.failure is None


@pytest.mark.parametrize("failure", [ValueError("boom"), math.nan, math.inf, -math.inf, None, "no number"])
def test_a_failing_grader_is_tried_once_more(failure: Any) -> None:
    calls: Counter[str] = Counter()
    part = grader("second_time_lucky", {"a": [failure, 1.0]}, calls)
    assert grade(part, PROBLEMS[0], "a") == Score(1.0, True, True)
    assert calls["a"] == 2


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (ValueError("boom"), "ValueError: boom"),
        (math.nan, "returned nan for the response 'bad'"),
        (math.inf, "returned inf for the response 'bad'"),
    ],
)
def test_after_two_failures_the_group_is_dropped_whole(failure: Any, message: str) -> None:
    calls: Counter[str] = Counter()
    part = grader("never_lucky", {"good": 1.0, "bad": failure}, calls)
    scores = score([part], PROBLEMS, [["good", "good"], ["good", "bad"], ["good", "good"]])
    assert scores.failed == (1,)
    assert calls["bad"] == 2
    assert scores.parts[1].isnan().all()
    assert scores.parts[[0, 2]].eq(1).all()
    assert not scores.correct[1].any()
    assert scores.failure is not None
    assert message in scores.failure
    assert "reward 'never_lucky'" in scores.failure
    assert __file__ in scores.failure


def test_the_first_of_several_failures_is_the_one_shown() -> None:
    part = grader("twice_unlucky", {"a": [ValueError("one"), KeyError("two")], "b": ValueError("three")}, Counter())
    scores = score([part], PROBLEMS[:2], [["a"], ["b"]])
    assert scores.failed == (0, 1)
    assert scores.failure is not None
    assert "ValueError: one" in scores.failure
    with pytest.raises(GraderError, match="ValueError: three"):
        grade(part, PROBLEMS[0], "b")


def test_interrupting_is_no_failure_of_the_grader() -> None:
    @reward
    def interrupted_reward(problem: Problem, response: str) -> float:
        """Ends the program."""
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grade(interrupted_reward, PROBLEMS[0], "a")


@pytest.mark.parametrize("steps", [1, 5, 20, 35])
def test_a_run_goes_on_up_to_one_group_in_twenty(steps: int) -> None:
    """16 groups a step: 20 steps have 320 groups, and 16 of them may be lost."""
    log = GraderLog()
    for step in range(steps):
        log.add(16 if step == steps - 1 else 0, 16)
    with pytest.raises(GrpoLabError, match=r"failed on 17 groups within the last \d+ steps, more than 5% of 20 steps'"):
        log.add(1, 16)


def test_only_the_last_20_steps_count() -> None:
    log = GraderLog()
    log.add(16, 16)
    for _ in range(19):
        log.add(0, 16)
    log.add(16, 16)
    assert sum(dropped for dropped, _ in log.recent) == 16


def test_a_stopped_run_shows_the_first_traceback() -> None:
    log = GraderLog(first="Traceback: boom")
    with pytest.raises(GrpoLabError, match=r"The first failure:\nTraceback: boom"):
        log.add(17, 16)


@pytest.mark.parametrize(
    ("response", "value", "lenient", "cause"),
    [
        (">9", 1.0, True, None),
        (">9.", 1.0, True, None),
        ("4+8=2;2+7=9;>9", 1.0, True, None),
        (">8", 0.0, False, None),
        ("9", 0.0, True, "no final answer"),
        (">9;", 0.0, True, "no final answer"),
        ("", 0.0, False, "no final answer"),
        (">99", 0.0, True, "no final answer"),
    ],
)
def test_the_embedded_verifier(response: str, value: float, lenient: bool, cause: str | None) -> None:
    problem = Problem("4+8+7=", "9", 0)
    assert final_digit(problem, response) == Score(value, value == 1, lenient, cause)


def test_verdicts_are_tensors_of_the_group() -> None:
    scores = score([final_digit], [Problem("1+1=", "2", 0)], [[">2", ">3", "2"]])
    assert torch.equal(scores.correct, torch.tensor([[True, False, False]]))
    assert torch.equal(scores.lenient, torch.tensor([[True, False, True]]))
    assert scores.causes == {"no final answer": 1}


def test_rewards_that_wait_are_called_for_several_groups_at_a_time_in_order() -> None:
    calls: list[str] = []
    together = threading.Barrier(2, timeout=30)  # broken unless two groups are graded at once

    def patient(problem: Problem, response: str) -> Score:
        """Waits for another group."""
        calls.append(response)
        if response == "bad":
            raise ValueError("broken grader")
        together.wait()
        return Score(float(problem.index), correct=True, cause="late")

    part = reward(parallel=True)(patient)
    scores = score([part], PROBLEMS[:2], [["a"], ["b"]])
    assert scores.parts[:, 0, 0].tolist() == [0, 1]
    assert scores.causes == {"late": 2}
    calls.clear()
    assert score([part], PROBLEMS[:2], [["a", "a"], ["b", "b"]]).correct.all()
    assert sorted(calls) == ["a", "b"]  # equal responses are judged once
    failing = score([part], PROBLEMS, [["a"], ["bad"], ["b"]])
    assert failing.failed == (1,)
    assert "broken grader" in (failing.failure or "")


def test_what_a_reward_says_at_the_start_is_kept() -> None:
    def strict(problem: Problem, response: str, *, level: str = "high") -> float:
        """Needs a level."""
        return 1.0

    def level_in_force(*, level: str) -> str:
        if level == "none":
            raise GrpoLabError("no level here")
        return f"level {level}"

    part = reward(start=level_in_force)(strict)
    assert start([final_digit.resolved(), part.using(level="low").resolved()]) == {"strict": "level low"}
    with pytest.raises(GrpoLabError, match="no level here"):
        start([part.using(level="none").resolved()])


def test_a_rollout_that_was_cut_off_as_a_whole_raises_an_alarm() -> None:
    cut, whole = torch.ones(2, 2, dtype=torch.bool), torch.zeros(2, 2, dtype=torch.bool)
    none, zero, mixed = ~cut, torch.zeros(2, 2), torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    assert "raise train.max_tokens" in (alarm(zero, cut, correct=none, verdicts=zero) or "")
    turns = alarm(zero, cut, correct=none, verdicts=zero, in_turns=True) or ""
    assert "raise train.max_tokens or train.max_turns, or see whether the environment is ever done" in turns
    assert alarm(zero, whole, correct=none, verdicts=zero) is None
    assert alarm(mixed, cut, correct=mixed >= 1, verdicts=mixed) is None
    assert alarm(zero[:0], cut[:0], correct=none[:0], verdicts=zero[:0]) is None


def test_rewards_of_which_none_counts_as_correct_raise_an_alarm() -> None:
    """Not where all are equal, where some are right, or where nothing was graded."""
    whole = torch.zeros(1, 2, dtype=torch.bool)
    half = torch.tensor([[0.5, 0.0]])
    message = alarm(half, whole, correct=whole, verdicts=half) or ""
    assert message == (
        "rewards differ and no response counts as correct, so accuracy is 0 (a reward that is a number counts as "
        "correct from 1 up; the highest here is 0.5)"
    )
    assert "the filter passed no group" in (alarm(half, whole, correct=whole, verdicts=half, filtered=True) or "")
    for verdicts in (half * 0, half * math.nan, half * 2):
        assert alarm(half, whole, correct=verdicts >= 1, verdicts=verdicts) is None
