"""Every part that is shipped keeps the contract of its kind."""

import pytest

from core import Part
from core.parts.registry import REGISTRIES
from experiments.check.suite import CHECKS, examine

PARTS = [part for registry in REGISTRIES.values() for part in registry.values() if part.kind in CHECKS]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.kind}-{part.name}")
def test_what_must_hold_holds(part: Part) -> None:
    failures = examine(part).failures
    assert not failures, "\n".join(f"{check.name}: {outcome.reason}; {check.remedy}" for check, outcome in failures)
