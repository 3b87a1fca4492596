"""Verdicts that change with a choice beside the method: the failure policy or the budget axis."""

from collections.abc import Mapping
from typing import Final

from experiments.statistics.records import Analysis, Comparison
from experiments.statistics.runs import CLOCK

DECIDED: Final = frozenset(("better", "worse", "equivalent"))


def departs(declared: Comparison, other: Comparison) -> bool:
    """Whether the other analysis has another verdict, and one of the two is a decision."""
    return other.verdict != declared.verdict and bool({other.verdict, declared.verdict} & DECIDED)


def any_departs(declared: Analysis, other: Analysis) -> bool:
    """Whether any comparison has another verdict in the other analysis, and one of the two is a decision."""
    others = {(c.arm, c.baseline): c for c in other.comparisons}
    pairs = ((c, others.get((c.arm, c.baseline))) for c in declared.comparisons)
    return any(c is not None and departs(ours, c) for ours, c in pairs)


def policy_warnings(policies: Mapping[str, Analysis | None]) -> list[str]:
    """Which verdicts change with the failure policy, and so are not about the method alone."""
    worst, intersect = policies.get("worst"), policies.get("intersect")
    if worst is None or intersect is None:
        return [] if worst is intersect else ["Depends on failure handling: without the failed runs nothing is left."]
    other = {(c.arm, c.baseline): c for c in intersect.comparisons}
    changed = [
        f"{c.arm} vs {c.baseline} is {c.verdict} with the failed runs at their declared score (n = {c.effect.n}), "
        f"{other[c.arm, c.baseline].verdict} without their seeds (n = {other[c.arm, c.baseline].effect.n})"
        for c in worst.comparisons
        if (c.arm, c.baseline) in other and c.verdict != other[c.arm, c.baseline].verdict
    ]
    return [f"Depends on failure handling: {'; '.join(changed)}."] if changed else []


def axis_warnings(
    declared: Analysis, axes: Mapping[str, Analysis | None], axis: str, budgets: Mapping[str, float]
) -> list[str]:
    """Which verdicts change with the budget axis; `budgets` says how much each run may have spent on every other one.

    Seconds are left out: they depend on what else the machine did, so that two equal studies may differ.
    """
    warnings = []
    verdicts = {(c.arm, c.baseline): c for c in declared.comparisons}
    for name, analysis in axes.items():
        for c in analysis.comparisons if analysis is not None and name not in (axis, CLOCK) else ():
            ours = verdicts.get((c.arm, c.baseline))
            if ours is None or not departs(ours, c):
                continue
            warnings.append(
                f"Depends on the budget: {c.arm} vs {c.baseline} is {ours.verdict} "
                f"({ours.effect.mean_difference:+.3g}) at equal {axis.replace('_', ' ')}, {c.verdict} "
                f"({c.effect.mean_difference:+.3g}) at equal {name.replace('_', ' ')}, {budgets[name]:,.10g} a run."
            )
    return warnings
