"""Figures of the report as SVG text: learning curves with a band over seeds, and paired differences per seed.

Drawn without pyplot, so nothing global is touched; the same numbers always give the same bytes.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray
from scipy import stats

from experiments.report.tables import Unit, analyzed_scores, interval_of
from experiments.statistics import Analysis, Comparison

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]

INK, MUTED, RULE = "#1d232b", "#5b6570", "#e3e6ea"
_BASELINE = "#3d4550"
# Okabe and Ito's palette, which colour-blind readers can tell apart; its yellow is darkened for white paper
_PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#a89a00")
_MARKERS = ("s", "D", "^", "v", "P", "X", "p")
_DASHES = ("-", (0, (5, 1.5)), (0, (2, 1.2)), (0, (5, 1.5, 1, 1.5)))

_SETTINGS = {
    "svg.fonttype": "none",  # text stays text: it takes the page's font, and can be searched and copied
    "text.parse_math": False,  # an arm's name may hold a dollar sign
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": "#aab2bb",
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "xtick.major.width": 0.7,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True)
class Style:
    """How one arm is drawn, in every figure alike."""

    colour: str
    marker: str
    dash: str | tuple[int, tuple[float, ...]]


def arm_styles(arms: Sequence[str], baseline: str) -> dict[str, Style]:
    """A style for each arm: the baseline in neutral ink, the others in the palette's order, then dashed."""
    styles = {}
    others = [arm for arm in arms if arm != baseline]
    for index, arm in enumerate(others):
        turn, place = divmod(index, len(_PALETTE))
        styles[arm] = Style(_PALETTE[place], _MARKERS[place], _DASHES[turn % len(_DASHES)])
    return {arm: styles.get(arm, Style(_BASELINE, "o", "-")) for arm in arms}


