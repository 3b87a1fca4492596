"""All checks by kind of part, and their outcomes for one part."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from core import Part
from experiments.check import (
    advantages,
    aggregators,
    corrections,
    credits,
    filters,
    kls,
    objectives,
    rewards,
    selections,
    shapings,
    tasks,
    value_losses,
    variants,
)
from experiments.check.checks import Check, Outcome

CHECKS: Final[Mapping[str, tuple[Check, ...]]] = MappingProxyType(
    {
        family.CHECKS.kind: tuple(family.CHECKS)
        for family in (
            advantages,
            objectives,
            aggregators,
            kls,
            value_losses,
            corrections,
            credits,
            selections,
            filters,
            shapings,
            variants,
            rewards,
            tasks,
        )
    }
)
"""Kind of part to its checks. Other kinds need a model or a machine and are not checked here."""


@dataclass(frozen=True)
class Findings:
    """A part, and the outcome of every check of its kind."""

    part: Part
    outcomes: tuple[tuple[Check, Outcome], ...]

    @property
    def failures(self) -> tuple[tuple[Check, Outcome], ...]:
        """What must hold and does not."""
        return tuple((c, o) for c, o in self.outcomes if c.must and o.state == "does not hold")

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "part": self.part.name,
            "kind": self.part.kind,
            "place": self.part.place,
            "checks": [
                {
                    "name": check.name,
                    "must": check.must,
                    "outcome": outcome.state,
                    "reason": outcome.reason,
                    "remedy": outcome.remedy if check.must and outcome.state == "does not hold" else "",
                }
                for check, outcome in self.outcomes
            ],
        }


def examine(part: Part) -> Findings:
    """Run every check of its kind on a part.

    Where the first check fails, other failures are mostly its consequences: they do not count until it holds.
    """
    outcomes = [(check, check(part)) for check in CHECKS.get(part.kind, ())]
    if outcomes and outcomes[0][1].state == "does not hold":
        later = Outcome("does not apply", f"'{outcomes[0][0].name}' comes first")
        outcomes[1:] = [
            (check, later if outcome.state == "does not hold" else outcome) for check, outcome in outcomes[1:]
        ]
    return Findings(part, tuple(outcomes))
