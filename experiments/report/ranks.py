"""Section of the report: mean ranks, and which of them differ by the declared comparisons."""

from collections.abc import Mapping

import numpy as np

from experiments.report.arm_style import Style
from experiments.report.context import Judged
from experiments.report.drawing import Scale, line, mark, shortened, svg, text, width_of
from experiments.report.formatting import alpha_of, number_text, tick_text
from experiments.report.markup import figure, section
from experiments.report.tables import common_scores
from experiments.statistics import Judgement
from experiments.statistics.ranks import cliques, mean_ranks


def ranks_section(context: Judged) -> str:
    """A critical-difference diagram whose bars come from the adjusted p of this study, not from Nemenyi's test."""
    judgement, styles = context.judgement, context.styles
    if judgement is None or len(judgement.analysis.arms) < 3 or len(judgement.analysis.seeds) < 2:
        return ""
    analysis = judgement.analysis
    ranks, bars = ranks_and_bars(judgement)
    seeds = min(each.n for each in analysis.arms)
    about = f"Within each of {seeds} seeds the arms are ranked, the best first; shown are mean ranks. "
    if analysis.family == "all":
        about += (
            "A bar joins neighbours that no adjusted p of the declared family tells apart; that does not show them to "
            "be equal. The usual test of mean ranks (Nemenyi) is not used: its answer for two arms depends on which "
            "others are drawn."
        )
    else:
        about += (
            f"Only comparisons with {analysis.baseline} were declared, so there are no cliques: a bar joins "
            f"{analysis.baseline} with one arm that its adjusted p does not tell apart from it, and says nothing about "
            "two other arms. Declare all pairs for the whole diagram."
        )
    return section("Ranks", figure(_ranks_figure(ranks, bars, styles), kind="wide scroll"), about=about)


def ranks_and_bars(judgement: Judgement) -> tuple[dict[str, float], list[tuple[str, ...]]]:
    """Mean rank of every arm, 1 the best, and the arms that a bar joins: no adjusted p tells them apart."""
    analysis = judgement.analysis
    scores = np.array(list(common_scores(analysis).values())).T
    values = mean_ranks(scores, analysis.higher_is_better).tolist()
    ranks = {each.arm: rank for each, rank in zip(analysis.arms, values, strict=True)}
    apart = {
        (each.arm, each.baseline)
        for each in analysis.comparisons
        if each.adjusted_p is not None and each.adjusted_p <= alpha_of(judgement, each)
    }
    if analysis.family == "all":
        return ranks, [tuple(bar) for bar in cliques(ranks, apart)]
    return ranks, [pair for each in analysis.comparisons if (pair := (each.arm, each.baseline)) not in apart]


def _ranks_figure(ranks: Mapping[str, float], bars: list[tuple[str, ...]], styles: Mapping[str, Style]) -> str:
    order = sorted(ranks, key=lambda arm: ranks[arm])
    half = -(-len(order) // 2)
    width, top = 960.0, 30.0
    side = 60 + max(width_of(shortened(arm)) for arm in order)
    x = Scale(1.0, float(len(order)), side, width - side)
    parts = [line([(x.start, top), (x.end, top)], "axis")]
    for value in range(1, len(order) + 1):
        parts += [line([(x(value), top - 5), (x(value), top)], "axis")]
        parts += [text(x(value), top - 10, tick_text(value), "tick", "middle")]
    first = top + 16
    for place, bar in enumerate(bars):
        ends = [x(rank) for rank in sorted(ranks[arm] for arm in bar)]
        y = first + 9 * place
        parts.append(line([(ends[0] - 4, y), (ends[-1] + 4, y)], "clique"))
    below = first + 9 * len(bars) + 12
    for place, arm in enumerate(order):
        left = place < half
        row = place if left else len(order) - 1 - place
        y, at = below + 22 * row, x(ranks[arm])
        end = x.start - 14 if left else x.end + 14
        parts.append(line([(at, top), (at, y), (end, y)], "elbow", styles[arm]))
        parts.append(mark(at, top, styles[arm], size=1.2))
        words = f"{shortened(arm)}  {number_text(ranks[arm], 2)}"
        parts.append(text(end + (-6 if left else 6), y + 4, words, "name", "end" if left else "start"))
    description = ", ".join(f"{arm} {number_text(ranks[arm], 2)}" for arm in order)
    joined = "; ".join(" and ".join(bar) for bar in bars)
    label = f"Mean ranks, the best first: {description}. Joined by bars: {joined or 'none'}."
    return svg(parts, width, below + 22 * (half - 1) + 14, label)
