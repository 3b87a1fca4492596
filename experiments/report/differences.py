"""Section of the report: paired differences, seed by seed, with their intervals and the margin."""

import math
from collections.abc import Mapping, Sequence

from experiments.report.arm_style import Style
from experiments.report.context import Context, Judged
from experiments.report.drawing import Scale, box, line, mark, shortened, spanning, svg, text, width_of
from experiments.report.formatting import (
    Unit,
    difference_text,
    interval_text,
    level_text,
    margin_text,
    signed_tick,
    verdict_text,
)
from experiments.report.markup import figure, section
from experiments.report.tables import compared_scores
from experiments.statistics import Comparison, Judgement

_ROW, _TOP = 66.0, 24.0


def differences_section(context: Judged) -> str:
    """The difference of every seed, for each comparison."""
    judgement, styles = context.judgement, context.styles
    if judgement is None or not judgement.analysis.comparisons:
        return ""
    analysis = judgement.analysis
    measure = context.measure
    interval = ""
    if any(each.effect.interval for each in analysis.comparisons):
        interval = f", drawn with its {level_text(judgement)} interval (thick) and that of the whole family (thin)"
    shared = ", with the same prompts and the same sampling noise" if isinstance(context, Context) else ""
    about = (
        f"Each circle is one seed: the arm’s score minus the other arm’s at the same seed{shared}. The circles are "
        f"joined to their mean{interval}. The shaded strip is ±Δ = ±{margin_text(analysis.margin, measure)}: two arms "
        "count as equivalent when their mean difference is shown to lie inside."
    )
    drawing = differences_figure(judgement, styles, measure=measure)
    return section("Paired differences, seed by seed", figure(drawing, kind="wide scroll"), about=about)


def differences_figure(judgement: Judgement, styles: Mapping[str, Style], *, measure: Unit) -> str:
    """A circle per seed, joined to the mean with its intervals; ±Δ is shaded."""
    analysis = judgement.analysis
    scale = measure.scale
    rows = [(each, _by_seed(judgement, each, scale)) for each in analysis.comparisons]
    margin = analysis.margin * scale
    names = [(shortened(each.arm), shortened(f"− {each.baseline}")) for each, _ in rows]
    left, width = 16 + max(width_of(words) for pair in names for words in pair), 960.0
    height = _TOP + _ROW * len(rows)
    ends = [
        scale * end
        for each, _ in rows
        for end in (*(each.effect.interval or ()), *(each.effect.simultaneous_interval or ()))
    ]
    x = spanning([-1.25 * margin, 1.25 * margin, *ends, *(v for _, ds in rows for v in ds.values())], left, width - 8)
    parts = [box(x(-margin), _TOP - 8, x(margin) - x(-margin), height - _TOP + 8, "margin")]
    parts += [line([(x(end), _TOP - 8), (x(end), height)], "edge") for end in (-margin, margin)]
    apart = x(margin) - x(-margin) > 2 * width_of("−Δ")
    labels = ((-margin, "−Δ"), (margin, "+Δ")) if apart else ((0.0, "±Δ"),)
    parts += [text(x(at), _TOP - 12, words, "label", "middle") for at, words in labels]
    parts += [line([(x(0), _TOP - 8), (x(0), height)], "zero"), line([(left, height), (width - 8, height)], "axis")]
    for value in x.ticks(9):
        parts += [line([(x(value), height), (x(value), height + 4)], "axis")]
        parts += [text(x(value), height + 17, signed_tick(value), "tick", "middle")]
    unit_words = f", {measure.difference}" if measure.difference else ""
    parts.append(text((left + width) / 2, height + 36, f"difference{unit_words}", "label", "middle"))
    descriptions = []
    for place, (each, values) in enumerate(rows):
        y = _TOP + _ROW * place
        parts.append(text(left - 12, y + 36, names[place][0], "name", "end"))
        parts.append(text(left - 12, y + 52, names[place][1], "label", "end"))
        parts += _row(x, y, each, values, styles[each.arm], scale)
        descriptions.append(
            f"{each.arm} minus {each.baseline} "
            f"{difference_text(each.effect.mean_difference, measure, analysis.margin)}, "
            f"interval {interval_text(each.effect.interval, measure, analysis.margin)}, {verdict_text(each)}"
        )
    return svg(parts, width, height + 44, f"Paired differences: {'; '.join(descriptions)}.")


def _by_seed(judgement: Judgement, each: Comparison, scale: float) -> dict[int, float]:
    ours, theirs = compared_scores(judgement, each)
    return {seed: scale * (ours[seed] - theirs[seed]) for seed in ours}


def _row(
    x: Scale, top: float, each: Comparison, values: Mapping[int, float], style: Style, scale: float
) -> Sequence[str]:
    """Circles by seed over their mean: with the seed's number where there is room, else smaller ones."""
    below, mean = top + 50.0, x(scale * each.effect.mean_difference)
    lines, circles, round_mark = [], [], Style(style.tone, "o", "-")
    ordered = sorted(values.items(), key=lambda pair: pair[1])
    at = [x(value) for _, value in ordered]
    heights = stacked(at, 17.0, 2)
    numbered = heights is not None
    heights = heights if heights is not None else stacked(at, 8.0, 4) or [place % 4 for place in range(len(at))]
    for (seed, value), x_at, level in zip(ordered, at, heights, strict=True):
        y = top + 30.0 - (18.0 if numbered else 8.5) * level
        lines.append(line([(x_at, y), (mean, below)], "join", style))
        tooltip = f"seed {seed}: {signed_tick(round(value, 3))}"
        circles.append(mark(x_at, y, round_mark, size=2.0 if numbered else 0.9, hollow=True, tooltip=tooltip))
        if numbered:
            circles.append(text(x_at, y + 3.4, str(seed), "seed", "middle"))
    for interval, kind in ((each.effect.simultaneous_interval, "wide-bar"), (each.effect.interval, "bar")):
        if interval is not None:
            lines.append(line([(x(scale * end), below) for end in interval], kind, style))
    return [*lines, *circles, mark(mean, below, style, size=1.35, tooltip=each.verdict)]


def stacked(at: Sequence[float], apart: float, levels: int) -> list[int] | None:
    """A level for each place, in order, such that places of one level are `apart`; None where there is no room."""
    ends = [-math.inf] * levels
    assigned = []
    for place in at:
        level = next((k for k, end in enumerate(ends) if place - end >= apart), None)
        if level is None:
            return None
        ends[level] = place
        assigned.append(level)
    return assigned
