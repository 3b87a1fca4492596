"""Racing: look after every seed and stop early, with the error rate kept however often one looks.

A paired t test repeated after each seed calls 23 % of true nulls different by seed 20. Here the evidence is that of
`betting.py`, which holds whenever one stops.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from experiments.statistics.answers import Answers, least_error, p_of_answers
from experiments.statistics.betting import (
    anytime_equivalent,
    anytime_interval,
    direction,
    log_bayes_process,
    log_e_at_margin,
    log_e_process,
    p_of_evidence,
)
from experiments.statistics.looks import Scores, Stop, check_rows
from experiments.statistics.multiplicity import holm
from experiments.statistics.numbers import rounded
from experiments.statistics.paired import widened
from experiments.statistics.records import Family, Verdict
from experiments.statistics.rule import T_SEEDS
from experiments.statistics.samples import (
    Array,
    Interval,
    check_level,
    differences,
    is_constant,
    mean_difference,
    within,
)
from experiments.statistics.wording import ARMS_DIFFER, SEED_APPLIED

MIN_SEEDS = 10  # with fewer, stopping early saves less than the loss of power costs
ASSUMPTION = (
    "Race: E tests whether differences are symmetric about 0, as they are when two arms are exchangeable within a "
    "seed; equal means with different shapes are not covered. After looking at every seed no fixed-n p-value or "
    "interval holds, so none is given."
)


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
    largest: float = math.inf,
) -> RaceState:
    """Where a race stands, given the scores so far, {arm: {seed: score}}; pure, so call it after every run.

    `seeds` is the declared order, and its length the budget. A row counts once every arm then in the race has its
    seed; scores beyond the completed rows wait. After each row:

        family "baseline"   Holm on anytime p of the V - 1 arms; an arm better, worse or equivalent leaves
        family "all"        drop the loser of a pair with E >= m/α, m = V(V - 1)/2; the largest E goes first

    Equivalence is the anytime interval at 1 - α/m inside ±margin. The baseline never leaves in its own family. The
    chance of any false claim is at most α for differences (and α for equivalence), whenever one stops. `answers` as in
    `analyze`: what they do not allow is not claimed yet. `largest` is the largest difference that the metric can have;
    no interval goes beyond it.

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
    rule = _Rule(metric, alpha, len(pairs), alpha / len(pairs), margin, family, higher_is_better, largest)
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
    largest: float


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
    def so_far(self) -> Array:
        return self.d[: self.n]

    @property
    def testable(self) -> bool:
        return self.n >= T_SEEDS and not is_constant(self.so_far)

    @property
    def error(self) -> float:
        return float(self.errors[self.n - 1]) if self.n else 0.0

    @property
    def p(self) -> float:
        return float(p_of_evidence(self.log_e[: self.n].max())) if self.testable else 1.0

    @property
    def p_claimed(self) -> float:
        allowed = p_of_answers(float(self.so_far.mean()), self.error, self.n) if self.testable and self.error else None
        return max(self.p, allowed or 0.0)

    def wins(self, rule: _Rule) -> bool:
        """Whether the arm was ahead when the evidence was largest."""
        sign = direction(self.so_far)[self.log_e[: self.n].argmax()]
        return bool(sign > 0) == rule.higher_is_better

    def advance(self, rule: _Rule) -> None:
        self.n += 1
        if not self.equivalent and self.testable and self.log_at_margin[self.n - 1] >= -math.log(rule.pair_alpha):
            low, high = widened((0.0, 0.0), self.so_far, 1 - rule.pair_alpha, self.error)
            self.equivalent = (
                -rule.margin < low
                and high < rule.margin
                and anytime_equivalent(self.so_far, rule.margin, rule.pair_alpha)
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
    return _Track(*pair, d, log_e_process(d), log_e_at_margin(d, margin), errors) if both else _Track(*pair, d, d, d, d)


def _adjusted(tracks: Sequence[_Track], rule: _Rule) -> Array:
    p = np.array([track.p_claimed for track in tracks])
    return holm(p) if rule.family == "baseline" else np.minimum(1.0, rule.m * p)


def _leaving(tracks: Sequence[_Track], running: Sequence[_Track], rule: _Rule) -> list[str]:
    """Arms that leave after this row."""
    decided = [t for t, p in zip(tracks, _adjusted(tracks, rule), strict=True) if t in running and p <= rule.alpha]
    if rule.family == "baseline":
        return [t.arm for t in running if t.equivalent or t in decided]
    leaving: list[str] = []
    for track in sorted(decided, key=lambda t: t.p_claimed):
        if track.arm not in leaving and track.baseline not in leaving:
            leaving.append(track.baseline if track.wins(rule) else track.arm)
    return leaving


def _describe(track: _Track, adjusted: float, rule: _Rule) -> RaceDecision:
    testable, claimed = track.testable, adjusted <= rule.alpha
    interval, simultaneous = (
        within(_interval(track, level), rule.largest) if testable else (-math.inf, math.inf)
        for level in (rule.alpha, rule.pair_alpha)
    )
    log_e = track.log_e[: track.n] if testable else np.zeros(1)
    verdict: Verdict = "equivalent" if track.equivalent else "inconclusive" if testable else "untestable"
    if claimed:
        verdict = "better" if track.wins(rule) else "worse"
    decision = RaceDecision(
        arm=track.arm,
        baseline=track.baseline,
        n=track.n,
        mean_difference=mean_difference(track.so_far) if track.n else None,
        e_value=math.exp(log_e[-1]),
        largest_e_value=math.exp(log_e.max()),
        p_anytime=track.p,
        p_bayes=float(p_of_evidence(np.maximum(log_bayes_process(track.so_far).max(), 0.0))) if testable else 1.0,
        adjusted_p_anytime=adjusted,
        interval=interval,
        simultaneous_interval=simultaneous,
        verdict=verdict,
        smaller_than_margin=claimed and track.equivalent,
        sentence="",
    )
    return replace(decision, sentence=_sentence(decision, track, rule))


def _interval(track: _Track, alpha: float) -> Interval | None:
    interval = anytime_interval(track.so_far, alpha)
    return None if interval is None else widened(interval, track.so_far, 1 - alpha, track.error)


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
    return f"a test takes {T_SEEDS} seeds" if track.n < T_SEEDS else shift if track.so_far.any() else copy
