"""Section of the report: how the arms were tuned, and how much their scores depend on the learning rate."""

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from experiments.report.arm_style import Style
from experiments.report.context import Context
from experiments.report.drawing import LEFT, RIGHT, Scale, line, mark, spanning, svg, text
from experiments.report.formatting import Unit, counted, metric_name, tick_text, unit, value_text
from experiments.report.grid import Grid, column, number_cell, text_cell, to_html
from experiments.report.markup import arm_name, figure, legend, section
from experiments.results.stored_study import StoredStudy

_EDGES = {True: "at the edge of what was tried", False: "inside what was tried"}


def tuning_section(context: Context) -> str:
    """The best rate of every arm and its score at the others, from the study's tuned.json."""
    study, styles = context.study, context.styles
    tuned = study.record.get("tuned")
    if not isinstance(tuned, Mapping) or "table" not in tuned:
        return ""
    measure, metric = unit(tuned["metric"]), metric_name(tuned["metric"])
    seeds = counted(len(tuned["seeds"]), "seed")
    about = (
        f"Every arm was run at the same learning rates, and is compared at the one with the highest mean {metric} over "
        f"{seeds}. Tuning used other seeds and other questions than the comparison, so no score here enters a verdict, "
        "and none is an estimate of how good an arm is: the best of several is flattered."
    )
    if any(arm in tuned["at_the_edge"] for arm in study.arms):
        about += " A best rate at the edge of what was tried may have a better one beyond it."
    table = to_html(_grid(study, tuned, styles, measure), "Tuning")
    drawing = figure(_rates_figure(study, tuned, styles, measure), f"Mean {metric} by learning rate", "wide scroll")
    return section("Tuning", table, legend(styles, study.baseline), drawing, about=escape(about))


def _grid(study: StoredStudy, tuned: Mapping[str, Any], styles: Mapping[str, Style], measure: Unit) -> Grid:
    columns = (
        column("arm", "arm"),
        column("rate", "best rate", numeric=True),
        column("edge", "where it lies"),
        *(column(f"mean_{rate!r}", f"{rate:g}", numeric=True, note="mean") for rate in tuned["rates"]),
    )
    rows = []
    for arm in study.arms:
        best = tuned["best"][arm]
        means = [tuned["table"][arm][repr(rate)]["mean"] for rate in tuned["rates"]]
        shown = [value_text(mean, measure) for mean in means]
        marked = [f"<strong>{escape(words)}</strong>" for words in shown]
        rows.append(
            (
                text_cell(arm, arm_name(arm, styles)),
                number_cell(best, f"{best:g}"),
                text_cell(_EDGES[arm in tuned["at_the_edge"]]),
                *(
                    number_cell(mean, words, strong if rate == best else "")
                    for rate, mean, words, strong in zip(tuned["rates"], means, shown, marked, strict=True)
                ),
            )
        )
    return Grid(columns, tuple(rows))


def _rates_figure(study: StoredStudy, tuned: Mapping[str, Any], styles: Mapping[str, Style], measure: Unit) -> str:
    """Means joined over rates on a logarithmic axis, every seed as a small ring, the best rate's mark enlarged."""
    rates, table, width, height = tuned["rates"], tuned["table"], 960.0, 300.0
    values = [score for arm in study.arms for each in table[arm].values() for score in each["scores"].values()]
    x = spanning(map(math.log10, rates), LEFT, width - RIGHT)
    y = spanning((measure.scale * value for value in values), height - 44, 12, pad=0.06)
    parts = _axes(rates, x, y, measure)
    lines, marks, descriptions = [], [], []
    for arm in study.arms:
        best, style = tuned["best"][arm], styles[arm]
        means = [(rate, table[arm][repr(rate)]["mean"]) for rate in rates]
        lines.append(line([(x(math.log10(r)), y(measure.scale * m)) for r, m in means], "mean", style, dashed=True))
        for rate, mean in means:
            at = x(math.log10(rate))
            for seed, score in table[arm][repr(rate)]["scores"].items():
                words = f"{arm} at {rate:g}, seed {seed}: {value_text(score, measure)}"
                marks.append(mark(at, y(measure.scale * score), style, size=0.6, hollow=True, tooltip=words))
            words = f"{arm} at {rate:g}: {value_text(mean, measure)}"
            marks.append(mark(at, y(measure.scale * mean), style, size=1.6 if rate == best else 0.9, tooltip=words))
        descriptions.append(f"{arm} is best at {best:g} ({value_text(table[arm][repr(best)]['mean'], measure)})")
    label = f"Mean {metric_name(tuned['metric'])} by learning rate: {'; '.join(descriptions)}."
    return svg([*parts, *lines, *marks], width, height, label)


def _axes(rates: list[float], x: Scale, y: Scale, measure: Unit) -> list[str]:
    """Grid lines and their values, and below a tick at each rate that was tried."""
    parts = []
    for value in y.ticks(6):
        parts += [line([(x.start, y(value)), (x.end, y(value))], "grid")]
        parts += [text(x.start - 7, y(value) + 4, f"{tick_text(value)}{measure.value}", "tick", "end")]
    parts.append(line([(x.start, y.start), (x.end, y.start)], "axis"))
    for rate in rates:
        at = x(math.log10(rate))
        parts += [
            line([(at, y.start), (at, y.start + 4)], "axis"),
            text(at, y.start + 17, f"{rate:g}", "tick", "middle"),
        ]
    parts.append(text((x.start + x.end) / 2, y.start + 35, "learning rate, logarithmic", "label", "middle"))
    return parts
