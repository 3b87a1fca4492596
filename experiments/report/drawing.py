"""Marks, scales and frames of the report's figures, as SVG text whose colours are the page's.

Every colour comes from a class of the style sheet, so that a figure follows the page into dark mode and onto paper.
Lengths are in SVG units, about a pixel each.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from experiments.report.arm_style import Style

FONT = 12.0
LEFT, RIGHT = 56.0, 18.0  # margins of a frame: room for its tick labels
_CHARACTER = 0.68 * FONT  # of a bold sans-serif, the widest of the common ones on average

# outlines about (0, 0), 4 units to each side
_SHAPES = {
    "o": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "s": "M-3.6-3.6h7.2v7.2h-7.2z",
    "D": "M0-4.9 4.9 0 0 4.9-4.9 0z",
    "^": "M0-4.7 4.7 4h-9.4z",
    "v": "M0 4.7-4.7-4h9.4z",
    "P": "M-1.6-4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z",
    "X": "M-4.3-2.3-2.3-4.3 0-2 2.3-4.3 4.3-2.3 2 0 4.3 2.3 2.3 4.3 0 2-2.3 4.3-4.3 2.3-2 0z",
    "p": "M0-4.8 4.7-1.4 2.9 4.2h-5.8L-4.7-1.4z",
}


@dataclass(frozen=True)
class Scale:
    """Maps values from `low` to `high` onto lengths from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The position of a value."""
        return self.start + (value - self.low) / ((self.high - self.low) or 1.0) * (self.end - self.start)

    def ticks(self, most: int, *, whole: bool = False) -> list[float]:
        """At most `most` round values inside, 1, 2 or 5 times a power of ten apart; `whole` ones where they count."""
        span = (self.high - self.low) or 1.0
        power = 10.0 ** math.floor(math.log10(span / most))
        step = next(s for s in (power, 2 * power, 5 * power, 10 * power, 20 * power) if span / s <= most - 1 + 1e-9)
        if whole:
            step = max(1.0, step)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(k * step, 12) for k in range(first, last + 1)]


def spanning(values: Iterable[float], start: float, end: float, *, pad: float = 0.04) -> Scale:
    """A scale that shows all finite `values`, with some space at both ends."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    air = pad * (high - low) or 0.5 * (abs(high) or 1.0)
    return Scale(low - air, high + air, start, end)


def svg(parts: Iterable[str], width: float, height: float, label: str, kind: str = "figure") -> str:
    """The figure; `label` describes it in words for screen readers."""
    return (
        f'<svg class="{kind}" viewBox="0 0 {_n(width)} {_n(height)}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def line(points: Iterable[tuple[float, float]], kind: str, style: Style | None = None, *, dashed: bool = False) -> str:
    """A line through points; it breaks where one is not finite."""
    commands, pen = [], "M"
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            commands.append(f"{pen}{_n(x)} {_n(y)}")
            pen = "L"
        else:
            pen = "M"
    if not commands:
        return ""
    dash = f' stroke-dasharray="{_dash(style)}"' if dashed and style is not None and _dash(style) else ""
    return f'<path class="{_kinds(kind, style)}"{dash} d="{"".join(commands)}"/>'


def band(x: Sequence[float], low: Sequence[float], high: Sequence[float], style: Style) -> str:
    """The area between two lines, each at `x`; points where either is not finite are left out."""
    finite = [p for p in zip(x, low, high, strict=True) if all(map(math.isfinite, p))]
    outline = [(a, c) for a, _, c in finite] + [(a, b) for a, b, _ in reversed(finite)]
    if len(finite) < 2:
        return ""
    return f'<path class="{_kinds("band", style)}" d="M{"L".join(f"{_n(a)} {_n(b)}" for a, b in outline)}z"/>'


def mark(x: float, y: float, style: Style, *, size: float = 1.0, hollow: bool = False, tooltip: str = "") -> str:
    """An arm's marker; `tooltip` appears under the pointer."""
    title = f"<title>{escape(tooltip)}</title>" if tooltip else ""
    scaled = f" scale({size:g})" if size != 1 else ""
    kind = _kinds("mark hollow" if hollow else "mark", style)
    return (
        f'<g transform="translate({_n(x)} {_n(y)}){scaled}"><path class="{kind}" d="{_SHAPES[style.marker]}"/>'
        f"{title}</g>"
    )


def text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    """Text at (x, y); `anchor` is start, middle or end."""
    placed = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text class="{kind}" x="{_n(x)}" y="{_n(y)}"{placed}>{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str) -> str:
    """A filled rectangle."""
    return f'<rect class="{kind}" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"/>'


def frame(
    x: Scale,
    y: Scale,
    x_label: str,
    y_label: str,
    x_text: Callable[[float], str],
    y_text: Callable[[float], str],
    *,
    whole: bool = False,
) -> list[str]:
    """Grid lines, the lower axis and tick labels; `whole` keeps the ticks of x to whole numbers."""
    parts = []
    for value in y.ticks(6):
        parts += [line([(x.start, y(value)), (x.end, y(value))], "grid")]
        parts += [text(x.start - 7, y(value) + 4, y_text(value), "tick", "end")]
    parts.append(line([(x.start, y.start), (x.end, y.start)], "axis"))
    for value in x.ticks(6, whole=whole):
        parts += [line([(x(value), y.start), (x(value), y.start + 4)], "axis")]
        parts += [text(x(value), y.start + 17, x_text(value), "tick", "middle")]
    parts.append(text((x.start + x.end) / 2, y.start + 35, x_label, "label", "middle"))
    if y_label:
        parts.append(text(x.start - 7, y.end - 12, y_label, "label"))
    return parts


def swatch(style: Style) -> str:
    """A legend's line and marker of an arm."""
    return (
        '<svg class="swatch" viewBox="0 0 30 14" aria-hidden="true">'
        f"{line([(1, 7), (29, 7)], 'mean', style, dashed=True)}{mark(15, 7, style)}</svg>"
    )


def width_of(words: str) -> float:
    """The approximate width of a text."""
    return _CHARACTER * len(words)


def shortened(words: str, most: int = 26) -> str:
    """A text cut to at most `most` characters."""
    return words if len(words) <= most else f"{words[: most - 1]}…"


def thinned(x: NDArray[np.float64], y: NDArray[np.float64], most: int) -> list[tuple[float, float]]:
    """At most `most` of the points of a curve, evenly taken, its ends among them."""
    if len(x) > most:
        indices = np.unique(np.linspace(0, len(x) - 1, most).round().astype(int))
        x, y = x[indices], y[indices]
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _kinds(kind: str, style: Style | None) -> str:
    return f"{kind} t{style.tone}" if style is not None else kind


def _dash(style: Style) -> str:
    return "" if isinstance(style.dash, str) else " ".join(f"{2 * length:g}" for length in style.dash[1])


def _n(value: float) -> str:
    """A length with one decimal, and none where it is 0."""
    return f"{value:.1f}".removesuffix(".0")
