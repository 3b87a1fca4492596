"""Differences between arms, and the scores that they come from."""

from collections.abc import Mapping

from matplotlib.axes import Axes

from experiments.plots.style import axes_of
from experiments.report.arm_style import MUTED, RULE, Style, arm_styles
from experiments.report.formatting import Unit, metric_name, unit
from experiments.statistics import Judgement


def plot_differences(judgement: Judgement, ax: Axes | None = None) -> Axes:
    """Mean difference of every comparison with its interval, seeds as dots, and the margin as a band.

    Differences are arm - baseline in the metric's unit (points for shares); intervals are at 1 - alpha.
    """
    analysis, measure = judgement.analysis, unit(judgement.plan.metric)
    styles = _styles(judgement)
    scores = {each.arm: each.scores for each in analysis.arms}
    ax = axes_of(ax, 5.0, 0.9 + 0.42 * len(analysis.comparisons))
    margin = analysis.margin * measure.scale
    ax.axvspan(-margin, margin, color=RULE, alpha=0.7, linewidth=0, zorder=0)
    ax.axvline(0, color=MUTED, linewidth=0.8, zorder=1)
    for place, each in enumerate(analysis.comparisons):
        style = styles[each.arm]
        pairs = zip(scores[each.arm], scores[each.baseline], strict=False)  # in a race arms leave early
        dots = [(a - b) * measure.scale for a, b in pairs]
        ax.plot(dots, [place] * len(dots), "o", color=style.colour, alpha=0.35, markersize=3, linewidth=0, zorder=2)
        if each.effect.interval is not None:
            low, high = (end * measure.scale for end in each.effect.interval)
            ax.plot([low, high], [place, place], color=style.colour, linewidth=1.8, zorder=3)
        ax.plot(each.effect.mean_difference * measure.scale, place, style.marker, color=style.colour, zorder=4)
    labels = [
        each.arm if each.baseline == analysis.baseline else f"{each.arm} - {each.baseline}"
        for each in analysis.comparisons
    ]
    ax.set_yticks(range(len(labels)), [f"{n}\n{c.verdict}" for n, c in zip(labels, analysis.comparisons, strict=True)])
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.grid(visible=False)
    ax.set_xlabel(f"difference from {analysis.baseline}, {_words(judgement, measure)}")
    return ax


def plot_scores(judgement: Judgement, ax: Axes | None = None) -> Axes:
    """Every arm's score at every seed, seeds joined by lines, means as bars: levels beside the differences."""
    analysis, measure = judgement.analysis, unit(judgement.plan.metric)
    styles = _styles(judgement)
    ax = axes_of(ax, 1.2 + 0.7 * len(analysis.arms), 3.0)
    for place, _ in enumerate(analysis.seeds):
        row = [(at, each.scores[place]) for at, each in enumerate(analysis.arms) if place < len(each.scores)]
        ax.plot([at for at, _ in row], [y * measure.scale for _, y in row], color=RULE, linewidth=0.8, zorder=1)
    for at, each in enumerate(analysis.arms):
        style = styles[each.arm]
        values = [y * measure.scale for y in each.scores]
        ax.plot([at] * len(values), values, style.marker, color=style.colour, alpha=0.55, markersize=4, zorder=2)
        mean = each.mean * measure.scale
        ax.plot([at - 0.25, at + 0.25], [mean, mean], color=style.colour, linewidth=2.2, zorder=3)
    names = [each.arm for each in analysis.arms]
    ax.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.set_ylabel(_words(judgement, measure))
    return ax


def _styles(judgement: Judgement) -> Mapping[str, Style]:
    return arm_styles([each.arm for each in judgement.analysis.arms], judgement.analysis.baseline)


def _words(judgement: Judgement, measure: Unit) -> str:
    return f"{metric_name(judgement.plan.metric)}{' (%)' if measure.scale != 1 else ''}"
