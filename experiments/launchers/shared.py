"""Evaluations before training, made once for runs that begin alike: what the launcher keeps, and what a worker has."""

from collections import UserDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.launchers.job import Job


class Shared:
    """What runs have evaluated before training, as long as others that begin alike are waiting."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Any]] = {}

    def of(self, job: Job) -> Mapping[str, Any]:
        """What is known to runs that begin as this one does."""
        return self._known.get(job.beginning or "", {})

    def add(self, job: Job, evaluated: Mapping[str, Any]) -> None:
        """What this run has evaluated."""
        if job.beginning is not None:
            self._known.setdefault(job.beginning, {}).update(evaluated)

    def keep(self, waiting: Sequence[Job]) -> None:
        """Forget what none of these can use."""
        wanted = {job.beginning for job in waiting} if self._known else set()
        self._known = {beginning: known for beginning, known in self._known.items() if beginning in wanted}


class Telling(UserDict[str, Any]):
    """What is known to one run; what it adds, it also tells."""

    def __init__(self, known: Mapping[str, Any], tell: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self.data |= known
        self._tell = tell

    def __setitem__(self, digest: str, records: Any) -> None:
        super().__setitem__(digest, records)
        self._tell({digest: records})
