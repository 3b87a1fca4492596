"""Differences between arms, the scores that they come from, and their ranks and correlations."""

from collections.abc import Mapping
from typing import Protocol

from matplotlib.axes import Axes

from core.errors import GrpoLabError
from core.parts.arguments import checked
from experiments.plots.style import add_legend, arm_label, axes_of, in_lines, metric_label
from experiments.report.arm_style import INK, MUTED, RULE, Style, arm_styles
from experiments.report.formatting import measured_unit, metric_name, number_text
from experiments.report.ranks import ranks_and_bars
from experiments.report.tables import analyzed_scores
from experiments.statistics import Judgement


class Judged(Protocol):
    """What holds a judgement, such as `lab.Verdicts`."""

    @property
    def judgement(self) -> Judgement:
        """What was judged."""


@checked()
def plot_differences(judgement: Judgement | Judged, ax: Axes | None = None) -> Axes:
    """Mean difference of every comparison with its interval, seeds as dots, and the margin as a band.

    Differences are arm - baseline in the metric's unit (points for shares); intervals are at 1 - alpha.
    """
    judgement = judgement_of(judgement)
    analysis, measure = judgement.analysis, measured_unit(judgement)
    styles = _styles(judgement)
    scores = {each.arm: each.scores for each in analysis.arms}
    ax = axes_of(ax, 5.0, 0.9 + 0.42 * len(analysis.comparisons))
    margin = analysis.margin * measure.scale
    ax.axvspan(-margin, margin, color=RULE, alpha=0.7, linewidth=0, zorder=0)
    ax.axvline(0, color=MUTED, linewidth=0.8, zorder=1)
    for place, each in enumerate(analysis.comparisons):
        style = styles[each.arm]
        shared = zip(scores[each.arm], scores[each.baseline], strict=False)  # in a race arms leave early
        dots = [(a - b) * measure.scale for a, b in shared]
        ax.plot(dots, [place] * len(dots), "o", color=style.colour, alpha=0.35, markersize=3, linewidth=0, zorder=2)
        if each.effect.interval is not None:
            low, high = (end * measure.scale for end in each.effect.interval)
            ax.plot([low, high], [place, place], color=style.colour, linewidth=1.8, zorder=3)
        ax.plot(each.effect.mean_difference * measure.scale, place, style.marker, color=style.colour, zorder=4)
    alone = {each.baseline for each in analysis.comparisons} == {analysis.baseline}
    pairs = [(each.arm,) if alone else (each.arm, f"- {each.baseline}") for each in analysis.comparisons]
    names = ["\n".join(map(in_lines, pair)) for pair in pairs]
    labels = [f"{name}\n{each.verdict}" for name, each in zip(names, analysis.comparisons, strict=True)]
    ax.set_yticks(range(len(labels)), labels, parse_math=False)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.grid(visible=False)
    against = f"difference from {analysis.baseline}" if alone else "difference"
    in_unit = f" ({measure.difference})" if measure.difference else ""
    ax.set_xlabel(f"{against}, {metric_name(judgement.plan.metric)}{in_unit}", parse_math=False)
    return ax


@checked()
def plot_scores(judgement: Judgement | Judged, ax: Axes | None = None) -> Axes:
    """Every arm's score at every seed, seeds joined by lines, means as bars: levels beside the differences."""
    judgement = judgement_of(judgement)
    analysis, measure = judgement.analysis, measured_unit(judgement)
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
    names = [in_lines(each.arm) for each in analysis.arms]
    ax.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor", parse_math=False)
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.set_ylabel(metric_label(judgement.plan.metric, measure), parse_math=False)
    return ax


@checked()
def plot_ranks(judgement: Judgement | Judged, ax: Axes | None = None) -> Axes:
    """Mean rank of every arm over seeds, 1 the best; a black bar joins arms that no adjusted p tells apart.

    Where only comparisons with the baseline were declared, a bar says nothing about two other arms.
    """
    judgement = judgement_of(judgement)
    ranks, bars = ranks_and_bars(judgement)
    styles, order = _styles(judgement), sorted(ranks, key=lambda arm: ranks[arm])
    ax = axes_of(ax, 5.0, 0.7 + 0.26 * len(order))
    places = {arm: place for place, arm in enumerate(order)}
    for arm, place in places.items():
        ax.plot(ranks[arm], place, styles[arm].marker, color=styles[arm].colour, zorder=3)
    for number, bar in enumerate(bars):
        rows = [places[arm] for arm in bar]
        at = len(order) + 0.15 + 0.12 * number
        ax.plot([at, at], [min(rows) - 0.2, max(rows) + 0.2], color=INK, linewidth=2.2, solid_capstyle="butt")
    ax.set_yticks(range(len(order)), [in_lines(arm) for arm in order], parse_math=False)
    ax.set_xticks(range(1, len(order) + 1))
    ax.set_xlim(0.8, len(order) + 0.3 + 0.12 * len(bars))
    ax.set_ylim(len(order) - 0.5, -0.5)
    seeds = min(each.n for each in judgement.analysis.arms)
    ax.set_xlabel(f"mean rank over {seeds} seeds, 1 the best; bars join what is not told apart")
    return ax


@checked()
def plot_coupling(judgement: Judgement | Judged, ax: Axes | None = None) -> Axes:
    """Every arm's score over the baseline's at the same seed, with their correlation; the diagonal is equality."""
    judgement = judgement_of(judgement)
    analysis, measure = judgement.analysis, measured_unit(judgement)
    styles, scores = _styles(judgement), analyzed_scores(analysis)
    ax = axes_of(ax, 3.6, 3.4)
    for (arm, baseline), each in judgement.couplings.items():
        if baseline != analysis.baseline:
            continue
        shared = [seed for seed in scores[baseline] if seed in scores[arm]]
        x, y = ([scores[name][seed] * measure.scale for seed in shared] for name in (baseline, arm))
        label = f"{arm_label(arm)}, r = {number_text(each.correlation, 2)}"
        style = styles[arm]
        ax.plot(x, y, style.marker, color=style.colour, markersize=4.5, linewidth=0, label=label, zorder=3)
    ends = (min(*ax.get_xlim(), *ax.get_ylim()), max(*ax.get_xlim(), *ax.get_ylim()))
    ax.plot(ends, ends, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    ax.set_xlim(ends)
    ax.set_ylim(ends)
    ax.set_xlabel(f"{analysis.baseline}: {metric_label(judgement.plan.metric, measure)}", parse_math=False)
    ax.set_ylabel("the other arm at the same seed")
    add_legend(ax)
    return ax


def judgement_of(given: Judgement | Judged) -> Judgement:
    """What is to be drawn; GrpoLabError where nothing was judged."""
    judgement = getattr(given, "judgement", given)
    if not isinstance(judgement, Judgement):
        raise GrpoLabError(f"what is drawn are verdicts, as lab.judge(...) gives them, not {type(given).__name__}")
    return judgement


def _styles(judgement: Judgement) -> Mapping[str, Style]:
    return arm_styles([each.arm for each in judgement.analysis.arms], judgement.analysis.baseline)
