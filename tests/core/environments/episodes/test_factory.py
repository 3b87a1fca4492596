"""Objects in the form of TRL's `environment_factory` as environments."""

import json
from typing import Any

import pytest

from core import GrpoLabError
from core.environments.episodes.factory import FactoryEpisode, tools_of
from core.parts.environments import Step
from core.parts.problems import Problem

PROBLEM = Problem("Where is k?", "m", 3, {"notes": {"k": "m"}})


class Notes:
    """As TRL has them: state made in `reset`, tools with typed arguments and docstrings."""

    limit = 2

    def reset(self, **row: Any) -> str:
        self.row, self.asked = row, 0
        return f"You have {len(row['notes'])} note."

    def find(self, key: str) -> str:
        """What is known of a key.

        Args:
            key: The key.
        """
        self.asked += 1
        return str(self.row["notes"][key])

    @staticmethod
    def add(one: int, other: int) -> int:
        """A sum."""
        return one + other

    @property
    def spent(self) -> int:
        raise AssertionError("properties are no tools and are not looked at")

    def _hidden(self) -> None:
        """Nobody's."""

    def get_reward(self) -> float:
        return -0.5 * self.asked


def call(name: str, **arguments: object) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def test_by_hand() -> None:
    episode = FactoryEpisode(Notes)
    assert episode.reset(PROBLEM, 7) == "You have 1 note."
    assert episode.made.row == {"notes": {"k": "m"}, "prompt": "Where is k?", "answer": "m", "seed": 7}
    assert episode.step(call("find", key="k")) == Step("m", call=True)
    assert episode.step(call("find", key="z")) == Step("error: KeyError: 'z'", call=False)
    assert episode.step(call("add", one=1, other=2)) == Step("3", call=True)
    assert episode.step("It is m.") == Step(reward=-1.0, done=True)
    assert [tool.__name__ for tool in tools_of(Notes())] == ["add", "find"]
    assert FactoryEpisode.role == "tool"


def test_an_object_is_made_for_each_episode_and_plain_calls_are_read() -> None:
    episode = FactoryEpisode(Notes, "plain")
    episode.reset(PROBLEM, 0)
    first = episode.made
    episode.step("find('k')")
    episode.reset(PROBLEM, 0)
    assert episode.made is not first
    assert episode.step("find('k')") == Step("\nm\n", call=True)
    assert episode.step("m") == Step(reward=-0.5, done=True)


def test_without_a_reward_and_without_an_observation() -> None:
    class Silent:
        def reset(self, answer: str, notes: dict[str, str], most: int = 3) -> None:
            self.given = (answer, notes, most)

        def nothing(self) -> None:
            """Nothing."""

    episode = FactoryEpisode(Silent)
    assert episode.reset(PROBLEM, 0) is None
    assert episode.made.given == ("m", {"k": "m"}, 3)
    assert episode.step(call("nothing")) == Step("None", call=True)
    assert episode.step(call("get_reward")).observation.startswith("error: no tool 'get_reward'")
    assert episode.step(call("reset")).observation.startswith("error: no tool 'reset'")
    assert episode.step("m") == Step(done=True)


def test_a_reset_may_take_whatever_comes() -> None:
    class Whatever:
        def reset(self, *args: object, **row: object) -> str:
            return f"{len(args)} {sorted(row)}"

    class Nothing:
        def reset(self, *args: object) -> str:
            return f"{len(args)}"

    assert FactoryEpisode(Whatever).reset(PROBLEM, 0) == "0 ['answer', 'notes', 'prompt', 'seed']"
    assert FactoryEpisode(Nothing).reset(PROBLEM, 0) == "0"


def test_mistakes_are_named() -> None:
    class NoReset:
        pass

    class Asks:
        def reset(self, notes: object, level: int) -> None: ...

    class Untyped:
        def reset(self) -> None: ...

        def find(self, key) -> None:  # type: ignore[no-untyped-def]
            """What."""

    for made, says in (
        (NoReset, r"NoReset has no method reset\(\*\*row\)"),
        (Asks, "Asks.reset asks for 'level', which the problem does not have; it has: notes"),
        (Untyped, "tool 'find': the argument 'key' needs an annotation"),
    ):
        with pytest.raises(GrpoLabError, match=says):
            FactoryEpisode(made).reset(PROBLEM, 0)
