"""Studies that grew after a look: how often equal arms are then called different, and what the fresh seeds say alone.

To look, and to add seeds where nothing was found, is to have several chances of a false claim. Looks that are declared
before the first run share α among them (`looks.py`, `racing.py`); those that were not are reported with the error
rate that they have, and beside it the verdicts of the seeds that nobody had seen, which keep theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from experiments.statistics.records import Analysis, Family
from experiments.statistics.rule import FLIP_SEEDS, T_SEEDS
from experiments.statistics.samples import Array

STUDIES: Final = 200_000
"""Simulated studies of two arms: a rate of 0.1 has a standard error of 0.0007; a fifth of them with more arms."""


@dataclass(frozen=True)
class Look:
    """A look at the first `seeds` seeds of `arms` arms, the baseline and those declared by then, at level `alpha`.

    At the evaluations in training, or at what final models answered to so many `further` questions.
    """

    seeds: int
    arms: int
    alpha: float
    further: int = 0


@dataclass(frozen=True)
class Grown:
    """What a study's growth did to its error rate."""

    looks: tuple[Look, ...]
    """Every look, the present one last."""
    error_rate: float
    """How often equal arms are called different at one of the looks; at most so often, where they are at different
    answers."""
    fresh: Analysis | None
    """The verdicts of the seeds since the last look before this one; None where they are too few."""
    sentence: str


@cache
def error_rate(looks: tuple[Look, ...], family: Family = "baseline") -> float:
    """P(equal arms are called different at one of `looks`), simulated with normal noise; always the same number.

    At each look the largest |t| of the family decides, as in `analyze`: against t at α/m below 8 seeds (Holm's first
    step), from there on against its own 1 - α quantile, which is what the max-T test attains. Arms that were added
    later have no part in earlier looks. ValueError: no look, one below 3 seeds or 2 arms.
    """
    if not looks or min(look.seeds for look in looks) < T_SEEDS or min(look.arms for look in looks) < 2:
        raise ValueError(f"looks {looks}: give one or more, each at {T_SEEDS} seeds and 2 arms or more")
    arms = max(look.arms for look in looks)
    pairs = [(k, 0) for k in range(1, arms)]
    if family == "all":
        pairs += [(k, j) for j, k in combinations(range(1, arms), 2)]
    left, right = (np.array(side) for side in zip(*pairs, strict=True))
    studies = STUDIES if len(pairs) == 1 else STUDIES // 5
    rng = np.random.default_rng(0)
    total = np.zeros((studies, len(pairs)))
    squares = np.zeros_like(total)
    claimed = np.zeros(studies, dtype=np.bool_)
    for n in range(1, max(look.seeds for look in looks) + 1):
        scores = rng.normal(size=(studies, arms))
        d = scores[:, left] - scores[:, right]
        total += d
        squares += d**2
        for look in looks:
            if look.seeds == n:
                declared = np.maximum(left, right) < look.arms
                claimed |= _claims(total[:, declared], squares[:, declared], look)
    return float(claimed.mean())


def bound(looks: Sequence[Look], family: Family = "baseline") -> float:
    """How often equal arms are called different at one of `looks`, at most.

    Looks at the same answers are simulated, `error_rate`. Looks at other answers share models with them and nothing is
    assumed of how much they agree: the rates add up (Boole's inequality).
    """
    rates = []
    for further in dict.fromkeys(look.further for look in looks):
        same = tuple(look for look in looks if look.further == further)
        rates.append(error_rate(same, family) if len(same) > 1 else same[0].alpha)
    return min(1.0, sum(rates))


def _claims(total: Array, squares: Array, look: Look) -> NDArray[np.bool_]:
    """Whether a look rejects in each study, from the sums of its differences [R, m] and of their squares."""
    n, m = look.seeds, total.shape[1]
    variance = (squares - total**2 / n) / (n - 1)
    largest = np.abs(total / np.sqrt(n * variance)).max(axis=1)
    bound = -special.stdtrit(n - 1, look.alpha / (2 * m)) if n < FLIP_SEEDS else np.quantile(largest, 1 - look.alpha)
    return np.asarray(largest >= bound)


def grown(looks: Sequence[Look], fresh: Analysis | None, fresh_seeds: int, family: Family) -> Grown | None:
    """The error rate of a study that was looked at so often; None where this is the first look that could claim.

    `fresh_seeds`: how many seeds there are since the last look but one, with or without results.
    """
    tested = tuple(dict.fromkeys(look for look in looks if look.seeds >= T_SEEDS and look.arms > 1))
    if len(tested) < 2:
        return None
    rate, alpha = bound(tested, family), tested[-1].alpha
    seeds, levels = [look.seeds for look in tested], list(dict.fromkeys(look.alpha for look in tested))
    if alike := len({look.further for look in tested}) == 1:
        at_most, why = "", ""
    else:
        at_most, why = "at most ", ": the sum of the rates, which bounds it whatever their answers have in common"
    if not alike:
        after = ", then ".join(_words(look, tested) for look in tested)
    elif len({look.arms for look in tested}) == 1:
        after = f"{', '.join(map(str, seeds[:-1]))} and {seeds[-1]} seeds"
    else:
        after = ", then ".join(f"{look.seeds} seeds of {look.arms} arms" for look in tested)
    at = f"each at {levels[0]:g}" if len(levels) == 1 else f"at {', then '.join(f'{x.alpha:g}' for x in tested)}"
    sentence = (
        f"Looked at after {after}, {at}: equal arms are called different at one of these looks in {at_most}"
        f"{100 * rate:.1f} % of such studies{why}."
    )
    if fresh is not None:
        verdicts = "; ".join(
            f"{c.arm} vs {c.baseline} {c.verdict} ({c.effect.mean_difference:+.3g}"
            + (f", adjusted p = {c.adjusted_p:.3g})" if c.adjusted_p is not None else ")")
            for c in fresh.comparisons
        )
        sentence += f" The {len(fresh.seeds)} seeds since the look before, alone, keep {alpha:g}: {verdicts}."
    elif fresh_seeds:
        sentence += f" The seeds since the look before are fewer than {T_SEEDS}: alone they decide nothing."
    return Grown(tested, rate, fresh, sentence)


def _words(look: Look, looks: Sequence[Look]) -> str:
    """One look in words, where looks are at different answers."""
    arms = f" of {look.arms} arms" if len({each.arms for each in looks}) > 1 else ""
    on = f" by {look.further:,} further questions" if look.further else " by their evaluations"
    return f"{look.seeds} seeds{arms}{on}"
