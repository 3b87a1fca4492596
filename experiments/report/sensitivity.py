"""Section of the report: whether the verdicts hold under the other failure policy and at the other equal budgets."""

from dataclasses import dataclass
from html import escape

from experiments.report.context import Judged
from experiments.report.formatting import POLICY_WORDS, Unit, axis_words, difference_text, p_text, verdict_text
from experiments.report.grid import Cell, Grid, column, text_cell, to_html
from experiments.report.markup import badge, pair_name, section
from experiments.statistics import Analysis, Comparison, Judgement
from experiments.statistics.departures import departs
from experiments.statistics.runs import CLOCK


def sensitivity_section(context: Judged) -> str:
    """One row a comparison, one column an alternative analysis; verdicts that differ are marked."""
    judgement, styles = context.judgement, context.styles
    if judgement is None or not judgement.analysis.comparisons:
        return ""
    measure = context.measure
    ways = _ways(judgement)
    if not ways:
        return ""
    heads = (column(each.title, each.title, note="declared" if each.declared else "") for each in ways)
    columns = (column("pair", "comparison"), *heads)
    rows = []
    for each in judgement.analysis.comparisons:
        cells = [text_cell(f"{each.arm} vs {each.baseline}", pair_name(each, styles))]
        cells += [_cell(each, _same_pair(way.analysis, each), measure, judgement.plan.alpha) for way in ways]
        rows.append(tuple(cells))
    policies = "; ".join(f"<i>{policy}</i>: {escape(POLICY_WORDS[policy])}" for policy in judgement.policies)
    about = (
        f"The verdicts above are those of the declared columns. {policies}. For equal budgets on an axis every run is "
        "cut where the cheapest finished run ends, unless the budget was declared on that axis; where a verdict would "
        "differ, all are read at the last evaluations of that run, so that none gains by where its own lie. Seconds "
        "compare only runs of one machine, and depend on what else it did: no verdict above rests on them. A bar marks "
        "a verdict that differs from the declared one, where either of the two is a decision."
    )
    table = to_html(Grid(columns, tuple(rows)), "Verdicts by failure policy and axis")
    return section("Does it hold?", table, about=about)


def departures(judgement: Judgement, each: Comparison) -> list[str]:
    """The titles of the alternative analyses in which a comparison's verdict differs.

    But for clocks: what else the machine did decides what was spent by them, so that two equal studies differ.
    """
    ways = (way for way in _ways(judgement) if not way.declared and not way.timed)
    candidates = ((way.title, _same_pair(way.analysis, each)) for way in ways)
    return [title for title, other in candidates if other is not None and departs(each, other)]


@dataclass(frozen=True)
class _Way:
    """An alternative analysis of the same runs."""

    title: str
    declared: bool
    analysis: Analysis | None
    timed: bool = False


def _ways(judgement: Judgement) -> list[_Way]:
    plan = judgement.plan
    policies = (_Way(f"failures: {name}", name == plan.failures, each) for name, each in judgement.policies.items())
    axes = (
        _Way(f"equal {axis_words(name)}", name == plan.axis, each, timed=name == CLOCK)
        for name, each in judgement.axes.items()
    )
    return [*policies, *axes]


def _same_pair(analysis: Analysis | None, each: Comparison) -> Comparison | None:
    candidates = analysis.comparisons if analysis is not None else ()
    return next((c for c in candidates if (c.arm, c.baseline) == (each.arm, each.baseline)), None)


def _cell(declared: Comparison, each: Comparison | None, measure: Unit, alpha: float) -> Cell:
    if each is None:
        return text_cell("nothing left to compare")
    difference = difference_text(each.effect.mean_difference, measure)
    numbers = f"{difference}, n = {each.effect.n}, p {_stated(each.adjusted_p, alpha)}"
    shown = f"{badge(each)}<small>{escape(numbers)}</small>"
    marked = f'<div class="turned">{shown}</div>' if departs(declared, each) else shown
    return text_cell(f"{verdict_text(each)}, {numbers}", marked)


def _stated(p: float | None, alpha: float) -> str:
    words = p_text(p, alpha)
    return words if words.startswith(("<", "–")) else f"= {words}"