def mean_and_band(
    curves: Sequence[Curve], level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean over runs and half-width of its t interval, each `[N]`, at `x` `[N]`: returns `(x, mean, half)`.

    Runs measured at different `x` are interpolated linearly onto all of them where every run has values,
    never beyond. NaN values are left out point by point; the half-width is NaN where fewer than 3 runs have a
    value.
    """
    curves = [(x, y) for x, y in curves if len(x)]
    if not curves:
        return np.empty(0), np.empty(0), np.empty(0)
    first = curves[0][0]
    if all(np.array_equal(x, first) for x, _ in curves):
        grid, values = first, np.stack([y for _, y in curves])
    else:
        low, high = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
        grid = np.unique(np.concatenate([x for x, _ in curves]))
        grid = grid[(grid >= low) & (grid <= high)]
        values = np.stack([np.interp(grid, x, y) for x, y in curves])
    n = (~np.isnan(values)).sum(axis=0)
    mean = np.where(n > 0, np.nansum(values, axis=0) / np.maximum(n, 1), np.nan)
    square = np.nansum((values - mean) ** 2, axis=0) / np.maximum(n - 1, 1)
    half = stats.t.ppf(0.5 + level / 2, np.maximum(n - 1, 1)) * np.sqrt(square / np.maximum(n, 1))
    return grid, mean, np.where(n >= 3, half, np.nan)


def curves_figure(
    curves: Mapping[str, Sequence[Curve]],
    styles: Mapping[str, Style],
    *,
    unfinished: Mapping[str, Sequence[Curve]],
    name: str,
    title: str,
    x_label: str,
    measure: Unit,
    size: tuple[float, float] = (5.2, 3.1),
) -> str:
    """Learning curves as SVG: a thin line per run, a bold mean per arm with its 95 % t interval over runs.

    `curves` maps an arm to the `(x, y)` of its finished runs; `unfinished` ones are dotted, end in a
    cross and enter no mean.
    """
    with svg_settings(name):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.margins(x=0.015)
        scale = measure.scale
        for arm, style in styles.items():
            for x, y in curves.get(arm, ()):
                axes.plot(x, y * scale, color=style.colour, linewidth=0.6, alpha=0.3, zorder=2)
            for x, y in unfinished.get(arm, ()):
                axes.plot(
                    x, y * scale, color=style.colour, linewidth=1.1, linestyle=":", marker="x",
                    markersize=4.5, markevery=[-1] if len(x) else None, zorder=3.5,
                )  # fmt: skip
        low, high = axes.get_ylim()
        for arm, style in styles.items():
            x, mean, half = mean_and_band(curves.get(arm, ()))
            mean, half = mean * scale, half * scale
            axes.fill_between(x, mean - half, mean + half, color=style.colour, alpha=0.11, linewidth=0, zorder=1)
            axes.plot(x, mean, color=style.colour, linewidth=1.9, linestyle=style.dash, zorder=3)
            if len(x):
                axes.plot(
                    x[-1:], mean[-1:], color=style.colour, marker=style.marker, markersize=5.2, clip_on=False,
                    markeredgecolor="white", markeredgewidth=0.8, zorder=4,
                )  # fmt: skip
        axes.set_ylim(low, high)  # from the runs alone: with few seeds a band can be wider than the picture
        axes.set_title(title, loc="left", fontsize=9.5, color=INK, pad=8)
        axes.set_xlabel(x_label)
        _ticks(axes, measure)
        return _svg(figure, name)


def differences_figure(
    analysis: Analysis, styles: Mapping[str, Style], *, name: str, measure: Unit, width: float = 10.4
) -> str:
    """Paired differences as SVG: a dot per seed, joined to the mean with its 95 % interval; ±Δ is shaded."""
    comparisons = [each for each in analysis.comparisons if each.baseline == analysis.baseline and each.n]
    with svg_settings(name):
        figure = Figure(figsize=(width, 0.75 + 0.82 * len(comparisons)), layout="constrained")
        axes = figure.subplots()
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
        margin = analysis.margin * measure.scale
        axes.axvspan(-margin, margin, color="#eef1f4", linewidth=0, zorder=0)
        axes.axvline(0, color="#8a939d", linewidth=0.9, zorder=1)
        differences = [_by_seed(each, analysis, measure.scale) for each in comparisons]
        bounds = [measure.scale * bound for each in comparisons for bound in interval_of(each) if bound is not None]
        bounds += [value for values in differences for value in values.values()]
        low, high = min([-1.25 * margin, *bounds]), max([1.25 * margin, *bounds])
        pad = 0.02 * (high - low)
        for row, (each, values) in enumerate(zip(comparisons, differences, strict=True)):
            _difference(axes, row, each, values, styles[each.arm], measure.scale, reach=0.017 * (high - low))
        axes.set_xlim(low - pad, high + pad)
        axes.set_ylim(len(comparisons) - 0.45, -0.7)
        axes.set_yticks(range(len(comparisons)), [_short(each.arm, 28) for each in comparisons])
        axes.tick_params(axis="y", labelcolor=INK, pad=6)
        axes.spines["left"].set_visible(False)
        baseline = _short(analysis.baseline, 28)
        axes.set_xlabel(f"difference to {baseline}{f', {measure.difference}' if measure.difference else ''}")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _signed_tick(value)))
        return _svg(figure, name)


def _by_seed(each: Comparison, analysis: Analysis, scale: float) -> dict[int, float]:
    scores = analyzed_scores(analysis)
    return {seed: scale * (scores[each.arm][seed] - scores[each.baseline][seed]) for seed in analysis.seeds}


def _difference(
    axes: Axes,
    row: int,
    each: Comparison,
    values: Mapping[int, float],
    style: Style,
    scale: float,
    reach: float,
) -> None:
    """One row: circles by seed, lifted where one would cover the last (within `reach`), over their mean."""
    mean, (low, high) = scale * each.mean_difference, interval_of(each)
    numbered = len(values) <= 12
    below, last, lift = row + 0.2, -np.inf, 0
    for seed, value in sorted(values.items(), key=lambda pair: pair[1]):
        lift = lift + 1 if value - last < reach else 0
        last = value
        above = row - 0.12 - 0.17 * (lift % 3)
        axes.plot([value, mean], [above, below], color=style.colour, linewidth=0.6, alpha=0.3, zorder=2)
        axes.plot(
            value, above, marker="o", markersize=9 if numbered else 5, color="white",
            markeredgecolor=style.colour, markeredgewidth=1, zorder=3,
        )  # fmt: skip
        if numbered:
            axes.text(value, above, str(seed), fontsize=6, color=INK, ha="center", va="center_baseline", zorder=4)
    if low is not None and high is not None:
        axes.plot([scale * low, scale * high], [below, below], color=style.colour, linewidth=2.2, zorder=5)
    axes.plot(
        mean, below, marker=style.marker, markersize=7.5, color=style.colour, markeredgecolor="white",
        markeredgewidth=1, zorder=6,
    )  # fmt: skip


def marker_svg(style: Style) -> str:
    """A legend's swatch of an arm, as SVG: its line and marker."""
    shapes = {
        "o": '<circle cx="13" cy="7" r="4"/>',
        "s": '<rect x="9.5" y="3.5" width="7" height="7"/>',
        "D": '<path d="M13 2.2 17.8 7 13 11.8 8.2 7z"/>',
        "^": '<path d="M13 2.4 17.6 11H8.4z"/>',
        "v": '<path d="M13 11.6 8.4 3h9.2z"/>',
        "P": '<path d="M11.4 2.6h3.2v2.8h2.8v3.2h-2.8v2.8h-3.2V8.6H8.6V5.4h2.8z"/>',
        "X": '<path d="M9 4.6 10.6 3 13 5.3 15.4 3 17 4.6 14.7 7 17 9.4 15.4 11 13 8.7 10.6 11 9 9.4 11.3 7"/>',
        "p": '<path d="M13 2.2 17.7 5.6 15.9 11.2h-5.8L8.3 5.6z"/>',
    }
    dash = "" if isinstance(style.dash, str) else ' stroke-dasharray="5 2"'
    return (
        '<svg class="swatch" viewBox="0 0 26 14" aria-hidden="true">'
        f'<path d="M1 7h24" stroke="{style.colour}" stroke-width="2.2"{dash}/>'
        f'<g fill="{style.colour}" stroke="#fff" stroke-width="1">{shapes[style.marker]}</g></svg>'
    )


def _ticks(axes: Axes, measure: Unit) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{measure.value}".replace("-", "−")))


def _signed_tick(value: float) -> str:
    return "0" if abs(value) < 1e-12 else f"{value:+g}".replace("-", "−")


def _tick(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g} {letter}"
    return f"{value:g}"


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


@contextmanager
def svg_settings(name: str) -> Iterator[None]:
    """These figures' settings, whatever the reader's own are; the salt makes the ids in the SVG repeatable."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = matplotlib.rcParams
        settings.update(_SETTINGS | {"svg.hashsalt": name})
        yield


def _svg(figure: Figure, name: str) -> str:
    """The figure as an `<svg>` element for a page: no outside names, and ids that are the figure's own."""
    buffer = io.StringIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(buffer, metadata={"Date": None, "Creator": None})  # savefig would draw everything twice
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", text)
    text = re.sub(r'<svg width="[^"]*" height="[^"]*"', '<svg class="figure" role="img"', text, count=1)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    return text.strip()
