"""Environments in the form that TRL calls `environment_factory`, as environments of ours.

    class Notes:
        def reset(self, **row) -> str | None: ...           what it returns is read after the prompt
        def find(self, key: str) -> str:                    every other public method is a tool
            '''What is known of a key.'''
        def get_reward(self) -> float: ...                  optional: added to the rewards at the end

    @environment
    def notes() -> FactoryEpisode:
        '''A notebook to look things up in.'''
        return FactoryEpisode(Notes)

As in TRL an object is made for each episode, and a text without a call ends it. Other than in TRL, `row` has also
`seed`, for what is left to chance, and an episode that a budget ends has no `get_reward`.
"""

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final

from core.environments.episodes.calls import Protocol
from core.environments.episodes.tools import Tool, ToolEpisode
from core.errors import GrpoLabError
from core.parts.environments import Step
from core.parts.problems import Problem

NO_TOOLS: Final = ("reset", "get_reward")


class FactoryEpisode:
    """One episode with an object that `make` makes."""

    role: Final = ToolEpisode.role

    def __init__(self, make: Callable[[], Any], protocol: Protocol = "chat") -> None:
        self.make = make
        self.episode = ToolEpisode(lambda *_: tools_of(self.made), protocol)

    def reset(self, problem: Problem, seed: int) -> str | None:
        """Make the object and hand it the problem: `data`, `prompt`, `answer` and `seed`, as far as `reset` names them.

        Raises `GrpoLabError` where it asks for more.
        """
        self.made = self.make()
        reset = getattr(self.made, "reset", None)
        name = type(self.made).__name__
        if not callable(reset):
            raise GrpoLabError(f"{name} has no method reset(**row)")
        row = {**problem.data, "prompt": problem.prompt, "answer": problem.answer, "seed": seed}
        parameters = inspect.signature(reset).parameters.values()
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            row = {p.name: row[p.name] for p in named if p.name in row}
        missing = [p.name for p in named if p.default is p.empty and p.name not in row]
        if missing:
            raise GrpoLabError(
                f"{name}.reset asks for '{missing[0]}', which the problem does not have; it has: {', '.join(row)}"
            )
        said: str | None = reset(**row)
        self.episode.reset(problem, seed)
        return said

    def step(self, action: str) -> Step:
        """As of its tools; at the end with the object's own reward."""
        step = self.episode.step(action)
        get_reward = getattr(self.made, "get_reward", None)
        if not step.done or get_reward is None:
            return step
        return Step(reward=get_reward(), done=True)


def tools_of(made: object) -> list[Tool]:
    """The public methods of an object but `reset` and `get_reward`, by name."""
    kind = type(made)
    return [
        getattr(made, name)
        for name in dir(kind)
        if not name.startswith("_")
        and name not in NO_TOOLS
        # properties would run if they were asked for
        and isinstance(inspect.getattr_static(kind, name), FunctionType | staticmethod | classmethod)
    ]
