"""Parts of a report as matplotlib axes, to be restyled for a paper: every function draws on `ax` and returns it.

A figure is made where none is given. `STYLE` is what they look like: `with matplotlib.rc_context(STYLE): ...` makes
one's own figures match, and one's own `rc_context` changes these.
"""

from experiments.plots.comparisons import plot_coupling, plot_differences, plot_ranks, plot_scores
from experiments.plots.curves import plot_curves, plot_pass_at_k
from experiments.plots.distribution import plot_interquartile_means, plot_profile
from experiments.plots.style import STYLE

__all__ = [
    "STYLE",
    "plot_coupling",
    "plot_curves",
    "plot_differences",
    "plot_interquartile_means",
    "plot_pass_at_k",
    "plot_profile",
    "plot_ranks",
    "plot_scores",
]
