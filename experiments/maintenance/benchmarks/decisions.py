"""How many seeds a decision takes by the t tests of the bench, and how surely a ratio of such numbers is known.

Everything is in units of the sd of one seed's difference, and S, the number of seeds an arm, may lie between whole
numbers. With s the standard deviation that S seeds show, s² ~ χ²_df / df, and f the least that the sampled answers
allow (0 where nobody asks), the standard error is max(s, f) / √S, as in `experiments.statistics.answers`.
"""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from scipy import integrate, optimize, special, stats

ALPHA: Final = 0.05
POWER: Final = 0.8
LEAST: Final = 3
"""Seeds below which nothing is decided."""
MOST: Final = 5000


def decides(effect: float, seeds: float, *, paired: bool, equivalent: bool, floor: float = 0.0) -> float:
    """Chance of a decision: that a true difference `effect` is found or, equivalent, one of 0 to lie within `effect`.

        found:       E_s [Φ(effect √S - t m) + Φ(-effect √S - t m)],   t at 1 - α/2,  m = max(s, floor)
        equivalent:  E_s [2 Φ(effect √S - t m) - 1]+,                  t at 1 - α

    Paired: S - 1 degrees of freedom; else those of two samples of S, 2S - 2, where the sd is the root of the sum of
    both variances. Source: Phillips 1990, "Power of the two one-sided tests procedure in bioequivalence".
    """
    degrees = (seeds - 1) * (1 if paired else 2)
    critical = float(special.stdtrit(degrees, 1 - (ALPHA if equivalent else ALPHA / 2)))
    spread, shift = stats.chi(degrees, scale=1 / math.sqrt(degrees)), effect * math.sqrt(seeds)

    def weighted(s: float) -> float:
        error = critical * max(s, floor)
        above, below = (float(special.ndtr(side - error)) for side in (shift, -shift))
        return float(spread.pdf(s)) * (max(0.0, 2 * above - 1) if equivalent else above + below)

    end = float(spread.isf(1e-12))
    breaks = [point for point in (floor, shift / critical) if 0 < point < end]
    return float(integrate.quad(weighted, 0, end, points=breaks, limit=200)[0])


def seeds_for(effect: float, *, paired: bool, equivalent: bool, floor: float = 0.0) -> float:
    """Seeds an arm with a chance of 80 %, `LEAST` or more; what is run are the next whole number of them."""

    def short(seeds: float) -> float:
        return decides(effect, seeds, paired=paired, equivalent=equivalent, floor=floor) - POWER

    if short(LEAST) >= 0:
        return LEAST
    high = 2 * LEAST
    while short(high) < 0:
        if high > MOST:
            raise SystemExit(f"a difference of {effect:.3g} standard deviations takes more than {MOST} seeds")
        high *= 2
    return float(optimize.brentq(short, high / 2, high, xtol=1e-6))


def ratio_interval(log_ratio: Callable[[tuple[int, ...]], float], seeds: int) -> tuple[float, float]:
    """95 % interval of a ratio that is known from a few seeds, by the jackknife of its logarithm.

        exp(θ ± t √((S - 1) / S Σ (θ_s - mean θ_s)²)),   θ_s without seed s, t with S - 1 degrees of freedom

    `log_ratio` computes θ from the seeds at these places. Source: Miller 1974, "The jackknife - a review".
    """
    places = tuple(range(seeds))
    without = np.array([log_ratio(places[:s] + places[s + 1 :]) for s in places])
    error = math.sqrt((seeds - 1) * float(without.var()))
    half = float(stats.t.isf(ALPHA / 2, seeds - 1)) * error
    middle = log_ratio(places)
    return math.exp(middle - half), math.exp(middle + half)
