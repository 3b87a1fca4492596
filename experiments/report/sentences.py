"""Verdicts in plain sentences: the same words in the terminal, on the page and in a notebook."""

from experiments.report.formatting import (
    Unit,
    counted,
    difference_text,
    interval_text,
    margin_text,
    measured_unit,
    own_level,
)
from experiments.statistics import Comparison, Judgement
from experiments.statistics.allocation import Allocation, Halving
from experiments.statistics.rule import T_SEEDS
from experiments.statistics.wording import REACHABLE


def plain_sentence(comparison: Comparison, judgement: Judgement, measure: Unit | None = None) -> str:
    """The verdict of one comparison with its difference and what it rests on or lacks, in points where it is a share.

    `dr_grpo is better than grpo: +3.1 points, between +2.1 and +4.1; 5 seeds`. The interval is the comparison's own, at
    1 - α (its level is named where a study has several); `Comparison.sentence` is the long form, with test and p.
    `measure` is another unit, that of a table beside it.
    """
    margin, measure = judgement.analysis.margin, measure or measured_unit(judgement)
    arm, baseline, effect = comparison.arm, comparison.baseline, comparison.effect
    observed = f"{difference_text(effect.mean_difference, measure, margin)} {measure.difference}".strip()
    least, seeds = margin_text(margin, measure), counted(effect.n, "seed")
    if effect.interval is not None and comparison.verdict not in ("equivalent", "untestable"):
        level = own_level(judgement, comparison).removeprefix(", ")
        ends = interval_text(effect.interval, measure, margin).replace(" to ", " and ")
        observed += f", between {ends}{f' ({level})' if level else ''}"
    if not judgement.analysis.higher_is_better:
        observed += " (lower is better)"
    if comparison.verdict == "equivalent":
        return f"{arm} and {baseline}: no difference that matters: {observed}, the true one within ±{least}; {seeds}"
    if comparison.verdict == "inconclusive":
        comparisons = len(judgement.analysis.comparisons)
        excluded = effect.interval is not None and effect.interval[0] * effect.interval[1] > 0
        among = f" among {comparisons} comparisons" if excluded and comparisons > 1 else ""  # one alone would do
        return f"{arm} and {baseline}: not enough evidence{among}: {observed}; {_what_would_do(comparison, least)}"
    if comparison.verdict == "untestable":
        return f"{arm} and {baseline}: cannot be tested: {observed}; {_why_untestable(comparison)}"
    small = f", but by less than {least}" if comparison.smaller_than_margin else ""
    return f"{arm} is {comparison.verdict} than {baseline}{small}: {observed}; {seeds}"


def halving_sentence(found: Halving | None) -> str:
    """What would halve the interval: samples and seeds, or seeds alone, each with the time that it takes beyond the
    study's; empty where that is not known or not to be had.

    `to halve the interval: 48 samples a question (now 6) for +12 % time, or 13 seeds (now 5) for +160 %`
    """
    if found is None or found.cheapest is None:
        return ""
    best, alone, now = found.cheapest, found.seeds_alone, found.now
    seeds = f"{best.seeds} seeds (now {now.seeds})" if best.seeds > now.seeds else ""
    samples = f"{best.samples} samples a question (now {now.samples})" if best.samples > now.samples else ""
    sentence = f"to halve the interval: {' and '.join(filter(None, (seeds, samples)))} for {_more(found, best)} time"
    if alone is None or alone == best:
        return sentence
    return f"{sentence}, or {alone.seeds} seeds{' alone' if seeds else f' (now {now.seeds})'} for {_more(found, alone)}"


def _more(found: Halving, allocation: Allocation) -> str:
    return f"{100 * found.more(allocation):+.0f} %"


def _what_would_do(comparison: Comparison, least: str) -> str:
    """How many seeds would be enough to detect the margin, where that is known and more than there are."""
    n, fixed = comparison.effect.n, comparison.fixed_n
    needed = fixed.seeds_for_margin if fixed is not None else None
    if needed is None or needed <= n:  # a race; questions that are a sample too; or it was bad luck
        return f"{counted(n, 'seed')} did not settle it"
    if needed > REACHABLE:
        return f"not even {REACHABLE} seeds would be enough to detect {least}"
    return f"about {needed} seeds would be enough to detect {least}"


def _why_untestable(comparison: Comparison) -> str:
    effect = comparison.effect
    if effect.n < T_SEEDS:
        return f"{counted(effect.n, 'seed')}, and a test takes {T_SEEDS}"
    if effect.sd_difference:
        return "too many seeds are missing"
    return f"the same {'difference' if effect.equal_shift else 'score'} at all {effect.n} seeds"
