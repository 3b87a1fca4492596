"""How often something happens to a run, from few runs."""

from scipy import special

from experiments.statistics.paired import TINY
from experiments.statistics.samples import Interval, check_level


def binomial_interval(k: int, n: int, level: float = 0.95) -> Interval:
    """Exact interval for a rate of which k of n runs showed the event: no binomial test at it rejects.

        low:  P(K >= k) = (1 - level) / 2,   high:  P(K <= k) = (1 - level) / 2

    The low end is 0 for k = 0 and the high end 1 for k = n. ValueError unless 0 <= k <= n, n >= 1, level in (0, 1).
    Clopper & Pearson 1934.
    """
    if not 0 <= k <= n or n < 1:
        raise ValueError(f"binomial_interval: {k} of {n} runs; expected 0 <= k <= n and at least one run")
    check_level("level", level)
    tail = (1 - level) / 2
    low = float(special.betaincinv(k, n - k + 1, tail)) if k > 0 else 0.0
    high = float(special.betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return low, high


def collapse_rate_upper(n: int, level: float = 0.95) -> float:
    """The largest collapse rate that no collapse in n runs is compatible with: 1 - (1 - level)^{1/n}, one-sided.

    63 % at 3 runs and 14 % at 20: few seeds cannot show that a method is safe. ValueError for n < 1.
    """
    if n < 1:
        raise ValueError(f"collapse_rate_upper: n = {n}; at least one run is needed")
    check_level("level", level)
    return 1 - float((1 - level) ** (1 / n))


def mcnemar(only_one: int, only_other: int) -> float:
    """Two-sided exact p of two paired rates being equal, from the pairs in which one of the two alone has the event.

        p = min(1, 2 P(K <= min(only_one, only_other))),   K ~ Bin(only_one + only_other, 1/2)

    1 where there is no such pair; pairs that agree say nothing. ValueError for a negative number. McNemar 1947.
    """
    if only_one < 0 or only_other < 0:
        raise ValueError(f"mcnemar: {only_one} and {only_other} pairs; numbers of pairs are at least 0")
    pairs = only_one + only_other
    return min(1.0, max(2 * float(special.bdtr(min(only_one, only_other), pairs, 0.5)), TINY))
