"""Power of the two-sided paired t test, exactly, from the noncentral t distribution.

Effects are in units of the standard deviation of the paired differences, d_z = Δ / sd(d). Use the smallest
difference of interest for Δ, never the observed one: power at the observed effect only restates the p-value.
"""

import math
from functools import lru_cache

from scipy import optimize, special

from experiments.statistics.samples import check_level

_MANY = 1e9  # seeds, beyond which counts by the t and the normal distribution agree to all digits shown


def power(d_z: float, n: int, alpha: float = 0.05) -> float:
    """Chance that n paired seeds reject at two-sided level alpha when the true effect is d_z.

        P(|T'_{n-1}(d_z √n)| > t_{1-α/2, n-1})

    ValueError for n < 2, alpha outside (0, 1) or a non-finite d_z.
    """
    if n < 2:
        raise ValueError(f"power: n = {n}; a paired test needs at least 2 seeds")
    if not math.isfinite(d_z):
        raise ValueError(f"power: d_z = {d_z} must be finite")
    check_level("alpha", alpha)
    df, shift = n - 1, abs(d_z) * math.sqrt(n)
    critical = float(special.stdtrit(df, 1 - alpha / 2))
    return 1 - _lower_tail(df, shift, critical) + _lower_tail(df, shift, -critical)


@lru_cache(maxsize=256)
def minimum_detectable_effect(n: int, alpha: float, power: float = 0.8) -> float:
    """The d_z that n paired seeds detect with the given power at two-sided level alpha.

    ValueError unless n >= 2 and 0 < alpha < power < 1.
    """
    check_level("power", power, low=alpha)
    high = 1.0
    while _power(high, n, alpha) < power:
        high *= 2
    return float(optimize.brentq(lambda d_z: _power(d_z, n, alpha) - power, 0.0, high, xtol=1e-10))


def seeds_needed(d_z: float, alpha: float, power: float = 0.8) -> int:
    """The smallest n >= 2 with power(d_z, n, alpha) >= power; ValueError for d_z = 0, levels out of range."""
    check_level("power", power, low=alpha)
    check_level("|d_z|", abs(d_z), high=math.inf)
    # The normal test has more power than the t test at every n, so start at the count that it needs. Its power is
    # Φ(shift - z) + Φ(-shift - z) at shift = d_z √n; solving for the first term approaches the shift from below.
    z = float(special.ndtri(1 - alpha / 2))
    shift = 0.0
    for _ in range(5):
        shift = max(0.0, z + float(special.ndtri(power - special.ndtr(-shift - z))))
    n = max(2, math.ceil(min(shift / abs(d_z), 1e150) ** 2))  # its square is still a number
    while n < _MANY and _power(d_z, n, alpha) < power:
        n += 1
    return n


_power = power  # reachable where the argument `power` hides it


def _lower_tail(df: int, shift: float, t: float) -> float:
    """P(T'_df(shift) <= t); scipy's value is nan where it is far below 1e-10, which is 0 here."""
    chance = float(special.nctdtr(df, shift, t))
    return 0.0 if math.isnan(chance) else chance
