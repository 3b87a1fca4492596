"""Section of the report: what identical seeds gain, from the scores of the two arms of each comparison."""

import math
from collections.abc import Mapping

from experiments.report.arm_style import Style
from experiments.report.context import Judged
from experiments.report.drawing import LEFT, RIGHT, frame, line, mark, spanning, svg, text
from experiments.report.formatting import Unit, error_text, number_text, tick_text, value_text
from experiments.report.grid import Cell, Column, Grid, column, number_cell, text_cell, to_html
from experiments.report.markup import arm_name, breakable, figure, section
from experiments.report.tables import analyzed_scores
from experiments.statistics import Coupling, Judgement


def coupling_section(context: Judged) -> str:
    """The correlation of arms over seeds, and the precision of pairing against that of unrelated runs."""
    judgement, styles = context.judgement, context.styles
    if judgement is None or not judgement.couplings:
        return ""
    analysis = judgement.analysis
    measure = context.measure
    about = (
        "Arms that share prompts, weights and sampling noise tend to be lucky together; that part of the noise cancels "
        "out of their difference. The table has the standard error of the mean difference paired by seed, and as it "
        "would be if the same scores came from unrelated runs; both use the spread over seeds alone (the verdict’s own "
        "is at least what sampled answers allow). A ratio of variances below 1 is what pairing saved, one above 1 what "
        "it cost. Unpaired seeds: how many runs per arm would be as precise without pairing. With few seeds all of "
        "this is rough, as the width of the correlation’s interval shows."
    )
    grid = _grid(judgement, styles, measure)
    scatters = "".join(
        figure(_scatter(judgement, pair, each, styles, measure), f"{breakable(pair[0])} against {breakable(pair[1])}")
        for pair, each in judgement.couplings.items()
        if pair[1] == analysis.baseline
    )
    return section(
        "What identical seeds bought",
        to_html(grid, "Coupling"),
        f'<div class="panels thirds">{scatters}</div>',
        about=about,
    )


def _grid(judgement: Judgement, styles: Mapping[str, Style], measure: Unit) -> Grid:
    points = f", {measure.difference}" if measure.difference else ""
    columns = (
        column("arm", "arm"),
        column("baseline", "against"),
        column("n", "n", numeric=True),
        column("correlation", "correlation", numeric=True),
        Column(("correlation_low", "correlation_high"), "its 95\u00a0% interval", numeric=True),
        column("se_paired", f"standard error{points}", numeric=True, note="paired"),
        column("se_unpaired", "standard error", numeric=True, note="unpaired"),
        column("variance_ratio", "ratio of variances", numeric=True),
        column("unpaired_seeds", "unpaired seeds", numeric=True),
    )
    rows = []
    for (arm, baseline), each in judgement.couplings.items():
        interval = each.correlation_interval
        paired, unpaired = math.sqrt(each.variance_paired), math.sqrt(each.variance_unpaired)
        between = " to ".join(number_text(end, 2) for end in interval) if interval else "–"
        rows.append(
            (
                text_cell(arm, arm_name(arm, styles)),
                text_cell(baseline, breakable(baseline)),
                number_cell(each.n, str(each.n)),
                number_cell(each.correlation, number_text(each.correlation, 2)),
                Cell(between, interval or (None, None)),
                number_cell(paired, error_text(paired, measure)),
                number_cell(unpaired, error_text(unpaired, measure)),
                number_cell(each.ratio, number_text(each.ratio, 2)),
                number_cell(each.equivalent_unpaired_seeds, number_text(each.equivalent_unpaired_seeds, 1)),
            )
        )
    return Grid(columns, tuple(rows))


def _scatter(
    judgement: Judgement, pair: tuple[str, str], each: Coupling, styles: Mapping[str, Style], measure: Unit
) -> str:
    """A mark per seed, the baseline's score to the right and the arm's upwards; on the diagonal they are equal."""
    arm, baseline = pair
    scores, scale = analyzed_scores(judgement.analysis), measure.scale
    shared = [seed for seed in scores[baseline] if seed in scores[arm]]
    both = [scale * scores[name][seed] for name in pair for seed in shared]
    width, height = 340.0, 300.0
    x, y = spanning(both, LEFT, width - RIGHT, pad=0.08), spanning(both, height - 44, 12, pad=0.08)
    write = lambda value: f"{tick_text(value)}{measure.value}"  # noqa: E731
    parts = frame(x, y, "score of the baseline", "", write, write)
    parts.append(line([(x(x.low), y(y.low)), (x(x.high), y(y.high))], "diagonal"))
    named: list[tuple[float, float]] = []
    for seed in shared:
        base, value = scores[baseline][seed], scores[arm][seed]
        words = f"seed {seed}: {value_text(value, measure)} vs {value_text(base, measure)}"
        at, up = x(scale * base), y(scale * value)
        parts.append(mark(at, up, styles[arm], size=1.15, tooltip=words))
        if all(abs(at - a) > 14 or abs(up - b) > 11 for a, b in named):  # no label that covers another
            parts.append(text(at + 7, up + 4, str(seed), "seed"))
            named.append((at, up))
    label = (
        f"Scores of {arm} against {baseline} by seed, correlation {number_text(each.correlation, 2)}; marks above the "
        "diagonal are seeds on which the arm scores higher."
    )
    return svg(parts, width, height, label)
