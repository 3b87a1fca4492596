"""Learning curves."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from core.errors import GrpoLabError
from experiments.plots.style import axes_of
from experiments.report.arm_style import arm_styles
from experiments.report.curves import mean_and_band
from experiments.report.formatting import PLAIN, axis_words, metric_name, unit
from experiments.results.stored_study import StoredStudy


def plot_curves(
    source: "StoredStudy | Mapping[str, Mapping[int, tuple[ArrayLike, ArrayLike]]]",
    metric: str | None = None,
    axis: str = "steps",
    ax: Axes | None = None,
    *,
    arms: Sequence[str] = (),
) -> Axes:
    """A thin line for each finished run, and each arm's bold mean with its pointwise 95 % t interval over seeds.

    `source` is a study, whose `metric` (the declared one by default) is drawn over `axis`: `steps`, `sampled_tokens` or
    `seconds`; or anybody's curves, `{arm: {seed: (x, y)}}`. `arms` chooses among the arms. The band needs three seeds,
    and is not the interval of a paired difference.
    """
    if isinstance(source, StoredStudy):
        key, baseline = metric or source.plan.course_metric, source.baseline
        curves = {
            arm: [source.curve(arm, run.seed, key, axis) for run in source.runs if run.arm == arm and run.finished]
            for arm in source.arms
        }
        measure, label = unit(key), metric_name(key)
    else:
        curves = {
            arm: [(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)) for x, y in runs.values()]
            for arm, runs in source.items()
        }
        baseline, measure, label = next(iter(source), ""), PLAIN, metric or "value"
    unknown = [arm for arm in arms if arm not in curves]
    if unknown:
        raise GrpoLabError(f"no arm '{unknown[0]}': the arms are {', '.join(curves)}")
    ax = axes_of(ax, 5.0, 3.2)
    for arm, style in arm_styles(list(curves), baseline).items():
        if arms and arm not in arms:
            continue
        for x, y in curves[arm]:
            ax.plot(x, y * measure.scale, color=style.colour, linewidth=0.6, alpha=0.35)
        x, mean, half = mean_and_band(curves[arm])
        low, high = ((mean + sign * half) * measure.scale for sign in (-1, 1))
        ax.fill_between(x, low, high, color=style.colour, alpha=0.12, linewidth=0)
        every = max(1, len(x) // 5)
        ax.plot(
            x,
            mean * measure.scale,
            color=style.colour,
            linewidth=1.8,
            linestyle=style.dash,
            marker=style.marker,
            markevery=every,
            markersize=4.5,
            label=arm,
        )
    ax.set_xlabel("tokens sampled in training" if axis == "sampled_tokens" else axis_words(axis))
    ax.set_ylabel(f"{label}{' (%)' if measure.scale != 1 else ''}")
    ax.legend(frameon=False)
    return ax
