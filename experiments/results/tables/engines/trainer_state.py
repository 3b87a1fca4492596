"""TRL, and whatever else trains with transformers' Trainer: `trainer_state.json`.

The Trainer writes one into every `checkpoint-N` and, where its script asks for it, one into the run's folder. Each
holds all lines that were logged before it (`log_history`), so that the latest one is the run.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from experiments.results.tables.engines.log import Line, Log, document, number_in, numbers
from experiments.results.tables.engines.steps import BESIDE
from experiments.results.tables.sheets import TableError

NAME: Final = "trainer_state.json"
_CHECKPOINT: Final = re.compile(r"checkpoint-(\d+)")


class States:
    """`trainer_state.json`."""

    def recognises(self, file: Path) -> bool:
        """Of a run's checkpoints the latest, and the run's own."""
        if file.name != NAME:
            return False
        own = _CHECKPOINT.fullmatch(file.parent.name)
        if own is None:
            return True
        others = (_CHECKPOINT.fullmatch(path.parent.name) for path in file.parent.parent.glob(f"checkpoint-*/{NAME}"))
        return int(own[1]) == max(int(each[1]) for each in others if each)

    def read(self, file: Path) -> Sequence[Log]:
        """The run as of this checkpoint."""
        state = document(file)
        history = state.get("log_history")
        if not isinstance(history, list):
            raise TableError(f"{file}: no list 'log_history', in which transformers logs; take the file out")
        lines = [_line(file, number, entry) for number, entry in enumerate(history, start=1)]
        reached, planned = (number_in(state, name) for name in ("global_step", "max_steps"))
        progress = (reached, planned) if reached is not None and planned is not None and planned > 0 else None
        run = file.parent.parent if _CHECKPOINT.fullmatch(file.parent.name) else file.parent
        return [Log("transformers", str(file), run, lines, progress=progress, snapshot=True, unit="log_history")]


def _line(file: Path, number: int, entry: Any) -> Line:
    step = number_in(entry, "step") if isinstance(entry, dict) else None
    if step is None:
        raise TableError(f"{file}, log_history {number}: no number 'step'; copy the file anew, or take it out")
    return Line(number, step, numbers({key: value for key, value in entry.items() if key not in BESIDE}))
