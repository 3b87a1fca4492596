"""Which of the metrics is meant."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

from core.errors import MAX_LISTED, similar
from experiments.results.tables.sheets import TableError

_EVALUATIONS: Final = ("val-core/", "eval", "test", "val")
"""How the names of evaluations begin, the surest first."""


def chosen(requested: str | None, names: Iterable[str], source: str) -> tuple[str, list[str]]:
    """The metric that was requested, by its name or by a pattern as the shell has them (`*`, `?`, `[...]`).

    A note says what a pattern matched. Raises TableError with the names, evaluations first, where none or several
    are meant.
    """
    names = tuple(dict.fromkeys(names))
    if requested in names:
        return requested, []
    if requested is None:
        if len(names) == 1:
            return names[0], []
        raise TableError(f"{source}: choose a metric with --metric; there are {listed(names)}")
    matched = [name for name in names if fnmatchcase(name, requested)]
    if len(matched) == 1:
        return matched[0], [f"--metric {requested!r} is {matched[0]}."]
    if matched:
        raise TableError(f"{source}: --metric {requested!r} matches {len(matched)}; name one of {listed(matched)}")
    raise TableError(f"{source}: no metric {requested!r}; {similar(requested, names)}known: {listed(names)}")


def listed(names: Iterable[str]) -> str:
    """The names, those of evaluations first, as many as can be read."""
    ordered = sorted(names, key=_rank)
    rest = len(ordered) - MAX_LISTED
    return ", ".join(ordered[:MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _rank(name: str) -> int:
    return next((rank for rank, start in enumerate(_EVALUATIONS) if name.startswith(start)), len(_EVALUATIONS))
