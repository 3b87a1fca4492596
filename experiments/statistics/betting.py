"""Evidence that may be looked at after every seed: the capital of a bettor, its p and its interval.

He wagers on the sign of each difference at fair odds: when the arms are exchangeable within a seed, the chance that his
capital E ever reaches 1/α is at most α (Ville 1939). What is tested is symmetry of the differences; arms with equal
means and different shapes are not covered.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from experiments.statistics.paired import TINY
from experiments.statistics.samples import Array, Interval, check_level, is_constant, sample

BETS = (0.5, 1.0, 2.0, 4.0)  # no single size of bet suits all effects, and none may be chosen by looking
_COARSE = 80  # points of the grid per side of the median
_FINE = 33  # and per refinement of an end


def log_e_process(d: ArrayLike) -> Array:
    """log E_n for every prefix of the differences d [..., n], in their order; the last axis is the seeds.

        E_n = mean over c ∈ {½, 1, 2, 4} and both signs of Π_i exp(±c z_i) / cosh(c z_i)
        z_i = d_i / √(mean(d_1², ..., d_i²)),   0 while all are 0

    A martingale with mean 1 when, given the past, each d_i is symmetric about 0: P(ever E_n >= 1/α) <= α.
    Unchanged by the unit and the sign of d. Six equal differences give 20.12. ValueError: empty or non-finite d.
    On betting as testing: Ramdas et al. 2023, arXiv:2210.01948.
    """
    return _log_mean_exp(np.stack(_log_halves(d)))


def direction(d: ArrayLike) -> NDArray[np.int64]:
    """Sign of the half of the bets that leads after every prefix of d [..., n]: 1 up, -1 down, 0 a tie."""
    up, down = _log_halves(d)
    return np.sign(up - down).astype(np.int64)


def anytime_p(d: ArrayLike) -> Array:
    """p after every prefix of d [..., n], valid whenever one stops: min(1, 1 / max_{k <= n} E_k); never 0."""
    return p_of_evidence(np.maximum.accumulate(log_e_process(d), axis=-1))


def anytime_interval(d: ArrayLike, alpha: float = 0.05) -> Interval | None:
    """Interval for the centre of symmetry of d [n] that covers it at every n at once with chance 1 - alpha.

        {μ : max_{k <= n} E_k(d - μ) < 1/α},   from the lowest to the highest such μ

    Sought on a geometric grid around the median that ends at 1000 times the range and is refined at both ends,
    which are rounded outwards (by less than 0.1 % of their distance from the median). An end that the grid does
    not reach is infinite, as for n < 6 at alpha = 0.05; so are both when all d agree, as nothing then shows how
    much they vary. None: every μ is rejected, so the differences drift from seed to seed.
    """
    d = sample(d)
    check_level("alpha", alpha)
    far_away = log_e_process(np.ones(d.size))[-1]  # where all d - μ are as good as equal
    if is_constant(d) or far_away < -math.log(alpha):
        return -math.inf, math.inf
    centre = float(np.median(d))
    spread = np.abs(d - centre)
    far = float(spread.max())
    near = max(float(spread[spread > 0].min()) / 10, 1e-6 * far)
    offsets = np.geomspace(near, 1e3 * far, _COARSE)
    grid = centre + np.concatenate([-offsets[::-1], [0.0], offsets])
    kept = np.flatnonzero(_kept(d, grid, alpha))
    if kept.size == 0:
        return None
    first, last = int(kept[0]), int(kept[-1])
    low = -math.inf if first == 0 else _end(d, grid[first - 1], grid[first], alpha)
    high = math.inf if last == grid.size - 1 else _end(d, grid[last + 1], grid[last], alpha)
    return low, high


def anytime_equivalent(d: ArrayLike, margin: float, alpha: float = 0.05) -> bool:
    """Whether the anytime interval of d [n] lies inside (-margin, margin); margin in the unit of d."""
    check_level("margin", margin, high=math.inf)
    d = sample(d)
    if log_e_at_margin(d, margin)[-1] < -math.log(alpha):  # the margin itself is not rejected: spare the grid
        return False
    interval = anytime_interval(d, alpha)
    return interval is not None and -margin < interval[0] and interval[1] < margin


def log_bayes_process(d: ArrayLike, g: float = 1.0) -> Array:
    """log BF_n for every prefix of d [..., n]: a cross-check of `log_e_process`, valid for normal differences only.

        BF_n = (1 + n g)^{-1/2} [(1 + t²/ν) / (1 + t² / (ν (1 + n g)))]^{(ν+1)/2},   ν = n - 1

    t is Student's, and g the prior variance of the effect in units of the variance of d. Rouder et al. 2009.
    """
    check_level("g", g, high=math.inf)
    d = _unit(d)
    n = np.arange(1, d.shape[-1] + 1)
    squares = np.cumsum(d**2, axis=-1)  # SS + n m² for deviations SS and mean m, and t²/ν = n m² / SS
    explained = np.cumsum(d, axis=-1) ** 2 / n * (n * g / (1 + n * g))
    ratio = np.divide(squares, squares - explained, out=np.ones_like(squares), where=squares > 0)
    return np.asarray(0.5 * (n * np.log(ratio) - np.log1p(n * g)))


def _unit(d: ArrayLike) -> Array:
    """d [..., n] over a power of two, so that squares neither overflow nor vanish and no digit is lost."""
    d = np.asarray(d, dtype=np.float64)
    if d.ndim == 0 or d.size == 0 or not np.isfinite(d).all():
        raise ValueError(f"race: expected finite differences [..., n >= 1], got shape {d.shape} or a value not finite")
    _, exponent = np.frexp(np.abs(d).max(axis=-1, keepdims=True))
    return np.asarray(np.ldexp(d, -exponent))


def _log_halves(d: ArrayLike) -> tuple[Array, Array]:
    """log of the mean of the bets on d > 0, and of those on d < 0, after every prefix of d [..., n]."""
    d = _unit(d)
    rms = np.sqrt(np.cumsum(d**2, axis=-1) / np.arange(1, d.shape[-1] + 1))
    z = np.divide(d, rms, out=np.zeros_like(d), where=rms > 0)
    stakes = np.multiply.outer(np.array(BETS), np.abs(z))
    log_cosh = stakes + np.log1p(np.exp(-2 * stakes)) - math.log(2)  # without overflow
    gains = np.multiply.outer(np.array(BETS), np.cumsum(z, axis=-1))
    costs = np.cumsum(log_cosh, axis=-1)
    return _log_mean_exp(gains - costs), _log_mean_exp(-gains - costs)


def _log_mean_exp(x: Array) -> Array:
    top = x.max(axis=0)
    return np.asarray(top + np.log(np.exp(x - top).mean(axis=0)))


def p_of_evidence(largest_log_e: Array) -> Array:
    """min(1, 1 / E) for the largest E so far, from its logarithm; never 0."""
    return np.asarray(np.clip(np.exp(-largest_log_e), TINY, 1.0))


def log_e_at_margin(d: Array, margin: float) -> Array:
    """For every prefix of d [n], the smaller of the largest log E so far against a shift of -margin and of margin."""
    largest = np.maximum.accumulate(log_e_process(np.stack([d - margin, d + margin])), axis=-1)
    return np.asarray(largest.min(axis=0))


def _kept(d: Array, shifts: Array, alpha: float) -> NDArray[np.bool_]:
    return np.asarray(log_e_process(d - shifts[:, None]).max(axis=-1) < -math.log(alpha))


def _end(d: Array, rejected: float, kept: float, alpha: float) -> float:
    """Narrow the step between a rejected and a kept shift, twice; return its rejected side."""
    for _ in range(2):
        points = np.linspace(rejected, kept, _FINE)
        inside = int(np.append(_kept(d, points[1:-1], alpha), True).argmax())
        rejected, kept = float(points[inside]), float(points[inside + 1])
    return rejected
