"""What a launcher is: a part of the bench with a name, options and checks of its own.

Read with the command line, before torch is imported: a launcher imports what it runs with when it is asked to `launch`.
"""

import argparse
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from core.errors import GrpoLabError

if TYPE_CHECKING:
    from experiments.launchers.job import Launch

LAUNCHERS: Final[dict[str, "Launcher"]] = {}
"""Every launcher by name, in the order of `--help`."""


class Launcher(ABC):
    """Where runs run. A class of one's own under `@launcher` is one more value of `--launcher`."""

    name: ClassVar[str]
    help: ClassVar[str]
    """What it is, in a few words."""
    takes: ClassVar[tuple[str, ...]] = ()
    """Of `cpus` and `gpus`, which a run may be declared to need here."""
    forecasts_memory: ClassVar[bool] = True
    """Whether a run that declares no memory is taken to need what is forecast; else nothing is said of it."""

    def add_options(self, group: "argparse._ArgumentGroup | argparse.ArgumentParser") -> None:  # noqa: B027
        """Add the launcher's own options, each with a default that means it was not given."""

    def check(self, options: argparse.Namespace) -> None:  # noqa: B027
        """Raise `GrpoLabError` where options do not go together."""

    def workers(self, runs: int) -> int:
        """How many of so many runs are under way at a time, unless `--workers` says; a cluster has its own limits."""
        return runs

    @abstractmethod
    def launch(self, options: argparse.Namespace) -> "Launch":
        """What runs jobs here, with these options."""

    def own_options(self) -> dict[str, Any]:
        """The launcher's own options by name, each with its default."""
        parser = argparse.ArgumentParser(add_help=False)
        self.add_options(parser)
        return vars(parser.parse_args([]))


T = TypeVar("T", bound=type[Launcher])


def launcher(kind: T) -> T:
    """Register a launcher under its name."""
    if kind.name in LAUNCHERS:
        first = type(LAUNCHERS[kind.name]).__module__
        raise GrpoLabError(f"two launchers are called '{kind.name}', in {first} and {kind.__module__}: rename one")
    LAUNCHERS[kind.name] = kind()
    return kind


@dataclass(frozen=True)
class Where:
    """Where runs run: the launcher that was chosen, and what the command line declares that a run needs."""

    launcher: Launcher
    launch: "Launch"
    cpus: int | None = None
    gpus: float = 0.0
    memory: int | None = None
    """Bytes."""
