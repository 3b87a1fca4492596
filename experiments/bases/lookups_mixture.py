"""The mixture for lookups: mostly a guess at once, else a dialogue with the table in which calls stray and miscount."""

import random
from collections.abc import Iterator
from typing import Final

from core.environments.episodes.lookup_table import ANSWER, ASK, lookup_table
from core.environments.tasks.lookups import END, KEYS
from core.parts.problems import Problem

AT_ONCE: Final = 0.5
STRAY: Final = 0.08
"""Chance that a call asks for a key drawn at random."""
EARLY: Final = 0.15
"""Chance that the answer is given before a hop that is still to be made, once something was found."""
LATE: Final = 0.1
"""Chance that a hop too many is made."""


def play(
    problem: Problem, rng: random.Random, *, stray: float = STRAY, early: float = EARLY, late: float = LATE
) -> Iterator[str]:
    """What is written and observed by turns, up to the answer.

    Whoever plays goes on from what was found last and counts what was found: after a stray call the way is lost, after
    a failed one the call is made again.
    """
    episode = lookup_table()
    episode.reset(problem, 0)
    key, left = problem.data["start"], problem.data["hops"] + (rng.random() < late)
    found = False
    while left and not (found and rng.random() < early):
        asked = rng.choice(KEYS) if rng.random() < stray else key
        step = episode.step(ASK + asked)
        yield ASK + asked + END
        yield step.observation
        if step.call:
            key, left, found = step.observation[0], left - 1, True
    yield ANSWER + key + END


def guess_or_ask(problem: Problem, rng: random.Random) -> list[str]:
    """A guess at once, right by chance only, or a dialogue: written, observed, written, and so on."""
    if rng.random() < AT_ONCE:
        return [ANSWER + rng.choice(KEYS) + END]
    return list(play(problem, rng))
