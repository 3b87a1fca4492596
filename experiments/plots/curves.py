"""Learning curves, and pass@k."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from core.errors import GrpoLabError
from experiments.plots.style import axes_of, metric_label
from experiments.report.ability import MIN_SAMPLES, pass_at_k_curves
from experiments.report.arm_style import INK, arm_styles
from experiments.report.curves import mean_and_band
from experiments.report.formatting import PLAIN, axis_words, tick_text, unit
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
        measure, label = unit(key), metric_label(key)
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
    _limit(ax, [y * measure.scale for arm in arms or curves for _, y in curves[arm]])
    if axis == "steps":
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    else:
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
    ax.set_xlabel("tokens sampled in training" if axis == "sampled_tokens" else axis_words(axis))
    ax.set_ylabel(label)
    ax.legend(frameon=False)
    return ax


def _limit(ax: Axes, values: Sequence[NDArray[np.float64]]) -> None:
    """Show all runs: with few seeds a band can be wider than the picture."""
    finite = np.concatenate([np.empty(0), *(each[np.isfinite(each)] for each in values)])
    if finite.size:
        air = 0.05 * (finite.max() - finite.min()) or 0.5 * (abs(finite.max()) or 1.0)
        ax.set_ylim(finite.min() - air, finite.max() + air)


def plot_pass_at_k(study: StoredStudy, ax: Axes | None = None) -> Axes:
    """pass@k of every arm after training, and dotted of the model before it, over k samples a question.

    GrpoLabError where the evaluations have fewer than 4 samples a question.
    """
    found = pass_at_k_curves(study)
    if found is None:
        raise GrpoLabError(f"pass@k takes {MIN_SAMPLES} samples a question or more, before and after training")
    base, curves = found
    ax = axes_of(ax, 5.0, 3.2)
    k = np.arange(1, len(base) + 1)
    ax.plot(k, 100 * base, color=INK, linewidth=1.2, linestyle=":", label="before training")
    for arm, style in arm_styles(list(study.arms), study.baseline).items():
        if arm in curves:
            shape: dict[str, Any] = {"color": style.colour, "linestyle": style.dash, "marker": style.marker}
            ax.plot(k, 100 * curves[arm], linewidth=1.8, markersize=4.5, markevery=[len(k) - 1], label=arm, **shape)
    ax.set_xticks(k if len(k) <= 8 else k[:: -(-len(k) // 8)])
    ax.set_xlabel("k samples a question")
    ax.set_ylabel("pass@k (%)")
    ax.legend(frameon=False)
    return ax
