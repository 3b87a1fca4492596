"""Studies that may end before their last seed: races and pre-declared looks, as verdicts like any other study's."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from experiments.statistics.analysis import analyze, summary
from experiments.statistics.answers import Answers, least_error
from experiments.statistics.looks import Looks, Stop
from experiments.statistics.measure import measure_effect
from experiments.statistics.racing import RaceDecision, race
from experiments.statistics.records import Analysis, Comparison
from experiments.statistics.runs import Plan
from experiments.statistics.samples import Interval
from experiments.statistics.wording import answers_notes


@dataclass(frozen=True)
class Sequential:
    """How far a race or a study with looks has come.

    `live` arms run at seeds number `row` (from 0) to `until` (not included) before the next look, unless there is a
    `stop`: every comparison is `decided`, all by equivalence (`equivalent`), or the `budget` of seeds is spent.
    `dropped` is {arm: rows it had run when it left}.
    """

    live: tuple[str, ...]
    row: int
    until: int
    dropped: Mapping[str, int]
    stop: Stop | None
    decisions: tuple[RaceDecision, ...] = ()
    """Of a race: the evidence E for every comparison, its anytime p, and intervals that may be unbounded."""


def analyze_sequentially(
    plan: Plan, table: Mapping[str, Mapping[int, float]], answers: Answers | None
) -> tuple[Sequential, Analysis | None]:
    """Where a race or a study with looks stands, and its verdicts: none before the first whole row or look.

    `table` {arm: {seed: score}} has the scores so far.
    """
    return _analyze_race(plan, table, answers) if plan.race else _analyze_looks(plan, table, answers)


def _analyze_race(
    plan: Plan, table: Mapping[str, Mapping[int, float]], answers: Answers | None
) -> tuple[Sequential, Analysis | None]:
    state = race(
        table,
        seeds=plan.seeds,
        baseline=plan.baseline,
        metric=plan.measured,
        alpha=plan.alpha,
        margin=plan.margin,
        family=plan.family,
        higher_is_better=plan.higher_is_better,
        answers=answers,
        largest=plan.largest,
    )
    sequential = Sequential(state.live_arms, state.row, state.row + 1, state.dropped, state.stop, state.comparisons)
    if not state.row:
        return sequential, None
    rows = {arm: plan.seeds[: state.dropped.get(arm, state.row)] for arm in table}
    run = {arm: {seed: table[arm][seed] for seed in seeds} for arm, seeds in rows.items()}
    comparisons = tuple(_anytime(c, run, plan, answers) for c in state.comparisons)
    notes = (*state.notes, *answers_notes(comparisons), _progress(sequential, plan))
    return sequential, Analysis(
        metric=plan.metric,
        axis=plan.axis,
        baseline=plan.baseline,
        alpha=plan.alpha,
        margin=plan.margin,
        family=plan.family,
        higher_is_better=plan.higher_is_better,
        seeds=plan.seeds[: state.row],
        arms=tuple(summary(arm, list(scores.values())) for arm, scores in run.items()),
        comparisons=comparisons,
        notes=notes,
    )


def _anytime(
    c: RaceDecision, run: Mapping[str, Mapping[int, float]], plan: Plan, answers: Answers | None
) -> Comparison:
    """A race's comparison in the form of all others: its effect has anytime intervals, and of fixed n there is none."""
    seeds = sorted(plan.seeds[: c.n])
    x, y = (np.array([float(run[arm][seed]) for seed in seeds]) for arm in (c.arm, c.baseline))
    answers_error, basis = least_error(answers, (c.arm, c.baseline), seeds, x, y)
    effect = measure_effect(
        x,
        y,
        higher_is_better=plan.higher_is_better,
        answers_error=answers_error,
        basis=basis,
        interval=_bounded(c.interval),
        simultaneous_interval=_bounded(c.simultaneous_interval),
    )
    if c.verdict == "untestable":
        return Comparison(c.arm, c.baseline, effect, fixed_n=None, sentence=c.sentence)
    return Comparison(
        c.arm,
        c.baseline,
        effect,
        fixed_n=None,
        verdict=c.verdict,
        label="anytime",
        test="sign-flip betting, anytime",
        adjusted_p=c.adjusted_p_anytime,
        smaller_than_margin=c.smaller_than_margin,
        sentence=c.sentence,
    )


def _bounded(interval: Interval | None) -> Interval | None:
    return interval if interval is not None and all(abs(bound) < float("inf") for bound in interval) else None


def _analyze_looks(
    plan: Plan, table: Mapping[str, Mapping[int, float]], answers: Answers | None
) -> tuple[Sequential, Analysis | None]:
    test = partial(
        analyze,
        baseline=plan.baseline,
        metric=plan.metric,
        axis=plan.axis,
        margin=plan.margin,
        family=plan.family,
        higher_is_better=plan.higher_is_better,
        largest=plan.largest,
        answers=answers,
    )
    state = Looks(plan.looks, plan.alpha).decide(table, plan.seeds, lambda scores, level: test(scores, alpha=level))
    sequential = Sequential(tuple(table), state.row, state.next_look or state.row, {}, state.stop)
    if not state.analyses:
        return sequential, None
    last = state.analyses[-1]
    settled = {
        (d.comparison.arm, d.comparison.baseline): replace(d.comparison, sentence=d.sentence) for d in state.decided
    }
    comparisons = tuple(settled.get((c.arm, c.baseline), c) for c in last.comparisons)
    looks = ", ".join(f"{level:g} after {n}" for n, level in plan.looks)
    note = f"Looks declared before the study, with levels that sum to at most {plan.alpha:g}: {looks} seeds."
    return sequential, replace(last, comparisons=comparisons, notes=(*last.notes, note, _progress(sequential, plan)))


def _progress(state: Sequential, plan: Plan) -> str:
    left = "; ".join(f"{arm} left after {row} seeds" for arm, row in state.dropped.items())
    end = {
        "decided": "it ended because every comparison was decided",
        "equivalent": "it ended because all are equivalent",
        "budget": "it ran to its last seed",
        None: "it goes on",
    }[state.stop]
    return f"{state.row} of at most {len(plan.seeds)} seeds were run: {end}{'; ' * bool(left)}{left}."
