"""What a check found out: one row of the doctor's table."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, TypeAlias

Result: TypeAlias = Literal["works", "works with a caveat", "does not work", "not tried"]

WORKS: Final[Result] = "works"
CAVEAT: Final[Result] = "works with a caveat"
FAILS: Final[Result] = "does not work"
SKIPPED: Final[Result] = "not tried"
REPORT: Final = "Report it, with the doctor's file attached."


@dataclass(frozen=True)
class Finding:
    """A row."""

    name: str
    result: Result
    seen: str
    """What was found, in a few words."""
    remedy: str = ""
    """One sentence; "" where all is well."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """What was measured, as JSON holds it."""

    def __post_init__(self) -> None:
        if self.result in (CAVEAT, FAILS) and not self.remedy:
            raise ValueError(f"{self.name}: '{self.result}' needs a remedy")

    def to_json(self) -> dict[str, Any]:
        """The row as plain data."""
        return asdict(self)
