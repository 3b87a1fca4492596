"""The embedded logic task: islanders who are each a knight (K, tells the truth) or a knave (N, lies).

    prompt    c:aN;a:fK;f:cN|aK?         c says that a is a knave, a that f is a knight, f that one of two things holds
    answer    cNaKfK
    response  >cNaKfK.                   at once, or
              cKaNfN:00+>cKaNfN.         working it out: suppose that c is a knight, follow the claims, weigh the last
              cKaNfK:00-;cNaKfN>cNaKfN.  claim's two halves; when its truth does not fit (-), c is a knave instead

Every islander but the last speaks of the next one, so the first one's kind settles everybody's; the last claim joins
two claims by & or | and leaves exactly one of the two cases. Answering at once is short and mostly wrong; following
the claims is long and mostly right. A response ends with '.', the end-of-sequence token.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from core.environments.rewards.logic import who_is_who
from core.environments.tasks.splits import SPLITS, tenth, tenths
from core.errors import GrpoLabError
from core.parts.contracts import task
from core.parts.problems import Problem
from core.parts.registry import Part
from core.parts.settings import Range

NAMES: Final = "abcdefgh"
ALPHABET: Final = NAMES + "KN:;|&?>01+-"
END: Final = "."
KINDS: Final = ("K", "N")


@dataclass(frozen=True)
class Claim:
    """That an islander is a knight, or that it is a knave."""

    name: str
    knight: bool

    def __str__(self) -> str:
        return self.name + kind(self.knight)


@dataclass(frozen=True)
class Puzzle:
    """`names[i]` claims that `names[i + 1]` is a knight or a knave (`says[i]`); the last makes a joint claim."""

    names: str
    says: tuple[bool, ...]
    last: tuple[Claim, Claim]
    joined_by: str

    def __str__(self) -> str:
        simple = [f"{a}:{Claim(b, s)};" for a, b, s in zip(self.names, self.names[1:], self.says, strict=False)]
        return "".join(simple) + f"{self.names[-1]}:{self.joined_by.join(map(str, self.last))}?"

    def suppose(self, first: bool) -> tuple[bool, ...]:
        """Who is a knight if the first one is, or is not: a knave's claim is false."""
        knights = [first]
        for claim in self.says:
            knights.append(claim == knights[-1])
        return tuple(knights)

    def halves(self, knights: Sequence[bool]) -> tuple[bool, bool]:
        """Truth of the last claim's two halves."""
        one, two = (knights[self.names.index(claim.name)] == claim.knight for claim in self.last)
        return one, two

    def fits(self, knights: Sequence[bool]) -> bool:
        """Whether the last claim is true exactly if the last islander is a knight."""
        halves = self.halves(knights)
        return (all(halves) if self.joined_by == "&" else any(halves)) == knights[-1]

    def solutions(self) -> list[tuple[bool, ...]]:
        """Every way that fits, the one in which the first is a knight before the other."""
        return [knights for knights in map(self.suppose, (True, False)) if self.fits(knights)]


def kind(knight: bool) -> str:
    """The letter of a knight or knave."""
    return KINDS[0] if knight else KINDS[1]


def spell(names: str, knights: Sequence[bool]) -> str:
    """Who is which, e.g. cKaN."""
    return "".join(name + kind(knight) for name, knight in zip(names, knights, strict=True))


def work_out(puzzle: Puzzle, judge: Callable[[bool], bool] = bool) -> str:
    """A response that follows the claims, without its end.

    Suppose that the first is a knight; if the last claim does not fit, the first is a knave. `judge` is told the truth
    of each islander being a knight and of each half of the last claim, and says what it is taken for; what follows goes
    on from there.
    """

    def follow(first: bool) -> list[bool]:
        knights = [first]
        for claim in puzzle.says:
            knights.append(judge(claim == knights[-1]))
        return knights

    knights = follow(True)
    halves = [judge(half) for half in puzzle.halves(knights)]
    fits = (all(halves) if puzzle.joined_by == "&" else any(halves)) == knights[-1]
    text = f"{spell(puzzle.names, knights)}:{''.join('01'[half] for half in halves)}"
    if fits:
        text += "+"
    else:
        knights = follow(False)
        text += f"-;{spell(puzzle.names, knights)}"
    return f"{text}>{spell(puzzle.names, knights)}"


@dataclass(frozen=True)
class Islanders:
    """Puzzles of `min_islanders` to `max_islanders`."""

    min_islanders: int
    max_islanders: int
    rewards: tuple[Part, ...] = (who_is_who.using(form="mark"),)
    suites: tuple[str, ...] = ("test",)
    patterns: Mapping[str, str] = field(default_factory=lambda: {"step_by_step": ":", "backtracking": "-;"})

    def problem(self, split: str, seed: int, index: int) -> Problem:
        """Problem `index` of the stream that `seed` picks; raises on an unknown split."""
        buckets = tenths("islanders", split, SPLITS)
        rng = random.Random(f"islanders/{split}/{seed}/{index}")
        while True:
            puzzle = _draw(rng, rng.randint(self.min_islanders, self.max_islanders))
            solutions = puzzle.solutions()
            if len(solutions) == 1 and tenth(str(puzzle)) in buckets:
                break
        knights = dict(zip(puzzle.names, solutions[0], strict=True))
        data = {"islanders": knights, "kinds": KINDS, "puzzle": puzzle, "solution": work_out(puzzle)}
        return Problem(str(puzzle), spell(puzzle.names, solutions[0]), index, data)


def _draw(rng: random.Random, islanders: int) -> Puzzle:
    names = "".join(rng.sample(NAMES, islanders))
    says = tuple(rng.random() < 0.5 for _ in names[1:])
    one, two = (Claim(name, rng.random() < 0.5) for name in rng.sample(names[:-1], 2))
    return Puzzle(names, says, (one, two), rng.choice("&|"))


@task(limits={"min_islanders": Range(3, len(NAMES)), "max_islanders": Range(3, len(NAMES))})
def islanders(*, min_islanders: int = 3, max_islanders: int = 5) -> Islanders:
    """Knights and knaves in a few characters: the task the base model `islanders` was made for."""
    if min_islanders > max_islanders:
        raise GrpoLabError(
            f"islanders.min_islanders = {min_islanders} is more than islanders.max_islanders = {max_islanders}"
        )
    return Islanders(min_islanders, max_islanders)
