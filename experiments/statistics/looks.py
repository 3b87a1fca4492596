"""A few looks declared before the study, with α split among them: the simple way to stop a seed sweep early.

Each look is an ordinary fixed-n analysis at its own level. The chance of a false claim at any look is at most the
sum of the levels, whatever the test, so that nothing but the declaration is needed.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from numbers import Real
from typing import Literal, TypeAlias

from experiments.statistics.records import Analysis, Comparison
from experiments.statistics.rule import T_SEEDS
from experiments.statistics.samples import check_level

Scores: TypeAlias = Mapping[str, Mapping[int, float]]
Stop: TypeAlias = Literal["decided", "budget", "equivalent"]


@dataclass(frozen=True)
class LookDecision:
    """A comparison as settled at one look; its p and intervals hold at that look's `alpha` and at no other."""

    look: int
    n: int
    alpha: float
    comparison: Comparison
    sentence: str


@dataclass(frozen=True)
class LooksState:
    """Where a study with looks stands after `row` whole seed rows.

    `decided` has each settled comparison once, from the first look that settled it; `analyses` one analysis per
    look made. `stop` is "decided" (all settled, some by a difference), "equivalent" (all by equivalence), "budget"
    (no look is left), or None, with seeds up to `next_look` still to run.
    """

    row: int
    decided: tuple[LookDecision, ...]
    analyses: tuple[Analysis, ...]
    stop: Stop | None
    next_look: int | None


@dataclass(frozen=True)
class Looks:
    """Looks declared as ((n, level), ...), such as ((8, 0.01), (12, 0.015), (20, 0.025)) for α = 0.05.

    ValueError: no look, n not increasing or below 3, a level not above 0, or levels that sum to more than `alpha`.
    """

    looks: tuple[tuple[int, float], ...]
    alpha: float = 0.05

    def __post_init__(self) -> None:
        check_level("alpha", self.alpha, high=0.5)
        sizes, levels = [n for n, _ in self.looks], [level for _, level in self.looks]
        if not sizes or sizes[0] < T_SEEDS or any(b <= a for a, b in pairwise(sizes)):
            raise ValueError(f"looks at n = {sizes}: declare increasing numbers of seeds, {T_SEEDS} or more")
        for n, level in self.looks:
            check_level(f"level of the look at n = {n}", level, high=0.5)
        if math.fsum(levels) > self.alpha * (1 + 1e-9):  # decimal levels may sum to alpha on paper only
            raise ValueError(f"looks at levels {levels} sum to {math.fsum(levels):g} > alpha = {self.alpha:g}")

    def decide(self, scores: Scores, seeds: Sequence[int], test: Callable[[Scores, float], Analysis]) -> LooksState:
        """Make every look that is due, and stop at the first after which all comparisons are settled.

        `test` analyses the scores of one look at that look's level, as in
        `lambda scores, level: analyze(scores, baseline="grpo", alpha=level)`. A look at n takes the first n of
        `seeds`, the declared order, and is due once every arm has them; other scores are ignored.
        ValueError: fewer seeds than the last look takes, repeated or undeclared seeds, a non-finite score.
        """
        check_rows(scores, seeds, "looks")
        last = self.looks[-1][0]
        if len(seeds) < last:
            raise ValueError(f"looks: {len(seeds)} seeds declared, but the last look takes {last}")
        row = sum(1 for _ in takewhile(lambda seed: all(seed in runs for runs in scores.values()), seeds))
        decided: dict[tuple[str, str], LookDecision] = {}
        analyses: list[Analysis] = []
        for look, (n, level) in enumerate(self.looks, start=1):
            if n > row:
                return LooksState(row, tuple(decided.values()), tuple(analyses), None, next_look=n)
            analysis = test({arm: {seed: runs[seed] for seed in seeds[:n]} for arm, runs in scores.items()}, level)
            analyses.append(analysis)
            for c in analysis.comparisons:
                if c.verdict in ("better", "worse", "equivalent"):
                    sentence = f"{c.sentence} Look {look} of {len(self.looks)}, after {n} seeds, at level {level:g}."
                    decided.setdefault((c.arm, c.baseline), LookDecision(look, n, level, c, sentence))
            if len(decided) == len(analysis.comparisons):
                break
        complete = len(decided) == len(analyses[-1].comparisons)
        differ = any(decision.comparison.verdict != "equivalent" for decision in decided.values())
        stop: Stop = "budget"
        if complete:
            stop = "decided" if differ else "equivalent"
        return LooksState(row, tuple(decided.values()), tuple(analyses), stop, next_look=None)


def check_rows(scores: Scores, seeds: Collection[int], what: str) -> None:
    """ValueError unless `seeds` are distinct and every score is finite and belongs to one of them."""
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{what}: a seed is declared twice in {list(seeds)}")
    for arm, runs in scores.items():
        for seed, score in runs.items():
            if seed not in seeds:
                raise ValueError(f"{what}: arm {arm!r} has seed {seed}, which is not among those declared")
            if not _is_finite(score):
                raise ValueError(
                    f"{what}: arm {arm!r}, seed {seed}: score {score} is not a finite number; "
                    "give a failed run its declared floor score"
                )


def _is_finite(score: object) -> bool:
    return isinstance(score, Real) and math.isfinite(score)
