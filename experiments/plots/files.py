"""A study's figures as files for a paper, drawn by matplotlib: SVG, PDF and PNG at the width of a column."""

import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

import numpy as np
from matplotlib import rc_context, rcdefaults
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.options import COLUMN
from experiments.plots.comparisons import plot_coupling, plot_differences, plot_ranks, plot_scores
from experiments.plots.curves import plot_curves, plot_pass_at_k
from experiments.plots.distribution import plot_interquartile_means, plot_profile
from experiments.plots.style import STYLE, in_lines
from experiments.report.ability import pass_at_k_curves
from experiments.report.curves import curve_panels, recorded_axes
from experiments.report.distribution import is_resampled, resampling, resampling_key
from experiments.report.export import write_report_file
from experiments.results.stored_study import StoredStudy
from experiments.statistics import Judgement

_PAPER: Final[Any] = STYLE | {
    "font.size": 8.0,
    "legend.fontsize": 7.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.handlelength": 2.6,
    "svg.hashsalt": "grpolab",
    "savefig.dpi": 300,
}
# without dates, so that the same study gives the same bytes
_METADATA: Final[dict[str, dict[str, Any]]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None},
    "png": {},
}


@dataclass(frozen=True)
class _Plot:
    """A figure: its file's name, what draws it, and its height in inches at a width."""

    name: str
    draw: Callable[..., Axes]
    height: Callable[[float], float]
    label: str = ""  # of the vertical axis, in place of its own


def write_plots(
    study: StoredStudy,
    judgement: Judgement | None,
    folder: Path,
    formats: Iterable[str],
    width: float = COLUMN,
) -> list[Path]:
    """Write the study's figures, `width` inches wide, as NAME.FORMAT for each of `formats`; return their paths.

    Learning curves of all that the report draws; with a judgement also differences, scores, ranks, correlation of
    seeds, interquartile means and performance profiles. Files appear whole; StudyError where one cannot be written.
    """
    paths, kinds = [], list(dict.fromkeys(formats))
    for plot in _plots(study, judgement):
        with rc_context():
            rcdefaults()  # a user's own settings do not change a study's files
            with rc_context(_PAPER):
                figure = _drawn(plot, width)
                for kind in kinds:
                    buffer = io.BytesIO()
                    figure.savefig(buffer, format=kind, metadata=_METADATA[kind])
                    paths.append(write_report_file(folder / f"{plot.name}.{kind}", buffer.getvalue()))
    return paths


def _plots(study: StoredStudy, judgement: Judgement | None) -> Iterator[_Plot]:
    done = [run for run in study.runs if run.finished]
    for axis in recorded_axes(study):
        for key, title, measure in curve_panels(study):
            if not any(np.isfinite(study.curve(run.arm, run.seed, key, axis)[1]).any() for run in done):
                continue
            if axis == study.plan.axis or key == study.plan.course_metric:
                by = "" if axis == study.plan.axis else f"-by-{axis}"
                name = re.sub(r"[^\w.=-]+", "-", f"curves-{key}{by}")
                label = f"{title[:1].lower()}{title[1:]}{measure.value and f' ({measure.value.strip()})'}"
                yield _Plot(name, partial(plot_curves, study, key, axis), _of_curves, label)
    if pass_at_k_curves(study) is not None:
        yield _Plot("pass-at-k", partial(plot_pass_at_k, study), _of_curves)
    if judgement is None:
        return
    analysis = judgement.analysis
    arms, pairs = len(analysis.arms), len(analysis.comparisons)
    of_arms: Callable[[float], float] = lambda _: 0.6 + 0.3 * arms  # noqa: E731
    if pairs:
        row = 0.42 if all(each.baseline == analysis.baseline for each in analysis.comparisons) else 0.7
        yield _Plot("differences", partial(plot_differences, judgement), lambda _: 0.6 + row * pairs)
    yield _Plot("scores", partial(plot_scores, judgement), lambda width: 0.8 * min(width, 4.0))
    if judgement.couplings:
        yield _Plot("seeds", partial(plot_coupling, judgement), lambda width: 0.9 * min(width, 4.0))
    if arms > 2 and len(analysis.seeds) > 1:
        yield _Plot("ranks", partial(plot_ranks, judgement), of_arms)
    if is_resampled(judgement):
        means = partial(plot_interquartile_means, judgement, rng=resampling(resampling_key(study)))
        yield _Plot("interquartile-means", means, of_arms)
        yield _Plot("profile", partial(plot_profile, judgement, rng=resampling(resampling_key(study))), _of_curves)


def _of_curves(width: float) -> float:
    return 0.7 * min(width, 5.0)


def _drawn(plot: _Plot, width: float) -> Figure:
    """The figure, with its legend above the axes, where it covers nothing, and its labels in lines that fit."""
    figure = Figure(figsize=(width, plot.height(width)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    ax: Axes = figure.subplots()
    plot.draw(ax=ax)
    if plot.label:
        ax.set_ylabel(plot.label)
    if (legend := ax.get_legend()) is not None:
        legend.remove()
        _legend_above(figure, ax)
    _fit_labels(figure, ax)
    return figure


def _legend_above(figure: Figure, ax: Axes) -> None:
    """A legend over the whole width, in as many columns as its longest name leaves room for."""
    handles, labels = ax.get_legend_handles_labels()
    names = [in_lines(label, int(14 * figure.get_figwidth())) for label in labels]
    size, columns = figure.get_size_inches(), len(names)
    while True:
        legend = figure.legend(
            handles, names, loc="outside upper left", ncols=columns, frameon=False, columnspacing=1.2
        )
        wide = legend.get_window_extent().width / figure.dpi
        if columns == 1 or wide <= size[0]:
            break
        legend.remove()
        columns -= 1
    # the axes keep their height
    figure.set_size_inches(size[0], size[1] + legend.get_window_extent().height / figure.dpi)


def _fit_labels(figure: Figure, ax: Axes) -> None:
    """Labels of axes that are longer than their axis are broken into lines."""
    figure.draw_without_rendering()
    space = ax.get_window_extent()
    for label, length, room in (
        (ax.xaxis.label, ax.xaxis.label.get_window_extent().width, space.width),
        (ax.yaxis.label, ax.yaxis.label.get_window_extent().height, space.height),
    ):
        words = label.get_text()
        if length > room:
            label.set_text("\n".join(wrap(words, max(8, int(len(words) * room / length)), break_long_words=False)))
