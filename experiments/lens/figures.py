"""Figures of the lens's measurements, each one SVG file."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from experiments.lens.exact import Exact
from experiments.lens.measures import BUDGET, Estimate
from experiments.lens.off_policy import OffPolicy
from experiments.lens.on_model import OnModel
from experiments.lens.on_turns import OnTurns
from experiments.plots.style import STYLE
from experiments.report.arm_style import INK, MUTED, Style, arm_styles


def exact_figure(exact: Exact) -> str:
    """The figure of `draw_exact` as SVG."""
    with svg_settings("lens-exact"):
        return as_svg(draw_exact(exact))


def draw_exact(exact: Exact) -> Figure:
    """Difficulty, length, variance and bias of each variant, four panels."""
    styles = arm_styles(list(exact.measured), "")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 7.6), layout="constrained", facecolor="white")
        (by_difficulty, by_length), (variance, bias) = figure.subplots(2, 2)
        success = exact.policy.success.tolist()
        place = [math.log(p / (1 - p)) for p in success]
        lengths = range(1, exact.policy.responses.max_tokens + 1)
        for index, (name, style) in enumerate(styles.items()):
            main, measured = exact.main(name), exact.measured[name]
            shift = _shift(index, len(styles))
            scales = [measurement["relative_scale"] for measurement in main.by_prompt]
            _errors(by_difficulty, [x + shift for x in place], scales, style)
            _errors(by_length, [t + shift for t in lengths], main.weights["wrong"], style)
            sizes = [size * 2 ** (shift) for size in measured]
            _errors(variance, sizes, [measurement.numbers["variance"] for measurement in measured.values()], style)
            _errors(
                bias,
                sizes,
                [_root(measurement.numbers["direction_bias_squared"]) for measurement in measured.values()],
                style,
            )
        _label_axes(
            by_difficulty,
            f"Difficulty: scale of a prompt's own gradient (G = {exact.group_size})",
            "success probability of the prompt",
            "relative to the whole gradient's",
        )
        _label_axes(
            by_length,
            f"Length: weight of a token of a wrong response (G = {exact.group_size})",
            "tokens of the response",
            "relative to the mean such token",
        )
        _label_axes(variance, f"Variance for {BUDGET} sampled tokens", "group size", "relative to |true gradient|²")
        _label_axes(bias, "Bias that no scale repairs", "group size", "relative to |true gradient|")
        by_difficulty.set_xticks(place, [f"{p:.2g}" for p in success])
        by_length.set_xticks(list(lengths))
        for axes in (by_difficulty, by_length):
            axes.axhline(1, color=MUTED, linewidth=0.8, zorder=1)
        variance.set_yscale("log")
        variance.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        variance.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        for axes in (variance, bias):
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_locator(FixedLocator(exact.sizes))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        bias.set_ylim(bottom=0)
        _name_below(figure, by_difficulty, styles)
        return figure


def off_policy_figure(measured: OffPolicy) -> str:
    """The figure of `draw_off_policy` as SVG."""
    with svg_settings("lens-off-policy"):
        return as_svg(draw_off_policy(measured))


def draw_off_policy(measured: OffPolicy) -> Figure:
    """Bias and variance of each variant by the distance of the sampler, two panels."""
    styles = arm_styles(list(measured.numbers), "")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 4.4), layout="constrained", facecolor="white")
        bias, variance = figure.subplots(1, 2)
        for index, (name, style) in enumerate(styles.items()):
            numbers, shift = measured.numbers[name], _shift(index, len(styles))
            places = [place + shift for place in range(len(measured.at))]
            _errors(bias, places, [_root(Estimate(at["direction_bias_squared"])) for at in numbers], style)
            _errors(variance, places, [Estimate(at["variance"]) for at in numbers], style)
        unit = "updates" if measured.kind == "age" else "nats a token"
        x_label = f"{measured.kind} of the sampler, in {unit}"
        _label_axes(bias, "Bias that no scale repairs", x_label, "relative to |true gradient|")
        _label_axes(variance, f"Variance for {BUDGET} sampled tokens", x_label, "relative to |true gradient|²")
        labels = measured.labels
        if measured.kind == "age":
            labels = [f"{age}\n{nats:.2g} nats" for age, nats in zip(labels, measured.divergences, strict=True)]
        # down to 0, which an unbiased one has
        bias.set_yscale("symlog", linthresh=0.01)
        bias.set_ylim(bottom=0)
        variance.set_yscale("log")
        for axes in (bias, variance):
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.set_xticks(range(len(labels)), labels)
        _name_below(figure, bias, styles)
        return figure


def turns_figure(measured: OnTurns) -> str:
    """The figure of `draw_turns` as SVG."""
    with svg_settings("lens-turns"):
        return as_svg(draw_turns(measured))


def draw_turns(measured: OnTurns) -> Figure:
    """Bias and variance of each variant, a row each, and its push by what a further turn pays beside the true one."""
    styles = arm_styles(list(measured.numbers), "")
    with matplotlib.rc_context(STYLE):
        height = max(3.4, 1.4 + 0.24 * len(styles))
        figure = Figure(figsize=(10.4, height), layout="constrained", facecolor="white")
        bias, variance, pushes = figure.subplots(1, 3, width_ratios=(1, 1, 2))
        paid = list(measured.policies)
        true = [float(push.mean()) for push in measured.true_pushes.values()]
        pushes.plot(paid, true, color=MUTED, linewidth=6, alpha=0.3, solid_capstyle="butt", zorder=2)
        for index, (name, style) in enumerate(styles.items()):
            numbers = measured.numbers[name]
            for axes, value in (
                (bias, _root(Estimate(numbers["direction_bias_squared"])).value),
                (variance, numbers["variance"]),
            ):
                axes.plot([value], [index], color=style.colour, marker=style.marker, markersize=5.5)
            means = [Estimate(float(push.mean())) for push in measured.pushes[name].values()]
            shift = _shift(index, len(styles)) * (paid[1] - paid[0])
            _errors(pushes, [at + shift for at in paid], means, style)
        _label_axes(bias, "Bias that no scale repairs", "relative to |true gradient|", "")
        _label_axes(variance, f"Variance for {BUDGET} sampled tokens", "relative to |true gradient|²", "")
        _label_axes(
            pushes, "Push towards another turn (wide and pale: the true one)", "what every further turn pays", ""
        )
        pushes.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
        pushes.set_xticks(paid, [f"{at:g}" for at in paid])
        for axes in (bias, variance):
            axes.set_yticks(range(len(styles)), list(styles) if axes is bias else [""] * len(styles), color=INK)
            axes.set_ylim(len(styles) - 0.4, -0.6)
            axes.set_xlim(left=-0.03 * axes.get_xlim()[1])
        return figure


def model_figure(lenses: Sequence[OnModel]) -> str:
    """Cosines between variants, and how well two halves of the pool agree."""
    names = [lens.variant for lens in lenses]
    side = 2.2 + 0.5 * len(names)
    with svg_settings("lens-model"):
        figure = Figure(figsize=(2.1 * side, side), layout="constrained", facecolor="white")
        matrix, halves = figure.subplots(1, 2)
        cosines = np.array([[lens.cosines[name] for name in names] for lens in lenses])
        matrix.imshow(cosines, cmap="RdBu", vmin=-1, vmax=1)
        matrix.grid(visible=False)
        for (row, column), cosine in np.ndenumerate(cosines):
            colour = "white" if abs(cosine) > 0.6 else INK
            matrix.text(column, row, f"{cosine:.2f}", ha="center", va="center", color=colour, fontsize=8)
        matrix.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        matrix.set_yticks(range(len(names)), names)
        _label_axes(matrix, "Cosine between gradients on one pool", "", "")
        for index, (lens, style) in enumerate(zip(lenses, arm_styles(names, "").values(), strict=True)):
            _errors(halves, [index], [lens.split_cosine], style)
        halves.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        halves.set_xlim(-0.6, len(names) - 0.4)
        halves.set_ylim(bottom=min(0.0, halves.get_ylim()[0]))
        _label_axes(halves, "Cosine between the gradients on two halves of the pool", "", "")
        return as_svg(figure)


def _shift(index: int, lines: int) -> float:
    """Where a line's points lie beside the others', or these would hide each other."""
    return 0.3 * (index - (lines - 1) / 2) / max(4, lines)


def _name_below(figure: Figure, axes: Axes, styles: Mapping[str, Style]) -> None:
    """The lines' names under the whole figure, in rows of about 110 characters."""
    handles = [axes.plot([], [], color=s.colour, marker=s.marker, linestyle=s.dash)[0] for s in styles.values()]
    columns = max(1, min(6, 110 // (6 + max(map(len, styles)))))
    figure.legend(handles, list(styles), loc="outside lower center", ncols=min(columns, len(styles)), frameon=False)


def _errors(axes: Axes, x: Sequence[float], estimates: Sequence[Estimate], style: Style) -> None:
    """Points with one standard error, joined; estimates that are not finite are left out."""
    points = [(at, e) for at, e in zip(x, estimates, strict=True) if math.isfinite(e.value)]
    values, errors = [e.value for _, e in points], [e.error if math.isfinite(e.error) else 0.0 for _, e in points]
    axes.errorbar(
        [at for at, _ in points],
        values,
        yerr=errors,
        color=style.colour,
        marker=style.marker,
        linestyle=style.dash,
        linewidth=1.4,
        elinewidth=0.9,
        markersize=4.8,
        markeredgecolor="white",
        markeredgewidth=0.6,
        zorder=3,
    )


def _root(square: Estimate) -> Estimate:
    """The root of an estimated square; of one below 0, 0."""
    root = math.sqrt(max(0.0, square.value))
    # two errors above, taken as a root and halved: near 0 the root's own error has no meaning
    return Estimate(root, (math.sqrt(max(0.0, square.value + 2 * square.error)) - root) / 2)


def _label_axes(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.set_title(title, loc="left", fontsize=9.5, color=INK, pad=8)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)


def as_svg(figure: Figure) -> str:
    """The figure as SVG text, the same every time."""
    buffer = io.StringIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(buffer, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


@contextmanager
def svg_settings(name: str) -> Iterator[None]:
    """Matplotlib settings of a figure, independent of the user's own; the salt makes its ids repeatable."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = matplotlib.rcParams
        settings.update(STYLE | {"svg.hashsalt": name})
        yield
