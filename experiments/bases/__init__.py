"""The embedded base models, each pretrained on a noisy mixture for one task: honestly half-able."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from core.environments.tasks import chain_sums, islanders, stack_programs
from core.parts.problems import Problem, Task
from experiments.bases.chain_sums_mixture import blurt_or_restate
from experiments.bases.islanders_mixture import blurt_or_follow
from experiments.bases.stack_programs_mixture import blurt_or_name


@dataclass(frozen=True)
class Base:
    """What a base is made of; `mixture` writes one response to a problem of the training split."""

    task: Callable[[], Task]
    alphabet: str
    mixture: Callable[[Problem, random.Random], str]
    steps: int


BASES: Final = {
    "chain_sums": Base(chain_sums.chain_sums, chain_sums.ALPHABET, blurt_or_restate, 3000),
    "islanders": Base(islanders.islanders, islanders.ALPHABET, blurt_or_follow, 3000),
    "stack_programs": Base(stack_programs.stack_programs, stack_programs.ALPHABET, blurt_or_name, 1500),
}
"""By the name of the task."""
