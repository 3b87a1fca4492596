"""Learning curves, and pass@k."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from core.errors import GrpoLabError
from core.parts.arguments import checked
from experiments.plots.style import add_legend, arm_label, axes_of, metric_label
from experiments.report.ability import MIN_SAMPLES, pass_at_k_curves
from experiments.report.arm_style import INK, arm_styles
from experiments.report.curves import mean_and_band
from experiments.report.formatting import PLAIN, axis_words, tick_text, unit
from experiments.results.stored_study import StoredStudy

Line: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""x and y, [N] each."""


class Stored(Protocol):
    """What holds a study, such as `lab.Study`."""

    @property
    def stored(self) -> StoredStudy:
        """The study."""


@checked()
def plot_curves(
    source: "StoredStudy | Stored | Mapping[str, Mapping[int, tuple[ArrayLike, ArrayLike]]]",
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

    Raises GrpoLabError for an arm that is not there, and for what are no curves.
    """
    source = getattr(source, "stored", source)
    if isinstance(source, StoredStudy):
        key, baseline = metric or source.plan.course_metric, source.baseline
        curves = {
            arm: [source.curve(arm, run.seed, key, axis) for run in source.runs if run.arm == arm and run.finished]
            for arm in source.arms
        }
        measure, label = unit(key), metric_label(key, unit(key))
    else:
        curves = _lines(source)
        baseline, measure, label = next(iter(curves)), PLAIN, metric or "value"
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
            label=arm_label(arm),
        )
    _limit(ax, [y * measure.scale for arm in arms or curves for _, y in curves[arm]])
    if axis == "steps":
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    else:
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
    ax.set_xlabel("tokens sampled in training" if axis == "sampled_tokens" else axis_words(axis))
    ax.set_ylabel(label, parse_math=False)
    add_legend(ax)
    return ax


def _lines(source: Any) -> dict[str, list[Line]]:
    """Anybody's curves by arm; GrpoLabError for what is none."""
    if not isinstance(source, Mapping) or not source:
        raise GrpoLabError("nothing to draw: give a study, or curves as {arm: {seed: (x, y)}}")
    lines: dict[str, list[Line]] = {}
    for arm, runs in source.items():
        drawn = lines.setdefault(str(arm), [])
        for seed, curve in runs.items() if isinstance(runs, Mapping) else [("?", ())]:
            try:
                x, y = (np.asarray(each, dtype=np.float64) for each in curve)
            except (TypeError, ValueError):
                x, y = np.empty(0), np.empty((0, 0))
            if x.shape != y.shape or x.ndim != 1:
                raise GrpoLabError(f"arm '{arm}', seed {seed}: a curve is (x, y), two lists of one length, by seed")
            drawn.append((x, y))
    return lines


def _limit(ax: Axes, values: Sequence[NDArray[np.float64]]) -> None:
    """Show all runs: with few seeds a band can be wider than the picture."""
    finite = np.concatenate([np.empty(0), *(each[np.isfinite(each)] for each in values)])
    if finite.size:
        air = 0.05 * (finite.max() - finite.min()) or 0.5 * (abs(finite.max()) or 1.0)
        ax.set_ylim(finite.min() - air, finite.max() + air)


@checked()
def plot_pass_at_k(study: StoredStudy | Stored, ax: Axes | None = None) -> Axes:
    """pass@k of every arm after training, and dotted of the model before it, over k samples a question.

    GrpoLabError where the evaluations have fewer than 4 samples a question.
    """
    stored = study if isinstance(study, StoredStudy) else getattr(study, "stored", None)
    if not isinstance(stored, StoredStudy):
        raise GrpoLabError(f"pass@k is drawn of a study, as lab.load_study(...) gives it, not {type(study).__name__}")
    found = pass_at_k_curves(stored)
    if found is None:
        raise GrpoLabError(f"pass@k takes {MIN_SAMPLES} samples a question or more, before and after training")
    base, curves = found
    ax = axes_of(ax, 5.0, 3.2)
    k = np.arange(1, len(base) + 1)
    ax.plot(k, 100 * base, color=INK, linewidth=1.2, linestyle=":", label="before training")
    for arm, style in arm_styles(list(stored.arms), stored.baseline).items():
        if arm in curves:
            shape: dict[str, Any] = {"color": style.colour, "linestyle": style.dash, "marker": style.marker}
            ax.plot(
                k,
                100 * curves[arm],
                linewidth=1.8,
                markersize=4.5,
                markevery=[len(k) - 1],
                label=arm_label(arm),
                **shape,
            )
    ax.set_xticks(k if len(k) <= 8 else k[:: -(-len(k) // 8)])
    ax.set_xlabel("k samples a question")
    ax.set_ylabel("pass@k (%)")
    add_legend(ax)
    return ax
