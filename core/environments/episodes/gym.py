"""Environments in the form of Gymnasium and gem, whose actions and observations are texts, as environments of ours.

    reset(seed=seed) -> (observation, info)
    step(action)     -> (observation, reward, terminated, truncated, info)

    @environment
    def guess() -> GymEpisode:
        '''A number to be guessed.'''
        return GymEpisode(lambda problem: gem.make("game:GuessTheNumber-v0"))

Where `info` has "anchor", it is the state that the next action is taken in.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from core.errors import GrpoLabError
from core.parts.environments import Step
from core.parts.problems import Problem

SEED_BITS: Final = 31
"""Of a seed that are handed on: numpy's generators take no more than 32."""


class GymEpisode:
    """One episode with an object that `make` makes for a problem."""

    def __init__(self, make: Callable[[Problem], Any]) -> None:
        self.make = make

    def reset(self, problem: Problem, seed: int) -> str:
        """Make the object; its first observation is read after the prompt."""
        self.made = self.make(problem)
        observation, _ = self._checked("reset", self.made.reset(seed=seed % 2**SEED_BITS), "observation, info")
        text: str = observation
        return text

    def step(self, action: str) -> Step:
        """Its observation and reward; the episode is over where it is terminated or truncated."""
        form = "observation, reward, terminated, truncated, info"
        observation, reward, terminated, truncated, info = self._checked("step", self.made.step(action), form)
        anchor = info.get("anchor") if isinstance(info, Mapping) else None
        return Step(observation, reward, bool(terminated) or bool(truncated), anchor)

    def _checked(self, method: str, returned: object, form: str) -> tuple[Any, ...]:
        if not isinstance(returned, tuple) or len(returned) != len(form.split(", ")):
            raise GrpoLabError(f"{type(self.made).__name__}.{method} must return ({form}), not {returned!r:.80}")
        return returned
