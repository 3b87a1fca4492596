"""Parts of a report as matplotlib axes, to be restyled for a paper: every function draws on `ax` and returns it.

A figure is made where none is given. `STYLE` is what they look like: `with matplotlib.rc_context(STYLE): ...` makes
one's own figures match, and one's own `rc_context` changes these.
"""

from experiments.plots.comparisons import plot_differences, plot_scores
from experiments.plots.curves import plot_curves
from experiments.plots.style import STYLE

__all__ = ["STYLE", "plot_curves", "plot_differences", "plot_scores"]
