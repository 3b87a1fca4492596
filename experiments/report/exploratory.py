"""Section of the report: numbers that were not declared, as exploration."""

from html import escape

from experiments.report.context import Judged
from experiments.report.formatting import Unit, difference_text, interval_text, level_text, p_text, unit
from experiments.report.grid import Cell, Column, Grid, column, number_cell, text_cell, to_html
from experiments.report.markup import arm_name, breakable, section


def exploratory_section(context: Judged) -> str:
    """Other numbers of the declared metric and other metrics, with false discovery rates and without verdicts."""
    judgement, styles = context.judgement, context.styles
    if judgement is None or not judgement.exploratory:
        return ""
    alpha = judgement.plan.alpha
    points = any(_unit(each.quantity).difference for each in judgement.exploratory)
    timed = any(each.reached for each in judgement.exploratory)
    columns = (
        column("quantity", "quantity"),
        column("arm", "arm"),
        column("baseline", "against"),
        column("n", "n", numeric=True),
        column("difference", "difference", numeric=True, note="shares in points" if points else ""),
        Column(("interval_low", "interval_high"), f"{level_text(judgement)} interval", numeric=True),
        *([column("reached", "reached", note="arm / against")] if timed else []),
        column("test", "test"),
        column("p", "p", numeric=True),
        column("q", "q", numeric=True),
    )
    rows = []
    for each in judgement.exploratory:
        own = each.quantity.split(",")[0] == judgement.plan.metric
        measure = context.measure if own else _unit(each.quantity)
        rows.append(
            (
                text_cell(each.quantity, breakable(each.quantity)),
                text_cell(each.arm, arm_name(each.arm, styles)),
                text_cell(each.baseline, breakable(each.baseline)),
                number_cell(each.n, str(each.n)),
                number_cell(measure.scale * each.mean_difference, difference_text(each.mean_difference, measure)),
                Cell(interval_text(each.interval, measure), each.interval or (None, None)),
                *([text_cell(_shares(each.reached))] if timed else []),
                text_cell(each.test),
                number_cell(each.p, p_text(each.p, alpha), escape(p_text(each.p, alpha))),
                number_cell(each.q, p_text(each.q, alpha), escape(p_text(each.q, alpha))),
            )
        )
    about = (
        "<strong>Exploratory</strong>: none of this was declared before the first run, so no verdict follows from it. "
        "It may suggest what to declare next. q is the false discovery rate (Benjamini and Hochberg) over all rows."
    )
    table = to_html(Grid(columns, tuple(rows)), "Exploratory comparisons")
    return section("Exploratory", f'<div class="exploratory">{table}</div>', about=about)


def _shares(reached: tuple[float, float] | None) -> str:
    """Shares of the runs that reached the threshold within the budget."""
    return "" if reached is None else " / ".join(f"{100 * share:.0f} %" for share in reached)


def _unit(quantity: str) -> Unit:
    """The unit of `split/name, scalar`; budgets (`steps to …`) are plain numbers."""
    return unit("" if " to " in quantity else quantity.split(",")[0])
