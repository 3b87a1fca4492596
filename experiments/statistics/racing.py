"""Racing: look after every seed and stop early, with the error rate kept however often one looks.

A paired t test repeated after each seed calls 23 % of true nulls different by seed 20. Here evidence is the
capital E of a bettor who wagers on the sign of each difference at fair odds: when the arms are exchangeable within
a seed, the chance that E ever reaches 1/α is at most α (Ville 1939). What is tested is symmetry of the differences;
arms with equal means and different shapes are not covered.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from experiments.statistics.answers import Answers, least_error, p_of_answers
from experiments.statistics.looks import Scores, Stop, check_rows
from experiments.statistics.multiplicity import holm
from experiments.statistics.numbers import rounded
from experiments.statistics.paired import TINY, widened
from experiments.statistics.records import Family, Verdict
from experiments.statistics.samples import (
    Array,
    Interval,
    check_level,
    differences,
    is_constant,
    mean_difference,
    sample,
)
from experiments.statistics.wording import ARMS_DIFFER, SEED_APPLIED, T_SEEDS

BETS = (0.5, 1.0, 2.0, 4.0)  # no single size of bet suits all effects, and none may be chosen by looking
MIN_SEEDS = 10  # with fewer, stopping early saves less than the loss of power costs
ASSUMPTION = (
    "Race: E tests whether differences are symmetric about 0, as they are when two arms are exchangeable within a "
    "seed; equal means with different shapes are not covered. After looking at every seed no fixed-n p-value or "
    "interval holds, so none is given."
)
_COARSE, _FINE = 80, 33  # points of the grid per side of the median, and per refinement of an end


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
    return _p(np.maximum.accumulate(log_e_process(d), axis=-1))


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
    if _log_at_margin(d, margin)[-1] < -math.log(alpha):  # the margin itself is not rejected: spare the grid
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


@dataclass(frozen=True)
class RaceDecision:
    """Where one comparison of a race stands after the n seeds that both arms ran; d = arm - baseline.

    `e_value` is E_n and `largest_e_value` the largest so far, on which `p_anytime` rests. `adjusted_p_anytime` is
    Holm over the baseline family, min(1, m p) over all pairs, of `p_anytime` or, where it is larger, the p of a t test
    with the least standard error that the answers allow; intervals and equivalence are no finer either. The intervals
    are anytime ones at 1 - α and 1 - α/m;
    None if every shift is rejected. `p_bayes`, the anytime p of a Gaussian Bayes factor, is a cross-check that holds
    for normal differences only; it decides nothing. No fixed-n p is here: it would not survive looking.
    `smaller_than_margin`: better or worse, yet equivalent within the margin.
    """

    arm: str
    baseline: str
    n: int
    mean_difference: float | None
    e_value: float
    largest_e_value: float
    p_anytime: float
    p_bayes: float
    adjusted_p_anytime: float
    interval: Interval | None
    simultaneous_interval: Interval | None
    verdict: Verdict
    smaller_than_margin: bool
    sentence: str


@dataclass(frozen=True)
class RaceState:
    """A race after its first `row` whole seed rows: run `live_arms` on seed number `row` (from 0), unless `stop`.

    `dropped` is {arm: row after which it left}. `stop` is "decided": every comparison between arms still in the
    race is settled, some by a difference; "equivalent": all by equivalence; "budget": no seed is left; or None.
    """

    live_arms: tuple[str, ...]
    row: int
    dropped: Mapping[str, int]
    comparisons: tuple[RaceDecision, ...]
    stop: Stop | None
    notes: tuple[str, ...]

    @property
    def decided(self) -> tuple[RaceDecision, ...]:
        """The comparisons that are settled, by a difference or by equivalence."""
        return tuple(c for c in self.comparisons if c.verdict in ("better", "worse", "equivalent"))


def race(
    scores: Scores,
    *,
    seeds: Sequence[int],
    baseline: str,
    metric: str = "final",
    alpha: float = 0.05,
    margin: float = 0.01,
    family: Family = "baseline",
    higher_is_better: bool = True,
    answers: Answers | None = None,
) -> RaceState:
    """Where a race stands, given the scores so far, {arm: {seed: score}}; pure, so call it after every run.

    `seeds` is the declared order, and its length the budget. A row counts once every arm then in the race has its
    seed; scores beyond the completed rows wait. After each row:

        family "baseline"   Holm on anytime p of the V - 1 arms; an arm better, worse or equivalent leaves
        family "all"        drop the loser of a pair with E >= m/α, m = V(V - 1)/2; the largest E goes first

    Equivalence is the anytime interval at 1 - α/m inside ±margin. The baseline never leaves in its own family. The
    chance of any false claim is at most α for differences (and α for equivalence), whenever one stops. `answers` as in
    `analyze`: what they do not allow is not claimed yet.

    Raises ValueError: fewer than 10 seeds declared, repeated or undeclared seeds, fewer than 2 arms, unknown
    baseline or family, a non-finite score (failed runs get their declared floor first), alpha or margin out of range.
    """
    check_rows(scores, seeds, "race")
    _check(scores, seeds, baseline, family)
    check_level("alpha", alpha, high=0.5)
    check_level("margin", margin, high=math.inf)
    others = [arm for arm in scores if arm != baseline]
    pairs = [(arm, baseline) for arm in others]
    if family == "all":
        pairs += [(arm, reference) for reference, arm in combinations(others, 2)]
    rule = _Rule(metric, alpha, len(pairs), alpha / len(pairs), margin, family, higher_is_better)
    tracks = [_track(pair, scores, seeds, margin, answers) for pair in pairs]

    live, row, dropped, open_ = list(scores), 0, dict[str, int](), tracks
    while open_ and row < len(seeds) and all(seeds[row] in scores[arm] for arm in live):
        row += 1
        running = [t for t in tracks if t.arm in live and t.baseline in live]
        for track in running:
            track.advance(rule)
        dropped |= dict.fromkeys(_leaving(tracks, running, rule), row)
        live = [arm for arm in scores if arm not in dropped]
        open_ = [t for t in running if t.arm in live and t.baseline in live and not t.equivalent]

    adjusted = _adjusted(tracks, rule)
    comparisons = tuple(_describe(t, float(p), rule) for t, p in zip(tracks, adjusted, strict=True))
    stop: Stop | None = "budget" if row == len(seeds) else None
    if not open_:
        stop = "decided" if any(c.verdict in ("better", "worse") for c in comparisons) else "equivalent"
    return RaceState(tuple(live), row, dropped, comparisons, stop, notes=(ASSUMPTION,))


@dataclass(frozen=True)
class _Rule:
    metric: str
    alpha: float
    m: int
    pair_alpha: float
    margin: float
    family: Family
    higher_is_better: bool


@dataclass(eq=False)
class _Track:
    """One pair over all rows that both arms have, and how far (n) the race has read it."""

    arm: str
    baseline: str
    d: Array
    log_e: Array
    log_at_margin: Array
    errors: Array
    """The least standard error of the mean of every prefix of d; 0 where nothing is known of the answers."""
    n: int = 0
    equivalent: bool = False

    @property
    def seen(self) -> Array:
        return self.d[: self.n]

    @property
    def testable(self) -> bool:
        return self.n >= T_SEEDS and not is_constant(self.seen)

    @property
    def error(self) -> float:
        return float(self.errors[self.n - 1]) if self.n else 0.0

    @property
    def p(self) -> float:
        return float(_p(self.log_e[: self.n].max())) if self.testable else 1.0

    @property
    def p_claimed(self) -> float:
        allowed = p_of_answers(float(self.seen.mean()), self.error, self.n) if self.testable and self.error else None
        return max(self.p, allowed or 0.0)

    def wins(self, rule: _Rule) -> bool:
        """Whether the arm was ahead when the evidence was largest."""
        sign = direction(self.seen)[self.log_e[: self.n].argmax()]
        return bool(sign > 0) == rule.higher_is_better

    def advance(self, rule: _Rule) -> None:
        self.n += 1
        if not self.equivalent and self.testable and self.log_at_margin[self.n - 1] >= -math.log(rule.pair_alpha):
            low, high = widened((0.0, 0.0), self.seen, 1 - rule.pair_alpha, self.error)
            self.equivalent = (
                -rule.margin < low
                and high < rule.margin
                and anytime_equivalent(self.seen, rule.margin, rule.pair_alpha)
            )


def _check(scores: Scores, seeds: Sequence[int], baseline: str, family: str) -> None:
    if len(seeds) < MIN_SEEDS:
        raise ValueError(
            f"race: {len(seeds)} seeds declared; a race needs at least {MIN_SEEDS}, below which looking after every "
            "seed costs more power than stopping early saves: run all seeds and use analyze"
        )
    if len(scores) < 2:
        raise ValueError(f"race: {len(scores)} arm(s) given; a comparison needs at least 2")
    if baseline not in scores:
        raise ValueError(f"race: unknown baseline {baseline!r}; the arms are {', '.join(scores)}")
    if family not in ("baseline", "all"):
        raise ValueError(f"race: unknown family {family!r}; choose 'baseline' or 'all'")


def _track(
    pair: tuple[str, str], scores: Scores, seeds: Sequence[int], margin: float, answers: Answers | None
) -> _Track:
    x, y = (scores[arm] for arm in pair)
    both = next((row for row, seed in enumerate(seeds) if seed not in x or seed not in y), len(seeds))
    table = np.array([[float(runs[seed]) for seed in seeds[:both]] for runs in (x, y)])
    d = differences(table[0], table[1])
    errors = np.array(
        [least_error(answers, pair, seeds[:k], table[0, :k], table[1, :k])[0] or 0.0 for k in range(1, both + 1)]
    )
    return _Track(*pair, d, log_e_process(d), _log_at_margin(d, margin), errors) if both else _Track(*pair, d, d, d, d)


def _adjusted(tracks: Sequence[_Track], rule: _Rule) -> Array:
    p = np.array([track.p_claimed for track in tracks])
    return holm(p) if rule.family == "baseline" else np.minimum(1.0, rule.m * p)


def _leaving(tracks: Sequence[_Track], running: Sequence[_Track], rule: _Rule) -> list[str]:
    """Arms that leave after this row."""
    decided = [t for t, p in zip(tracks, _adjusted(tracks, rule), strict=True) if t in running and p <= rule.alpha]
    if rule.family == "baseline":
        return [t.arm for t in running if t.equivalent or t in decided]
    gone: list[str] = []
    for track in sorted(decided, key=lambda t: t.p_claimed):
        if track.arm not in gone and track.baseline not in gone:
            gone.append(track.baseline if track.wins(rule) else track.arm)
    return gone


def _describe(track: _Track, adjusted: float, rule: _Rule) -> RaceDecision:
    testable, claimed = track.testable, adjusted <= rule.alpha
    interval, simultaneous = (
        _interval(track, level) if testable else (-math.inf, math.inf) for level in (rule.alpha, rule.pair_alpha)
    )
    log_e = track.log_e[: track.n] if testable else np.zeros(1)
    verdict: Verdict = "equivalent" if track.equivalent else "inconclusive" if testable else "untestable"
    if claimed:
        verdict = "better" if track.wins(rule) else "worse"
    decision = RaceDecision(
        arm=track.arm,
        baseline=track.baseline,
        n=track.n,
        mean_difference=mean_difference(track.seen) if track.n else None,
        e_value=math.exp(log_e[-1]),
        largest_e_value=math.exp(log_e.max()),
        p_anytime=track.p,
        p_bayes=float(_p(np.maximum(log_bayes_process(track.seen).max(), 0.0))) if testable else 1.0,
        adjusted_p_anytime=adjusted,
        interval=interval,
        simultaneous_interval=simultaneous,
        verdict=verdict,
        smaller_than_margin=claimed and track.equivalent,
        sentence="",
    )
    return replace(decision, sentence=_sentence(decision, track, rule))


def _interval(track: _Track, alpha: float) -> Interval | None:
    interval = anytime_interval(track.seen, alpha)
    return None if interval is None else widened(interval, track.seen, 1 - alpha, track.error)


def _sentence(c: RaceDecision, track: _Track, rule: _Rule) -> str:
    level, interval = 1 - rule.alpha, c.interval
    head = f"{c.arm} vs {c.baseline} on {rule.metric}: {c.verdict}"
    if c.verdict == "untestable":
        head += f" ({_why_untestable(track)})"
    elif c.verdict == "equivalent":
        head += f" within ±{rule.margin:g}"
        level, interval = 1 - rule.pair_alpha, c.simultaneous_interval
    elif c.smaller_than_margin:
        head += f", but smaller than {rule.margin:g}"
    limits = (0.0, -rule.margin, rule.margin)
    bounds = "empty (differences drift)"
    if interval is not None:
        bounds = f"[{', '.join(rounded(end, 3, limits, sign='+') for end in interval)}]"
    mean = "" if c.mean_difference is None else f"mean difference {rounded(c.mean_difference, 3, limits, sign='+')}, "
    return (
        f"{head}; {mean}anytime {100 * level:.4g} % interval {bounds}, {c.n} seed{'s' * (c.n != 1)}, "
        f"E = {c.e_value:.4g} (largest {rounded(c.largest_e_value, 4, [1 / rule.pair_alpha])}), anytime p = "
        f"{rounded(c.p_anytime, 4, [rule.alpha])}, adjusted {rounded(c.adjusted_p_anytime, 4, [rule.alpha])} "
        f"({'Holm, ' * (rule.family == 'baseline')}m = {rule.m})."
    )


def _why_untestable(track: _Track) -> str:
    shift = f"identical shift on every seed: {SEED_APPLIED}"
    copy = f"identical scores on every seed: {ARMS_DIFFER}"
    return f"a test takes {T_SEEDS} seeds" if track.n < T_SEEDS else shift if track.seen.any() else copy


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


def _p(largest_log_e: Array) -> Array:
    return np.asarray(np.clip(np.exp(-largest_log_e), TINY, 1.0))


def _log_at_margin(d: Array, margin: float) -> Array:
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
