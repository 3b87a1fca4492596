"""Rollouts whose responses are older than the weights that learn from them, by plan (`train.staleness`).

Before every step the present weights sample, with the problems and the noise of the step that will use them, all groups
that are to be as old as that by then. Nothing is dropped, and nothing is sampled for a step beyond the last. Once the
first round of a step is whole it is graded, and further rounds that a filter asks for are sampled at once: they are as
old as its youngest group.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from core.generation.base import Generation
from core.loop.episodes import prompt_tokens, restored, stored
from core.loop.rollout import Rollout, Rounds, as_sampled, draw_problems, sample_step
from core.loop.run_state import RunState
from core.loop.scoring import Scores
from core.loop.source import Sampled
from core.loop.staleness import most_updates, planned_ages

COSTS: Final = ("sampled_tokens", "skipped_prompts", "seconds")
"""What sampling for a step has cost."""


@dataclass
class _Upcoming:
    """What has been sampled for a step so far, and what that took."""

    rounds: Rounds
    parts: list[tuple[Sequence[int], Sampled]] = field(default_factory=list)
    """Of the first round, until it is whole: slots, and what was sampled for them."""
    sampled_tokens: int = 0
    skipped_prompts: int = 0
    seconds: float = 0.0

    def first_round(self) -> Sampled:
        """The parts as one, in the order of slots."""
        if len(self.parts) == 1:
            return self.parts[0][1]
        slots = [slot for part, _ in self.parts for slot in part]
        return Sampled.concat([sampled for _, sampled in self.parts]).select(
            sorted(range(len(slots)), key=slots.__getitem__)
        )


class RolloutQueue:
    """The rollouts of a run, step by step; between steps, what has been sampled for later ones."""

    def __init__(self, run: RunState) -> None:
        self._run = run
        self._upcoming: dict[int, _Upcoming] = {}

    def roll_out(self, step: int) -> tuple[Rollout, float]:
        """The rollout of a step, and the seconds that it took, whenever that was.

        Its tokens, the prompts that were passed over and failures of graders count from now on: by a step, runs of
        any staleness have spent alike.
        """
        recipe = self._run.recipe
        ahead = most_updates(recipe.staleness) // recipe.updates
        for later in range(step, min(step + ahead, recipe.steps) + 1):
            self._sample_for(later, now=step)
        done = self._upcoming.pop(step)
        self._run.sampled_tokens += done.sampled_tokens
        self._run.skipped_prompts += done.skipped_prompts
        return done.rounds.rollout(), round(done.seconds, 4)

    def _sample_for(self, step: int, *, now: int) -> None:
        """Sample what is due before the step `now` of a step that may be a later one."""
        run, recipe = self._run, self._run.recipe
        ages = planned_ages(recipe.staleness, recipe.updates, run.seed, step, recipe.prompts)
        slots = [slot for slot, age in enumerate(ages) if step - age == now]
        if not slots:
            return
        upcoming = self._upcoming.setdefault(step, _Upcoming(Rounds(run, step)))
        with self._charged_to(upcoming):
            upcoming.parts.append((slots, sample_step(run, step, 0, slots)))
            if sum(len(part) for part, _ in upcoming.parts) == recipe.prompts:
                upcoming.rounds.add(upcoming.first_round())
                upcoming.parts = []
                upcoming.rounds.complete()

    @contextmanager
    def _charged_to(self, upcoming: _Upcoming) -> Iterator[None]:
        """What is spent meanwhile is the step's that will use it."""
        run, began = self._run, time.perf_counter()
        tokens, skipped = run.sampled_tokens, run.skipped_prompts
        yield
        upcoming.sampled_tokens += run.sampled_tokens - tokens
        upcoming.skipped_prompts += run.skipped_prompts - skipped
        upcoming.seconds += time.perf_counter() - began
        run.sampled_tokens, run.skipped_prompts = tokens, skipped

    def state_dict(self) -> dict[str, Any]:
        """What has been sampled for later steps, by step; problems and texts are made from it again."""
        return {
            str(step): {
                "rounds": [(_stored(sampled), _stored_scores(scores)) for sampled, scores in each.rounds.graded],
                "parts": [(list(slots), _stored(sampled)) for slots, sampled in each.parts],
                **{cost: getattr(each, cost) for cost in COSTS},
            }
            for step, each in self._upcoming.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with it."""
        for name, held in state.items():
            step = int(name)
            upcoming = _Upcoming(Rounds(self._run, step))
            with self._charged_to(upcoming):
                for round, (sampled, scores) in enumerate(held["rounds"]):
                    upcoming.rounds.add(self._restored(step, round, None, sampled), _restored_scores(scores))
                for slots, sampled in held["parts"]:
                    upcoming.parts.append((slots, self._restored(step, 0, slots, sampled)))
            for cost in COSTS:
                setattr(upcoming, cost, held[cost])
            self._upcoming[step] = upcoming

    def _restored(self, step: int, round: int, slots: Sequence[int] | None, held: Mapping[str, Any]) -> Sampled:
        problems = draw_problems(self._run, step, round, slots)
        prompts = [prompt_tokens(self._run, problem) for problem in problems]
        transcripts, failures = restored(held)
        generation, since = Generation(**held["generation"]), transcripts and (transcripts, failures)
        return as_sampled(self._run, problems, prompts, generation, held["token_version"], since or None)


def _stored(sampled: Sampled) -> dict[str, Any]:
    """As plain data."""
    said = stored(sampled.transcripts, sampled.failures) if sampled.transcripts is not None else {}
    return {"generation": vars(sampled.generation), "token_version": sampled.token_version, **said}


def _stored_scores(scores: Scores) -> dict[str, Any]:
    return {**vars(scores), "causes": dict(scores.causes)}


def _restored_scores(stored: Mapping[str, Any]) -> Scores:
    return Scores(**{**stored, "causes": Counter(stored["causes"])})
