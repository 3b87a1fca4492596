"""Environments at fault: each ends its episodes and is told by name, place and turn."""

import time
from typing import Any

import pytest
import torch

from core import Problem, Step
from core.model.policy import Policy
from tests.core.generation.playing import Echo, made_of, played

# environments that are at fault


class Faults:
    """What a test's environment does instead, by name."""

    def raises(self, action: str) -> Any:
        raise ValueError("out of order")

    def returns_text(self, action: str) -> Any:
        return "an observation"

    def returns_nothing(self, action: str) -> Any:
        return None

    def rewards_nan(self, action: str) -> Any:
        return Step(reward=float("nan"))

    def rewards_text(self, action: str) -> Any:
        return Step(reward="1")  # type: ignore[arg-type]

    def rewards_several(self, action: str) -> Any:
        return Step(reward=torch.zeros(2))  # type: ignore[arg-type]

    def rewards_beyond_float32(self, action: str) -> Any:
        return Step(reward=1e300)

    def rewards_beyond_any_float(self, action: str) -> Any:
        return Step(reward=10**400)

    def leaves(self, action: str) -> Any:
        raise SystemExit(3)

    def raises_the_unspeakable(self, action: str) -> Any:
        class UnspeakableError(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        raise UnspeakableError

    def observes_a_number(self, action: str) -> Any:
        return Step(observation=3)  # type: ignore[arg-type]

    def observes_too_much(self, action: str) -> Any:
        return Step("1" * 2_000_000)

    def is_done_perhaps(self, action: str) -> Any:
        return Step(done="yes")  # type: ignore[arg-type]

    def calls_perhaps(self, action: str) -> Any:
        return Step(call=1)  # type: ignore[arg-type]

    def names_an_object(self, action: str) -> Any:
        return Step("1=", anchor=object())

    def names_a_list(self, action: str) -> Any:
        return Step("1=", anchor=[1])  # type: ignore[arg-type]


SAYS = {
    "raises": "out of order",
    "returns_text": "must return a Step",
    "returns_nothing": "must return a Step",
    "rewards_nan": "finite number",
    "rewards_text": "finite number",
    "rewards_several": "finite number",
    "rewards_beyond_float32": "finite number",
    "rewards_beyond_any_float": "finite number",
    "leaves": "SystemExit",
    "raises_the_unspeakable": "raised:\nUnspeakableError",
    "observes_a_number": "must be a text",
    "observes_too_much": "2,000,000 characters",
    "is_done_perhaps": "must be True or False",
    "calls_perhaps": "must be True or False",
    "names_an_object": "named by text",
    "names_a_list": "named by text",
}


def test_what_no_encoding_has_is_read_as_a_replacement(embedded: Policy) -> None:
    """Half a pair of surrogates, as JSON may spell it; and a class of texts becomes a text."""

    class Text(str):
        pass

    class Halves(Echo):
        def reset(self, problem: Problem, seed: int) -> str:
            return Text("1=\udc00")

        def step(self, action: str) -> Step:
            step = super().step(action)
            return Step(Text("1\ud83d\ude00\ud800="), done=step.done)

    _, episodes = played(embedded, made_of(Halves), openings=["1=\ufffd"] * 3)
    assert not episodes.failures
    said = episodes.transcripts[0][0].observation
    assert said == "1\U0001f600\ufffd="
    assert type(said) is str


@pytest.mark.parametrize("fault", SAYS)
def test_a_step_at_fault_ends_its_episode_and_is_told(embedded: Policy, fault: str) -> None:
    class Broken(Echo):
        def step(self, action: str) -> Any:
            return getattr(Faults(), fault)(action) if self.heard else super().step(action)

    generation, episodes = played(embedded, made_of(Broken))
    assert sorted(episodes.failures) == list(range(9))
    message = episodes.failures[0].message
    assert SAYS[fault] in message
    assert "environment 'scripted'" in message
    assert "at turn 2" in message
    assert int(generation.turns.max()) == 2  # type: ignore[union-attr]
    assert not episodes.failures[0].by_machine


def test_a_step_that_hangs_is_left_behind(embedded: Policy) -> None:
    """Every row waits for its deadline once; what still hangs is a thread of its own."""
    hanging: list[bool] = []

    class Hangs(Echo):
        def step(self, action: str) -> Step:
            if not hanging:
                hanging.append(True)
                while hanging:
                    time.sleep(0.01)
            return super().step(action)

    _, episodes = played(embedded, made_of(Hangs), step_seconds=0.05)
    hanging.clear()
    assert episodes.failures
    assert "did not answer within 0.05 seconds (train.step_seconds)" in next(iter(episodes.failures.values())).message


def test_what_is_begun_by_other_words_is_at_fault(embedded: Policy) -> None:
    spoken = iter("abcdefghi")

    class Fickle(Echo):
        def reset(self, problem: Problem, seed: int) -> str:
            return next(spoken)

    generation, episodes = played(embedded, made_of(Fickle), openings=["a", "d", "g"])
    assert sorted(episodes.failures) == [1, 2, 4, 5, 7, 8]
    assert "reset may depend on nothing else" in episodes.failures[1].message
    lengths = generation.mask.sum(-1).flatten()
    assert (lengths[[1, 2, 4, 5, 7, 8]] == 1).all()


@pytest.mark.parametrize("given", [3, ["text"], b"text"])
def test_a_beginning_that_is_no_text_is_at_fault(embedded: Policy, given: Any) -> None:
    class Odd(Echo):
        def reset(self, problem: Problem, seed: int) -> Any:
            return given

    _, episodes = played(embedded, made_of(Odd))
    assert len(episodes.failures) == 9
    assert "reset must return a text, or None" in episodes.failures[0].message


def test_an_end_of_the_network_is_the_machines_fault(embedded: Policy) -> None:
    class Unreachable(Echo):
        def step(self, action: str) -> Step:
            raise ConnectionError("no route")

    _, episodes = played(embedded, made_of(Unreachable))
    assert all(failure.by_machine for failure in episodes.failures.values())
