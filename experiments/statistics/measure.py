"""One pair of arms measured: the effect in any design, and beside it what only a fixed number of seeds allows."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from experiments.statistics.answers import Basis, p_of_answers
from experiments.statistics.coupling import correlation
from experiments.statistics.effects import hedges_j, probability_of_improvement, win_rate
from experiments.statistics.paired import TINY, paired_t, standard_error, tost, widened, wilcoxon_exact
from experiments.statistics.power import minimum_detectable_effect
from experiments.statistics.records import Effect, FixedN
from experiments.statistics.rule import FLIP_SEEDS, POWER, T_SEEDS, Rule
from experiments.statistics.samples import Array, Interval, differences, is_constant, mean_difference, within
from experiments.statistics.sign_flips import sign_flip_interval, sign_flip_p
from experiments.statistics.two_level import crossed_t


def measure_effect(
    x: Array,
    y: Array,
    *,
    higher_is_better: bool,
    answers_error: float | None,
    basis: Basis,
    interval: Interval | None,
    simultaneous_interval: Interval | None,
) -> Effect:
    """The effect of an arm's scores x [n] against a baseline's y [n], with the intervals that hold in this design."""
    n, d = x.size, differences(x, y)
    better = 1.0 if higher_is_better else -1.0
    constant, mean = is_constant(d), mean_difference(d)
    sd = None if n < 2 else 0.0 if constant else float(d.std(ddof=1))
    error = standard_error(d, answers_error or 0.0) if n > 1 else None
    spread = error * math.sqrt(n) if error and sd else None
    d_z = mean / spread if spread else None
    return Effect(
        n=n,
        mean_difference=mean,
        sd_difference=sd,
        standard_error=error,
        answers_error=answers_error,
        answers=basis,
        correlation=correlation(x, y),
        interval=interval,
        simultaneous_interval=simultaneous_interval,
        d_z=d_z,
        g_z=d_z * hedges_j(n) if d_z is not None and n >= T_SEEDS else None,
        d_av=_d_av(mean, x, y),
        win_rate=win_rate(better * d),
        probability_of_improvement=probability_of_improvement(better * x, better * y),
        equal_shift=n >= 2 and constant and mean != 0,
    )


def measure_fixed(
    x: Array, y: Array, rule: Rule, seed: int, answers_error: float | None, basis: Basis
) -> tuple[Effect, FixedN]:
    """The effect with t intervals, and raw p-values and power; `seed` starts the generator of random flips."""
    n, d, least = x.size, differences(x, y), answers_error or 0.0
    testable = n >= T_SEEDS and not is_constant(d)
    effect = measure_effect(
        x,
        y,
        higher_is_better=rule.higher_is_better,
        answers_error=answers_error,
        basis=basis,
        interval=within(paired_t(d, 1 - rule.alpha, least)[1], rule.largest) if testable else None,
        simultaneous_interval=within(paired_t(d, 1 - rule.family_alpha, least)[1], rule.largest) if testable else None,
    )
    power: dict[str, Any] = {}
    if spread := effect.spread:
        power = {
            "detectable": minimum_detectable_effect(n, rule.family_alpha, POWER) * spread,
            "seeds_for_margin": rule.seeds_for(spread),
            "seeds_for_margin_high": rule.seeds_for(rule.upper_sd(spread)),
        }
    if not testable:
        no_evidence = 1.0 if n >= T_SEEDS else None
        return effect, FixedN(
            p_t=no_evidence, p_flip=no_evidence, p_wilcoxon=no_evidence, p_equivalence=no_evidence, **power
        )
    return effect, FixedN(
        p_t=paired_t(d, 1 - rule.alpha, least)[0],
        p_flip=sign_flip_p(d, np.random.default_rng(seed)),
        p_wilcoxon=wilcoxon_exact(d),
        p_answers=p_of_answers(effect.mean_difference, answers_error, n),
        p_equivalence=tost(d, rule.margin, least),
        flip_interval=within(_flip_interval(d, rule.alpha, seed, least), rule.largest),
        **power,
    )


def measure_crossed(effect: Effect, cells: Array, rule: Rule, families: Sequence[str] | None) -> tuple[Effect, FixedN]:
    """The same pair with seeds and questions both random; cells [S, Q] or [S, Q, K] are its differences.

    Power and all that is of seeds alone are left out: they say nothing of other questions.
    """
    crossed = crossed_t(cells, 1 - rule.alpha, families)
    p_equivalence = 1.0
    if crossed.df is not None:
        p_equivalence = float(special.stdtr(crossed.df, (abs(crossed.mean) - rule.margin) / crossed.standard_error))
    over_questions = dataclasses.replace(
        effect,
        mean_difference=crossed.mean if families else effect.mean_difference,
        standard_error=crossed.standard_error,
        interval=within(crossed.interval, rule.largest),
        simultaneous_interval=within(crossed_t(cells, 1 - rule.family_alpha, families).interval, rule.largest),
    )
    return over_questions, FixedN(p_t=crossed.p, p_equivalence=max(p_equivalence, TINY))


def _d_av(mean: float, x: Array, y: Array) -> float | None:
    spread = math.sqrt((x.var(ddof=1) + y.var(ddof=1)) / 2) if x.size > 1 else 0.0
    return mean / spread if spread and not (is_constant(x) and is_constant(y)) else None


def _flip_interval(d: Array, alpha: float, seed: int, least: float) -> Interval | None:
    """The inverted sign-flip test, where n suffices for a bounded interval; no finer than the answers allow."""
    if d.size < FLIP_SEEDS:
        return None
    interval = sign_flip_interval(d, 1 - alpha, np.random.default_rng(seed))
    return widened(interval, d, 1 - alpha, least) if math.isfinite(interval[0]) else None
