"""The embedded base models, each pretrained on a noisy mixture for one task: honestly half-able."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from core.environments.tasks import chain_sums, islanders, lookups, stack_programs
from core.parts.problems import Problem, Task
from experiments.bases.chain_sums_mixture import blurt_or_restate
from experiments.bases.islanders_mixture import blurt_or_follow
from experiments.bases.lookups_mixture import guess_or_ask
from experiments.bases.stack_programs_mixture import blurt_or_name


@dataclass(frozen=True)
class Base:
    """What a base is made of; `mixture` writes one response to a problem of the training split.

    Of a task of several turns, a dialogue: what the policy writes and what its environment answers, by turns.
    """

    task: Callable[[], Task]
    alphabet: str
    mixture: Callable[[Problem, random.Random], str | Sequence[str]]
    steps: int


LOOKUPS_HOPS: Final = 5
"""As many as the task's longer suite has: of a number of hops that it has never read a base could make nothing."""
BASES: Final = {
    "chain_sums": Base(chain_sums.chain_sums, chain_sums.ALPHABET, blurt_or_restate, 3000),
    "islanders": Base(islanders.islanders, islanders.ALPHABET, blurt_or_follow, 3000),
    "lookups": Base(lookups.lookups.using(max_hops=LOOKUPS_HOPS), lookups.ALPHABET, guess_or_ask, 800),
    "stack_programs": Base(stack_programs.stack_programs, stack_programs.ALPHABET, blurt_or_name, 1500),
}
"""By the name of the task."""
