"""The interface of a launcher: a name, options and checks of its own.

Imported with the command line, before torch: a launcher imports its own libraries in `launch`.
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
    """Where runs run. A user's class under `@launcher` becomes a value of `--launcher`."""

    name: ClassVar[str]
    help: ClassVar[str]
    """What it is, in a few words."""
    takes: ClassVar[tuple[str, ...]] = ()
    """Which of `cpus` and `gpus` can be declared with this launcher."""
    shares_gpus: ClassVar[bool] = False
    """Whether a run that declares no GPU uses those of this machine all the same."""
    forecasts_memory: ClassVar[bool] = True
    """Whether the forecast is used for a run that declares no memory; otherwise none is requested."""

    def add_options(self, group: "argparse._ArgumentGroup | argparse.ArgumentParser") -> None:  # noqa: B027
        """Add the launcher's own options, each with a default that means it was not given."""

    def check(self, options: argparse.Namespace) -> None:  # noqa: B027
        """Raise `GrpoLabError` where options do not go together."""

    def prepare(self) -> None:  # noqa: B027
        """Begin what can go on beside the imports and checks of the command; called before torch is imported."""

    def workers(self, runs: int) -> int:
        """Default of `--workers` for so many runs; a cluster has its own limits."""
        return runs

    @abstractmethod
    def launch(self, options: argparse.Namespace) -> "Launch":
        """The function that runs jobs, with these options."""

    def own_options(self) -> dict[str, Any]:
        """The launcher's own options by name, each with its default."""
        parser = argparse.ArgumentParser(add_help=False)
        self.add_options(parser)
        return vars(parser.parse_args([]))


T = TypeVar("T", bound=type[Launcher])


def launcher(cls: T) -> T:
    """Register a launcher under its name."""
    if cls.name in LAUNCHERS:
        first = type(LAUNCHERS[cls.name]).__module__
        raise GrpoLabError(f"two launchers are called '{cls.name}', in {first} and {cls.__module__}: rename one")
    LAUNCHERS[cls.name] = cls()
    return cls


@dataclass(frozen=True)
class Where:
    """The chosen launcher, and the resources of a run that the command line declares."""

    launcher: Launcher
    launch: "Launch"
    cpus: int | None = None
    gpus: float = 0.0
    memory: int | None = None
    """Bytes."""
