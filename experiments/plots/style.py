"""How figures by matplotlib look, and the axes that they are drawn on."""

import re
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from core.errors import GrpoLabError
from experiments.report.arm_style import INK, MUTED, RULE
from experiments.report.formatting import Unit, metric_name

STYLE: Final[Any] = {
    "svg.fonttype": "none",  # text stays text: it takes the page's font, and can be searched and copied
    "pdf.fonttype": 42,  # so that it can be edited, as some journals demand
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
"""Settings of matplotlib (`rcParams`) for figures that look like the report's."""


def axes_of(ax: Axes | None, width: float, height: float) -> Axes:
    """The axes that were given; else those of a new figure of that size in inches, which no window shows by itself."""
    if ax is not None:
        if not isinstance(ax, Axes):
            raise GrpoLabError(f"ax must be matplotlib's axes, as plt.subplots() gives them, not {type(ax).__name__}")
        return ax
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        made: Axes = figure.subplots()
        return made


def add_legend(ax: Axes) -> None:
    """A legend in which no name is read as mathematics."""
    for text in ax.legend(frameon=False).get_texts():
        text.set_parse_math(False)


def arm_label(arm: str) -> str:
    """An arm's name for a legend: matplotlib leaves out what begins with `_`."""
    return f" {arm}" if arm.startswith("_") else arm


def metric_label(metric: str, measure: Unit) -> str:
    """A metric and its unit, for an axis: `held-out accuracy (%)`."""
    return f"{metric_name(metric)}{' (%)' if measure.scale != 1 else ''}"


def in_lines(name: str, most: int = 20) -> str:
    """A name in one or two lines of about `most` characters, broken at its spaces and marks, the middle of more cut."""
    first, *rest = re.findall(r"[^\s_=/,-]+[\s_=/,-]*|[\s_=/,-]+", name) or [""]
    while rest and len(first) + len(rest[0].rstrip()) <= most:
        first += rest.pop(0)
    whole = len(rest)
    while len(rest) > 1 and len("".join(rest).rstrip()) > most:
        rest.pop(0)
    second = ("…" if len(rest) < whole else "") + "".join(rest)
    return "\n".join(line.rstrip() for line in (first, second) if line)
