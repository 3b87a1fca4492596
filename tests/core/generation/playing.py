"""An environment of tests of episodes, and what the embedded model and it say to each other."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from core import Part, Problem, Step, environment
from core.generation.base import Generation, Request
from core.generation.episodes import Budgets, Episodes
from core.generation.native import Native
from core.model.policy import Policy

QUESTIONS = ("4+8+7=", "1+2+3+4=", "9+9=")
PROBLEMS = [Problem(question, "", i) for i, question in enumerate(QUESTIONS)]
SAMPLES = 3


@dataclass
class Echo:
    """Asks for another sum three times; a long answer counts as a call that worked."""

    turns: int = 3
    heard: list[str] = field(default_factory=list)

    def reset(self, problem: Problem, seed: int) -> str:
        return ""

    def step(self, action: str) -> Step:
        self.heard.append(action)
        n = len(self.heard)
        return Step(f"1+{n}=", reward=n / 4, done=n == self.turns, anchor=("asked", n), call=len(action) > 3)


def made_of(make: Callable[[], Any]) -> Part:
    @environment
    def scripted() -> Any:
        """An environment of a test."""
        return make()

    return scripted


def request(policy: Policy, part: Part, *, noise: int | None = 5, max_tokens: int = 60, **changes: Any) -> Request:
    prompts = [policy.tokens(problem) for problem in PROBLEMS]
    budgets = Budgets(max_tokens, changes.pop("max_turns", 8), changes.pop("step_seconds", 60.0))
    openings = changes.pop("openings", [""] * len(PROBLEMS))
    episodes = Episodes(policy, part, PROBLEMS, [7, 8, 9], SAMPLES, budgets, openings)
    return Request(prompts, SAMPLES, max_tokens, 1.0, noise, episodes=episodes, **changes)


def played(policy: Policy, part: Part, **changes: Any) -> tuple[Generation, Episodes]:
    asked = request(policy, part, **changes)
    (generation,) = Native(0.75).generate(policy, [asked])
    assert asked.episodes is not None
    return generation, asked.episodes


def row_of(generation: Generation, p: int, s: int, name: str = "tokens") -> list[Any]:
    values: list[Any] = getattr(generation, name)[p, s][generation.mask[p, s]].tolist()
    return values
