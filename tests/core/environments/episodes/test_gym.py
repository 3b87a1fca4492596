"""Objects in the form of Gymnasium and gem as environments."""

import random
from typing import Any

import pytest

from core import GrpoLabError
from core.environments.episodes.gym import GymEpisode
from core.parts.environments import Step
from core.parts.problems import Problem

PROBLEM = Problem("Guess.", "", 0, {"most": 3})


class Guess:
    """A number to be guessed in three steps; reset takes keywords only, as Gymnasium's does."""

    def __init__(self, most: int) -> None:
        self.most = most

    def reset(self, *, seed: int | None = None, options: object = None) -> tuple[str, dict[str, Any]]:
        assert options is None
        assert seed is not None
        self.secret, self.tries, self.seed = random.Random(seed).randrange(10), 0, seed
        return "0 to 9?", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.tries += 1
        guess = int(action) if action.isdigit() else -1
        says = "yes" if guess == self.secret else "higher" if guess < self.secret else "lower"
        return says, float(says == "yes"), says == "yes", self.tries == self.most, {"anchor": self.tries}


def guess() -> GymEpisode:
    return GymEpisode(lambda problem: Guess(problem.data["most"]))


def test_by_hand() -> None:
    episode = guess()
    seed = next(seed for seed in range(100) if random.Random(seed).randrange(10) == 4)
    assert episode.reset(PROBLEM, seed) == "0 to 9?"
    assert episode.step("7") == Step("lower", anchor=1)
    assert episode.step("x") == Step("higher", anchor=2)
    assert episode.step("4") == Step("yes", 1.0, done=True, anchor=3)
    episode.reset(PROBLEM, seed)
    assert [episode.step("0").done for _ in range(3)] == [False, False, True]


def test_seeds_are_those_that_numpy_takes() -> None:
    episode = guess()
    for seed, given in ((5, 5), (2**31 + 5, 5), (2**63 - 1, 2**31 - 1)):
        episode.reset(PROBLEM, seed)
        assert episode.made.seed == given


class Answers:
    """What it is told to."""

    def __init__(self, reset: object, step: object) -> None:
        self.at_reset, self.at_step = reset, step

    def reset(self, seed: int) -> object:
        return self.at_reset if seed == 0 else None

    def step(self, action: str) -> object:
        return self.at_step if action == "" else None


GOOD: tuple[str, dict[str, Any]] = ("", {})


@pytest.mark.parametrize(
    ("reset", "step", "says"),
    [
        ("hello", None, r"Answers.reset must return \(observation, info\), not 'hello'"),
        (("hello",), None, "Answers.reset must return"),
        (GOOD, ("", 0.0, True, {}), r"Answers.step must return \(observation, reward, terminated, truncated, info\)"),
        (GOOD, None, "Answers.step must return"),
    ],
)
def test_what_does_not_fit_the_form_is_named(reset: object, step: object, says: str) -> None:
    def play() -> None:
        episode = GymEpisode(lambda _: Answers(reset, step))
        episode.reset(PROBLEM, 0)
        episode.step("")

    with pytest.raises(GrpoLabError, match=says):
        play()


def test_other_info_names_no_state() -> None:
    for info in ({}, None, {"suffix": ""}):
        episode = GymEpisode(lambda _, info=info: Answers(GOOD, ("", 1, False, False, info)))  # type: ignore[misc]
        assert episode.reset(PROBLEM, 0) == ""
        assert episode.step("") == Step(reward=1.0)
