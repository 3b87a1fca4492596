"""Beyond the mean: interquartile means, and the share of runs that reach a score."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from core.errors import GrpoLabError
from core.parts.arguments import checked
from experiments.plots.comparisons import Judged, judgement_of
from experiments.plots.style import add_legend, arm_label, axes_of, in_lines, metric_label
from experiments.report.arm_style import arm_styles
from experiments.report.formatting import measured_unit
from experiments.report.tables import common_scores
from experiments.statistics import Judgement
from experiments.statistics.bootstrap import MIN_SEEDS, iqm_intervals, performance_profile


@checked()
def plot_interquartile_means(
    judgement: Judgement | Judged, ax: Axes | None = None, *, rng: np.random.Generator | None = None
) -> Axes:
    """Interquartile mean of every arm with its percentile bootstrap interval at 1 - alpha, from five seeds up.

    Seeds are resampled by `rng`; below 20 seeds the intervals are too narrow. Agarwal et al. 2021, arXiv:2108.13264.
    """
    judgement = judgement_of(judgement)
    analysis, measure = judgement.analysis, measured_unit(judgement)
    styles = arm_styles([each.arm for each in analysis.arms], analysis.baseline)
    estimates = iqm_intervals(common_scores(analysis), 1 - analysis.alpha, rng=_generator(rng))
    ax = axes_of(ax, 5.0, 0.7 + 0.26 * len(estimates))
    for place, (arm, each) in enumerate(estimates.items()):
        style = styles[arm]
        if each.interval is not None:
            ends = [end * measure.scale for end in each.interval]
            ax.plot(ends, [place, place], color=style.colour, linewidth=1.8, zorder=2)
        ax.plot(each.value * measure.scale, place, style.marker, color=style.colour, zorder=3)
    ax.set_yticks(range(len(estimates)), [in_lines(arm) for arm in estimates], parse_math=False)
    ax.set_ylim(len(estimates) - 0.5, -0.5)
    ax.grid(visible=False)
    ax.set_xlabel(f"interquartile mean, {metric_label(judgement.plan.metric, measure)}")
    return ax


@checked()
def plot_profile(
    judgement: Judgement | Judged, ax: Axes | None = None, *, rng: np.random.Generator | None = None
) -> Axes:
    """Performance profile: for every score the share of an arm's runs that reach it, with its bootstrap band.

    The band is pointwise at 1 - alpha, from five seeds up; seeds are resampled by `rng`. Dolan & Moré 2002.
    """
    judgement = judgement_of(judgement)
    analysis, measure = judgement.analysis, measured_unit(judgement)
    styles = arm_styles([each.arm for each in analysis.arms], analysis.baseline)
    scores = common_scores(analysis)
    at = sorted({score for row in scores.values() for score in row})
    profiles = performance_profile(scores, at, 1 - analysis.alpha, rng=_generator(rng))
    ax = axes_of(ax, 5.0, 3.2)
    air = 0.05 * (at[-1] - at[0]) or 0.01
    x = measure.scale * np.array([at[0] - air, *at])
    for arm, each in profiles.items():
        style = styles[arm]
        # a score equal to the threshold reaches it: the share holds up to the threshold and falls behind it
        share, low, high = (100 * np.array([row[0], *row]) for row in (each.share, each.low, each.high))
        if each.n >= MIN_SEEDS:
            ax.fill_between(x, low, high, step="pre", color=style.colour, alpha=0.12, linewidth=0)
        shape: dict[str, Any] = {"color": style.colour, "linestyle": style.dash, "linewidth": 1.8}
        ax.plot([*x, x[-1]], [*share, 0.0], drawstyle="steps-pre", label=arm_label(arm), **shape)
    ax.set_ylim(-3, 103)
    ax.set_xlabel(f"{metric_label(judgement.plan.metric, measure)} of at least")
    ax.set_ylabel("share of runs (%)")
    add_legend(ax)
    return ax


def _generator(rng: np.random.Generator | None) -> np.random.Generator:
    """What resamples the seeds: always the same unless one is given."""
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise GrpoLabError(f"rng must be a numpy generator, np.random.default_rng(0), not {type(rng).__name__}")
    return rng or np.random.default_rng(0)
