"""The contract of an environment: what answers a policy's actions, turn by turn, until an episode is over.

    class Guess:
        def reset(self, problem: Problem, seed: int) -> str:
            self.secret = random.Random(seed).randrange(100)
            return ""

        def step(self, action: str) -> Step:
            if action == str(self.secret):
                return Step(reward=1.0, done=True)
            return Step("higher" if int(action) < self.secret else "lower")

    @environment
    def guess() -> Guess:
        '''A number between 0 and 99 to be guessed.'''
        return Guess()

The loop tokenises what an environment observes, gives these tokens no loss, and keeps the budgets of turns and tokens.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol, Unpack

from core.parts.declaring import Function, bare_or_called, plain
from core.parts.problems import Problem
from core.parts.registry import Descriptions, Part


@dataclass(frozen=True)
class Step:
    """What an environment answers to an action."""

    observation: str = ""
    """Text that the policy reads before its next action; after the last it is read by nobody."""
    reward: float = 0.0
    """Of this turn; an episode's return is their sum and the outcome that reward functions give."""
    done: bool = False
    """Whether the episode is over."""
    anchor: Hashable = None
    """The state that the next action is taken in, equal where states are, for estimators that compare them."""
    call: bool | None = None
    """Whether the action called a tool: True, it worked; False, the call failed; None, it called none."""


@dataclass(frozen=True)
class Turn:
    """One turn of an episode as rewards and transcripts show it."""

    action: str
    observation: str
    reward: float
    call: bool | None


class Environment(Protocol):
    """One episode: made anew for each; a pure function of problem, seed and actions.

    One that has a `role` has its observations given to a chat model as messages of that role, else of the role `user`.
    """

    def reset(self, problem: Problem, seed: int) -> str | None:
        """Begin; what is returned is read after the prompt. All responses to a prompt have one seed, in every arm."""
        ...

    def step(self, action: str) -> Step:
        """What comes of the policy's text up to its end of sequence; called until `done` or a budget is spent."""
        ...


@bare_or_called
def environment(function: Function, /, **descriptions: Unpack[Descriptions]) -> Part:
    """Register an environment: a function of hyper-parameters that returns a new `Environment`, called each episode."""
    return plain("environment", function, [()], descriptions)
