"""A hundred environments at fault: each is told by name and place, or ends by a budget; none ends the rollout."""

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from core import Problem, Step, environment
from core.generation.base import Request
from core.generation.episodes import Budgets, Episodes
from core.generation.native import Native
from core.model.policy import Policy

pytestmark = pytest.mark.fuzz

CASES: Final = 100

RELEASE = threading.Event()
"""Lets threads go that hang on purpose."""


class Odd:
    """No type that anybody expects."""

    def __repr__(self) -> str:
        raise RuntimeError("not even shown")


def hangs(_: str) -> Any:
    RELEASE.wait()


def raising(error: BaseException) -> Callable[[str], Any]:
    def raises(_: str) -> Any:
        raise error

    return raises


def giving(value: Any) -> Callable[[str], Any]:
    return lambda _: value


def step_of(**fields: Any) -> Callable[[str], Any]:
    return lambda _: Step(**fields)


AT_FAULT: dict[str, Callable[[str], Any]] = {
    "raises": raising(ValueError("out of order")),
    "raises without a word": raising(KeyError()),
    "runs out of memory": raising(MemoryError()),
    "cannot be reached": raising(ConnectionRefusedError("no route")),
    "stops iterating": raising(StopIteration()),
    "runs into itself": raising(RecursionError("too deep")),
    "asserts": raising(AssertionError()),
    "hangs": hangs,
    "nothing": giving(None),
    "a text": giving("m;"),
    "a number": giving(3),
    "a tuple as in gym": giving(("m;", 0.0, False, {})),
    "a class": giving(Step),
    "an iterator": giving(iter(())),
    "what cannot be shown": giving(Odd()),
    "no number": step_of(reward="a"),
    "not finite": step_of(reward=float("inf")),
    "not a number": step_of(reward=float("nan")),
    "several": step_of(reward=[1.0]),
    "no reward": step_of(reward=None),
    "bytes": step_of(observation=b"m;"),
    "no text": step_of(observation=None),
    "far too much": step_of(observation="m" * 3_000_000),
    "perhaps": step_of(done="no"),
    "a list of states": step_of(anchor=["m"]),
}
ENDED_BY_A_BUDGET: dict[str, Callable[[str], Any]] = {
    "is never done": step_of(observation="1="),
    "says much": step_of(observation="1" * 1000),
    "says nothing": step_of(observation=""),
    "says what ends a turn": step_of(observation="..."),
    "says what no tokenizer knows": step_of(observation="\u2603\x00"),
}
WHEN = (1, 2, 3)
RESETS = ("raises", "hangs", "a number", "what cannot be shown", "far too much")


@dataclass
class Faulty:
    """In order until a turn."""

    fault: Callable[[str], Any]
    turn: int
    turns: int = 0

    def reset(self, problem: Problem, seed: int) -> Any:
        if self.turn == 0:
            result = self.fault(problem.answer)
            return result.observation if isinstance(result, Step) else result
        return ""

    def step(self, action: str) -> Any:
        self.turns += 1
        return self.fault(action) if self.turns >= self.turn else Step("1=")


@pytest.fixture(autouse=True)
def _released() -> Iterator[None]:
    yield
    RELEASE.set()
    RELEASE.clear()


FAULTY = [
    *itertools.product(AT_FAULT, WHEN),
    *((name, 0) for name in RESETS),
    *itertools.product(ENDED_BY_A_BUDGET, WHEN),
    *(("raises", turn) for turn in (4, 5)),
    *(("hangs", turn) for turn in (4, 5)),
    *(("no number", 4),),
]


def test_they_are_a_hundred() -> None:
    assert len(FAULTY) == len(set(FAULTY)) == CASES


@pytest.mark.parametrize(("name", "turn"), FAULTY)
def test_each_is_told_or_ends(name: str, turn: int, tiny: Policy) -> None:
    fault = AT_FAULT.get(name) or ENDED_BY_A_BUDGET[name]

    @environment
    def faulty() -> Faulty:
        """See `Faulty`."""
        return Faulty(fault, turn)

    problems = [Problem(question, "", i) for i, question in enumerate(("1+2=", "4="))]
    prompts = [tiny.tokens(problem) for problem in problems]
    seconds = 0.05 if name == "hangs" else 600.0
    episodes = Episodes(tiny, faulty, problems, [0, 1], 3, Budgets(48, 6, seconds), ["", ""])
    (generation,) = Native(0.75).generate(tiny, [Request(prompts, 3, 48, 1.0, 5, episodes=episodes)])
    reached = generation.turns.amax(-1).flatten().tolist()  # type: ignore[union-attr]
    for row in range(6):
        failure = episodes.failures.get(row)
        if failure is None:
            # cut in an earlier turn, or by a budget
            assert generation.truncated.flatten()[row]
            assert name in ENDED_BY_A_BUDGET or reached[row] <= max(turn, 1)
            continue
        assert name in AT_FAULT
        assert "environment 'faulty'" in failure.message
        assert __file__ in failure.message
        assert (f"at turn {turn}," if turn else "beginning with the prompt") in failure.message
        assert len(failure.message) < 6000
    if name in ENDED_BY_A_BUDGET:
        assert not episodes.failures
    elif turn <= 1:
        assert episodes.failures
