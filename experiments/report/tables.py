"""The verdict table: the rows that the terminal and the report share, and how their numbers are written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from experiments.results import Study
from experiments.statistics import Analysis, Comparison
from experiments.statistics.wording import FLIP_SEEDS

MARKS = {"better": "▲", "worse": "▼", "equivalent": "≈", "inconclusive": "?", "untestable": "–"}
STYLES = {"better": "bold blue", "worse": "bold red", "equivalent": "green"}

_NAMES = {
    "accuracy": "accuracy",
    "lenient_accuracy": "lenient accuracy",
    "greedy_accuracy": "greedy accuracy",
    "pass_at_k": "pass at k",
    "length": "response length",
    "truncated": "share of truncated responses",
}
_SHARES = ("accuracy", "lenient_accuracy", "greedy_accuracy", "pass_at_k", "truncated")


@dataclass(frozen=True)
class Unit:
    """How a metric's values are written: multiplied by `scale`, with `digits` decimals."""

    scale: float
    digits: int
    value: str  # after a value: 66.1 %
    difference: str  # of a difference: points


@dataclass(frozen=True)
class Row:
    """One arm of the verdict table; what could not be computed is None."""

    arm: str
    finished: int
    planned: int
    seeds: tuple[int, ...]  # the seeds behind the numbers
    mean: float | None
    comparison: Comparison | None
    sampled_tokens: float | None  # mean over runs, to the end of training
    length: float | None  # tokens; the declared scalar of the held-out response length


def unit(metric: str) -> Unit:
    """The unit of `split/name`: shares are written in percent and their differences in points."""
    if metric.rpartition("/")[2] in _SHARES:
        return Unit(100.0, 1, " %", "points")
    return Unit(1.0, 3, "", "")


def metric_name(metric: str) -> str:
    """`test/accuracy` in words."""
    split, _, name = metric.rpartition("/")
    words = _NAMES.get(name, name.replace("_", " "))
    return f"held-out {words}" if split == "test" else f"{words} on {split}" if split else words


def verdict_rows(study: Study, analysis: Analysis | None) -> list[Row]:
    """One row for each arm, in declared order, with its comparison with the baseline if there is one."""
    scores, counts = study.scores(), study.counts()
    judged = analyzed_scores(analysis) if analysis is not None else {}
    comparisons = against_baseline(analysis)
    length = f"{str(study.declaration['metric']).rpartition('/')[0]}/length"
    rows = []
    for arm in study.arms:
        used = judged.get(arm, scores[arm])
        seeds = tuple(seed for seed in study.seeds if seed in used)
        runs = [run for run in (study.run(arm, seed) for seed in seeds) if run is not None]
        lengths = [study.scalar(run, length) for run in runs] if length in study.keys else []
        rows.append(
            Row(
                arm=arm,
                finished=counts[arm].finished,
                planned=counts[arm].planned,
                seeds=seeds,
                mean=_mean([used[seed] for seed in seeds]),
                comparison=comparisons.get(arm),
                sampled_tokens=_mean([run.sampled_tokens for run in runs if run.sampled_tokens is not None]),
                length=_mean([value for value in lengths if not math.isnan(value)]),
            )
        )
    return rows


def analyzed_scores(analysis: Analysis) -> dict[str, dict[int, float]]:
    """The scores behind an analysis, `{arm: {seed: score}}`: of the seeds that all arms share."""
    return {each.arm: dict(zip(analysis.seeds, each.scores, strict=True)) for each in analysis.arms}


def against_baseline(analysis: Analysis | None) -> dict[str, Comparison]:
    """The comparisons with the baseline, by arm."""
    if analysis is None:
        return {}
    return {each.arm: each for each in analysis.comparisons if each.baseline == analysis.baseline}


def verdict_table(analysis: Analysis | None, study: Study) -> Table:
    """The verdict table for a terminal of 80 columns; without an analysis, the means alone."""
    measure = unit(str(study.declaration["metric"]))
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        title=f"{study.name}: {metric_name(str(study.declaration['metric']))}",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("arm", overflow="fold", max_width=20, min_width=6)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("mean", justify="right", no_wrap=True)
    if analysis is not None:
        table.add_column(
            f"{measure.difference or 'difference'}, {100 * (1 - analysis.alpha):g} %", justify="right", no_wrap=True
        )
        table.add_column("adj. p", justify="right", no_wrap=True)
        table.add_column("g_z", justify="right", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    if analysis is not None:
        table.add_column("verdict", min_width=14, overflow="fold")
    for row in verdict_rows(study, analysis):
        cells: list[str | Text] = [
            row.arm,
            str(len(row.seeds)) if row.finished == row.planned else f"{len(row.seeds)}/{row.planned}",
            value_text(row.mean, measure, suffix=False),
        ]
        each = row.comparison
        if analysis is not None and each is not None:
            low, high = interval_of(each)
            interval = "" if low is None else f" [{difference_text(low, measure)}, {difference_text(high, measure)}]"
            cells += [
                difference_text(each.mean_difference, measure) + interval,
                p_text(each.adjusted_p) if test_name(each) else "–",
                number_text(each.g_z, 2, signed=True),
            ]
        elif analysis is not None:
            cells += ["", "", ""]
        cells += [thousands(row.sampled_tokens)]
        if each is not None:
            cells.append(Text(f"{MARKS[each.verdict]} {verdict_text(each)}", style=STYLES.get(each.verdict, "")))
        elif analysis is not None:
            cells.append("baseline" if row.arm == analysis.baseline else "no finished run")
        table.add_row(*cells)
    tests = {test_name(each) for each in analysis.comparisons} - {""} if analysis is not None else set()
    if tests:
        table.caption = f"adj. p: {', '.join(sorted(tests))}. Differences are paired by seed."
        table.caption_justify = "left"
    return table


def verdict_text(comparison: Comparison) -> str:
    """The verdict as a badge says it."""
    if comparison.verdict in ("better", "worse") and comparison.smaller_than_margin:
        return f"{comparison.verdict}, but smaller than Δ"
    return "equivalent within ±Δ" if comparison.verdict == "equivalent" else comparison.verdict


def test_name(comparison: Comparison) -> str:
    """What the adjusted p comes from, which n alone decides; empty where there was no test."""
    if comparison.label == "descriptive":
        return ""
    return "paired t, Holm" if comparison.n < FLIP_SEEDS else "sign flips, max-T"


def interval_of(comparison: Comparison) -> tuple[float, float] | tuple[None, None]:
    """The unadjusted interval of the mean difference, or two Nones where there is none."""
    return comparison.interval or (None, None)


def value_text(value: float | None, measure: Unit, *, suffix: bool = True) -> str:
    """A value of the metric in its unit: `66.1 %`."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value * measure.scale:.{measure.digits}f}{measure.value if suffix else ''}"


def difference_text(value: float | None, measure: Unit) -> str:
    """A difference in the metric's unit, with its sign: `+4.7`."""
    if value is None or math.isnan(value):
        return "–"
    return number_text(value * measure.scale, measure.digits, signed=True)


def number_text(value: float | None, digits: int, *, signed: bool = False) -> str:
    """A number with a real minus sign, or a dash when there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def p_text(p: float | None) -> str:
    """A p-value, never written as 0."""
    if p is None or math.isnan(p):
        return "–"
    if p < 0.0001:
        return "< 0.0001"
    return f"{p:.4f}" if p < 0.1 else f"{p:.2f}"


def thousands(value: float | None) -> str:
    """A large count in short: `50.4 k`, `1.20 M`."""
    if value is None or math.isnan(value):
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            scaled = value / size
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {letter}"
    return f"{value:.0f}"


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
