"""How numbers, units, levels and verdicts are written, on the page, in files and in a terminal alike."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.store.integrity import REEVALUATED
from experiments.statistics.judgement import Judgement
from experiments.statistics.numbers import rounded
from experiments.statistics.records import Comparison

MARKS = {"better": "▲", "worse": "▼", "equivalent": "≈", "inconclusive": "?", "untestable": "–"}
AXIS_WORDS = {"steps": "rollout steps", "sampled_tokens": "sampled tokens", "seconds": "seconds of training"}
POLICY_WORDS = {
    "intersect": "a seed that is missing in one arm is left out of all",
    "worst": "a run whose training failed gets a score declared before the study",
}
_NAMES = {
    "accuracy": "accuracy",
    "lenient_accuracy": "lenient accuracy",
    "greedy_accuracy": "greedy accuracy",
    "adjusted_accuracy": "adjusted accuracy",
    "pass_at_k": "pass at k",
    "length": "response length",
    "truncated": "share of truncated responses",
    "turns": "turns an episode",
    "tool_calls": "tool calls that worked",
    "tool_failures": "tool calls that failed",
    "turn_rewards": "rewards of turns",
}
_SHARES = (
    *("accuracy", "lenient_accuracy", "greedy_accuracy", "adjusted_accuracy", "pass_at_k"),
    *("truncated", "no_spread"),
)


@dataclass(frozen=True)
class Unit:
    """How a metric's values are written: multiplied by `scale`, with `digits` decimals."""

    scale: float
    digits: int
    value: str  # after a value: 66.1 %
    difference: str  # of a difference: points


PLAIN = Unit(1.0, 2, "", "")


def unit(metric: str) -> Unit:
    """The unit of `split/name`: shares are written in percent and their differences in points."""
    if metric.rpartition("/")[2] in _SHARES or "/shows/" in metric:
        return Unit(100.0, 1, " %", "points")
    return Unit(1.0, 3, "", "")


def measured_unit(judgement: Judgement) -> Unit:
    """The unit of what was judged: points where it is known to be a share, else as it was given."""
    return unit(judgement.plan.metric) if judgement.plan.largest == 1.0 else as_given(judgement)


def as_given(judgement: Judgement) -> Unit:
    """A table's own unit, shown to a tenth of the margin: it may hold shares or percent."""
    return Unit(1.0, max(0, 1 - math.floor(math.log10(judgement.analysis.margin))), "", "")


def metric_name(metric: str) -> str:
    """`test/accuracy` in words; another trainer's `val-core/gsm8k/acc/mean@1` as it is."""
    split, _, name = metric.partition("/") if "/" in metric else ("", "", metric)
    if split.endswith(REEVALUATED):
        return f"{metric_name(f'{split.removesuffix(REEVALUATED)}/{name}')} (further questions)"
    if "/" in name.removeprefix("shows/"):
        return metric
    words = _NAMES.get(name, name.removeprefix("shows/").replace("_", " "))
    return f"held-out {words}" if split == "test" else f"{words} on {split}" if split else words


def axis_words(axis: str) -> str:
    """The unit of a budget."""
    return AXIS_WORDS.get(axis, axis.replace("_", " "))


def alpha_of(judgement: Judgement, comparison: Comparison) -> float:
    """The level at which a comparison was judged and its intervals hold: α, or that of the look it rests on."""
    return dict(judgement.plan.looks).get(comparison.effect.n, judgement.analysis.alpha)


def level_text(judgement: Judgement, comparison: Comparison | None = None) -> str:
    """The confidence level of a comparison, or of all of them: 95 %; looks may differ: 99 or 98 %."""
    of = judgement.analysis.comparisons if comparison is None else [comparison]
    alphas = dict.fromkeys(alpha_of(judgement, each) for each in of) or [judgement.analysis.alpha]
    return f"{' or '.join(f'{100 * (1 - alpha):g}' for alpha in alphas)}\u00a0%"


def own_level(judgement: Judgement, comparison: Comparison) -> str:
    """The level of an interval, `, 99 %`, where the study's intervals have different levels; else empty."""
    level = level_text(judgement, comparison)
    return f", {level}" if level != level_text(judgement) and comparison.effect.interval is not None else ""


