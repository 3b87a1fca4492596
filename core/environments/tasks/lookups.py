"""The embedded task of several turns: follow a chain through a table that only its environment can read.

    prompt    4821:k+2=         table 4821, key k, two hops on
    answer    x
    episode   ?k.m;?m.x;>x.     the policy asks for what is under k, is told m, asks for m, is told x, and answers
              >x.               or guesses at once

'.' is the end-of-sequence token and ends every turn of the policy; from there up to ';' the environment speaks. A table
is made from its number, which says nothing to a policy: without asking, an answer is right once in 15. It holds 12 of
the 16 letters in one circle, so that no letter comes twice on a way and one hop too few or too many is always wrong.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from core.environments.episodes.lookup_table import ANSWER, ASK, ERROR, STOP, lookup_table
from core.environments.tasks.splits import SPLITS, tenth, tenths
from core.errors import GrpoLabError
from core.parts.contracts import reward, task
from core.parts.problems import Problem, Score
from core.parts.registry import Part
from core.parts.settings import Range

KEYS: Final = "abcdefghijklmnop"
TABLE_KEYS: Final = 12
"""Keys that a table holds; the others are unknown to it."""
TABLES: Final = 10_000
MOST_HOPS: Final = 9
ALPHABET: Final = "0123456789" + KEYS + ":+=" + ASK + ANSWER + "".join(dict.fromkeys(ERROR + STOP))
END: Final = "."
_SPLITS: Final = {**SPLITS, "test_long": SPLITS["test"]}


@reward
def last_key(problem: Problem, response: str) -> Score:
    """1 if the policy's last turn ends with '>' and the right key, else 0; lenient: it asks nothing and its last key is
    right.
    """
    match = re.search(rf"{ANSWER}([{KEYS}])\.?$", response)
    keys = re.findall(f"[{KEYS}]", response)
    correct = match is not None and match[1] == problem.answer
    lenient = correct or (ASK not in response and bool(keys) and keys[-1] == problem.answer)
    return Score(float(correct), correct, lenient, None if match else "no final answer")


def make_table(number: int) -> dict[str, str]:
    """The table of this number: a circle of keys in random order, each with the next one under it."""
    circle = random.Random(f"lookups/table/{number}").sample(KEYS, TABLE_KEYS)
    return dict(zip(circle, circle[1:] + circle[:1], strict=True))


def follow(table: Mapping[str, str], start: str, hops: int) -> str:
    """What is found from `start` after so many hops."""
    for _ in range(hops):
        start = table[start]
    return start


@dataclass(frozen=True)
class Lookups:
    """Ways of `min_hops` to `max_hops` hops; the suite `test_long` has one or two hops more than that.

    No table is in two splits.
    """

    min_hops: int
    max_hops: int
    environment: Part = lookup_table
    rewards: tuple[Part, ...] = (last_key,)
    suites: tuple[str, ...] = ("test", "test_long")
    patterns: Mapping[str, str] = field(default_factory=dict)

    def problem(self, split: str, seed: int, index: int) -> Problem:
        """Problem `index` of the stream that `seed` picks; raises on an unknown split."""
        buckets = tenths("lookups", split, _SPLITS)
        rng = random.Random(f"lookups/{split}/{seed}/{index}")
        longer = (self.max_hops + 1, self.max_hops + 2)
        hops = rng.randint(*(longer if split == "test_long" else (self.min_hops, self.max_hops)))
        while True:
            number = rng.randrange(TABLES)
            if tenth(f"lookups {number}") in buckets:
                break
        table = make_table(number)
        start = rng.choice(list(table))
        data = {"table": table, "start": start, "hops": hops}
        return Problem(f"{number:04}:{start}+{hops}=", follow(table, start, hops), index, data)


@task(limits={"min_hops": Range(1, MOST_HOPS - 2), "max_hops": Range(1, MOST_HOPS - 2)})
def lookups(*, min_hops: int = 1, max_hops: int = 3) -> Lookups:
    """Ways through hidden tables, to be asked for hop by hop: the task the base model `lookups` was made for."""
    if min_hops > max_hops:
        raise GrpoLabError(f"lookups.min_hops = {min_hops} is more than lookups.max_hops = {max_hops}")
    return Lookups(min_hops, max_hops)
