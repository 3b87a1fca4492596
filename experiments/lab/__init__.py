"""The door from Python: `from experiments import lab` gives what a notebook needs, and these names are stable.

    study = lab.compare("demo", seeds=5)          # run, or go on; lab.load_study("runs/demo") reads it
    study.scores(), study.curves(), study.questions(), study.responses(), study.configuration()   # pandas
    verdicts = study.judge()                      # verdicts.summary, .table(), .sentences, ["dr_grpo"], .plot()
    lab.judge({"grpo": {0: 0.61, ...}, "mine": {0: 0.64, ...}}, baseline="grpo", margin=0.02)
    lab.advantages("dr_grpo", lab.Batch.of(rewards)), lab.loss("dapo", batch, logps)
    lab.lens(["grpo", "rloo"]).table(), lab.lens_off_policy("grpo", ages=(0, 8)), lab.lens_turns("grpo")

What the command line does is a few lines of this. Names are imported when they are asked for.
"""

import importlib
from typing import TYPE_CHECKING, Final

from core.errors import GrpoLabError

if TYPE_CHECKING:
    from core import Batch, Variant
    from experiments.lab.gradients import Lens, OffPolicyLens, TurnsLens, lens, lens_off_policy, lens_turns
    from experiments.lab.maths import advantages, loss, variant
    from experiments.lab.running import compare, train
    from experiments.lab.runs import Run, Study, load_run, load_study
    from experiments.lab.verdicts import Verdicts, judge
    from experiments.plots import (
        STYLE,
        plot_coupling,
        plot_curves,
        plot_differences,
        plot_interquartile_means,
        plot_pass_at_k,
        plot_profile,
        plot_ranks,
        plot_scores,
    )

__all__ = [
    "STYLE",
    "Batch",
    "GrpoLabError",
    "Lens",
    "OffPolicyLens",
    "Run",
    "Study",
    "TurnsLens",
    "Variant",
    "Verdicts",
    "advantages",
    "compare",
    "judge",
    "lens",
    "lens_off_policy",
    "lens_turns",
    "load_run",
    "load_study",
    "loss",
    "plot_coupling",
    "plot_curves",
    "plot_differences",
    "plot_interquartile_means",
    "plot_pass_at_k",
    "plot_profile",
    "plot_ranks",
    "plot_scores",
    "train",
    "variant",
]

_HOMES: Final = {
    "core": ("Batch", "Variant"),
    "experiments.lab.gradients": ("Lens", "OffPolicyLens", "TurnsLens", "lens", "lens_off_policy", "lens_turns"),
    "experiments.lab.maths": ("advantages", "loss", "variant"),
    "experiments.lab.running": ("compare", "train"),
    "experiments.lab.runs": ("Run", "Study", "load_run", "load_study"),
    "experiments.lab.verdicts": ("Verdicts", "judge"),
    "experiments.plots": (
        "STYLE",
        "plot_coupling",
        "plot_curves",
        "plot_differences",
        "plot_interquartile_means",
        "plot_pass_at_k",
        "plot_profile",
        "plot_ranks",
        "plot_scores",
    ),
}


if not TYPE_CHECKING:

    def __getattr__(name):
        for module, names in _HOMES.items():
            if name in names:
                return getattr(importlib.import_module(module), name)
        raise AttributeError(f"module 'experiments.lab' has no attribute '{name}'")

    def __dir__():
        return sorted(__all__)