def verdict_text(comparison: Comparison) -> str:
    """The verdict as a badge shows it."""
    if comparison.verdict in ("better", "worse") and comparison.smaller_than_margin:
        return f"{comparison.verdict}, but smaller than Δ"
    return "equivalent within ±Δ" if comparison.verdict == "equivalent" else comparison.verdict


def test_name(comparison: Comparison) -> str:
    """The test behind the adjusted p, which plan and n decide; empty where there was no test."""
    return "" if comparison.label == "descriptive" else comparison.test


def value_text(value: float | None, measure: Unit, *, suffix: bool = True) -> str:
    """A value of the metric in its unit: `66.1 %`."""
    if value is None or math.isnan(value):
        return "–"
    return number_text(value * measure.scale, measure.digits) + (measure.value if suffix else "")


def difference_text(value: float | None, measure: Unit, margin: float = 0.0) -> str:
    """A difference in the metric's unit, with its sign, on its own side of 0 and of the margin: `+4.7`."""
    if value is None or math.isnan(value):
        return "–"
    limits = [measure.scale * limit for limit in (-margin, 0.0, margin)]
    return number_text(value * measure.scale, measure.digits, signed=True, limits=limits)


def error_text(error: float | None, measure: Unit) -> str:
    """A standard error, to one digit more than a difference."""
    return "–" if error is None else number_text(error * measure.scale, measure.digits + 1)


def interval_ends(interval: tuple[float, float], measure: Unit, margin: float = 0.0) -> tuple[str, str]:
    """Both ends of an interval of a difference, with as many decimals as the end that takes more."""
    while True:
        low, high = (difference_text(end, measure, margin) for end in interval)
        decimals = [len(text.partition(".")[2]) for text in (low, high) if "." in text]
        if len(set(decimals)) < 2:
            return low, high
        measure = replace(measure, digits=max(decimals))


def interval_text(interval: tuple[float, float] | None, measure: Unit, margin: float = 0.0) -> str:
    """An interval of a difference: `−1.0 to +9.0`."""
    return " to ".join(interval_ends(interval, measure, margin)) if interval else "–"


def margin_text(margin: float, measure: Unit) -> str:
    """The smallest difference of interest, with its unit."""
    return f"{difference_text(margin, measure).lstrip('+')} {measure.difference}".strip()


def number_text(value: float | None, digits: int, *, signed: bool = False, limits: Sequence[float] = ()) -> str:
    """A number with a real minus sign, or a dash when there is none; more digits where a limit takes them."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = rounded(value, digits, limits, kind="f", sign="+" if signed else "")
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def p_text(p: float | None, alpha: float = 0.05) -> str:
    """A p-value, never written as 0, on its own side of the level at which it decides."""
    if p is None or math.isnan(p):
        return "–"
    if p < 0.0001 <= alpha:
        return "< 0.0001"
    return rounded(p, 4 if p < 0.1 else 2, [0.0, alpha], kind="f")


def thousands(value: float | None) -> str:
    """A large count in short: `50.4 k`, `1.20 M`."""
    if value is None or math.isnan(value):
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            scaled = value / size
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {letter}"
    return f"{value:.0f}"


def tick_text(value: float) -> str:
    """A round number under an axis: `50 k`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g} {letter}".replace("-", "−")
    return f"{value:g}".replace("-", "−")


def signed_tick(value: float) -> str:
    """A round difference under an axis: `+5`."""
    return "0" if abs(value) < 1e-12 else f"{value:+g}".replace("-", "−")


def plain_text(value: Any) -> str:
    """A declared value in words."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {plain_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def counted(number: int, word: str) -> str:
    """A number with its noun."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Names with an "and" before the last."""
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else "".join(names)


def seeds_text(seeds: Sequence[int]) -> str:
    """Seeds by number: `seed 3`, `seeds 1 and 4`."""
    return f"seed{'s' * (len(seeds) > 1)} {listed([str(seed) for seed in seeds])}"
