"""Paired statistics over seeds: from `{arm: {seed: score}}` to a verdict that states its own limits.

The unit of analysis is the seed: every arm runs the same seeds, and all comparisons are of differences within
a seed. The package needs numpy and scipy only and knows nothing of training, files or plots.
"""

from experiments.statistics.analysis import analyze
from experiments.statistics.betting import anytime_interval, anytime_p
from experiments.statistics.bootstrap import (
    bootstrap_t_interval,
    iqm_intervals,
    percentile_interval,
    performance_profile,
)
from experiments.statistics.checkpoints import compare_checkpoints
from experiments.statistics.coupling import Coupling
from experiments.statistics.effects import friedman, hedges_j, probability_of_improvement, win_rate
from experiments.statistics.judgement import Judgement, judge
from experiments.statistics.looks import Looks
from experiments.statistics.multiplicity import benjamini_hochberg, holm, max_t
from experiments.statistics.paired import paired_t, tost, wilcoxon_exact
from experiments.statistics.power import minimum_detectable_effect, power, seeds_needed
from experiments.statistics.predictions import Prediction, assess
from experiments.statistics.racing import race
from experiments.statistics.records import Analysis, ArmSummary, Comparison, Effect, FixedN
from experiments.statistics.runs import SCALARS, Curve, Plan, Trajectory, scores
from experiments.statistics.scalars import auc, drawdown, final, interquartile_mean, time_to
from experiments.statistics.sign_flips import sign_flip_interval, sign_flip_p
from experiments.statistics.stability import Course, course
from experiments.statistics.two_level import crossed_t, variance_components

__all__ = [
    "SCALARS",
    "Analysis",
    "ArmSummary",
    "Comparison",
    "Coupling",
    "Course",
    "Curve",
    "Effect",
    "FixedN",
    "Judgement",
    "Looks",
    "Plan",
    "Prediction",
    "Trajectory",
    "analyze",
    "anytime_interval",
    "anytime_p",
    "assess",
    "auc",
    "benjamini_hochberg",
    "bootstrap_t_interval",
    "compare_checkpoints",
    "course",
    "crossed_t",
    "drawdown",
    "final",
    "friedman",
    "hedges_j",
    "holm",
    "interquartile_mean",
    "iqm_intervals",
    "judge",
    "max_t",
    "minimum_detectable_effect",
    "paired_t",
    "percentile_interval",
    "performance_profile",
    "power",
    "probability_of_improvement",
    "race",
    "scores",
    "seeds_needed",
    "sign_flip_interval",
    "sign_flip_p",
    "time_to",
    "tost",
    "variance_components",
    "wilcoxon_exact",
    "win_rate",
]
