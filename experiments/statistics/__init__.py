"""Paired statistics over seeds: from `{arm: {seed: score}}` to a verdict that states its own limits.

The unit of analysis is the seed: every arm runs the same seeds, and all comparisons are of differences within
a seed. The package needs numpy and scipy only and knows nothing of training, files or plots.
"""

from experiments.statistics.analysis import analyze
from experiments.statistics.coupling import Coupling
from experiments.statistics.effects import friedman, hedges_j, probability_of_improvement, win_rate
from experiments.statistics.judgement import Judgement, judge
from experiments.statistics.multiplicity import holm, max_t
from experiments.statistics.paired import paired_t, tost, wilcoxon_exact
from experiments.statistics.power import minimum_detectable_effect, power, seeds_needed
from experiments.statistics.runs import SCALARS, Curve, Plan, Trajectory, scores
from experiments.statistics.scalars import final, interquartile_mean
from experiments.statistics.sign_flips import sign_flip_interval, sign_flip_p
from experiments.statistics.verdict import Analysis, ArmSummary, Comparison

__all__ = [
    "SCALARS",
    "Analysis",
    "ArmSummary",
    "Comparison",
    "Coupling",
    "Curve",
    "Judgement",
    "Plan",
    "Trajectory",
    "analyze",
    "final",
    "friedman",
    "hedges_j",
    "holm",
    "interquartile_mean",
    "judge",
    "max_t",
    "minimum_detectable_effect",
    "paired_t",
    "power",
    "probability_of_improvement",
    "scores",
    "seeds_needed",
    "sign_flip_interval",
    "sign_flip_p",
    "tost",
    "wilcoxon_exact",
    "win_rate",
]
