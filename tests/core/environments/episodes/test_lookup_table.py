"""The table as an environment: what it answers, what counts as a right call, and which states are the same."""

import random
from typing import Any

import pytest

from core import ENVIRONMENTS, TASKS, GrpoLabError
from core.environments.episodes.lookup_table import ERROR, LookupTable, lookup_table
from core.parts.environments import Step
from core.parts.problems import Problem
from core.parts.settings import SettingError

CIRCLE = {"a": "b", "b": "c", "c": "d", "d": "a"}
PROBLEM = Problem("0000:a+2=", "c", 0, {"table": CIRCLE, "start": "a", "hops": 2})


def played(*actions: str, **settings: float) -> list[Step]:
    made: LookupTable = lookup_table(**settings)
    assert made.reset(PROBLEM, 0) is None  # type: ignore[func-returns-value]
    return [made.step(action) for action in actions]


def test_an_episode_by_hand() -> None:
    assert played("?a", "?b", ">c") == [
        Step("b;", anchor=("b", 1), call=True),
        Step("c;", anchor=("c", 2), call=True),
        Step(done=True),
    ]
    assert played(">z") == [Step(done=True)]


@pytest.mark.parametrize(
    "action", ["?z", "?", "", "a", "?ab", "??a", "a?", "? a", "?a.", "?a;", "?!", "?a\n", "?A", "?é"]
)
def test_what_is_no_call_is_an_error_that_changes_nothing(action: str) -> None:
    (failed,) = played(action)
    assert failed == Step(ERROR, anchor=("a", 0), call=False)
    after, _, again = played("?a", action, "?b")
    assert after.anchor == played("?a", action)[1].anchor
    assert again == Step("c;", anchor=("c", 2), call=True)


def test_rewards_by_hand() -> None:
    """A right call pays once; any call costs; an answer is free."""
    actions = ("?a", "?a", "?z", "?c", "?b", "?c", ">c")
    rewards = [step.reward for step in played(*actions, right_call=1.0, call_cost=0.25)]
    # known again, unknown, no part of the way yet, the way's second hop, and one hop more than was asked for
    assert rewards == [0.75, -0.25, -0.25, -0.25, 0.75, -0.25, 0.0]
    assert all(step.reward == 0 for step in played(*actions))


def test_a_right_answer_may_be_a_reward_of_its_turn() -> None:
    for action, expected in ((">c", 0.5), ("?a>c", 0.5), (">b", 0.0), (">c>b", 0.0), (">", 0.0)):
        (step,) = played(action, right_answer=0.5)
        assert step == Step(reward=expected, done=True)


def test_states_are_what_was_found_last_and_how_far_the_way_is_known() -> None:
    anchors = [step.anchor for step in played("?a", "?b", "?a", "?d", "?c")]
    assert anchors == [("b", 1), ("c", 2), ("b", 2), ("a", 2), ("d", 3)]
    # by whatever way a state is reached
    assert played("?d", "?a")[-1].anchor == played("?z", "?c", "?a")[-1].anchor == ("b", 1)


def test_an_episode_is_a_pure_function_of_its_actions_and_pays_no_more_than_its_hops() -> None:
    rng, task = random.Random(0), TASKS["lookups"]()
    for index in range(50):
        problem = task.problem("train", 0, index)
        actions = [f"?{rng.choice('abcdefghijklmnop')}" for _ in range(60)]
        runs = []
        for seed in (0, 1):
            made = ENVIRONMENTS["lookup_table"](right_call=1.0)
            made.reset(problem, seed)
            runs.append([made.step(action) for action in actions])
        assert runs[0] == runs[1]
        assert sum(step.reward for step in runs[0]) <= problem.data["hops"]
        assert all(
            step.call == (action[1] in problem.data["table"]) for step, action in zip(runs[0], actions, strict=True)
        )


def test_one_environment_plays_one_episode_after_the_other() -> None:
    made = lookup_table()
    made.reset(PROBLEM, 0)
    made.step("?a")
    made.reset(PROBLEM, 0)
    assert made.step("?b").anchor == ("c", 0)


@pytest.mark.parametrize("data", [{}, {"table": CIRCLE}, {"table": "abc", "start": "a", "hops": 1}])
def test_another_task_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(
        GrpoLabError, match=r"needs a table, a start and hops .* play it with train.task = @lookups\(\)"
    ):
        lookup_table().reset(Problem("4+8=", "2", 0, data), 0)


@pytest.mark.parametrize("setting", ["right_call", "call_cost", "right_answer"])
def test_limits(setting: str) -> None:
    with pytest.raises(SettingError, match=f"lookup_table.{setting} = -1: must be a number from 0"):
        lookup_table(**{setting: -1})
