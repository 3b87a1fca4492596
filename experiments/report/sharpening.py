"""Section of the report: sampled answers beside greedy ones."""

from html import escape

from experiments.report.context import Context
from experiments.report.formatting import difference_text, interval_text, level_text, metric_name, p_text, unit
from experiments.report.grid import Cell, Column, Grid, column, number_cell, text_cell, to_html
from experiments.report.markup import arm_name, breakable, section


def sharpening_section(context: Context) -> str:
    """The difference on the declared metric and on its counterpart, and whether the two agree."""
    judgement, styles = context.judgement, context.styles
    if judgement is None or not judgement.beside:
        return ""
    metric, other = judgement.plan.metric, judgement.beside[0].metric
    level = level_text(judgement)
    columns = (
        column("arm", "arm"),
        column("baseline", "against"),
        column("n", "n", numeric=True),
        column("difference", metric_name(metric), numeric=True, note="difference, points"),
        column("other", metric_name(other), numeric=True, note="difference, points"),
        Column(("other_low", "other_high"), f"its {level} interval", numeric=True),
        column("excess", "difference of the two", numeric=True, note="points"),
        Column(("excess_low", "excess_high"), f"its {level} interval", numeric=True),
        column("p", "p", numeric=True, note="that both are alike"),
        column("disagree", "do they agree?"),
    )
    measure = unit(metric)
    rows = tuple(
        (
            text_cell(each.arm, arm_name(each.arm, styles)),
            text_cell(each.baseline, breakable(each.baseline)),
            number_cell(each.n, str(each.n)),
            *(number_cell(d, difference_text(d, measure)) for d in (each.difference, each.other)),
            Cell(interval_text(each.interval, measure), each.interval or (None, None)),
            number_cell(each.excess, difference_text(each.excess, measure)),
            Cell(interval_text(each.excess_interval, measure), each.excess_interval or (None, None)),
            number_cell(each.p, p_text(each.p, judgement.plan.alpha), escape(p_text(each.p, judgement.plan.alpha))),
            text_cell("they disagree" if each.disagree else "no sign of disagreement"),
        )
        for each in judgement.beside
    )
    about = (
        "Accuracy of sampled answers also rises when a policy only becomes surer of what it knew (sharpening); that of "
        "greedy answers does not. Only finished runs count; p is that of a paired t test of the difference of the two, "
        "Holm over the rows. The two disagree where the declared verdict is better or worse, they differ at α, and the "
        "other one does not go the same way. This was not declared: it qualifies a verdict and is not one itself."
    )
    return section("Sampled and greedy", to_html(Grid(columns, rows), "Sampled and greedy"), about=about)
