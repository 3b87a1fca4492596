"""The fidelity matrix: a cell for every part and variant beside every reference, and every cell explained."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from core.parts.registry import REGISTRIES
from experiments.maintenance.conformance.absences import ABSENT
from experiments.maintenance.conformance.comparison import REFERENCES, Comparison, Measured, Reference
from experiments.maintenance.conformance.dialects import DIALECTS, Dialect

TITLES: Final[Mapping[str, str]] = {
    "variant": "Variants",
    "advantage": "Advantages",
    "objective": "Objectives",
    "aggregator": "Aggregators",
    "value_loss": "Value losses",
    "kl": "KL estimators",
    "correction": "Corrections",
    "credit": "Credit",
    "selection": "Selections",
    "filter": "Filters",
    "shaping": "Shapings",
    "function": "Functions that are no parts",
}
"""Kinds of rows, in order."""


@dataclass(frozen=True)
class Cell:
    """What a reference has for one of our names."""

    status: Literal["equal", "dialect", "absent", "another's dialect", "not installed", "unexplained"]
    values: float = 0.0
    gradient: float | None = None
    dialect: str = ""
    problem: str = ""

    def __str__(self) -> str:
        if self.status == "unexplained":
            return f"UNEXPLAINED: {self.problem}"
        if self.status == "another's dialect":
            return "-"
        text = f"dialect {self.dialect}" if self.status == "dialect" else self.status
        if self.status == "equal":
            gradient = "" if self.gradient is None else f", {magnitude(self.gradient)}"
            text += f" ({magnitude(self.values)}{gradient})"
            text += f"; default: {self.dialect}" if self.dialect else ""
        return text


def magnitude(error: float) -> str:
    """An error as the power of ten that it stays below, which is the same on every machine; 0 below 1e-12."""
    if error < 1e-12:
        return "0"
    return f"1e{math.ceil(math.log10(error))}" if math.isfinite(error) else str(error)


@dataclass(frozen=True)
class Matrix:
    """All cells by (kind, name), in the order of the references."""

    rows: Mapping[tuple[str, str], Mapping[Reference, Cell]]
    stale: Sequence[str]
    """Names that the tables speak of and no registry has, and absences that a comparison contradicts."""

    @property
    def problems(self) -> list[str]:
        """Everything that is not explained."""
        cells = [
            f"{kind} {name}, {reference}: {cell.problem}"
            for (kind, name), row in self.rows.items()
            for reference, cell in row.items()
            if cell.status == "unexplained"
        ]
        return [*cells, *self.stale]

    def ours_alone(self) -> dict[str, list[str]]:
        """Names that no reference has, by kind."""
        alone: dict[str, list[str]] = {}
        for (kind, name), row in self.rows.items():
            if all(cell.status == "absent" for cell in row.values()):
                alone.setdefault(kind, []).append(name)
        return alone


def build(measured: Sequence[tuple[Comparison, Measured]], installed: Sequence[Reference]) -> Matrix:
    """The matrix of these results; the columns of references that are not installed stay open."""
    by_name: dict[tuple[str, Reference], list[Measured]] = {}
    for comparison, result in measured:
        by_name.setdefault((comparison.name, comparison.reference), []).append(result)
    rows = {
        (kind, name): {reference: _cell(name, reference, by_name, installed) for reference in REFERENCES}
        for kind, name in _names()
    }
    return Matrix(rows, list(_stale({name for _, name in rows}, by_name)))


def _names() -> Iterator[tuple[str, str]]:
    for kind in TITLES:
        names = list(REGISTRIES[kind]) if kind in REGISTRIES else ["adapted_coefficient", "bradley_terry"]
        yield from ((kind, name) for name in sorted(names))


def _cell(
    name: str,
    reference: Reference,
    by_name: Mapping[tuple[str, Reference], Sequence[Measured]],
    installed: Sequence[Reference],
) -> Cell:
    if name in ABSENT and reference in ABSENT[name]:
        return Cell("absent")
    if reference not in installed:
        return Cell("not installed")
    dialect = next((d for d in DIALECTS if (d.name, d.reference) == (name, reference)), None)
    if dialect is not None and not _agrees(by_name.get((dialect.dialect, reference), ())):
        return Cell("unexplained", problem=f"its dialect {dialect.dialect} is not compared equal")
    results = by_name.get((name, reference), ())
    if results:
        failure = next((r for r in results if not r.is_equal), None)
        if failure is not None:
            problem = failure.failure or (
                f"relative error {failure.values:.1e} of values, {failure.gradient or 0.0:.1e} of gradients, "
                f"tolerance {failure.tolerance:g}"
            )
            return Cell("unexplained", problem=problem)
        gradients = [r.gradient for r in results if r.gradient is not None]
        values, gradient = max(r.values for r in results), max(gradients, default=None)
        return Cell("equal", values, gradient, dialect.dialect if dialect else "")
    if dialect is not None:
        return Cell("dialect", dialect=dialect.dialect)
    if any(d.dialect == name and d.reference != reference for d in DIALECTS if d.dialect in REGISTRIES["variant"]):
        return Cell("another's dialect")
    return Cell("unexplained", problem="neither compared nor said to be absent")


def _agrees(results: Sequence[Measured]) -> bool:
    return bool(results) and all(result.is_equal for result in results)


def _stale(names: set[str], by_name: Mapping[tuple[str, Reference], object]) -> Iterator[str]:
    mentioned = {*ABSENT, *(name for name, _ in by_name), *(d.name for d in DIALECTS), *(d.dialect for d in DIALECTS)}
    yield from (f"'{name}' is in a table and in no registry" for name in sorted(mentioned - names))
    for name, reference in sorted(by_name):
        if reference in ABSENT.get(name, ()):
            yield f"'{name}' is said to be absent from {reference} and is compared with it"


def differences(name: str) -> list[Dialect]:
    """The dialects that stand for this name."""
    return [dialect for dialect in DIALECTS if dialect.name == name]
