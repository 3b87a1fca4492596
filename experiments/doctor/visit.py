"""What a check is told: how thorough to be, of which model, where it may write, and what earlier checks measured."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from experiments.doctor.finding import Finding

Models: TypeAlias = Literal["none", "own", "each", "heavy"]
"""The models that a check is of: the given or embedded one; on a GPU random weights too; those that can be weighed."""
EMBEDDED: Final = "embedded"
RANDOM: Final = "random"
"""The model of random weights, made where it is first asked for."""


@dataclass(frozen=True)
class Visit:
    """One check on one machine."""

    scratch: str
    """A folder of the doctor's own, in which what one check leaves another finds."""
    here: str
    """The folder in which the command was given: runs go there."""
    model: str = EMBEDDED
    quick: bool = False
    earlier: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The numbers of the findings so far, by name."""

    @property
    def label(self) -> str:
        """The model in a few words, without its path."""
        return {EMBEDDED: "embedded model", RANDOM: "random weights"}.get(self.model, "the given model")


Run: TypeAlias = Callable[[Visit], Iterator[Finding]]


@dataclass(frozen=True)
class Check:
    """A check, its deadline, and what it proves."""

    name: str
    proves: str
    seconds: float
    """By the clock, on a machine that is not busy with anything else."""
    run: Run
    models: Models = "none"
    quick: bool = False
    """Whether `--quick` takes it too."""
