"""What the pretend device was asked to do, by the line of the project that asked."""

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = f"{Path(__file__).parents[2]}/"
FOLDERS: Final = ("core", "estimators", "variants", "experiments")
"""Whose lines are told; for what libraries do, the nearest caller among them."""
ELSEWHERE: Final = "backward or a library"


@dataclass
class Ledger:
    """Counts by (place, operator), a place being `core/loop/update.py:213 in accumulate_gradients`."""

    waits: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often the host waited for the device (a synchronisation): nothing else is prepared meanwhile."""
    launches: Counter[str] = field(default_factory=Counter)
    """Kernels, by operator."""
    unsteady: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Operators whose CUDA kernel may give other bits the next time."""

    def clear(self) -> None:
        """Begin anew."""
        for counter in (self.waits, self.launches, self.unsteady):
            counter.clear()

    def waits_outside(self, *files: str) -> dict[str, int]:
        """Waits by `place: operator`, but for those in these files."""
        return {
            f"{place}: {name}": n for (place, name), n in self.waits.items() if place.partition(":")[0] not in files
        }

    @property
    def unsteady_functions(self) -> set[tuple[str, str]]:
        """(`core/model/logps.py in _TokenLogps.backward`, operator): lines move, functions stay."""
        return {(function_of(place), name) for place, name in self.unsteady}


LEDGER: Final = Ledger()
"""The one of this process."""
_shown: dict[str, str] = {}


def function_of(place: str) -> str:
    """A place without its line."""
    file, _, rest = place.partition(":")
    return f"{file} {rest.partition(' ')[2]}".strip()


def place() -> str:
    """The nearest line of the project on the stack."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if shown := _file(code.co_filename):
            return f"{shown}:{frame.f_lineno} in {code.co_qualname.partition('.<locals>')[0]}"
        frame = frame.f_back
    return ELSEWHERE


def _file(name: str) -> str:
    """A file's name within the project, nothing for others."""
    if name not in _shown:
        short = name.removeprefix(ROOT)
        _shown[name] = short if short != name and short.split("/")[0] in FOLDERS else ""
    return _shown[name]
