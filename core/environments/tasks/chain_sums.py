"""The embedded task: a chain of one-digit numbers, summed modulo 10.

    prompt    4+8+7=
    answer    9
    response  >9.                  at once, or
              4+8=2;2+7=9;>9.      working it out

A response ends with '.', the end-of-sequence token. Answering at once is short and mostly wrong; restating each
partial sum is long and mostly right. So accuracy and length are both up to the policy.
"""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from core.environments.tasks.splits import SPLITS, tenth, tenths
from core.errors import GrpoLabError
from core.parts.contracts import reward, task
from core.parts.problems import Problem, Score
from core.parts.registry import Part
from core.parts.settings import Range

ALPHABET = "0123456789+=;>"
END = "."
_SPLITS = {**SPLITS, "test_long": SPLITS["test"]}


@reward
def final_digit(problem: Problem, response: str) -> Score:
    """1 if the response ends with '>' and the right digit, else 0; lenient: its last digit is right."""
    match = re.search(r">(\d)\.?$", response)
    digits = re.findall(r"\d", response)
    correct = match is not None and match[1] == problem.answer
    lenient = bool(digits) and digits[-1] == problem.answer
    return Score(float(correct), correct, lenient, None if match else "no final answer")


def add(one: int, other: int) -> int:
    """The sum of two digits, modulo 10."""
    return (one + other) % 10


def restate(question: str, add: Callable[[int, int], int] = add) -> str:
    """A response to the question that states each partial sum, then the answer, without its end."""
    total, *rest = (int(digit) for digit in question.rstrip("=").split("+"))
    steps = []
    for digit in rest:
        result = add(total, digit)
        steps.append(f"{total}+{digit}={result};")
        total = result
    return "".join(steps) + f">{total}"


@dataclass(frozen=True)
class ChainSums:
    """Chains of `min_terms` to `max_terms` digits; the suite `test_long` has one or two terms more than that."""

    min_terms: int
    max_terms: int
    rewards: tuple[Part, ...] = (final_digit,)
    suites: tuple[str, ...] = ("test", "test_long")
    patterns: Mapping[str, str] = field(default_factory=lambda: {"step_by_step": r"^\d\+\d=\d;"})

    def problem(self, split: str, seed: int, index: int) -> Problem:
        """Problem `index` of the stream that `seed` picks; raises on an unknown split."""
        buckets = tenths("chain_sums", split, _SPLITS)
        rng = random.Random(f"{split}/{seed}/{index}")
        longer = (self.max_terms + 1, self.max_terms + 2)
        shortest, longest = longer if split == "test_long" else (self.min_terms, self.max_terms)
        while True:
            digits = [rng.randrange(10) for _ in range(rng.randint(shortest, longest))]
            question = "+".join(map(str, digits)) + "="
            if tenth(question) in buckets:
                return Problem(question, str(sum(digits) % 10), index, {"solution": restate(question)})


@task(limits={"min_terms": Range(2, 1000), "max_terms": Range(2, 1000)})
def chain_sums(*, min_terms: int = 3, max_terms: int = 6) -> ChainSums:
    """Chains of one-digit numbers summed modulo 10: the task the embedded base model was made for."""
    if min_terms > max_terms:
        raise GrpoLabError(f"chain_sums.min_terms = {min_terms} is more than chain_sums.max_terms = {max_terms}")
    return ChainSums(min_terms, max_terms)
