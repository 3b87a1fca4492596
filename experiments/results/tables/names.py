"""Arm, seed and perhaps metric, read from the name of a file or run."""

import re
from dataclasses import dataclass

from experiments.results.tables.sheets import TableError


@dataclass(frozen=True)
class Names:
    """Reads arm, seed and perhaps metric from the name of a file or run.

    A name is tried against each pattern in turn, as a whole.
    """

    patterns: tuple[re.Pattern[str], ...]
    """The surest first."""
    given: str | None

    @classmethod
    def of(cls, pattern: str | None) -> "Names":
        """By a regular expression with groups `arm` and `seed`; None: seeds marked `seed` or `s`, else a last number.

        Without a pattern, TensorBoard's own `run-RUN-tag-TAG` is taken apart too.
        """
        if pattern is None:
            run, metric = r"(?:run-)?(?P<arm>(?:(?!-tag-).)+)[-_/]", r"(?:(?:-tag-|/)(?P<metric>.+))?"
            return cls(
                tuple(re.compile(f"{run}{mark}(?P<seed>\\d+){metric}") for mark in ("(?:seed|s)[=_-]?", "")), None
            )
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise TableError(f"--runs {pattern!r} is no regular expression: {error}") from None
        absent = [group for group in ("arm", "seed") if group not in compiled.groupindex]
        if absent:
            raise TableError(
                f"--runs {pattern!r} has no group {absent[0]!r}; write e.g. '(?P<arm>.+)-(?P<seed>[0-9]+)'"
            )
        return cls((compiled,), pattern)

    def has_mark(self, name: str) -> bool:
        """Whether the surest pattern matches: the one that was given, or the one for a seed that is marked as such."""
        return self.patterns[0].fullmatch(name) is not None

    def matches(self, name: str) -> bool:
        """Whether any pattern does."""
        return any(pattern.fullmatch(name) for pattern in self.patterns)

    def read(self, name: str, place: str) -> tuple[str, int, str | None]:
        """Arm, seed and metric; TableError for a name that does not match."""
        match = next((match for pattern in self.patterns if (match := pattern.fullmatch(name))), None)
        if match is None:
            tried = (
                "is not matched by --runs"
                if self.given
                else "does not say which arm and seed it is, as grpo-seed3 does"
            )
            raise TableError(
                f"{place}: the name {name!r} {tried}; give --runs a regular expression for the whole name, e.g. "
                "'(?P<arm>.+)-(?P<seed>[0-9]+)'"
            )
        groups = match.groupdict()
        if not groups["arm"] or not re.fullmatch(r"\d+", groups["seed"] or ""):
            raise TableError(
                f"{place}: --runs reads arm {groups['arm']!r} and seed {groups['seed']!r} from {name!r}; an arm is a "
                "name, a seed a whole number"
            )
        return groups["arm"], int(groups["seed"]), groups.get("metric")
